"""From one number a series to statements about a system: estimates with intervals and tests.

Within one series influences depend on one another; different series don't. So a series is one
observation, and every interval and test here is over series. Two numbers of a series to make statements of:

- Pattern matching: does influence sit where the past looked like the present?
  Zhang and Gilpin (2025) conjecture that language models forecast by parroting: they look for the earlier
  motif that is most like the last few numbers, and copy what followed it. In the language of dynamical systems, the
  motif is the delay vector (s_i, s_{i-lag}, …) and the best match is the nearest neighbour of the last one.
- Forgetting: does influence rise towards the end of the context, and how many numbers share it?
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64
from scipy.stats import rankdata, theilslopes, wilcoxon

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import checked, number, whole
from tl_jacobian.results.claims import Estimate, ForgettingSlope, PatternMatch
from tl_jacobian.results.statistics import Seed, bootstrap_mean, group_difference
from tl_jacobian.studies.timeseries.checks import series_of
from tl_jacobian.studies.timeseries.systems import generator_of

Alternative = Literal["two-sided", "greater", "less"]


@checked
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
    # Effects that are all zero say nothing against the null.
    found: Any = wilcoxon(array, alternative=alternative) if array.any() else None
    confidence = number("confidence", confidence)
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


@checked
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


@checked
def compare_groups(a: Any, b: Any, *, confidence: float = 0.95, seed: Seed = 0) -> Estimate:
    """mean(a) - mean(b) of two groups of series, such as drifting and stationary ones; two-sided permutation test.

    Args:
        a, b: one number for each series of either group, at least two each.
        confidence, seed: as for :func:`mean_effect`.

    >>> compare_groups([3.0, 4.0, 5.0, 4.0], [1.0, 0.0, 1.0, 2.0]).estimate
    3.0
    """
    left, right = series_of(a, "a"), series_of(b, "b")
    confidence = number("confidence", confidence)
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


def check_kept(n: int, least: int, what: str, **left_out: int) -> None:
    """Refuse a statistic of too few numbers; ``left_out`` are the options that left some out, as they are now."""
    whole("n", n, 0)
    if n < least:
        now = " and ".join(f"{name}={value}" for name, value in left_out.items())
        raise ArgumentError(
            f"only {n} {what} are left, expected at least {least}: take a longer series, or leave out fewer than {now}"
        )


_LEAST_MOTIFS = 10  # candidates; with fewer, circular shifts can hardly reach p = 0.1


@checked
def delay_vectors(values: Any, dimension: int = 3, lag: int = 1) -> Float64[np.ndarray, "n dimension"]:
    """The delay vectors (s_i, s_{i-lag}, …, s_{i-(dimension-1) lag}) of a series, from the first whole one on.

    Raises:
        ArgumentError: the series is shorter than one of them.

    >>> delay_vectors([1.0, 2.0, 3.0, 4.0], dimension=2).tolist()
    [[2.0, 1.0], [3.0, 2.0], [4.0, 3.0]]
    """
    array = series_of(values)
    span = (whole("dimension", dimension) - 1) * whole("lag", lag)
    if len(array) <= span:
        raise ArgumentError(
            f"delay vectors of dimension={dimension} and lag={lag} span {span + 1} numbers, and the series has "
            f"{len(array)}"
        )
    return np.stack([array[span - k * lag : len(array) - k * lag] for k in range(dimension)], axis=1)


@checked
def pattern_match(
    values: Any,
    influence: Any,
    *,
    dimension: int = 3,
    lag: int = 1,
    centre: bool = False,
    shift: int = 1,
    exclude: int | None = None,
    skip_first: int = 1,
    trend: int = 2,
) -> PatternMatch:
    """Whether the influential numbers are those after (or in) the motifs that resemble the last numbers.

    Influence and nearness (minus the Euclidean distance of delay vectors) are turned into ranks, and a polynomial in
    the position is taken out of both: influence is high at either end of a prompt (attention sink, recency), and a
    wandering series is near its present only lately, which would pass for a match. What is left is correlated. The null
    hypothesis, that the two are unrelated but each keeps its autocorrelation, is simulated by shifting the influence
    around in a circle. (In a periodic series shifts by whole periods are as good, so p can't be below one over the
    period; the estimate, over many series, still says what there is.)

    Args:
        values: the series; ``(n,)``.
        influence: of each number; ``(n,)``.
        dimension, lag: of the delay vectors.
        centre: compare shapes: each motif less its own mean, so that a level that has been before is no match.
        shift: whose influence goes with the motif that ends at i: 1, the number *after* it, which is what a
            parrot would copy; 0, its last number, which is what has to be recognised.
        exclude: motifs that end so few numbers before the last are no candidates (Theiler's window); default:
            those that share numbers with the last motif. For densely sampled flows, take at least a turn.
        skip_first: first numbers (an attention sink) that are no candidates.
        trend: degree of the polynomial; 0 takes out the mean alone.

    Raises:
        ArgumentError: fewer than ten candidates are left, or influence or nearness is the same everywhere.

    >>> import math
    >>> s = [math.sin(0.7 * i) for i in range(80)]
    >>> parrot = [1.0 + math.cos(0.7 * (i - 80)) for i in range(80)]
    >>> found = pattern_match(s, parrot)
    >>> found.estimate > 0.9, found.p_value < 0.05, found.lift > 1.5
    (True, True, True)
    """
    array, scores = series_of(values), series_of(influence, "influence")
    if len(array) != len(scores):
        raise ArgumentError(f"{len(array)} values and {len(scores)} influences, expected one influence for each value")
    vectors = delay_vectors(array, dimension, lag)
    vectors = vectors - vectors.mean(axis=1, keepdims=True) if centre else vectors
    span = (dimension - 1) * lag
    window = span if exclude is None else whole("exclude", exclude, 0)
    places = _candidates(len(array), span, whole("shift", shift, 0), window, whole("skip_first", skip_first, 0))
    distances = np.linalg.norm(vectors[places - shift - span] - vectors[-1], axis=1)
    rho, p_value = _shifted_correlation(scores[places], -distances, whole("trend", trend, 0, 5))
    nearest = np.argsort(distances, kind="stable")[: max(1, round(len(places) / 10))]
    mean = float(scores[places].mean())
    return PatternMatch(
        estimate=rho,
        p_value=p_value,
        lift=float(scores[places][nearest].mean()) / mean if mean else np.nan,
        positions=places,
        distances=distances,
    )


def _candidates(n: int, span: int, shift: int, window: int, skip_first: int) -> Int64[np.ndarray, " candidates"]:
    """Positions whose influence counts: ``shift`` after motifs that are whole, early enough, and not a sink."""
    motifs = np.arange(span, n - 1 - window)  # where they end
    places = motifs + shift
    places = places[(places >= skip_first) & (places < n)]
    check_kept(len(places), _LEAST_MOTIFS, "earlier motifs", exclude=window, skip_first=skip_first)
    return places


def _shifted_correlation(
    influence: Float64[np.ndarray, " k"], nearness: Float64[np.ndarray, " k"], trend: int
) -> tuple[float, float]:
    """Correlation of detrended ranks, and its p-value among all circular shifts of the influence."""
    a, b = _residual("influence", influence, trend), _residual("nearness", nearness, trend)
    # Entry s is the correlation with the influence shifted by s.
    shifted = np.fft.irfft(np.fft.rfft(b) * np.fft.rfft(a).conj(), n=len(a))
    return float(shifted[0]), float((shifted >= shifted[0] - 1e-12).mean())


def _residual(name: str, array: Float64[np.ndarray, " k"], trend: int) -> Float64[np.ndarray, " k"]:
    """Ranks without their polynomial trend, of unit norm."""
    ranks = rankdata(array)
    basis = np.polynomial.legendre.legvander(np.linspace(-1, 1, len(array)), trend)
    rest = ranks - basis @ np.linalg.lstsq(basis, ranks, rcond=None)[0]
    norm = float(np.linalg.norm(rest))
    if norm < 1e-6 * len(array):
        raise ArgumentError(
            f"{name} has nothing but its trend over the {len(array)} candidates (from {array.min():.4g} to "
            f"{array.max():.4g}), so nothing can follow it; a lower trend={trend}?"
        )
    return rest / norm


_LEAST_NUMBERS = 5


@checked
def forgetting_slope(influence: Any, *, skip_first: int = 1, skip_last: int = 0, log: bool = True) -> ForgettingSlope:
    """Slope of influence over position: the median of the slopes of all pairs (Theil and Sen).

    Args:
        influence: of each number; ``(n,)``.
        skip_first: first numbers (an attention sink) to leave out.
        skip_last: last numbers to leave out, which all forecasts lean on.
        log: of the logarithm: nats per number, whatever the scores' units.

    Raises:
        ArgumentError: fewer than five numbers are left, or an influence isn't positive (its logarithm isn't there).

    >>> round(forgetting_slope([9.0, 1.0, 2.0, 4.0, 8.0, 16.0]).estimate, 3)  # it doubles: log 2
    0.693
    """
    kept = _kept(influence, skip_first=skip_first, skip_last=skip_last)
    if log and not (kept > 0).all():
        at = int(np.argmin(kept > 0))
        raise ArgumentError(
            f"influence[{at + skip_first}] is {kept[at]:g}, which has no logarithm: expected positive ones, or "
            "log=False"
        )
    found: Any = theilslopes(np.log(kept) if log else kept)
    slope = float(found.slope)
    return ForgettingSlope(estimate=slope, total=slope * (len(kept) - 1), n=len(kept), log=log)


@checked
def effective_count(influence: Any, *, skip_first: int = 1) -> float:
    """How many numbers share the influence: (sum)^2 / sum of squares, from 1 (all on one) to all of them.

    Args:
        influence: of each number, not negative; ``(n,)``.
        skip_first: first numbers (an attention sink) to leave out.

    Raises:
        ArgumentError: an influence is negative, or none is above zero.

    >>> effective_count([9.0, 1.0, 1.0, 1.0, 1.0, 0.0]), effective_count([9.0, 0.0, 0.0, 3.0, 0.0, 0.0])
    (4.0, 1.0)
    """
    kept = _kept(influence, skip_first=skip_first)
    if (kept < 0).any() or not kept.any():
        raise ArgumentError(
            f"influences from {kept.min():.3g} to {kept.max():.3g}, expected none negative and some above zero"
        )
    shares = kept / kept.max()
    return float(shares.sum() ** 2 / (shares**2).sum())


def _kept(influence: Any, **left_out: int) -> Float64[np.ndarray, " k"]:
    array = series_of(influence, "influence")
    counts = {name: whole(name, value, 0) for name, value in left_out.items()}
    first, last = counts["skip_first"], counts.get("skip_last", 0)
    kept = array[first : max(first, len(array) - last)]
    check_kept(len(kept), _LEAST_NUMBERS, "numbers", **left_out)
    return kept
