"""What one time series, or many, say about a system: how well influence follows patterns, and how fast it fades.

Made by :mod:`tl_jacobian.studies.timeseries`, which says how; within one series influences depend on one another, so
intervals (:class:`Estimate`) are over series.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int64

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results import words
from tl_jacobian.results.base import Value
from tl_jacobian.results.panels import Cell, Curve, Curves, Panel, Table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, kw_only=True)
class PatternMatch(Value):
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

    def __post_init__(self) -> None:
        self._own_arrays("positions", dtype=np.int64)
        self._own_arrays("distances")
        if self.positions.shape != self.distances.shape or self.positions.ndim != 1:
            raise ArgumentError(
                f"positions of shape {self.positions.shape} and distances of shape {self.distances.shape}, expected "
                "one distance for each candidate"
            )

    def __repr__(self) -> str:
        n = len(self.positions)
        return f"PatternMatch({self.estimate:.3f}, p = {self.p_value:.2g}; lift {self.lift:.2f}; {n} candidates)"

    def to_dataframe(self) -> pd.DataFrame:
        """One row a candidate: position, distance."""
        import pandas as pd  # heavy to import, and a dependency of TransformerLens anyway

        return pd.DataFrame({"position": self.positions, "distance": self.distances})

    def panels(self, *, skip_first: bool = True) -> tuple[Panel, ...]:
        """The three numbers; and how far each candidate's motif is from the last one."""
        numbers = _row(
            "pattern match", {"correlation": self.estimate, "p": self.p_value, "lift": self.lift}, len(self.positions)
        )
        x, y = tuple(map(float, self.positions)), tuple(map(float, self.distances))
        curves = Curves(
            title="distance to the last motif",
            curves=(Curve(name="candidates", x=x, y=y, marks="points", role="ink"),),
            x_axis="position of the number",
            y_axis="distance of delay vectors",
            whole_x=True,
        )
        return numbers, curves


@dataclass(frozen=True, eq=False, kw_only=True)
class ForgettingSlope(Value):
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

    def to_dataframe(self) -> pd.DataFrame:
        """One row of the four numbers."""
        return _table(self)

    def panels(self, *, skip_first: bool = True) -> tuple[Panel, ...]:
        """The numbers as a row of a table."""
        what = "log-influence" if self.log else "influence"
        title = f"slope of {what} over position"
        return (_row(title, {"change per number": self.estimate, "change in all": self.total}, self.n),)


@dataclass(frozen=True, eq=False, kw_only=True)
class Estimate(Value):
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

    def to_dataframe(self) -> pd.DataFrame:
        """One row of all its numbers."""
        return _table(self)

    def panels(self, *, skip_first: bool = True) -> tuple[Panel, ...]:
        """The numbers as a row of a table."""
        ends = {f"{self.confidence:.0%} from": self.low, "to": self.high}
        return (_row(self.test, {"estimate": self.estimate, **ends, "p": self.p_value}, self.n),)


def _row(title: str, numbers: Mapping[str, float], n: int) -> Table:
    """A table of one row."""
    cells = [*(words.number(number) for number in numbers.values()), str(n)]
    return Table(
        title=title,
        header=(*numbers, "n"),
        rows=(tuple(map(Cell, cells)),),
        numbers=tuple(range(len(cells))),
    )


def _table(value: ForgettingSlope | Estimate) -> pd.DataFrame:
    import pandas as pd  # heavy to import, and a dependency of TransformerLens anyway

    return pd.DataFrame([{f.name: getattr(value, f.name) for f in dataclasses.fields(value)}])
