"""Pattern matching: does influence sit where the past looked like the present?

Zhang and Gilpin (2025) conjecture that language models forecast by parroting: they look for the earlier
motif that is most like the last few numbers, and copy what followed it. In the language of dynamical systems, the motif
is the delay vector (s_i, s_{i-lag}, …) and the best match is the nearest neighbour of the last one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from scipy.stats import rankdata

from tl_jacobian.errors import ArgumentError
from tl_jacobian.timeseries.checks import check_count, series_of
from tl_jacobian.timeseries.estimates import check_kept

_LEAST = 10  # candidates; with fewer, circular shifts can hardly reach p = 0.1


@dataclass(frozen=True, eq=False, kw_only=True)
class PatternMatch:
    """How well influence follows nearness to the present, in one series.

    Attributes:
        estimate: rank correlation of influence and nearness, both with their trend over the positions removed.
        p_value: share of circular shifts of the influence that correlate at least as much, no shift included.
        lift: mean influence where the nearest tenth of the motifs is, over the mean of all; descriptive, its
            trend not removed.
        positions: of the numbers whose influence was taken; ``(candidates,)``.
        distances: from each one's motif to the last; ``(candidates,)``.
    """

    estimate: float
    p_value: float
    lift: float
    positions: Int64[np.ndarray, " candidates"]
    distances: Float64[np.ndarray, " candidates"]

    def __repr__(self) -> str:
        n = len(self.positions)
        return f"PatternMatch({self.estimate:.3f}, p = {self.p_value:.2g}; lift {self.lift:.2f}; {n} candidates)"


def delay_vectors(values: Any, dimension: int = 3, lag: int = 1) -> Float64[np.ndarray, "n dimension"]:
    """The delay vectors (s_i, s_{i-lag}, …, s_{i-(dimension-1) lag}) of a series, from the first whole one on.

    Raises:
        ArgumentError: the series is shorter than one of them.

    >>> delay_vectors([1.0, 2.0, 3.0, 4.0], dimension=2).tolist()
    [[2.0, 1.0], [3.0, 2.0], [4.0, 3.0]]
    """
    array = series_of(values)
    span = (check_count("dimension", dimension) - 1) * check_count("lag", lag)
    if len(array) <= span:
        raise ArgumentError(
            f"delay vectors of dimension={dimension} and lag={lag} span {span + 1} numbers, and the series has "
            f"{len(array)}"
        )
    return np.stack([array[span - k * lag : len(array) - k * lag] for k in range(dimension)], axis=1)


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
    window = span if exclude is None else check_count("exclude", exclude, 0)
    places = _candidates(
        len(array), span, check_count("shift", shift, 0), window, check_count("skip_first", skip_first, 0)
    )
    distances = np.linalg.norm(vectors[places - shift - span] - vectors[-1], axis=1)
    rho, p_value = _shifted_correlation(scores[places], -distances, check_count("trend", trend, 0, 5))
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
    check_kept(len(places), _LEAST, "earlier motifs", exclude=window, skip_first=skip_first)
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
