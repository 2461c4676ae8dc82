"""Intervals that hold what they promise, and tests that reject as often as they say."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.statistics import bootstrap_mean, group_difference, paired_differences


def samples(n: int, size: int, shift: float = 0.0) -> np.ndarray:
    """Skewed numbers with a known mean."""
    return np.random.default_rng(0).exponential(size=(n, size)) - 1.0 + shift


def test_intervals_cover_the_mean_as_often_as_promised():
    intervals = [bootstrap_mean(row.tolist(), confidence=0.9, seed=i) for i, row in enumerate(samples(200, 60))]
    covered = sum(i.low <= 0 <= i.high for i in intervals)
    # 90% of 200, less a little for skewed samples of 60; four binomial standard deviations are 17.
    assert 155 <= covered <= 197


def test_an_interval_is_that_of_the_normal_law_for_many_numbers():
    x = samples(1, 4000)[0]
    found, half = bootstrap_mean(x.tolist()), stats.norm.ppf(0.975) * x.std(ddof=1) / np.sqrt(len(x))
    assert found.mean == pytest.approx(x.mean())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.05)
    assert found.n == 4000
    assert bootstrap_mean(x.tolist()) == found  # the same seed, the same numbers


def test_small_samples_get_wider_intervals():
    rows = np.random.default_rng(3).normal(size=(300, 5))
    intervals = [bootstrap_mean(row.tolist(), confidence=0.9, seed=i) for i, row in enumerate(rows)]
    covered = sum(i.low <= 0 <= i.high for i in intervals)
    assert covered >= 252  # 84%; plain percentiles cover 75 to 80% of five normal numbers


def test_without_spread_there_is_no_width():
    assert bootstrap_mean([2.0, 2.0, 2.0]) == (2.0, 2.0, 2.0, 3)


def test_no_difference_is_found_no_more_often_than_promised():
    pairs = [paired_differences({"a": x, "b": y})[0].p for x, y in samples(150, 80).reshape(150, 2, 40)]
    rejected = sum(p < 0.1 for p in pairs)
    assert abs(rejected - 15) < 4 * np.sqrt(150 * 0.1 * 0.9)


def test_a_difference_is_found():
    rng = np.random.default_rng(1)
    base = 5 * rng.normal(size=50)  # prompts differ far more than methods do: only pairing shows it
    found = paired_differences({"a": base + 0.5 + 0.3 * rng.normal(size=50), "b": base, "c": base})
    (ab, ac, bc) = found
    assert (ab.method, ab.other) == ("a", "b")
    assert ab.p < 0.001
    assert ab.interval.low > 0.3
    assert bc.p == bc.adjusted == 1.0
    assert [d.adjusted for d in found] == stats.false_discovery_control([ab.p, ac.p, bc.p]).tolist()


def test_the_p_value_is_that_of_all_sign_flips():
    x = np.array([0.3, 1.2, -0.4, 2.0, 0.7, 0.9])
    flips = np.array(np.meshgrid(*[[-1, 1]] * 6)).reshape(6, -1).T
    means = np.abs((flips * x).mean(1))
    exact = np.mean(means >= abs(x.mean()) - 1e-12)
    assert paired_differences({"a": x.tolist(), "b": [0.0] * 6})[0].p == pytest.approx(exact)


def test_a_difference_of_groups_is_that_of_the_normal_law_for_many_numbers():
    x, y = samples(1, 1200, shift=0.5)[0], 3 * samples(2, 400)[1]
    found, p = group_difference(x.tolist(), y.tolist())
    half = stats.norm.ppf(0.975) * np.sqrt(x.var(ddof=1) / len(x) + y.var(ddof=1) / len(y))
    assert found.mean == pytest.approx(x.mean() - y.mean())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.05)
    assert found.n == 1600
    assert p < 0.001
    assert group_difference(x, y) == (found, p)


def test_small_groups_get_wider_intervals():
    rows = np.random.default_rng(5).normal(size=(300, 8))
    found = [group_difference(row[:4], row[4:], confidence=0.9, seed=i)[0] for i, row in enumerate(rows)]
    assert sum(i.low <= 0 <= i.high for i in found) >= 252  # 84%; plain percentiles cover 75 to 80%


def test_the_p_value_of_groups_is_that_of_all_ways_to_split_them():
    x = np.array([0.3, 1.2, -0.4, 2.0, 0.7, 0.9, 2.2])
    splits = [np.isin(range(7), chosen) for chosen in combinations(range(7), 3)]
    differences = np.array([x[s].mean() - x[~s].mean() for s in splits])
    below, above = (differences <= differences[0] + 1e-12).mean(), (differences >= differences[0] - 1e-12).mean()
    assert group_difference(x[:3], x[3:])[1] == pytest.approx(min(1.0, 2 * min(below, above)))


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, float("nan")])
def test_confidence_is_a_share(confidence):
    message = f"confidence={confidence!r}, expected a share between 0 and 1"
    for call in (
        lambda: bootstrap_mean([2.0, 2.0], confidence=confidence),
        lambda: group_difference([1.0, 2.0], [1.0, 3.0], confidence=confidence),
    ):
        with pytest.raises(ArgumentError, match=message):
            call()


@pytest.mark.parametrize("values", [[], [1.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_numbers_that_have_no_interval(values):
    with pytest.raises(ArgumentError, match="expected two or more finite numbers"):
        bootstrap_mean(values)


def test_pairs_need_the_same_prompts():
    with pytest.raises(ArgumentError, match=r"methods of \[2, 3\] prompts can't be paired"):
        paired_differences({"a": [1.0, 2.0], "b": [1.0, 2.0, 3.0]})
    assert paired_differences({"a": [1.0, 2.0]}) == []


# -- blocks ----------------------------------------------------------------------------------


def blocked(n: int, blocks: int, size: int, seed: int = 7) -> tuple[np.ndarray, list[int]]:
    """Rows of numbers of mean 0 that mostly are their block's, and the blocks."""
    rng = np.random.default_rng(seed)
    shared = np.repeat(rng.normal(size=(n, blocks)), size, axis=1)
    return shared + 0.3 * rng.normal(size=(n, blocks * size)), np.repeat(range(blocks), size).tolist()


def test_blocks_of_one_are_no_blocks():
    x = samples(1, 30)[0]
    plain, blocks = bootstrap_mean(x), bootstrap_mean(x, blocks=list(range(30)))
    assert blocks.mean == plain.mean
    assert (blocks.low, blocks.high) == pytest.approx((plain.low, plain.high), abs=0.02)
    one, same = paired_differences({"a": x, "b": -x}), paired_differences({"a": x, "b": -x}, blocks=list(range(30)))
    assert one[0].p == same[0].p


def test_intervals_of_blocks_cover_the_mean_as_often_as_promised():
    rows, blocks = blocked(120, blocks=12, size=5)
    inside = lambda i: i.low <= 0 <= i.high  # noqa: E731
    whole = sum(inside(bootstrap_mean(row, confidence=0.9, seed=i, blocks=blocks)) for i, row in enumerate(rows))
    alone = sum(inside(bootstrap_mean(row, confidence=0.9, seed=i)) for i, row in enumerate(rows))
    assert abs(whole - 108) < 4 * np.sqrt(120 * 0.1 * 0.9)
    assert alone < 84  # as if there were five times as many draws: what blocks are for


def test_blocks_of_different_sizes_weigh_what_they_hold():
    rng = np.random.default_rng(1)
    sizes = [1, 2, 3, 4, 5, 6, 7, 8] * 2
    blocks = [i for i, size in enumerate(sizes) for _ in range(size)]
    rows = np.stack([np.repeat(rng.normal(size=16), sizes) for _ in range(120)])
    found = [bootstrap_mean(row, confidence=0.9, seed=i, blocks=blocks) for i, row in enumerate(rows)]
    assert found[0].mean == pytest.approx(rows[0].mean())
    assert abs(sum(i.low <= 0 <= i.high for i in found) - 108) < 4 * np.sqrt(120 * 0.1 * 0.9)


def test_no_difference_between_blocks_is_found_no_more_often_than_promised():
    rows, blocks = blocked(100, blocks=12, size=4)
    zeros = np.zeros(rows.shape[1])
    whole = sum(paired_differences({"a": row, "b": zeros}, blocks=blocks)[0].p < 0.1 for row in rows)
    alone = sum(paired_differences({"a": row, "b": zeros})[0].p < 0.1 for row in rows[:50])
    assert abs(whole - 10) < 4 * np.sqrt(100 * 0.1 * 0.9)
    assert alone > 13


def test_blocks_have_to_fit(unchecked):
    with pytest.raises(ArgumentError, match="blocks of 2 prompts for 3 values, expected one a value"):
        bootstrap_mean([1.0, 2.0, 3.0], blocks=[0, 1])
    with pytest.raises(ArgumentError, match="all 3 values are in one block, 'talk'; expected two or more"):
        bootstrap_mean([1.0, 2.0, 3.0], blocks=["talk"] * 3)
