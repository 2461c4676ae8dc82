"""The Lorenz system (Lorenz, 1963), the paper's chaotic flow (appendix A.2).

    dx/dt = sigma (y - x),    dy/dt = x (rho - z) - y,    dz/dt = x y - beta z

The paper steps it with a first-order explicit scheme; here scipy's integrator keeps to tight
tolerances, so that the series don't depend on a step size. (Where trajectories
diverge, after some 20 units of time or more, no scheme keeps the same one.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from tl_jacobian.errors import ArgumentError
from tl_jacobian.timeseries.checks import check_count, check_number, series_of

_START = (1.0, 1.0, 1.0)
_TOLERANCES: dict[str, Any] = dict(method="DOP853", rtol=1e-10, atol=1e-12)


def lorenz(
    n: int,
    *,
    dt: float = 0.05,
    start: Sequence[float] = _START,
    burn_in: float = 10.0,
    sigma: float = 10.0,
    rho: float = 28.0,
    beta: float = 8.0 / 3.0,
) -> Float64[np.ndarray, " n"]:
    """x of the Lorenz system at n times, ``dt`` apart.

    Args:
        n: how many values.
        dt: time between two; one turn around a lobe takes about 0.75.
        start: (x, y, z) before the burn-in. The paper varies x and fixes y and z.
        burn_in: time to run before the first value, for the trajectory to come to the attractor.
        sigma, rho, beta: the parameters; by default the chaotic ones.

    Raises:
        ArgumentError: an option isn't a number it can be.

    >>> lorenz(4).round(2)
    array([-4.9 , -4.61, -4.85, -5.57])
    """
    return lorenz_states(n, dt=dt, start=start, burn_in=burn_in, sigma=sigma, rho=rho, beta=beta)[:, 0].copy()


def lorenz_with_drift(n: int, *, drift: float = 10.0, dt: float = 0.05, **options: Any) -> Float64[np.ndarray, " n"]:
    """x of the Lorenz system plus a uniform drift: ``x(t) + drift t``, t = 0 at the first value.

    The series leaves behind the values that it had (the paper's fig. 10).

    Args:
        drift: per unit of time. x itself keeps to about -20 to 20.
        n, dt, options: as for :func:`lorenz`.

    >>> np.allclose(lorenz_with_drift(5, drift=2.0) - lorenz(5), [0.0, 0.1, 0.2, 0.3, 0.4])
    True
    """
    return lorenz(n, dt=dt, **options) + check_number("drift", drift) * dt * np.arange(n)


def lorenz_states(
    n: int,
    *,
    dt: float = 0.05,
    start: Sequence[float] = _START,
    burn_in: float = 10.0,
    sigma: float = 10.0,
    rho: float = 28.0,
    beta: float = 8.0 / 3.0,
) -> Float64[np.ndarray, "n 3"]:
    """All three variables of the Lorenz system. Arguments: :func:`lorenz`."""
    from scipy.integrate import solve_ivp  # takes a while to import

    n, dt = check_count("n", n), check_number("dt", dt, above=0.0)
    burn_in = check_number("burn_in", burn_in, least=0.0)
    first = series_of(start, "start", least=1)
    if len(first) != 3:
        raise ArgumentError(f"start={start!r}, expected three numbers (x, y, z)")
    sigma, rho, beta = (check_number(*item) for item in (("sigma", sigma), ("rho", rho), ("beta", beta)))

    def velocity(_: float, state: np.ndarray) -> tuple[float, float, float]:
        x, y, z = state
        return sigma * (y - x), x * (rho - z) - y, x * y - beta * z

    times = burn_in + dt * np.arange(n)
    run = solve_ivp(velocity, (0.0, times[-1]), first, t_eval=times, **_TOLERANCES)
    if not run.success or not np.isfinite(run.y).all():
        raise ArgumentError(
            f"the Lorenz system with sigma={sigma:g}, rho={rho:g}, beta={beta:g} from {tuple(start)} can't be "
            f"integrated to t={times[-1]:g} ({run.message}); choose other parameters"
        )
    return np.ascontiguousarray(run.y.T)
