"""What a chart's axes show, in numbers: ranges, ticks and places, for renderers that draw curves by hand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from tl_jacobian.render.colors import RGB, curve_colors
from tl_jacobian.results.panels import Curve, Curves

_STEPS = (1.0, 2.0, 5.0, 10.0)
_SHIFT = 0.006  # of the axis, between curves with intervals


class Axis(NamedTuple):
    """From ``low`` to ``high``, linear or logarithmic."""

    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """How far along the axis a value is: 0 at its low end, 1 at its high end.

        >>> Axis(1.0, 100.0, log=True).share(10.0)
        0.5
        """
        if not self.log:
            return (value - self.low) / (self.high - self.low)
        return math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)

    def holds(self, value: float) -> bool:
        """Whether the axis reaches a value."""
        slack = 0.0 if self.log else 1e-9 * (self.high - self.low)
        return self.low - slack <= value <= self.high + slack

    def ticks(self, most: int = 5, *, whole: bool = False) -> list[float]:
        """A few round values.

        >>> Axis(0.0, 10.0).ticks(), Axis(0.001, 2.0, log=True).ticks(4)
        ([0.0, 2.0, 4.0, 6.0, 8.0, 10.0], [0.001, 0.01, 0.1, 1.0])
        """
        return self._powers(most) if self.log else self._steps(most, whole=whole)

    def _steps(self, most: int, *, whole: bool = False) -> list[float]:
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(step * power for step in _STEPS if step * power >= rough * 0.999)
        step = max(1.0, round(step)) if whole else step
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{i * step:.10g}") + 0.0 for i in range(first, last + 1)]

    def _powers(self, most: int) -> list[float]:
        """Powers of ten; where too few are in the range, rounder first."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for steps in ((1,), (1, 3), (1, 2, 5)):
            found = [float(f"{step * 10.0**k:.10g}") for k in powers for step in steps]
            found = [tick for tick in found if self.holds(tick)]
            if len(found) > 1:
                return found[:: -(-len(found) // most)]
        few = self._steps(3)
        return few if len(few) > 1 else self._steps(6)


def tick_label(value: float) -> str:
    """A tick's number, short."""
    return f"{value:.4g}"


class Drawn(NamedTuple):
    """A curve with its colour (None: the text's), and the points of it that can be drawn."""

    curve: Curve
    color: RGB | None
    points: list[Point]


class Point(NamedTuple):
    """A point and the ends of its interval."""

    place: int
    x: float
    y: float
    low: float
    high: float


def drawn(panel: Curves, *, log_x: bool, log_y: bool) -> list[Drawn]:
    """The curves: points that have a number, aren't left out and fit the axes."""
    colors = curve_colors(panel.curves)
    return [
        Drawn(curve, color, [p for p in _points(curve) if _fits(p, panel.hidden, log_x, log_y)])
        for curve, color in zip(panel.curves, colors, strict=True)
    ]


def _points(curve: Curve) -> Iterator[Point]:
    for i, (x, y) in enumerate(zip(curve.x, curve.y, strict=True)):
        yield Point(i, x, y, curve.low[i] if curve.low else y, curve.high[i] if curve.high else y)


def _fits(point: Point, hidden: int, log_x: bool, log_y: bool) -> bool:
    if not all(map(math.isfinite, (point.x, point.y))) or (hidden and point.x < hidden):
        return False
    return (not log_x or point.x > 0) and (not log_y or point.y > 0)


def log_axes(panel: Curves) -> tuple[bool, bool]:
    """Whether the axes are logarithmic: only where something is above zero to be drawn."""
    some = [(x, y) for c in panel.curves for x, y in zip(c.x, c.y, strict=True)]
    return panel.log_x and any(x > 0 for x, _ in some), panel.log_y and any(y > 0 for _, y in some)


def x_axis(panel: Curves, *others: Curves | None) -> Axis:
    """The axis along x, shared with the curves below."""
    log, _ = log_axes(panel)
    several = [panel, *(other for other in others if other is not None)]
    found = [p.x for one in several for d in drawn(one, log_x=log, log_y=False) for p in d.points]
    found += [g.at for one in several for g in one.guides if g.axis == "x" and (not log or g.at > 0)]
    found += [0.0] if panel.hidden and not log else []
    bars = any(c.marks == "bars" for one in several for c in one.curves)
    return _axis(found, log=log, pad=0.6 if (bars or panel.whole_x) and not log else None)


def y_axis(panel: Curves, extra: Iterable[float] = ()) -> Axis:
    """The axis along y; bars stand on zero."""
    log_x, log = log_axes(panel)
    several = drawn(panel, log_x=log_x, log_y=log)
    found = [v for d in several for p in d.points for v in (p.y, p.low, p.high) if math.isfinite(v)]
    found += [g.at for g in panel.guides if g.axis == "y"]
    found += list(extra)
    if log:
        found = [value for value in found if value > 0]
    bars = any(c.marks == "bars" for c in panel.curves) and not log
    return _axis([*found, 0.0] if bars else found, log=log, floor=0.0 if bars and min(found, default=0) >= 0 else None)


def square_axis(panel: Curves) -> Axis:
    """One axis for both directions."""
    found = [abs(v) for d in drawn(panel, log_x=False, log_y=False) for p in d.points for v in (p.x, p.y)]
    negative = any(v < 0 for d in drawn(panel, log_x=False, log_y=False) for p in d.points for v in (p.x, p.y))
    limit = 1.05 * (max(found, default=0.0) or 1.0)
    return Axis(-limit if negative else 0.0, limit)


def _axis(values: list[float], *, log: bool, pad: float | None = None, floor: float | None = None) -> Axis:
    low, high = min(values, default=1.0 if log else 0.0), max(values, default=1.0)
    if log:
        spread = (high / low) ** 0.05 if high > low else 2.0
        return Axis(low / spread, high * spread, log=True)
    margin = pad if pad is not None else 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return Axis(low - margin if floor is None else floor, high + margin)


def shifts(panel: Curves, axis: Axis) -> list[float]:
    """How far each curve is moved along x, so that equal intervals don't hide each other."""
    n = len(panel.curves)
    spread = sum(bool(curve.low) for curve in panel.curves) > 1 and not axis.log and not panel.square
    step = _SHIFT * (axis.high - axis.low) if spread else 0.0
    return [step * (i - n / 2) for i in range(n)]


def bar_width(curve: Curve) -> float:
    """The smallest distance of two points of a curve."""
    places = sorted(set(curve.x))
    return min((b - a for a, b in pairwise(places)), default=1.0)
