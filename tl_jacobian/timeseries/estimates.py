"""From one number a series to statements about a system: estimates with intervals and tests.

Within one series influences depend on one another; different series don't. So a series is one
observation, and every interval and test here is over series.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from scipy.stats import wilcoxon

from tl_jacobian.errors import ArgumentError
from tl_jacobian.statistics import Seed, bootstrap_mean, group_difference
from tl_jacobian.timeseries.checks import check_count, check_number, series_of
from tl_jacobian.timeseries.generators import generator_of

Alternative = Literal["two-sided", "greater", "less"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """An effect, how well it is known, and how surprising it would be if there were none.

    Attributes:
        estimate: the mean effect, or the difference of two means.
        low, high: bootstrap interval, resampling series: percentiles, expanded for small samples (Hesterberg, 2015).
        p_value: of the null hypothesis that there is no effect.
        n: series that it rests on; for two groups, of both.
        confidence: of the interval.
        test: which test gave the p-value.
    """

    estimate: float
    low: float
    high: float
    p_value: float
    n: int
    confidence: float
    test: str

    def __str__(self) -> str:
        return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}], p = {self.p_value:.2g}, n = {self.n}"


def mean_effect(
    effects: Any,
    *,
    alternative: Alternative = "two-sided",
    confidence: float = 0.95,
    seed: Seed = 0,
) -> Estimate:
    """The mean of one effect a series; tested against zero by Wilcoxon's signed ranks.

    Args:
        effects: one number for each of at least two series; 30 or more make the interval worth its name.
        alternative: ``"greater"`` for an effect whose sign was predicted.
        confidence: of the interval, between 0 and 1.
        seed: of the bootstrap, an integer or a numpy Generator.

    Raises:
        ArgumentError: an option can't be, or the effects aren't finite numbers.

    >>> print(mean_effect([0.2, 0.4, 0.1, 0.3, 0.5, 0.2], alternative="greater"))
    0.283 [0.133, 0.433], p = 0.016, n = 6
    """
    array = series_of(effects, "effects")
    _check_alternative(alternative)
    # Effects that are all zero say nothing against the null.
    found: Any = wilcoxon(array, alternative=alternative) if array.any() else None
    confidence = check_number("confidence", confidence)
    interval = bootstrap_mean(array, confidence=confidence, seed=generator_of(seed))
    return Estimate(
        estimate=interval.mean,
        low=interval.low,
        high=interval.high,
        p_value=1.0 if found is None else float(found.pvalue),
        n=interval.n,
        confidence=confidence,
        test=f"Wilcoxon signed ranks, {alternative}",
    )


def compare_paired(a: Any, b: Any, *, confidence: float = 0.95, seed: Seed = 0) -> Estimate:
    """The mean of a - b over the same series, such as one statistic of two scopes; two-sided.

    Args:
        a, b: one number for each series, in the same order.
        confidence, seed: as for :func:`mean_effect`.

    Raises:
        ArgumentError: there aren't as many of one as of the other.

    >>> compare_paired([0.5, 0.7, 0.6], [0.2, 0.3, 0.4]).estimate
    0.3
    """
    left, right = series_of(a, "a"), series_of(b, "b")
    if len(left) != len(right):
        raise ArgumentError(
            f"a has {len(left)} series and b has {len(right)}, expected the same series in the same order"
        )
    return mean_effect(left - right, confidence=confidence, seed=seed)


def compare_groups(a: Any, b: Any, *, confidence: float = 0.95, seed: Seed = 0) -> Estimate:
    """mean(a) - mean(b) of two groups of series, such as drifting and stationary ones; two-sided permutation test.

    Args:
        a, b: one number for each series of either group, at least two each.
        confidence, seed: as for :func:`mean_effect`.

    >>> compare_groups([3.0, 4.0, 5.0, 4.0], [1.0, 0.0, 1.0, 2.0]).estimate
    3.0
    """
    left, right = series_of(a, "a"), series_of(b, "b")
    confidence = check_number("confidence", confidence)
    interval, p_value = group_difference(left, right, confidence=confidence, seed=generator_of(seed))
    return Estimate(
        estimate=interval.mean,
        low=interval.low,
        high=interval.high,
        p_value=p_value,
        n=interval.n,
        confidence=confidence,
        test="permutation of the groups, two-sided",
    )


def _check_alternative(alternative: object) -> None:
    if alternative not in get_args(Alternative):
        raise ArgumentError(
            f"alternative={alternative!r}, expected one of {', '.join(map(repr, get_args(Alternative)))}"
        )


def check_kept(n: int, least: int, what: str, **left_out: int) -> None:
    """Refuse a statistic of too few numbers; ``left_out`` are the options that left some out, as they are now."""
    check_count("n", n, 0)
    if n < least:
        now = " and ".join(f"{name}={value}" for name, value in left_out.items())
        raise ArgumentError(
            f"only {n} {what} are left, expected at least {least}: take a longer series, or leave out fewer than {now}"
        )
