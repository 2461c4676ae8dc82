"""Generators: known properties of each system, and bad arguments."""

from __future__ import annotations

import numpy as np
import pytest

from tl_jacobian.errors import ArgumentError
from tl_jacobian.studies.timeseries import (
    brownian_motion,
    geometric_brownian_motion,
    logistic_map,
    lorenz,
    lorenz_states,
    lorenz_with_drift,
)


def lyapunov(r: float, n: int = 50_000) -> float:
    """Mean of log |f'(x)| along the orbit."""
    x = logistic_map(n, r=r)[100:]
    return np.log(np.abs(r * (1 - 2 * x))).mean()


def test_the_logistic_map_is_as_chaotic_as_in_the_literature():
    assert lyapunov(3.8) == pytest.approx(0.432, abs=0.005)
    assert lyapunov(3.99999) == pytest.approx(np.log(2), abs=0.01)  # ln 2 at r = 4, exactly
    assert lyapunov(3.2) < 0, "a cycle of two"


def test_the_logistic_map_is_its_equation():
    x = logistic_map(50, r=3.7, x0=0.2)
    assert x[0] == 0.2
    np.testing.assert_allclose(x[1:], 3.7 * x[:-1] * (1 - x[:-1]))


def test_below_chaos_it_settles_at_its_fixed_point():
    assert logistic_map(500, r=2.5)[-1] == pytest.approx(1 - 1 / 2.5)


def test_brownian_variance_grows_linearly_in_time():
    """Var X_t = sigma^2 t; 4000 paths give it to 2.2% (one standard deviation of a variance)."""
    generator = np.random.default_rng(0)
    paths = np.stack([brownian_motion(65, seed=generator, mu=0.5, sigma=2.0, dt=0.25) for _ in range(4000)])
    t = 0.25 * np.arange(65)
    assert (paths[:, 0] == 0).all()
    np.testing.assert_allclose(paths.var(0)[1:], 4 * t[1:], rtol=0.09)
    np.testing.assert_allclose(paths.mean(0), 0.5 * t, atol=4 * 2 * np.sqrt(t[-1] / 4000))
    steps = np.diff(paths)
    assert abs(np.corrcoef(steps[:, 0], steps[:, 1])[0, 1]) < 0.06, "steps are independent"


def test_the_logarithm_of_geometric_brownian_motion():
    s = geometric_brownian_motion(100_001, seed=1, mu=0.3, sigma=0.4, dt=0.01, s0=7.0)
    steps = np.diff(np.log(s))
    assert s[0] == 7
    assert (s > 0).all()
    error = 0.4 * np.sqrt(0.01 / len(steps))
    assert steps.mean() == pytest.approx((0.3 - 0.4**2 / 2) * 0.01, abs=4 * error)
    assert steps.std() == pytest.approx(0.4 * 0.1, rel=0.01)


def test_seeds():
    first = brownian_motion(9, seed=3)
    np.testing.assert_array_equal(first, brownian_motion(9, seed=3))
    np.testing.assert_array_equal(first, brownian_motion(9, seed=np.random.default_rng(3)))
    generator = np.random.default_rng(3)
    brownian_motion(9, seed=generator)
    assert not np.array_equal(first, brownian_motion(9, seed=generator)), "a generator moves on"
    np.testing.assert_allclose(brownian_motion(9, seed=3, sigma=0.0, mu=2.0, x0=1.0), 1 + 2 * np.arange(9))


@pytest.mark.parametrize("sign", [-1, 0, 1])
def test_lorenz_stays_at_its_fixed_points(sign):
    c = sign * np.sqrt(8 / 3 * 27)
    start = (c, c, 27.0 if sign else 0.0)
    states = lorenz_states(20, dt=0.02, start=start, burn_in=0.0)
    np.testing.assert_allclose(states, np.tile(start, (20, 1)), atol=1e-9)


def jacobian_at_origin() -> np.ndarray:
    return np.array([[-10, 10, 0], [28, -1, 0], [0, 0, -8 / 3]])


def test_lorenz_leaves_the_origin_along_its_eigenvectors():
    """Near a fixed point the flow is exp(lambda t) along each eigenvector."""
    values, vectors = np.linalg.eig(jacobian_at_origin())
    for value, vector in zip(values.real, vectors.T.real, strict=True):
        start = 1e-6 * vector
        states = lorenz_states(6, dt=0.05, start=tuple(start), burn_in=0.0)
        expected = start * np.exp(value * 0.05 * np.arange(6))[:, None]
        np.testing.assert_allclose(states, expected, atol=1e-9 * np.abs(expected).max() / 1e-6 + 1e-12)


def test_finer_sampling_is_the_same_trajectory():
    coarse, fine = lorenz(60, dt=0.1), lorenz(591, dt=0.01)
    np.testing.assert_allclose(coarse, fine[::10], atol=1e-5)


def test_a_first_order_scheme_converges_to_it():
    """The paper's explicit scheme: halving its step halves its distance to ours."""

    def euler(step: float) -> float:
        state = np.array([1.0, 1.0, 1.0])
        for _ in range(round(0.5 / step)):
            x, y, z = state
            state = state + step * np.array([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])
        return state[0]

    ours = lorenz(2, dt=0.5, burn_in=0.0)[-1]
    errors = np.array([abs(euler(step) - ours) for step in (4e-4, 2e-4, 1e-4)])
    np.testing.assert_allclose(errors[:-1] / errors[1:], 2, rtol=0.1)


def test_lorenz_visits_both_lobes_and_forgets_its_start():
    x, other = lorenz(600), lorenz(600, start=(1.001, 1.0, 1.0))
    assert x.min() < -10
    assert x.max() > 10
    assert abs(x).max() < 21
    assert abs(x - other)[-100:].max() > 5


def test_drift_is_added():
    np.testing.assert_allclose(lorenz_with_drift(8, drift=3.0, dt=0.1) - lorenz(8, dt=0.1), 0.3 * np.arange(8))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: logistic_map(0), "n=0, expected an integer, 1 to 10000000"),
        (lambda: logistic_map(True), "n=True is a bool, expected an int"),
        (lambda: logistic_map(5, r=4.1), "r=4.1, expected at most 4"),
        (lambda: logistic_map(5, r=0.0), "r=0.0, expected a finite number, more than 0"),
        (lambda: logistic_map(5, x0=1.0), "x0=1.0, expected a number between 0 and 1"),
        (lambda: lorenz(5, dt=0.0), "dt=0.0, expected a finite number, more than 0"),
        (lambda: lorenz(5, dt=float("nan")), "dt=nan, expected a finite number"),
        (lambda: lorenz(5, burn_in=-1.0), "burn_in=-1.0, expected a finite number, at least 0"),
        (lambda: lorenz(5, start=(1.0, 2.0)), r"start=\(1.0, 2.0\), expected three numbers"),
        (lambda: lorenz(5, sigma=float("inf")), "sigma=inf, expected a finite number"),
        (lambda: lorenz_with_drift(5, drift="up"), "drift='up' is a str, expected a number"),
        (lambda: brownian_motion(5, seed=None), "seed=None, expected an int or a NumPy Generator"),
        (lambda: brownian_motion(5, seed=-1), "seed=-1, expected an integer, at least 0"),
        (lambda: brownian_motion(5, seed=0, sigma=-1.0), "sigma=-1.0, expected a finite number, at least 0"),
        (lambda: geometric_brownian_motion(5, seed=0, s0=0.0), "s0=0.0, expected a finite number, more than 0"),
    ],
)
def test_bad_arguments_are_named(call, message, unchecked):
    with pytest.raises(ArgumentError, match=message):
        call()
