"""Curves as shapes of an SVG picture, in the colours of the page around it: dark and light themes both work.

This module places shapes; ``templates/curves.html`` writes them. The curves below share the x axis, those beside the
y axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from tl_jacobian.render import chart, words
from tl_jacobian.render.chart import Axis, Drawn, Point
from tl_jacobian.render.colors import GUIDE, css_color, hex_color
from tl_jacobian.results.panels import Curves, Guide
from tl_jacobian.results.tokens import visible

_INCH = 92  # pixels
_WIDTH, _HEIGHT, _SQUARE = 560.0, 250.0, 300.0
_BELOW, _BESIDE = 110.0, 120.0
_LEFT, _RIGHT, _TOP, _BOTTOM, _GAP = 62.0, 14.0, 10.0, 40.0, 16.0
_LETTER = 6.2  # pixels
_GRID = "#80808066"
_INK = "currentColor"


class Shape(NamedTuple):
    """One element: its tag, attributes, text content and what the pointer is told."""

    tag: str
    attributes: dict[str, Any]
    text: str = ""
    title: str = ""


class Legend(NamedTuple):
    """A curve's name and sample; without a colour a guide's."""

    name: str
    color: str
    width: int
    height: int


class Chart(NamedTuple):
    """A picture: its size in pixels, its shapes in drawing order, and its legend."""

    width: int
    height: int
    shapes: list[Shape]
    legend: list[Legend]


class _Box(NamedTuple):
    """A rectangle of the picture with its two axes; where it is turned, x runs upwards."""

    left: float
    top: float
    width: float
    height: float
    across: Axis
    up: Axis

    def x(self, value: float) -> float:
        return self.left + self.across.share(value) * self.width

    def y(self, value: float) -> float:
        return self.top + (1 - self.up.share(value)) * self.height

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height


def chart_of(panel: Curves) -> Chart:
    """The picture of a panel."""
    beside = panel.beside
    across = chart.square_axis(panel) if panel.square else chart.x_axis(panel, panel.below)
    up = chart.square_axis(panel) if panel.square else chart.y_axis(panel, _wanted(beside))
    width = float(min(max(panel.width * _INCH, 320.0), 980.0)) if panel.width else _WIDTH
    inner = _SQUARE if panel.square else width - _LEFT - _RIGHT - (_BESIDE if beside else 0.0)
    main = _Box(_LEFT, _TOP, inner, _SQUARE if panel.square else _HEIGHT, across, up)
    shapes = _plot(panel, main, named=panel.below is None)
    bottom, legend = main.bottom, _legend(panel)
    if panel.below is not None:
        under = _Box(_LEFT, main.bottom + _GAP, inner, _BELOW, across, chart.y_axis(panel.below))
        shapes += _plot(panel.below, under, named=True, x_name=panel.below.x_axis or panel.x_axis, whole=panel.whole_x)
        bottom = under.bottom
        legend += _legend(panel.below, always=True)
    if beside is not None:
        shapes += _sideways(beside, main)
        legend += _legend(beside, always=True)
    total = round(main.right + _RIGHT + (_BESIDE if beside else 0.0))
    return Chart(total, round(bottom + _BOTTOM), shapes, legend)


def _wanted(beside: Curves | None) -> list[float]:
    """What the y axis must show of the curves beside: where they are more than a hundredth of their largest."""
    if beside is None:
        return []
    found = [guide.at for guide in beside.guides if guide.axis == "x"]
    for curve in beside.curves:
        top = max(filter(math.isfinite, curve.y), default=0.0)
        found += [x for x, y in zip(curve.x, curve.y, strict=True) if y > 0.01 * top]
    return found


# -- one plot ------------------------------------------------------------------------------


def _plot(panel: Curves, box: _Box, *, named: bool, x_name: str = "", whole: bool = False) -> list[Shape]:
    """Axes, guides and curves; ``named`` says whether the x axis has numbers and a name."""
    shapes = _y_ticks(box, panel.y_axis) + (
        _x_ticks(box, x_name or panel.x_axis, whole or panel.whole_x) if named else []
    )
    if panel.hidden:
        shapes += _hatch(box, box.x(max(-0.5, box.across.low)), box.x(panel.hidden - 0.5))
    for guide in panel.guides:
        shapes += _guide(guide, box)
    log_x, log_y = chart.log_axes(panel)
    moved = chart.shifts(panel, box.across)
    for i, one in enumerate(chart.drawn(panel, log_x=log_x, log_y=log_y)):
        shapes += _curve(one, i, moved[i], box)
    return [*shapes, _frame(box)]


def _frame(box: _Box) -> Shape:
    corner = f"M{_n(box.left)},{_n(box.top)}V{_n(box.bottom)}H{_n(box.right)}"
    return Shape("path", {"d": corner, "stroke": _INK, "stroke-opacity": 0.6})


def _y_ticks(box: _Box, name: str) -> list[Shape]:
    shapes = []
    for tick in box.up.ticks(5 if box.height > 150 else 3):
        y = box.y(tick)
        shapes.append(_line(box.left, y, box.right, y, stroke=_GRID, width=0.6))
        shapes.append(_text(box.left - 6, y + 4, chart.tick_label(tick), "end"))
    x, y = 13.0, box.top + box.height / 2
    turned = {"transform": f"rotate(-90 {_n(x)} {_n(y)})"}
    for i, line in enumerate(_wrapped(name, box.height)[:2]):
        shapes.append(_text(x, y + 11 * i - (2 if i else 0), _clipped(line, box.height), "middle", **turned))
    return shapes


def _x_ticks(box: _Box, name: str, whole: bool) -> list[Shape]:
    shapes = []
    for tick in box.across.ticks(max(3, round(box.width / 80)), whole=whole):
        x = box.x(tick)
        shapes.append(_line(x, box.bottom, x, box.bottom + 4, stroke=_INK, width=0.8))
        shapes.append(_text(x, box.bottom + 16, chart.tick_label(tick), "middle"))
    middle = box.left + box.width / 2
    shapes.append(_text(middle, box.bottom + 33, _clipped(visible(name), box.width + 70), "middle"))
    return shapes


def _guide(guide: Guide, box: _Box) -> list[Shape]:
    ends = None
    if guide.axis == "x" and box.across.holds(guide.at):
        ends = (box.x(guide.at), box.top, box.x(guide.at), box.bottom)
    elif guide.axis == "y" and box.up.holds(guide.at):
        ends = (box.left, box.y(guide.at), box.right, box.y(guide.at))
    elif guide.axis == "diagonal":
        low, high = max(box.across.low, box.up.low), min(box.across.high, box.up.high)
        ends = (box.x(low), box.y(low), box.x(high), box.y(high)) if low < high else None
    return [] if ends is None else [_line(*ends, stroke="#808080", width=1.1, dash="5 4", title=guide.label)]


def _hatch(box: _Box, left: float, right: float) -> list[Shape]:
    """Slanted lines over a part of a plot."""
    width, height = right - left, box.height
    shapes = []
    for c in range(6, int(width + height), 6):
        x1, y1 = max(0.0, c - height), min(float(c), height)
        x2, y2 = min(float(c), width), max(0.0, c - width)
        shapes.append(_line(left + x1, box.top + y1, left + x2, box.top + y2, stroke=_GRID, width=1.6))
    return shapes


# -- one curve ------------------------------------------------------------------------------


def _curve(drawn: Drawn, order: int, moved: float, box: _Box) -> list[Shape]:
    color = _INK if drawn.color is None else hex_color(drawn.color)
    if drawn.curve.marks == "bars":
        return _bars(drawn, color, box)
    shapes: list[Shape] = []
    places = [(box.x(p.x + moved), box.y(p.y)) for p in drawn.points]
    if drawn.curve.marks == "line" and len(places) > 1:
        shapes.append(Shape("path", {"d": _path(drawn.points, places), "stroke": color, "stroke-width": 1.6}))
    for point, (x, _) in zip(drawn.points, places, strict=True):
        shapes += _interval(point, x, box, color)
    size = 3.4 if len(places) <= 60 or drawn.curve.marks == "points" else 2.2
    for point, (x, y) in zip(drawn.points, places, strict=True):
        look = {"fill-opacity": 0.65} if drawn.curve.marks == "points" else {}
        mark = _mark(0 if drawn.curve.marks == "points" else order, x, y, size)
        shapes.append(Shape("path", {"d": mark, "fill": color, **look}, title=_said(drawn, point)))
    return shapes


def _path(points: Sequence[Point], places: Sequence[tuple[float, float]]) -> str:
    """A line through neighbours; what is left out between them interrupts it."""
    steps = [f"M{_n(places[0][0])},{_n(places[0][1])}"]
    for (one, other), (x, y) in zip(pairwise(points), places[1:], strict=True):
        steps.append(f"{'L' if other.place == one.place + 1 else 'M'}{_n(x)},{_n(y)}")
    return "".join(steps)


def _interval(point: Point, x: float, box: _Box, color: str) -> list[Shape]:
    if point.low == point.high or not (math.isfinite(point.low) and math.isfinite(point.high)):
        return []
    low = box.y(max(point.low, box.up.low))
    high = box.y(min(point.high, box.up.high))
    caps = f"M{_n(x)},{_n(low)}V{_n(high)}M{_n(x - 2.5)},{_n(low)}h5M{_n(x - 2.5)},{_n(high)}h5"
    return [Shape("path", {"d": caps, "stroke": color, "stroke-width": 1.2})]


def _bars(drawn: Drawn, color: str, box: _Box) -> list[Shape]:
    zero = box.y(min(max(0.0, box.up.low), box.up.high))
    half = 0.4 * chart.bar_width(drawn.curve)
    shapes = []
    for point in drawn.points:
        left, right, y = box.x(point.x - half), box.x(point.x + half), box.y(point.y)
        shapes.append(_rect(left, min(y, zero), max(right - left, 0.5), abs(zero - y), color, _said(drawn, point)))
        shapes += _interval(point, (left + right) / 2, box, _INK)
    return shapes


def _sideways(panel: Curves, main: _Box) -> list[Shape]:
    """Curves over the main plot's y axis, drawn to the right."""
    across = chart.y_axis(panel)
    across = Axis(min(0.0, across.low), across.high) if not across.log else across
    box = _Box(main.right + 10, main.top, _BESIDE - 14, main.height, across, main.up)
    shapes: list[Shape] = []
    for one in chart.drawn(panel, log_x=False, log_y=across.log):
        color = _INK if one.color is None else hex_color(one.color)
        places = [(box.x(p.y), box.y(p.x)) for p in one.points if main.up.holds(p.x)]
        if one.curve.marks == "bars":
            high = max(abs(box.y(0.0) - box.y(chart.bar_width(one.curve))) if not main.up.log else 3.0, 1.0)
            zero = box.x(max(0.0, across.low))
            kept = [p for p in one.points if main.up.holds(p.x)]
            for point, (x, y) in zip(kept, places, strict=True):
                shapes.append(_rect(zero, y - high / 2, max(x - zero, 0.0), high, color + "bf", _said(one, point)))
        elif places:
            path = "L".join(f"{_n(x)},{_n(y)}" for x, y in places)
            shapes.append(Shape("path", {"d": f"M{path}", "stroke": color, "stroke-width": 1.6}))
    for guide in panel.guides:
        if guide.axis == "x" and main.up.holds(guide.at):
            y = box.y(guide.at)
            shapes.append(_line(box.left, y, box.right, y, stroke=hex_color(GUIDE), width=1.6, title=guide.label))
    top = max((p.y for one in chart.drawn(panel, log_x=False, log_y=False) for p in one.points), default=0.0)
    if across.holds(top):
        shapes.append(_text(box.x(top), box.bottom + 16, words.number(top), "middle"))
    shapes.append(_line(box.left, box.bottom, box.right, box.bottom, stroke=_INK, width=0.8))
    shapes.append(
        _text(box.left + box.width / 2, box.bottom + 33, _clipped(visible(panel.y_axis), box.width), "middle")
    )
    return shapes


def _legend(panel: Curves, *, always: bool = False) -> list[Legend]:
    """Names, unless there is nothing to tell apart."""
    drawn = chart.drawn(panel, log_x=False, log_y=False)
    labels = [guide for guide in panel.guides if guide.label]
    several = always or len(drawn) + len(labels) > 1 or panel.below is not None or panel.beside is not None
    if not several:
        return []
    found = [
        Legend(one.curve.name, "#808080" if one.color is None else css_color(one.color), *_sample(one))
        for one in drawn
        if one.curve.name
    ]
    found += [
        Legend(guide.label, hex_color(GUIDE) if always and guide.axis == "x" else "", 14, 2 if always else 0)
        for guide in labels
    ]
    return found


def _sample(drawn: Drawn) -> tuple[int, int]:
    return {"line": (16, 3), "points": (7, 7), "bars": (9, 9)}[drawn.curve.marks]


# -- shapes --------------------------------------------------------------------------------


def _mark(order: int, x: float, y: float, r: float) -> str:
    """A circle, square, diamond, two triangles, a plus or a cross: they say the same as the colour."""
    circle = f"M{_n(x - r)},{_n(y)}a{_n(r)},{_n(r)} 0 1,0 {_n(2 * r)},0a{_n(r)},{_n(r)} 0 1,0 {_n(-2 * r)},0"
    square = f"M{_n(x - r)},{_n(y - r)}h{_n(2 * r)}v{_n(2 * r)}h{_n(-2 * r)}z"
    diamond = (
        f"M{_n(x)},{_n(y - 1.3 * r)}L{_n(x + 1.3 * r)},{_n(y)}L{_n(x)},{_n(y + 1.3 * r)}L{_n(x - 1.3 * r)},{_n(y)}z"
    )
    down = f"M{_n(x - 1.1 * r)},{_n(y - r)}h{_n(2.2 * r)}L{_n(x)},{_n(y + 1.1 * r)}z"
    peak = f"M{_n(x - 1.1 * r)},{_n(y + r)}h{_n(2.2 * r)}L{_n(x)},{_n(y - 1.1 * r)}z"
    t = r / 2.5
    plus = f"M{_n(x - r)},{_n(y - t)}h{_n(2 * r)}v{_n(2 * t)}h{_n(-2 * r)}z"
    plus += f"M{_n(x - t)},{_n(y - r)}h{_n(2 * t)}v{_n(2 * r)}h{_n(-2 * t)}z"
    flat = f"M{_n(x - 1.3 * r)},{_n(y - t)}h{_n(2.6 * r)}v{_n(2 * t)}h{_n(-2.6 * r)}z"
    return (circle, square, diamond, down, peak, plus, flat)[order % 7]


def _said(drawn: Drawn, point: Point) -> str:
    name = f"{visible(drawn.curve.name)}: " if drawn.curve.name else ""
    around = f" [{words.number(point.low)}, {words.number(point.high)}]" if point.low != point.high else ""
    return f"{name}{point.x:.6g}, {words.number(point.y)}{around}"


def _line(
    x1: float, y1: float, x2: float, y2: float, *, stroke: str, width: float, dash: str | None = None, title: str = ""
) -> Shape:
    ends = {"x1": _n(x1), "y1": _n(y1), "x2": _n(x2), "y2": _n(y2)}
    return Shape("line", {**ends, "stroke": stroke, "stroke-width": width, "stroke-dasharray": dash}, title=title)


def _rect(x: float, y: float, width: float, height: float, fill: str, title: str) -> Shape:
    place = {"x": _n(x), "y": _n(y), "width": _n(width), "height": _n(height)}
    return Shape("rect", {**place, "fill": fill}, title=title)


def _text(x: float, y: float, text: str, anchor: str, **more: str) -> Shape:
    return Shape("text", {"x": _n(x), "y": _n(y), "text-anchor": anchor, "fill": _INK, **more}, text)


def _wrapped(name: str, length: float) -> list[str]:
    """A name on lines that fit so many pixels."""
    lines = [""]
    for word in visible(name).split(" "):
        if lines[-1] and (len(lines[-1]) + len(word) + 1) * _LETTER > length:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _clipped(text: str, length: float) -> str:
    """A text that fits so many pixels."""
    most = int(length / _LETTER)
    return text if len(text) <= most else text[: most - 1] + "…"


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
