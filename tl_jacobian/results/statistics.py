"""Correlations of scores; intervals and tests over prompts, or series: scipy's bootstrap and permutation tests.

Neighbouring prompts of one talk or book are alike. Where that is so they are no independent draws, and what is drawn
again, or has its sign flipped, is a whole block of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import checked
from tl_jacobian.results.words import four_digits

Numbers = Sequence[float] | np.ndarray
Blocks = Sequence[int] | Sequence[str] | None  # which block each value belongs to; None: each its own
Seed = int | np.random.Generator  # a generator is moved on
_RESAMPLES = 4999
_ELEMENTS = 10**7  # of one batch of resamples: 80 MB


@four_digits
class Interval(NamedTuple):
    """A mean over prompts, or the difference of two means, with its bootstrap confidence interval.

    Attributes:
        mean: over n prompts.
        low, high: percentile bootstrap.
        n: how many prompts; for two groups, of both.
    """

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


@four_digits
class Difference(NamedTuple):
    """One method against another on the same prompts.

    Attributes:
        method, other: names.
        interval: of the mean difference, method minus other.
        p: of no difference: signs of the differences flipped at random, two-sided.
        adjusted: the same among all pairs compared (Benjamini and Hochberg's false discovery rate).
    """

    method: str
    other: str
    interval: Interval
    p: float
    adjusted: float


def correlation(x: Numbers, y: Numbers, method: Literal["spearman", "pearson", "kendall"] = "spearman") -> float:
    """Correlation of the pairs of which neither is NaN; NaN where one side is constant, or there are fewer than two.

    Args:
        x, y: numbers in the same order.
        method: Spearman's rank correlation, Pearson's linear one, or Kendall's tau-b.

    >>> correlation([1.0, 2.0, 3.0], [1.0, 4.0, 9.0]), correlation([1.0, 2.0], [3.0, 3.0])
    (1.0, nan)
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    whole = ~(np.isnan(a) | np.isnan(b))
    a, b = a[whole], b[whole]
    if len(a) < 2 or (a == a[0]).all() or (b == b[0]).all():
        return math.nan
    found: Any = {"spearman": stats.spearmanr, "pearson": stats.pearsonr, "kendall": stats.kendalltau}[method](a, b)
    return float(found.statistic)


@checked
def bootstrap_mean(
    values: Numbers, *, confidence: float = 0.95, seed: Seed = 0, blocks: Sequence[int] | Sequence[str] | None = None
) -> Interval:
    """The mean and its percentile bootstrap interval (scipy.stats.bootstrap, 4,999 resamples).

    Percentiles are taken as far out as Student's t would be, without which they are too narrow in small samples
    (Hesterberg, 2015): resampled means have (n - 1) / n of the variance, and normal tails.

    Args:
        values: one number a prompt.
        confidence: of the interval.
        seed: of the resampling.
        blocks: which block each value belongs to: blocks are drawn whole, and n is their number in all that is said
            of small samples; default: each value by itself.

    Raises:
        ArgumentError: fewer than two values or blocks, or a value that isn't finite; a confidence that isn't between 0
            and 1.

    >>> bootstrap_mean([1.0, 2.0, 3.0, 4.0]).mean
    2.5
    """
    x = _checked(values)
    sums, sizes = _in_blocks(x, blocks)
    level = _expanded(confidence, len(sums) - 1, len(sums))
    mean = float(x.mean())
    if x.std() == 0 or np.allclose(sums / sizes, mean, rtol=1e-12, atol=0):
        return Interval(mean, mean, mean, len(x))
    if blocks is None:
        low, high = _percentiles((x,), np.mean, level, seed)
    else:
        low, high = _percentiles((sums, sizes), _mean_of_blocks, level, seed, paired=True)
    return Interval(mean, low, high, len(x))


@checked
def group_difference(a: Numbers, b: Numbers, *, confidence: float = 0.95, seed: Seed = 0) -> tuple[Interval, float]:
    """mean(a) - mean(b) of two groups, and the p-value of no difference: membership permuted at random, two-sided.

    Each group is resampled by itself; percentiles are expanded as for :func:`bootstrap_mean`, with as many degrees of
    freedom as both groups leave, for a variance short by (n - 1) / n of the smaller one.

    Raises:
        ArgumentError: as for :func:`bootstrap_mean`.

    >>> group_difference([3.0, 4.0, 5.0, 4.0], [1.0, 0.0, 1.0, 2.0])[0].mean
    3.0
    """
    groups = x, y = _checked(a), _checked(b)
    level = _expanded(confidence, len(x) + len(y) - 2, min(len(x), len(y)))
    generator = np.random.default_rng(seed)
    p = _permuted(groups, _mean_difference, "independent", generator)
    low, high = _percentiles(groups, _mean_difference, level, generator)
    return Interval(float(x.mean() - y.mean()), low, high, len(x) + len(y)), p


@checked
def paired_differences(
    values: Mapping[str, Numbers],
    *,
    confidence: float = 0.95,
    seed: int = 0,
    blocks: Sequence[int] | Sequence[str] | None = None,
) -> list[Difference]:
    """Every pair of methods on the same prompts.

    Args:
        values: one number a prompt for each method, in the same order.
        confidence: of the intervals.
        seed: of the resampling.
        blocks: which block each prompt belongs to: the signs of a block are flipped together; see
            :func:`bootstrap_mean`.

    Raises:
        ArgumentError: as for :func:`bootstrap_mean`; methods of different numbers of prompts.

    >>> paired_differences({"a": [1.0, 2.0, 3.0], "b": [0.0, 1.0, 2.0]})[0].interval.mean
    1.0
    """
    pairs = [(a, b, _checked(values[a]), _checked(values[b])) for a, b in combinations(values, 2)]
    if not pairs:
        return []
    if len({len(v) for v in values.values()}) > 1:
        raise ArgumentError(
            f"methods of {[len(v) for v in values.values()]} prompts can't be paired, expected the same prompts for all"
        )
    ps = [_sign_flips(_in_blocks(x - y, blocks)[0], seed) for _, _, x, y in pairs]
    adjusted = stats.false_discovery_control(ps)
    return [
        Difference(a, b, bootstrap_mean((x - y).tolist(), confidence=confidence, seed=seed, blocks=blocks), p, float(q))
        for (a, b, x, y), p, q in zip(pairs, ps, adjusted, strict=True)
    ]


def _mean_difference(a: np.ndarray, b: np.ndarray, axis: int = -1) -> Any:
    return a.mean(axis=axis) - b.mean(axis=axis)


def _in_blocks(x: np.ndarray, blocks: Blocks) -> tuple[np.ndarray, np.ndarray]:
    """Sum and size of each block, in the order of their first values."""
    if blocks is None:
        return x, np.ones_like(x)
    if len(blocks) != len(x):
        raise ArgumentError(f"blocks of {len(blocks)} prompts for {len(x)} values, expected one a value")
    numbers: dict[Any, int] = {}
    at = np.array([numbers.setdefault(block, len(numbers)) for block in blocks])
    if len(numbers) < 2:
        raise ArgumentError(f"all {len(x)} values are in one block, {blocks[0]!r}; expected two or more to draw from")
    return np.bincount(at, weights=x), np.bincount(at).astype(np.float64)


def _mean_of_blocks(sums: np.ndarray, sizes: np.ndarray, axis: int = -1) -> Any:
    return sums.sum(axis=axis) / sizes.sum(axis=axis)


def _percentiles(
    samples: tuple[np.ndarray, ...], statistic: Any, level: float, seed: Seed, paired: bool = False
) -> tuple[float, float]:
    found = stats.bootstrap(
        samples,
        statistic,
        n_resamples=_RESAMPLES,
        batch=_batch(samples),
        confidence_level=level,
        method="percentile",
        paired=paired,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def _expanded(confidence: float, freedom: int, n: int) -> float:
    if not 0 < confidence < 1:
        raise ArgumentError(f"confidence={confidence!r}, expected a share between 0 and 1")
    reach = stats.t.ppf((1 + confidence) / 2, freedom) * np.sqrt(n / (n - 1))
    return float(1 - 2 * stats.norm.sf(reach))


def _sign_flips(x: np.ndarray, seed: Seed) -> float:
    return _permuted((x,), np.mean, "samples", seed) if x.any() else 1.0


def _permuted(
    samples: tuple[np.ndarray, ...], statistic: Any, kind: Literal["samples", "independent"], seed: Seed
) -> float:
    test = stats.permutation_test(
        samples,
        statistic,
        permutation_type=kind,
        n_resamples=_RESAMPLES,
        batch=_batch(samples),
        rng=np.random.default_rng(seed),
        vectorized=True,
    )
    return float(test.pvalue)


def _batch(samples: tuple[np.ndarray, ...]) -> int:
    return max(1, _ELEMENTS // sum(map(len, samples)))


def _checked(values: Numbers) -> np.ndarray:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) < 2 or not np.isfinite(x).all():
        raise ArgumentError(f"{len(x)} values, expected two or more finite numbers, one a prompt")
    return x
