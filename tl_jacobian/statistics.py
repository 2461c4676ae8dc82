"""Intervals and tests over prompts: the bootstrap and the sign-flip test of scipy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy import stats

from tl_jacobian.errors import ArgumentError

Numbers = Sequence[float] | np.ndarray
_RESAMPLES = 4999
_ELEMENTS = 10**7  # of one batch of resamples: 80 MB


class Interval(NamedTuple):
    """A mean over prompts with its bootstrap confidence interval.

    Attributes:
        mean: over n prompts.
        low, high: percentile bootstrap.
        n: how many prompts.
    """

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


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


def bootstrap_mean(values: Numbers, *, confidence: float = 0.95, seed: int = 0) -> Interval:
    """The mean and its percentile bootstrap interval (scipy.stats.bootstrap, 4,999 resamples).

    Raises:
        ArgumentError: fewer than two values, or one that isn't finite.

    >>> bootstrap_mean([1.0, 2.0, 3.0, 4.0]).mean
    2.5
    """
    x = _checked(values)
    if x.std() == 0:
        return Interval(float(x.mean()), float(x.mean()), float(x.mean()), len(x))
    found = stats.bootstrap(
        (x,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=max(1, _ELEMENTS // len(x)),
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(x.mean()), float(found.low), float(found.high), len(x))


def paired_differences(values: Mapping[str, Numbers], *, confidence: float = 0.95, seed: int = 0) -> list[Difference]:
    """Every pair of methods on the same prompts.

    Args:
        values: one number a prompt for each method, in the same order.
        confidence: of the intervals.
        seed: of the resampling.

    Raises:
        ArgumentError: methods of different numbers of prompts.

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
    ps = [_sign_flips(x - y, seed) for _, _, x, y in pairs]
    adjusted = stats.false_discovery_control(ps)
    return [
        Difference(a, b, bootstrap_mean((x - y).tolist(), confidence=confidence, seed=seed), p, float(q))
        for (a, b, x, y), p, q in zip(pairs, ps, adjusted, strict=True)
    ]


def _sign_flips(x: np.ndarray, seed: int) -> float:
    if not x.any():
        return 1.0
    test = stats.permutation_test(
        (x,),
        np.mean,
        permutation_type="samples",
        n_resamples=_RESAMPLES,
        batch=max(1, _ELEMENTS // len(x)),
        rng=np.random.default_rng(seed),
        vectorized=True,
    )
    return float(test.pvalue)


def _checked(values: Numbers) -> np.ndarray:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) < 2 or not np.isfinite(x).all():
        raise ArgumentError(f"{len(x)} values, expected two or more finite numbers, one a prompt")
    return x
