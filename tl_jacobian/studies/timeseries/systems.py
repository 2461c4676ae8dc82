"""The paper's systems (appendix A.2): the logistic map, Brownian motion, geometric Brownian motion, the Lorenz system.

The Lorenz system (Lorenz, 1963) is the chaotic flow among them:

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
from tl_jacobian.results.arguments import checked, is_id, number, whole
from tl_jacobian.results.statistics import Seed
from tl_jacobian.studies.timeseries.checks import series_of

MOST = 10**7  # values of a series


@checked
def logistic_map(n: int, *, r: float = 3.8, x0: float = 0.4) -> Float64[np.ndarray, " n"]:
    """The logistic map: x_{t+1} = r x_t (1 - x_t), deep in chaos at r = 3.8.

    Args:
        n: how many values, x0 the first.
        r: in (0, 4]; beyond 4 the map leaves the unit interval.
        x0: in (0, 1).

    Raises:
        ArgumentError: an option is out of range.

    >>> logistic_map(4).round(3)
    array([0.4  , 0.912, 0.305, 0.805])
    """
    n, r, x = whole("n", n, most=MOST), number("r", r, above=0.0), number("x0", x0, above=0.0)
    if r > 4.0:
        raise ArgumentError(f"r={r!r}, expected at most 4: beyond it the map leaves the unit interval")
    if x >= 1.0:
        raise ArgumentError(f"x0={x0!r}, expected a number between 0 and 1")
    orbit = np.empty(n)
    for t in range(n):
        orbit[t] = x
        x = r * x * (1.0 - x)
    return orbit


@checked
def brownian_motion(
    n: int, *, seed: Seed, mu: float = 0.0, sigma: float = 1.0, dt: float = 1.0, x0: float = 0.0
) -> Float64[np.ndarray, " n"]:
    """Brownian motion (eq. 8): dX = mu dt + sigma dW, exact at n times ``dt`` apart.

    Args:
        n: how many values, x0 the first.
        seed: an integer, or a numpy Generator, which is moved on.
        mu: drift per unit of time.
        sigma: diffusion; the variance grows by sigma^2 per unit of time.
        dt: time between two values.
        x0: the first value.

    Raises:
        ArgumentError: an option is out of range, or there is no seed.

    >>> brownian_motion(4, seed=0).round(2)
    array([ 0.  ,  0.13, -0.01,  0.63])
    """
    return number("x0", x0) + _drifting_steps(n, seed, number("mu", mu), sigma, dt)


@checked
def geometric_brownian_motion(
    n: int, *, seed: Seed, mu: float = 0.0, sigma: float = 0.05, dt: float = 1.0, s0: float = 1.0
) -> Float64[np.ndarray, " n"]:
    """Geometric Brownian motion: dS = mu S dt + sigma S dW, exact at n times ``dt`` apart.

    Its logarithm is a Brownian motion with drift mu - sigma^2 / 2 and diffusion sigma.

    Args:
        n: how many values, s0 the first.
        seed: an integer, or a numpy Generator, which is moved on.
        mu: relative drift per unit of time.
        sigma: volatility.
        dt: time between two values.
        s0: the first value, positive.

    Raises:
        ArgumentError: an option is out of range, or there is no seed.

    >>> geometric_brownian_motion(4, seed=0).round(3)
    array([1.   , 1.005, 0.997, 1.028])
    """
    s0 = number("s0", s0, above=0.0)
    drift = number("mu", mu) - number("sigma", sigma, least=0.0) ** 2 / 2
    return s0 * np.exp(_drifting_steps(n, seed, drift, sigma, dt))


def _drifting_steps(n: int, seed: Seed, mu: float, sigma: float, dt: float) -> Float64[np.ndarray, " n"]:
    """mu t + sigma W(t) at t = 0, dt, 2 dt, …"""
    n, dt, sigma = whole("n", n, most=MOST), number("dt", dt, above=0.0), number("sigma", sigma, least=0.0)
    steps = mu * dt + sigma * np.sqrt(dt) * generator_of(seed).standard_normal(n - 1)
    return np.concatenate([[0.0], np.cumsum(steps)])


def generator_of(seed: Seed) -> np.random.Generator:
    """A numpy generator, from a seed or as it is.

    Raises:
        ArgumentError: neither: a result that nobody can repeat is refused.
    """
    if isinstance(seed, np.random.Generator):
        return seed
    if not is_id(seed) or int(seed) < 0:
        raise ArgumentError(f"seed={seed!r}, expected an integer, at least 0, or a numpy Generator")
    return np.random.default_rng(int(seed))


_STEEPEST = 10.0**3  # parameters that can be integrated in a time anybody waits
_LONGEST = 10.0**5  # units of time that are integrated
_START = (1.0, 1.0, 1.0)
_TOLERANCES: dict[str, Any] = dict(method="DOP853", rtol=1e-10, atol=1e-12)


@checked
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


@checked
def lorenz_with_drift(n: int, *, drift: float = 10.0, dt: float = 0.05, **options: Any) -> Float64[np.ndarray, " n"]:
    """x of the Lorenz system plus a uniform drift: ``x(t) + drift t``, t = 0 at the first value.

    The series leaves behind the values that it had (the paper's fig. 10).

    Args:
        drift: per unit of time. x itself keeps to about -20 to 20.
        n, dt, options: as for :func:`lorenz`.

    >>> np.allclose(lorenz_with_drift(5, drift=2.0) - lorenz(5), [0.0, 0.1, 0.2, 0.3, 0.4])
    True
    """
    return lorenz(n, dt=dt, **options) + number("drift", drift) * dt * np.arange(n)


@checked
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

    n, dt = whole("n", n, most=MOST), number("dt", dt, above=0.0)
    burn_in = number("burn_in", burn_in, least=0.0)
    first = series_of(start, "start", least=1)
    if len(first) != 3:
        raise ArgumentError(f"start={start!r}, expected three numbers (x, y, z)")
    if burn_in + dt * n > _LONGEST:
        raise ArgumentError(
            f"burn_in={burn_in:g}, dt={dt:g} and n={n} are {burn_in + dt * n:g} units of time, expected at most "
            f"{_LONGEST:g}"
        )
    sigma, rho, beta = (_parameter(*item) for item in (("sigma", sigma), ("rho", rho), ("beta", beta)))

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


def _parameter(name: str, value: Any) -> float:
    found = number(name, value)
    if abs(found) > _STEEPEST:
        raise ArgumentError(f"{name}={found:g}, expected at most {_STEEPEST:g} in size; Lorenz' own are 10, 28 and 8/3")
    return found
