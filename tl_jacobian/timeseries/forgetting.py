"""Forgetting: does influence rise towards the end of the context, and how many numbers share it?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.stats import theilslopes

from tl_jacobian.errors import ArgumentError
from tl_jacobian.timeseries.checks import check_count, series_of
from tl_jacobian.timeseries.estimates import check_kept

_LEAST = 5


@dataclass(frozen=True, kw_only=True)
class ForgettingSlope:
    """How influence changes along one series.

    There is no interval: influences of one series depend on one another, so it would be too narrow. Compare series.

    Attributes:
        estimate: change of log-influence (or of influence) per number; above 0, the early context fades.
        total: the same from the first number that was counted to the last.
        n: numbers that were counted.
        log: whether it is of the logarithm.
    """

    estimate: float
    total: float
    n: int
    log: bool


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
    counts = {name: check_count(name, value, 0) for name, value in left_out.items()}
    first, last = counts["skip_first"], counts.get("skip_last", 0)
    kept = array[first : max(first, len(array) - last)]
    check_kept(len(kept), _LEAST, "numbers", **left_out)
    return kept
