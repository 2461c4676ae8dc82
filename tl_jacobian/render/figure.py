"""Panels as matplotlib figures, for papers. matplotlib is loaded when something is drawn.

User text never becomes mathematics: every text is set with ``parse_math=False``.
"""

from __future__ import annotations

import math
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import singledispatch
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tl_jacobian.render import chart, words
from tl_jacobian.render.colors import (
    GUIDE,
    MAX_OPACITY,
    NEGATIVE,
    POSITIVE,
    RGB,
    blend,
    curve_colors,
    hue,
    kind_colors,
    kinds_of,
    unit,
)
from tl_jacobian.results.panels import Bars, Curve, Curves, HeatMap, Panel, StripRow, Table, TokenStrip
from tl_jacobian.results.tokens import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LABELS = 72  # more can't be read at the size of a page
_LETTER = 0.55  # width of a title's letter, in sizes of its font
_WIDEST, _HIGHEST = 14.0, 14.0  # inches
_INK = "#222222"
_MARKERS = "osDv^PX*"

_LINE = 80  # characters of a text's line
_NOTE = 135  # of a line of small print
_NOTE_HEIGHT = 0.75  # of a line of small print, in lines
_LINE_HEIGHT = 0.25  # inches
_STRIP_WIDTH = 7.5  # inches
_MONO = 0.6  # width of a monospaced character, in font sizes
_FILLED = 0.96  # of a line, for axes have margins

_SMALL = 7  # points; of all text in a series, to be read at a journal's column width
_BELOW = 0.36  # the part of the height that the curves below have


def figure(panels: Sequence[Panel], ax: Axes | None = None) -> Axes:
    """Draw panels into a figure; returns the first one's axes.

    Args:
        panels: those that are drawn in figures, in order: one figure holds them all, heat maps and curves of one kind
            side by side.
        ax: matplotlib axes that the first is drawn into, alone; default a new figure's.

    Raises:
        ArgumentError: there is nothing to draw.
        ImportError: matplotlib isn't installed.
    """
    shown = words.seen(panels, "figure")
    plt = _pyplot()
    if ax is not None or len(shown) == 1:
        only: Axes = plt.subplots(figsize=_size(shown[0]), layout="constrained")[1] if ax is None else ax
        draw(shown[0], only)
        return only
    bands = _bands(shown)
    heights = [max(_size(panel)[1] for panel in band) for band in bands]
    width = max(sum(_size(panel)[0] for panel in band) for band in bands)
    made = plt.figure(figsize=(min(width, 2 * _WIDEST), sum(heights)), layout="constrained")
    grid = made.add_gridspec(len(bands), 1, height_ratios=heights)
    axes = []
    for place, band in enumerate(bands):
        inside = grid[place].subgridspec(1, len(band), width_ratios=[_size(panel)[0] for panel in band])
        axes += [(panel, made.add_subplot(inside[i])) for i, panel in enumerate(band)]
    for i, (panel, place) in enumerate(axes):
        after = axes[i + 1][0] if i + 1 < len(axes) else None
        if isinstance(panel, HeatMap):
            _heat_map(panel, place, bar=not _same_scale(panel, after))
        else:
            draw(panel, place)
    return axes[0][1]


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise ImportError("a plot needs matplotlib: pip install 'tl-jacobian[plot]'") from error
    return plt


def _bands(panels: Sequence[Panel]) -> list[list[Panel]]:
    """Panels side by side where they compare: heat maps of the same rows and what is plotted of them; curves."""
    bands: list[list[Panel]] = []
    for panel in panels:
        band = bands[-1] if bands else []
        fits = bool(band) and sum(_size(other)[0] for other in (*band, panel)) <= 2 * _WIDEST
        if fits and _beside(band[-1], panel):
            band.append(panel)
        else:
            bands.append([panel])
    return bands


def _beside(panel: Panel, after: Panel) -> bool:
    if isinstance(after, HeatMap):
        return isinstance(panel, HeatMap) and panel.rows == after.rows
    if isinstance(after, Curves):
        return isinstance(panel, Curves) or (after.square and isinstance(panel, HeatMap))
    return isinstance(after, Bars) and after.aside


def _same_scale(panel: HeatMap, after: Panel | None) -> bool:
    alike = isinstance(after, HeatMap) and _beside(panel, after) and len(panel.scales) == len(after.scales) == 1
    return alike and isinstance(after, HeatMap) and panel.scales[0].limit == after.scales[0].limit


@singledispatch
def draw(panel: Panel, ax: Axes) -> None:
    """Draw a panel into axes."""
    raise TypeError(f"figures draw no {type(panel).__name__}")


@singledispatch
def _size(panel: Panel) -> tuple[float, float]:
    """Inches of a figure of its own."""
    raise TypeError(f"figures draw no {type(panel).__name__}")


# -- texts on colours ----------------------------------------------------------------------


class _Placed(NamedTuple):
    """A unit, or a part of one, on a line of monospaced text."""

    unit: int
    text: str
    line: int
    column: int


@_size.register(TokenStrip)
def _(panel: TokenStrip) -> tuple[float, float]:
    rows, several = _strip_rows(panel), len(panel.rows) > 1
    lines = sum(_lines(panel, row) for row in rows)
    lines += sum(1.2 + _NOTE_HEIGHT * len(_noted(words.row_facts(panel, row))) for row in rows) if several else 0
    lines += _NOTE_HEIGHT * len(_noted(_strip_facts(panel)))
    return _STRIP_WIDTH, min(0.55 + _LINE_HEIGHT * lines, 3 * _HIGHEST)


def _strip_rows(panel: TokenStrip) -> Sequence[StripRow]:
    return panel.rows if panel.together else panel.rows[panel.chosen : panel.chosen + 1]


def _strip_facts(panel: TokenStrip) -> list[str]:
    rows = _strip_rows(panel)
    facts = [*map(visible, panel.legend), words.strip_left_out(panel, rows)]
    if len(panel.rows) != 1:
        return facts
    return [*words.row_facts(panel, rows[0]), words.scale_range(rows[0].scale), *facts]


def _lines(panel: TokenStrip, row: StripRow) -> int:
    return max((part.line for part in _placed(_texts(panel, row))), default=0) + 1


def _texts(panel: TokenStrip, row: StripRow) -> list[str]:
    """Of the units, and of what comes after them."""
    return [*(item.text for item in panel.units), *([f" {row.coming}"] if row.coming else [])]


@draw.register(TokenStrip)
def _(panel: TokenStrip, ax: Axes) -> None:
    """Coloured words on lines, one row below the other, and what full colour is."""
    rows, line = _strip_rows(panel), 0.0
    size = _FILLED * _points(ax)[0] / _LINE / _MONO
    for row in rows:
        if len(panel.rows) > 1:
            ax.text(
                0, line, _clipped(visible(row.label)), size=size, weight="bold", va="center_baseline", parse_math=False
            )
            line += 1
        placed = list(_placed(_texts(panel, row)))
        for part in placed:
            _draw_unit(ax, panel, row, part, line, size)
        line += max((part.line for part in placed), default=0) + 1
        if len(panel.rows) > 1:
            line += _note(ax, line - 0.1, words.row_facts(panel, row), size) + 0.2
    ax.set_axis_off()
    line += _note(ax, line, _strip_facts(panel), size)
    room = _points(ax)[1] / 72 / _LINE_HEIGHT  # lines are as high as in a figure of their own, whatever stands beside
    ax.set(xlim=(-0.5, _LINE + 0.5), ylim=(max(line, room - 0.6) - 0.1, -0.6))
    head(ax, words.heading(panel) or (visible(rows[0].label) if len(rows) == 1 else ""))


def _note(ax: Axes, line: float, facts: Iterable[str], size: float) -> float:
    """Small print; returns its height in lines."""
    lines = _noted(facts)
    look: dict[str, Any] = dict(size=0.8 * size, color="0.4", va="center_baseline", parse_math=False, gid="note")
    for i, text in enumerate(lines):
        ax.text(0, line + _NOTE_HEIGHT * i, text, **look)
    return _NOTE_HEIGHT * len(lines)


def _noted(facts: Iterable[str]) -> list[str]:
    return textwrap.wrap("; ".join(filter(None, facts)), _NOTE)


def _clipped(text: str, most: int = _LINE) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _draw_unit(ax: Axes, panel: TokenStrip, row: StripRow, part: _Placed, line: float, size: float) -> None:
    """A piece of text on its colour, hatched, or in its frame."""
    from matplotlib.patches import Rectangle

    i, length, at = part.unit, _cells(part.text), line + part.line
    value = row.values[i] if i < len(row.values) else math.nan
    corner = (part.column, at - 0.42)
    if i in panel.hidden:
        ax.add_patch(
            Rectangle(corner, length, 0.84, facecolor="#eeeeee", edgecolor="#b0b0b0", hatch="////", linewidth=0)
        )
    elif not math.isnan(value):
        shade = (*unit(hue(value)), MAX_OPACITY * row.scale.strength(value))
        ax.add_patch(Rectangle(corner, length, 0.84, facecolor=shade, edgecolor="none"))
    if i in row.framed:
        around = (part.column - 0.2, at - 0.46)
        ax.add_patch(Rectangle(around, length + 0.4, 0.92, fill=False, edgecolor=unit(NEGATIVE), lw=1.6))
    coming = i >= len(panel.units)
    look: dict[str, Any] = dict(family="monospace", size=size, ha="center", va="center_baseline", parse_math=False)
    look |= dict(style="italic" if coming else "normal", alpha=0.4 if words.is_later(row, i) and not coming else 1.0)
    ax.text(part.column + length / 2, at, part.text, **look)


def _placed(texts: Iterable[str]) -> Iterator[_Placed]:
    """Units on lines of _LINE characters; spaces before words are left unshaded."""
    line, column = 0, 0
    for i, text in enumerate(texts):
        for part in visible(text).replace("↵", "↵\n").splitlines(keepends=True) or [""]:
            word = part.strip("\n")
            space = len(word) - len(word.lstrip(" "))
            if column and column + _cells(word) > _LINE:
                line, column, space, word = line + 1, 0, 0, word.lstrip(" ")
            yield _Placed(i, word[space:], line, column + space)
            column += _cells(word)
            if part.endswith("\n"):
                line, column = line + 1, 0


def _cells(text: str) -> int:
    """Width in monospaced characters: those of East Asian scripts are two wide, marks none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


# -- heat maps ------------------------------------------------------------------------------


@_size.register(HeatMap)
def _(panel: HeatMap) -> tuple[float, float]:
    """A fifth of an inch for each row and column, as far as a page allows; columns named upright are wider."""
    names = words.column_names(panel)
    wide = 0.45 if len(names) <= 20 and panel.frames else 0.2
    return min(3.5 + wide * len(names), _WIDEST), min(1.5 + 0.2 * len(panel.rows), _HIGHEST)


@draw.register(HeatMap)
def _(panel: HeatMap, ax: Axes) -> None:
    _heat_map(panel, ax, bar=True)


def _heat_map(panel: HeatMap, ax: Axes, *, bar: bool) -> None:
    """Rows from top to bottom, columns from left to right; ``bar`` says whether to draw the colour bar."""
    head(ax, words.heading(panel))
    if not panel.rows or not panel.columns:
        ax.set_axis_off()
        return
    per_row = len(panel.scales) > 1
    signed = words.heat_signed(panel)
    full = 1.0 if per_row or not panel.scales else panel.scales[0].limit or 1.0
    look: dict[str, Any] = dict(vmin=-full if signed else 0.0, vmax=full, aspect="auto", interpolation="none")
    image = ax.imshow(_shades(panel, per_row), cmap=_color_map(signed=signed), **look)
    ax.patch.set(facecolor="#f4f4f4", edgecolor="#b8b8b8", hatch="////")  # seen where there is no number
    for row, values in enumerate(panel.values):  # what comes later isn't missing: it can't matter
        rest = len(panel.columns) - len(values)
        if rest:
            ax.barh(row, rest, height=1.0, left=len(values) - 0.5, color="white", linewidth=0)
    for column in panel.hidden:
        ax.axvspan(column - 0.5, column + 0.5, facecolor="#dddddd", edgecolor="#b0b0b0", hatch="////", linewidth=0)
    _frames(panel, ax)
    _label_heat(panel, ax)
    if bar:
        _color_bar(panel, ax, image, per_row)


def _shades(panel: HeatMap, per_row: bool) -> Any:
    """Values, as shares of full colour where rows have ranges of their own; NaN where there is no colour."""
    import numpy as np

    shares = np.full((len(panel.rows), len(panel.columns)), np.nan)
    for row, column, value in words.numbers(panel):
        shares[row, column] = max(-1.0, min(1.0, value / (panel.scale(row).limit or 1.0))) if per_row else value
    return shares


def _color_map(*, signed: bool) -> Any:
    """The page's colours on white, from zero or (signed) from minus the limit; nothing for NaN."""
    from matplotlib import colors

    stops = [unit(NEGATIVE), (1.0, 1.0, 1.0), unit(POSITIVE)][0 if signed else 1 :]
    return colors.LinearSegmentedColormap.from_list("tl_jacobian", stops).with_extremes(bad="#00000000")


def _frames(panel: HeatMap, ax: Axes) -> None:
    from matplotlib.patches import Rectangle

    for frame in panel.frames:
        place, style = (frame.column - 0.44, frame.row - 0.44), "dashed" if frame.dashed else "solid"
        ax.add_patch(Rectangle(place, 0.88, 0.88, fill=False, edgecolor=unit(NEGATIVE), linestyle=style, lw=1.4))


def _label_heat(panel: HeatMap, ax: Axes) -> None:
    columns = [f"{visible(c.text)} {i}" if panel.numbered else visible(c.text) for i, c in enumerate(panel.columns)]
    name_ticks(ax, "y", words.row_names(panel))
    name_ticks(ax, "x", columns)
    ax.xaxis.tick_top()
    ax.tick_params(axis="x", rotation=0 if max(map(len, columns), default=0) <= 3 else 90)
    ax.tick_params(length=0)
    ax.set_ylabel(visible(panel.row_axis), fontsize=8, parse_math=False)
    notes = [
        visible(panel.column_axis),
        words.heat_left_out(panel),
        *map(visible, panel.legend if panel.frames else ()),
    ]
    ax.set_xlabel("\n".join(filter(None, notes)), fontsize=8, parse_math=False)


def _color_bar(panel: HeatMap, ax: Axes, image: Any, per_row: bool) -> None:
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8)
    bar.ax.tick_params(labelsize=8)
    if per_row:
        low = [-1.0] if words.heat_signed(panel) else []
        bar.set_ticks([*low, 0.0, 1.0], labels=[*(["−full"] if low else []), "0", "largest of its row"], fontsize=8)
    facts = ["each row on its own scale" if per_row else "", visible(panel.quantity)]
    most = max(20, int(_points(ax)[1] / (_LETTER * 8)))
    bar.set_label("\n".join(textwrap.fill(fact, most) for fact in facts if fact), fontsize=8)
    bar.ax.yaxis.label.set_parse_math(False)


# -- bars --------------------------------------------------------------------------------------


@_size.register(Bars)
def _(panel: Bars) -> tuple[float, float]:
    return (3.2 if panel.aside else 7.0), min(1.6 + 0.15 * len(panel.bars), _HIGHEST)


@draw.register(Bars)
def _(panel: Bars, ax: Axes) -> None:
    """A bar for each from top to bottom, and the line of their running total."""
    values = [bar.value if math.isfinite(bar.value) else math.nan for bar in panel.bars]
    colors = kind_colors(panel)
    many = len(colors) > 1 or panel.running
    for kind in kinds_of(panel):
        at = [i for i, bar in enumerate(panel.bars) if bar.kind == kind]
        name = (words.kind_name(panel, kind) or "other") if many else None
        ax.barh(at, [values[i] for i in at], height=0.8, color=unit(colors[kind]), label=name)
    errors = [math.nan if bar.error is None else bar.error for bar in panel.bars]
    if any(map(math.isfinite, errors)):
        ax.errorbar(values, range(len(values)), xerr=errors, fmt="none", ecolor=_INK, elinewidth=0.7)
    if panel.running:
        totals = words.running_totals(panel)
        ax.step(totals, range(len(totals)), where="pre", color="0.25", linewidth=1, label="running total")
    ax.axvline(0, color="0.5", linewidth=0.6)
    name_ticks(ax, "y", [words.quoted(bar.name) if panel.aside else visible(bar.name) for bar in panel.bars], 7)
    ax.set_ylim(len(panel.bars) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    if panel.percent:
        from matplotlib import ticker

        ax.xaxis.set_major_formatter(ticker.PercentFormatter(1.0))
    ax.set_xlabel(visible(panel.quantity), fontsize=8, parse_math=False)
    head(ax, words.heading(panel))
    if many:
        _legend(ax)


# -- curves --------------------------------------------------------------------------------------


@_size.register(Curves)
def _(panel: Curves) -> tuple[float, float]:
    if panel.below is not None or panel.beside is not None:
        width = panel.width or 6.8
        return width, 1.1 + 0.24 * width
    width = panel.width or (4.6 if panel.square else 5.6)
    return width, 4.2 if panel.square and panel.width is None else 0.65 * width


@draw.register(Curves)
def _(panel: Curves, ax: Axes) -> None:
    if panel.below is not None or panel.beside is not None:
        _series(panel, ax)
        return
    _plot(panel, ax)
    if panel.square:
        axis = chart.square_axis(panel)
        ax.set(xlim=(axis.low, axis.high), ylim=(axis.low, axis.high), aspect="equal")
    log_x, log_y = chart.log_axes(panel)
    if log_x:
        ax.set_xscale("log")
    if log_y:
        ax.set_yscale("log")
        _log_ticks(ax, chart.y_axis(panel).ticks())
    if panel.whole_x:
        _whole_ticks(ax)
        axis = chart.x_axis(_without_guides(panel))  # a guide far away stands in the legend alone
        ax.set_xlim(axis.low, axis.high)
    _hatch(panel, ax, 1.0)
    ax.set_xlabel(_x_name(panel), fontsize=9, parse_math=False)
    ax.set_ylabel(visible(panel.y_axis), fontsize=9, parse_math=False)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    head(ax, words.heading(panel))
    if sum(bool(c.name) for c in panel.curves) > 1 or any(guide.label for guide in panel.guides):
        _legend(ax)


def _x_name(panel: Curves, below: Curves | None = None) -> str:
    """The x axis's name, and what is left out."""
    lowest = below or panel
    left_out = (words.curves_left_out(one) for one in (panel, below) if one is not None)
    return "\n".join(filter(None, (visible(lowest.x_axis or panel.x_axis), *left_out)))


def _without_guides(panel: Curves) -> Curves:
    return Curves(
        curves=panel.curves, x_axis="", y_axis="", log_x=panel.log_x, log_y=panel.log_y, whole_x=panel.whole_x
    )


def _plot(panel: Curves, ax: Axes) -> None:
    """Curves and guides, without axes' names."""
    log_x, log_y = chart.log_axes(panel)
    moved = chart.shifts(panel, chart.x_axis(panel))
    for i, curve in enumerate(panel.curves):
        _draw_curve(ax, curve, _color(curve_colors(panel.curves)[i]), i, moved[i], panel.hidden, log_x, log_y)
    for guide in panel.guides:
        look: dict[str, Any] = dict(color="0.5", linestyle="--", linewidth=1, label=visible(guide.label) or None)
        if guide.axis == "diagonal":
            look |= dict(color="0.7", linestyle="-")
            ax.axline((0.0, 0.0), slope=1.0, **look)
        elif guide.axis == "y":
            ax.axhline(guide.at, **look)
        else:
            ax.axvline(guide.at, **look)


def _color(rgb: RGB | None) -> Any:
    return _INK if rgb is None else unit(rgb)


def _draw_curve(
    ax: Axes, curve: Curve, color: Any, order: int, moved: float, hidden: int, log_x: bool, log_y: bool
) -> None:
    import numpy as np

    x, y = np.asarray(curve.x, float), np.asarray(curve.y, float)
    x, y = x + moved, np.where((x < hidden) & bool(hidden), np.nan, y)
    around = None
    if curve.low and curve.high:
        around = np.clip(np.stack([y - np.asarray(curve.low), np.asarray(curve.high) - y]), 0, None)
    label = visible(curve.name) or None
    if curve.marks == "bars":
        ax.bar(x, np.nan_to_num(y), width=0.8 * chart.bar_width(curve), color=color, linewidth=0, label=label)
        if around is not None:
            ax.errorbar(x, y, yerr=around, fmt="none", ecolor=_INK, elinewidth=0.5)
    elif curve.marks == "points":
        kept = np.isfinite(x) & np.isfinite(y) & ((x > 0) | (not log_x)) & ((y > 0) | (not log_y))
        ax.scatter(x[kept], y[kept], s=12, color=[color], alpha=0.6, label=label)
    else:
        small = len(x) > 60
        look: dict[str, Any] = dict(
            marker="." if small else _MARKERS[order % len(_MARKERS)], markersize=4, linewidth=1.2
        )
        ax.errorbar(x, y, yerr=around, capsize=2, color=color, label=label, **look)


def _hatch(panel: Curves, ax: Axes, height: float) -> None:
    if panel.hidden:
        hatched: dict[str, Any] = dict(facecolor="none", edgecolor="0.6", hatch="////", linewidth=0)
        ax.axvspan(-0.5, panel.hidden - 0.5, 0, height, **hatched)


# -- a series: the curves below in the lower part of the same axes, so that a peak stands right below its motif --


def _series(panel: Curves, ax: Axes) -> None:
    bars = _BELOW if panel.below is not None else 0.0
    _draw_values(panel, ax, bars)
    if panel.below is not None:
        _draw_below(panel.below, ax)
    if panel.beside is not None:
        _draw_beside(panel.beside, ax)


def _draw_values(panel: Curves, ax: Axes, lower: float) -> None:
    for i, curve in enumerate(panel.curves):
        color = _color(curve_colors(panel.curves)[i])
        ax.plot(curve.x, curve.y, color=color, linewidth=0.9, marker=".", markersize=3, clip_on=False, zorder=3)
    for guide in panel.guides:
        line = ax.axvline if guide.axis == "x" else ax.axhline
        line(guide.at, color="0.45", linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    low, high = _span(panel)
    ax.set_yticks(_round_ticks(low, high))
    ax.set_ylim(high - (high - low) / (1 - lower), high)
    along = [x for one in (panel, panel.below) if one for c in one.curves for x in c.x if math.isfinite(x)]
    along += [guide.at for guide in panel.guides if guide.axis == "x"]
    margin = 0.9 if panel.whole_x else 0.03 * (max(along, default=1) - min(along, default=0)) or 1.0
    ax.set_xlim(min(along, default=0) - margin, max(along, default=1) + margin)
    if panel.whole_x:
        _whole_ticks(ax)  # and no room for ticks where there is no number
    ax.set_xlabel(_x_name(panel, panel.below), fontsize=_SMALL, parse_math=False)
    ax.set_ylabel(visible(panel.y_axis), fontsize=_SMALL, y=(1 + lower) / 2, parse_math=False)
    ax.tick_params(labelsize=_SMALL)
    ax.spines[["top", "right"]].set_visible(False)
    head(ax, words.heading(panel), _SMALL + 1)


def _span(panel: Curves) -> tuple[float, float]:
    """What the value axis must show: the series, nearly all of the curves beside it, and what is marked there."""
    shown = [y for curve in panel.curves for y in curve.y if math.isfinite(y)]
    if panel.beside is not None:
        shown += [guide.at for guide in panel.beside.guides if guide.axis == "x"]
        for curve in panel.beside.curves:
            top = max(filter(math.isfinite, curve.y), default=0.0)
            shown += [x for x, y in zip(curve.x, curve.y, strict=True) if y > 0.01 * top]
    low, high = min(shown, default=0.0), max(shown, default=1.0)
    pad = 0.06 * (high - low) or 1.0
    return low - pad, high + pad


def _draw_below(panel: Curves, ax: Axes) -> None:
    """Curves on an axis of their own, in the lower part of the same picture."""
    import numpy as np

    under = ax.twinx()
    shown = [p.y for one in chart.drawn(panel, log_x=False, log_y=False) for p in one.points]
    log = panel.log_y and any(y > 0 for y in shown)
    top = max(shown, default=0.0) or 1.0
    bottom = min(y for y in shown if y > 0) / 1.5 if log else min(0.0, *shown, 0.0)
    colors = curve_colors(panel.curves)
    for curve, rgb in zip(panel.curves, colors, strict=True):
        x, y = np.asarray(curve.x, float), np.asarray(curve.y, float)
        y = np.where(x < panel.hidden, np.nan, y) if panel.hidden else y
        base, look = bottom if log else 0.0, dict(color=_color(rgb), zorder=2)
        if curve.marks == "bars":
            heights = np.nan_to_num(np.where(np.isnan(y), base, y)) - base
            under.bar(x, heights, bottom=base, width=0.8 * chart.bar_width(curve), linewidth=0, **look)
        else:
            under.plot(x, y, linewidth=0.9, marker=".", markersize=3, **look)
        if curve.low and curve.high:
            around = np.clip(np.stack([y - np.asarray(curve.low), np.asarray(curve.high) - y]), 0, None)
            under.errorbar(x, y, yerr=around, fmt="none", ecolor=_INK, elinewidth=0.5)
    _hatch(panel, under, _BELOW * 0.9)
    reach = 0.9 * _BELOW
    if log:
        under.set_yscale("log")
        under.set_ylim(bottom, bottom * (top / bottom) ** (1 / reach))
    else:
        under.set_ylim(bottom, bottom + (top - bottom) / reach)
    _label_below(panel, under, bottom, top, log, _color(colors[0]) if colors else _INK)
    ax.set_zorder(under.get_zorder() + 1)  # the series in front, and its background away
    ax.patch.set_visible(False)


def _label_below(panel: Curves, under: Axes, bottom: float, top: float, log: bool, color: Any) -> None:
    from matplotlib import ticker

    under.yaxis.set_label_position("left")
    under.yaxis.tick_left()
    if log:
        _log_ticks(under, chart.Axis(bottom, top, log=True).ticks(4))
    else:
        chosen = _inside(ticker.MaxNLocator(2).tick_values(bottom, top), bottom, top)
        under.yaxis.set_major_locator(ticker.FixedLocator(chosen))
    under.set_ylabel(visible(panel.y_axis), fontsize=_SMALL, y=_BELOW / 2, color=color, parse_math=False)
    under.tick_params(labelsize=_SMALL, colors=color)
    under.spines[["top", "right", "left", "bottom"]].set_visible(False)


def _draw_beside(panel: Curves, ax: Axes) -> None:
    """Curves sideways, on the series' own value axis."""
    side = ax.inset_axes((1.01, 0.0, 0.2, 1.0), sharey=ax)
    colors = curve_colors(panel.curves)
    names: list[tuple[str, Any]] = []
    top = 0.0
    for curve, rgb in zip(panel.curves, colors, strict=True):
        color = _color(rgb)
        if curve.marks == "bars":
            side.barh(curve.x, curve.y, height=chart.bar_width(curve), color=color, alpha=0.75, linewidth=0)
        else:
            side.plot(curve.y, curve.x, color=color, linewidth=0.9)
        top = max([top, *filter(math.isfinite, curve.y)])
        names.append((visible(curve.name), color))
    for guide in panel.guides:
        if guide.axis == "x":
            side.axhline(guide.at, color=unit(GUIDE), linewidth=1.2)
            names.append((visible(guide.label), unit(GUIDE)))
    top = top or 1.0
    side.set_xlim(0.0, 1.05 * top)
    side.set_xticks([top], labels=[f"{top:.2g}"])
    side.tick_params(labelleft=False, left=False, labelsize=_SMALL)
    side.set_xlabel(visible(panel.y_axis), fontsize=_SMALL, parse_math=False)
    side.spines[["top", "right", "left"]].set_visible(False)
    side.patch.set_visible(False)
    place: dict[str, Any] = dict(transform=side.transAxes, ha="right", va="bottom", fontsize=_SMALL, parse_math=False)
    for line, (name, color) in enumerate(named for named in names if named[0]):
        side.text(1.0, 0.05 + 0.12 * line, name, color=color, **place)


# -- tables ------------------------------------------------------------------------------------------


@_size.register(Table)
def _(panel: Table) -> tuple[float, float]:
    letters = sum(max(map(len, column)) + 2 for column in _columns(panel)) if panel.header else 1
    notes = len(panel.notes) + bool(panel.above)
    return min(max(0.09 * letters, 3.0), _WIDEST), min(0.9 + 0.22 * (len(panel.rows) + 1) + 0.16 * notes, 2 * _HIGHEST)


def _columns(panel: Table) -> list[list[str]]:
    """Texts by column, headings first."""
    names = list(map(visible, panel.header))
    return [[name, *(visible(row[i].text) for row in panel.rows)] for i, name in enumerate(names)]


@draw.register(Table)
def _(panel: Table, ax: Axes) -> None:
    ax.set_axis_off()
    columns = _columns(panel)
    if columns:
        lengths = [max(map(len, column)) + 2 for column in columns]
        whole: Any = (0.0, 0.0, 1.0, 1.0)
        table = ax.table(
            cellText=[list(row) for row in zip(*columns, strict=True)],
            colWidths=[length / sum(lengths) for length in lengths],
            bbox=whole,
            edges="horizontal",
        )
        table.auto_set_font_size(False)
        table.set_fontsize(7)
        for (row, column), cell in table.get_celld().items():
            cell.get_text().set(parse_math=False, ha="right" if column in panel.numbers else "left")
            cell.set(edgecolor="0.8", linewidth=0.5)
            shade = panel.rows[row - 1][column].shade if row else 0.0
            if shade:
                cell.visible_edges = "closed"
                cell.set_facecolor(unit(blend(hue(shade), (255, 255, 255), MAX_OPACITY * min(abs(shade), 1.0))))
            if not row:
                cell.get_text().set_color("0.35")
    notes = "\n".join(textwrap.fill(visible(note), 110) for note in (*panel.legend, *panel.notes) if note)
    ax.text(0, -0.02, notes, transform=ax.transAxes, va="top", fontsize=7, color="0.4", parse_math=False)
    above = textwrap.fill(visible(panel.above), 110)
    head(ax, "\n".join(filter(None, (words.heading(panel), above))), wrap=not above)


# -- what all share -----------------------------------------------------------------------------------


def head(ax: Axes, title: str, size: int = 10, *, wrap: bool = True) -> None:
    """A title of as many lines as it needs: matplotlib's own wrapping would cut other things off."""
    most = max(30, int(_points(ax)[0] / (_LETTER * size)))
    ax.set_title(textwrap.fill(title, most) if wrap else title, loc="left", fontsize=size, parse_math=False)


def name_ticks(ax: Axes, which: Literal["x", "y"], names: Sequence[str], size: int = 8) -> None:
    """Name the places 0, 1, … along an axis, every second or third where all can't be read."""
    axis, length = (ax.xaxis, _points(ax)[0]) if which == "x" else (ax.yaxis, _points(ax)[1])
    step = max(1, -(-len(names) // max(1, min(int(length / (size + 1)), _MOST_LABELS))))
    axis.set_ticks(range(0, len(names), step), labels=names[::step], fontsize=size)
    for text in axis.get_ticklabels():
        text.set_parse_math(False)  # a prompt's dollar signs are text


def _legend(ax: Axes) -> None:
    legend = ax.legend(fontsize=8, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _whole_ticks(ax: Axes) -> None:
    """Ticks along x at whole numbers only."""
    from matplotlib import ticker

    ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))


def _round_ticks(low: float, high: float) -> list[float]:
    """A few round values in a range, whatever else the axis shows."""
    from matplotlib.ticker import MaxNLocator

    return _inside(MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high), low, high)


def _log_ticks(ax: Axes, chosen: Sequence[float]) -> None:
    """Mark these values of a logarithmic y axis: matplotlib's own labels are powers of ten alone."""
    from matplotlib import ticker

    ax.yaxis.set_major_locator(ticker.FixedLocator(list(chosen)))
    if not all(math.log10(tick).is_integer() for tick in chosen):
        ax.yaxis.set_major_formatter(ticker.FuncFormatter(lambda tick, _: chart.tick_label(tick)))
    ax.yaxis.set_minor_locator(ticker.NullLocator())


def _inside(ticks: Iterable[float], low: float, high: float) -> list[float]:
    return [float(tick) for tick in ticks if low <= tick <= high]


def _points(ax: Axes) -> tuple[float, float]:
    """Width and height of axes in points, as they are before the layout."""
    box, inch = ax.get_window_extent(), ax.figure.get_dpi()
    return box.width / inch * 72, box.height / inch * 72
