"""In-context time series on the real model: forecasts that can be checked by eye, the same on both hosts."""

from __future__ import annotations

import numpy as np
import pytest

import tl_jacobian as tj
from tl_jacobian import timeseries as ts
from tl_jacobian.core.host.demo import kinds

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models():
    return {kind: tj.load_demo_model(kind) for kind in kinds()}


@pytest.mark.parametrize("kind", kinds())
def test_a_periodic_series_goes_on(models, kind):
    """Five turns of a cycle of six: the model forecasts the next number and is sure."""
    cycle = [0.0, 3.0, 7.0, 9.0, 5.0, 2.0]
    series = ts.serialize(cycle * 5 + cycle[:2], models[kind])
    d = ts.predict_number(models[kind], series, truth=7.0)
    assert d.mass > 0.95
    assert abs(d.mode - 7.0) <= series.scale
    assert d.log_score > np.log(0.5)
    assert d.crps < 1.0


@pytest.mark.skipif(len(kinds()) < 2, reason="TransformerLens 4 has one host")
def test_both_hosts_say_the_same(models):
    values = ts.lorenz(41, dt=0.08)
    found = {}
    for kind, model in models.items():
        series = ts.serialize(values[:-1], model)
        i = ts.number_influence(tj.temperature_scope(tj.linearize(model, list(series.tokens))), series)
        found[kind] = (i, ts.predict_number(model, series))
    (a, p), (b, q) = found.values()
    np.testing.assert_allclose(a.influence, b.influence, rtol=2e-3)
    np.testing.assert_allclose(p.probabilities, q.probabilities, rtol=2e-2, atol=1e-5)


def test_brownian_motion_is_read_from_its_end(models):
    """The paper's figs. 5 and 11: on average over eight series, log-influence rises towards the end."""
    model = models["bridge"]
    slopes = []
    for seed in range(8):
        series = ts.serialize(ts.brownian_motion(60, seed=seed), model)
        i = ts.number_influence(tj.temperature_scope(tj.linearize(model, list(series.tokens))), series)
        slopes.append(ts.forgetting_slope(i.influence).total)
    assert ts.mean_effect(slopes).low > 0
