"""Statistics of the claims: they find what is planted, and are as often wrong on noise as they say.

Binomial bounds: 400 null cases at 5% give 20 rejections, 4.4 standard deviation; 34 has a chance of about 0.2%.
Everything is seeded, so a test that passes keeps passing.
"""

from __future__ import annotations

import numpy as np
import pytest
from cases import slow
from scipy.signal import lfilter
from scipy.stats import spearmanr, theilslopes

from tl_jacobian.errors import ArgumentError
from tl_jacobian.studies.timeseries import (
    compare_groups,
    compare_paired,
    delay_vectors,
    effective_count,
    forgetting_slope,
    logistic_map,
    lorenz,
    mean_effect,
    pattern_match,
)

N, NULLS, MOST = 80, 400, 34
SYSTEMS = ["lorenz", "logistic", "brownian"]


def autocorrelated(generator, n=N, memory=0.8):
    """A stationary first-order autoregressive series."""
    return lfilter([1.0], [1.0, -memory], generator.standard_normal(n + 200))[200:]


@pytest.fixture(scope="module")
def orbits():
    return {"lorenz": lorenz(4000, dt=0.08), "logistic": logistic_map(4000)}


def series(system, generator, orbits):
    if system == "brownian":
        return np.cumsum(generator.standard_normal(N))
    start = generator.integers(0, 4000 - N)
    return orbits[system][start : start + N]


def parrot(values, generator, shift=1, noise=0.3):
    """Influence that is highest ``shift`` after the motifs that are nearest to the last, by loops."""
    scores = np.full(len(values), 0.1)
    for i in range(2, len(values) - shift):
        distance = np.sqrt(sum((values[i - k] - values[-1 - k]) ** 2 for k in range(3)))
        scores[i + shift] = np.exp(-3 * distance / values.std())
    return scores * np.exp(noise * generator.standard_normal(len(values)))


# -- pattern matching ----------------------------------------------------------------


@pytest.mark.parametrize("system", ["lorenz", *slow(*SYSTEMS[1:])])
def test_a_parrot_is_found(system, orbits):
    generator = np.random.default_rng(1)
    found = []
    for _ in range(30):
        values = series(system, generator, orbits)
        found.append(pattern_match(values, parrot(values, generator)))
    assert np.mean([m.p_value <= 0.05 for m in found]) > 0.75
    overall = mean_effect([m.estimate for m in found], alternative="greater")
    assert overall.low > 0.4
    assert overall.p_value < 1e-6
    assert np.median([m.lift for m in found]) > 1.5


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("memory", [pytest.param(0.0, marks=pytest.mark.slow), 0.8])
def test_unrelated_influence_is_found_as_often_as_stated(system, memory, orbits):
    """Autocorrelated influence and autocorrelated distances: a test of independent ranks fails here."""
    generator = np.random.default_rng(2)
    found = []
    for _ in range(NULLS):
        scores = np.exp(autocorrelated(generator, memory=memory))
        found.append(pattern_match(series(system, generator, orbits), scores))
    assert sum(m.p_value <= 0.05 for m in found) <= MOST
    effects = np.array([m.estimate for m in found])
    assert abs(effects.mean()) < 4 * effects.std() / np.sqrt(NULLS)


def test_a_test_of_independent_ranks_would_not_keep_its_promise(orbits):
    """What circular shifts are for: the textbook p-value of the same correlation rejects far too often."""
    generator = np.random.default_rng(3)
    wrong = 0
    for _ in range(NULLS):
        scores = np.exp(autocorrelated(generator))
        m = pattern_match(series("lorenz", generator, orbits), scores)
        wrong += spearmanr(scores[m.positions], -m.distances, alternative="greater").pvalue <= 0.05
    assert wrong > 2 * MOST


def test_recency_alone_is_not_pattern_matching(orbits):
    """Brownian motion is near its present lately, and influence is high lately: without a trend, that correlates."""
    generator = np.random.default_rng(4)
    t = np.linspace(0, 1, N)
    shape = 3 * np.exp(-8 * t) + 3 * np.exp(8 * (t - 1)) + 2 * t  # sink, recency, forgetting
    effects = {0: [], 2: []}
    rejected = 0
    for _ in range(NULLS):
        values = series("brownian", generator, orbits)
        scores = np.exp(shape + 0.5 * autocorrelated(generator, memory=0.5))
        for trend, into in effects.items():
            m = pattern_match(values, scores, trend=trend)
            into.append(m.estimate)
        rejected += m.p_value <= 0.05
    assert np.mean(effects[0]) > 0.2, "the confound is there"
    assert abs(np.mean(effects[2])) < 0.03, "and taken out"
    assert rejected <= MOST


@pytest.mark.parametrize("planted", [0, 1])
def test_the_shift_says_whose_influence_goes_with_a_motif(planted, orbits):
    generator = np.random.default_rng(5)
    by_shift = {0: [], 1: []}
    for _ in range(20):
        values = series("logistic", generator, orbits)
        scores = parrot(values, generator, shift=planted)
        for shift, into in by_shift.items():
            into.append(pattern_match(values, scores, shift=shift).estimate)
    assert np.mean(by_shift[planted]) > np.mean(by_shift[1 - planted]) + 0.3


def test_candidates_and_distances_by_hand():
    generator = np.random.default_rng(6)
    values, scores = generator.standard_normal(40), generator.random(40)
    m = pattern_match(values, scores, dimension=3, lag=2, shift=1, exclude=5, skip_first=9)
    motifs = [i for i in range(4, 40) if i + 1 >= 9 and i < 39 - 5]
    assert m.positions.tolist() == [i + 1 for i in motifs]
    expected = [np.linalg.norm([values[i - k] - values[39 - k] for k in (0, 2, 4)]) for i in motifs]
    np.testing.assert_allclose(m.distances, expected)
    nearest = np.argsort(expected)[: round(len(motifs) / 10)]
    assert m.lift == pytest.approx(scores[m.positions][nearest].mean() / scores[m.positions].mean())


def test_the_correlation_and_its_shifts_by_hand():
    generator = np.random.default_rng(7)
    values, scores = generator.standard_normal(40), generator.random(40)
    m = pattern_match(values, scores, trend=0)
    a, b = scores[m.positions], -m.distances
    assert m.estimate == pytest.approx(spearmanr(a, b).statistic)
    shifts = [spearmanr(np.roll(a, s), b).statistic for s in range(len(a))]
    assert m.p_value == pytest.approx(np.mean(np.array(shifts) >= m.estimate - 1e-12))


def test_order_is_all_that_counts():
    """Ranks: the statistic is the same for any increasing function of the influence, and any scale of the series."""
    generator = np.random.default_rng(8)
    values, scores = generator.standard_normal(50), generator.random(50)
    m, same = pattern_match(values, scores), pattern_match(7 * values - 3, np.exp(5 * scores))
    assert (same.estimate, same.p_value) == pytest.approx((m.estimate, m.p_value))


def test_centred_motifs_match_at_any_level():
    """A drifting wave: the same shape never comes at the same level again, and influence follows the shape."""
    generator = np.random.default_rng(9)
    turns = 2 * np.pi * np.arange(N) / 7.3
    values = 5 * np.sin(turns) + 1.5 * np.arange(N)
    scores = np.exp(np.cos(turns - 2 * np.pi * N / 7.3) + 0.3 * generator.standard_normal(N))
    found = pattern_match(values, scores, centre=True)
    assert found.estimate > 0.4
    assert found.p_value <= 1 / 7, "shifts by whole periods are as good"
    assert pattern_match(values, scores).estimate < found.estimate / 2
    motifs = np.array([values[i - 2 : i + 1][::-1] for i in range(2, N)])
    shapes = motifs - motifs.mean(1, keepdims=True)
    expected = np.linalg.norm(shapes - shapes[-1], axis=1)[found.positions - 1 - 2]
    np.testing.assert_allclose(found.distances, expected, atol=1e-12)


def test_delay_vectors_by_hand():
    vectors = delay_vectors(np.arange(10.0), dimension=3, lag=2)
    assert vectors.shape == (6, 3)
    assert vectors[0].tolist() == [4, 2, 0]
    assert vectors[-1].tolist() == [9, 7, 5]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pattern_match(np.ones(30), np.ones(29)), "30 values and 29 influences, expected one influence"),
        (lambda: pattern_match(np.arange(30.0), np.ones(30)), "influence has nothing but its trend"),
        (lambda: pattern_match(np.ones(30), np.random.default_rng(0).random(30)), "nearness has nothing but its trend"),
        (
            lambda: pattern_match(np.arange(12.0), np.arange(12.0)),
            "only 7 earlier motifs are left, expected at least 10",
        ),
        (
            lambda: pattern_match(np.arange(30.0), np.arange(30.0), exclude=19),
            r"only 8 earlier motifs are left, .* leave out fewer than exclude=19 and skip_first=1",
        ),
        (
            lambda: pattern_match(np.arange(12.0), np.arange(12.0)),
            r"take a longer series, or leave out fewer than exclude=2 and",
        ),
        (lambda: pattern_match(np.arange(30.0), np.ones(30), shift=-1), "shift=-1, expected an integer, at least 0"),
        (lambda: pattern_match(np.arange(30.0), np.ones(30), trend=6), "trend=6, expected an integer, 0 to 5"),
        (lambda: pattern_match([1.0, np.nan], [1.0, 1.0]), r"values\[1\] is nan"),
        (lambda: delay_vectors(np.arange(4.0), dimension=3, lag=2), "span 5 numbers, and the series has 4"),
        (lambda: delay_vectors(np.arange(4.0), dimension=0), "dimension=0, expected an integer, at least 1"),
    ],
)
def test_patterns_refuse(call, message, unchecked):
    with pytest.raises(ArgumentError, match=message):
        call()


# -- forgetting and concentration ------------------------------------------------------


def fading(generator, slope, n=N):
    return np.exp(slope * np.arange(n) + 0.5 * autocorrelated(generator, n, 0.5))


def test_a_planted_slope_comes_back():
    generator = np.random.default_rng(10)
    found = [forgetting_slope(fading(generator, 0.03)) for _ in range(100)]
    slopes = np.array([f.estimate for f in found])
    assert slopes.mean() == pytest.approx(0.03, abs=4 * slopes.std() / 10)
    assert found[0].n == N - 1
    assert found[0].total == pytest.approx(found[0].estimate * (N - 2))


def test_sinks_and_recency_hardly_move_it():
    scores = np.exp(0.02 * np.arange(60))
    scores[[1, 2, 3]] *= 1000.0
    scores[[-1, -2]] *= 50.0
    assert forgetting_slope(scores).estimate == pytest.approx(0.02, abs=0.002)
    line = np.polyfit(np.arange(59), np.log(scores[1:]), 1)[0]
    assert abs(line - 0.02) > 0.01, "least squares is moved"


def test_the_slope_is_scipys_of_what_is_kept():
    scores = np.random.default_rng(11).random(30) + 0.1
    kept = forgetting_slope(scores, skip_first=4, skip_last=3, log=False)
    assert kept.estimate == theilslopes(scores[4:27]).slope
    assert (kept.n, kept.log) == (23, False)
    assert forgetting_slope(5 * scores).estimate == pytest.approx(forgetting_slope(scores).estimate), (
        "units don't matter"
    )


def test_groups_that_fade_differ_from_those_that_dont():
    generator = np.random.default_rng(12)
    a, b = ([forgetting_slope(fading(generator, s)).estimate for _ in range(30)] for s in (0.03, 0.0))
    found = compare_groups(a, b)
    assert found.low < 0.03 < found.high
    assert found.low > 0.015
    assert found.p_value < 0.001
    assert found.n == 60


def test_effective_count():
    assert effective_count([0.0, *[2.0] * 7]) == 7
    assert effective_count([5.0, 0, 0, 3.0, 0, 0, 0]) == 1
    assert effective_count([5.0, 1, 1, 1, 1, 1], skip_first=0) < 5
    scores = np.random.default_rng(0).random(20)
    assert effective_count(scores) == pytest.approx(effective_count(1e200 * scores))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: forgetting_slope([1.0, 2.0, 0.0, 1.0, 2.0, 3.0]), r"influence\[2\] is 0, which has no logarithm"),
        (lambda: forgetting_slope(np.ones(5)), "only 4 numbers are left, expected at least 5"),
        (
            lambda: forgetting_slope(np.ones(9), skip_last=9),
            r"only 0 numbers are left, .* fewer than skip_first=1 and skip_last=9",
        ),
        (
            lambda: effective_count(np.ones(9), skip_first=7),
            r"only 2 numbers are left, .* fewer than skip_first=7",
        ),
        (lambda: forgetting_slope(np.ones(9), skip_first=-1), "skip_first=-1, expected an integer, at least 0"),
        (lambda: effective_count([1.0, -1, 2, 3, 4, 5]), "expected none negative and some above zero"),
        (lambda: effective_count(np.eye(1, 9)[0]), "expected none negative and some above zero"),
    ],
)
def test_slopes_refuse(call, message, unchecked):
    with pytest.raises(ArgumentError, match=message):
        call()


# -- over series -------------------------------------------------------------------------


def nulls(seed, shape):
    return np.random.default_rng(seed).standard_t(5, size=shape)


@pytest.mark.slow
def test_intervals_cover_and_tests_keep_their_level():
    """95% intervals of the mean effect of 30 series; 400 of them give the coverage to 1.1% (one standard deviation)."""
    found = [mean_effect(row + 0.3, seed=i) for i, row in enumerate(nulls(20, (NULLS, 30)))]
    covered = np.mean([e.low <= 0.3 <= e.high for e in found])
    assert 0.92 < covered < 0.98
    null = [mean_effect(row, alternative="greater").p_value <= 0.05 for row in nulls(21, (NULLS, 30))]
    assert sum(null) <= MOST


@pytest.mark.slow
def test_groups_keep_their_level():
    rows = nulls(22, (120, 24))
    p = [compare_groups(row[:12], row[12:], seed=i).p_value for i, row in enumerate(rows)]
    assert np.sum(np.array(p) <= 0.05) <= 14  # 6 expected, standard deviation 2.4
    shifted = [compare_groups(row[:12] + 1, row[12:], seed=i) for i, row in enumerate(rows)]
    covered = np.mean([e.low <= 1 <= e.high for e in shifted])
    assert covered > 0.87  # 0.94 of the samples (heavy-tailed ones of 12); 0.022 is the standard deviation of 120


def test_pairing_removes_what_series_have_in_common():
    """Two scopes of which one is a little higher on every series, whatever the series."""
    generator = np.random.default_rng(23)
    common = 5 * generator.standard_normal(30)
    a, b = common + 0.3 + 0.2 * generator.standard_normal(30), common + 0.2 * generator.standard_normal(30)
    paired = compare_paired(a, b)
    assert paired.p_value < 0.001
    assert 0.1 < paired.low < 0.3 < paired.high < 0.5
    assert compare_groups(a, b).p_value > 0.5


def test_seeds_and_directions():
    effects = nulls(24, 30) + 0.7
    assert mean_effect(effects) == mean_effect(effects)
    assert mean_effect(effects, seed=1).low != mean_effect(effects).low
    assert mean_effect(effects, alternative="greater").p_value < 0.05
    assert mean_effect(effects, alternative="less").p_value > 0.9
    wide, narrow = mean_effect(effects, confidence=0.99), mean_effect(effects, confidence=0.5)
    assert wide.low < narrow.low < narrow.high < wide.high
    assert mean_effect([0.0, 0.0, 0.0]).p_value == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_effect([0.1]), "effects are 1 numbers, expected at least 2"),
        (lambda: mean_effect([0.1, np.nan]), r"effects\[1\] is nan"),
        (lambda: mean_effect([0.1, 0.2], alternative="more"), "alternative='more', expected one of 'two-sided'"),
        (lambda: mean_effect([0.1, 0.2], confidence=1.0), "confidence=1.0, expected a share between 0 and 1"),
        (lambda: mean_effect([0.1, 0.2], seed=None), "seed=None, expected an int"),
        (lambda: compare_paired([0.1, 0.2], [0.1, 0.2, 0.3]), "a has 2 series and b has 3, expected the same series"),
        (lambda: compare_groups([0.1, 0.2], [0.1]), "b are 1 numbers, expected at least 2"),
    ],
)
def test_estimates_refuse(call, message, unchecked):
    with pytest.raises(ArgumentError, match=message):
        call()
