"""Curves as matplotlib figures: plots, and a series with its curves below and beside."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tl_jacobian.render import axes, chart, words
from tl_jacobian.render.colors import GUIDE, RGB, curve_colors, unit
from tl_jacobian.results.panels import Curve, Curves
from tl_jacobian.results.tokens import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK = "#222222"
_MARKERS = "osDv^PX*"
_LINES = ("-", "--", ":")
_SMALL = 7  # points; of all text in a series, to be read at a journal's column width
_BELOW = 0.36  # the part of the height that the curves below have


def size(panel: Curves) -> tuple[float, float]:
    """Inches of a figure of its own."""
    if panel.below is not None or panel.beside is not None:
        width = panel.width or 6.8
        return width, 1.1 + 0.24 * width
    width = panel.width or (4.6 if panel.square else 5.6)
    return width, 4.2 if panel.square and panel.width is None else 0.65 * width


def draw(panel: Curves, ax: Axes) -> None:
    """Draw curves into axes, with those below and beside where there are some."""
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
        axes.log_ticks(ax, chart.y_axis(panel).ticks())
    if panel.whole_x:
        axes.whole_ticks(ax)
        axis = chart.x_axis(_without_guides(panel))  # a guide far away stands in the legend alone
        ax.set_xlim(axis.low, axis.high)
    _hatch(panel, ax, 1.0)
    ax.set_xlabel(_x_name(panel), fontsize=9, parse_math=False)
    ax.set_ylabel(visible(panel.y_axis), fontsize=9, parse_math=False)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    axes.head(ax, words.heading(panel))
    if sum(bool(c.name) for c in panel.curves) > 1 or any(guide.label for guide in panel.guides):
        axes.add_legend(ax)


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
        look["linestyle"] = _LINES[order // len(_MARKERS) % len(_LINES)]  # once colours and markers come again
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
    ax.set_yticks(axes.round_ticks(low, high))
    ax.set_ylim(high - (high - low) / (1 - lower), high)
    along = [x for one in (panel, panel.below) if one for c in one.curves for x in c.x if math.isfinite(x)]
    along += [guide.at for guide in panel.guides if guide.axis == "x"]
    margin = 0.9 if panel.whole_x else 0.03 * (max(along, default=1) - min(along, default=0)) or 1.0
    ax.set_xlim(min(along, default=0) - margin, max(along, default=1) + margin)
    if panel.whole_x:
        axes.whole_ticks(ax)  # and no room for ticks where there is no number
    ax.set_xlabel(_x_name(panel, panel.below), fontsize=_SMALL, parse_math=False)
    ax.set_ylabel(visible(panel.y_axis), fontsize=_SMALL, y=(1 + lower) / 2, parse_math=False)
    ax.tick_params(labelsize=_SMALL)
    ax.spines[["top", "right"]].set_visible(False)
    axes.head(ax, words.heading(panel), _SMALL + 1)


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
        axes.log_ticks(under, chart.Axis(bottom, top, log=True).ticks(4))
    else:
        chosen = axes.inside(ticker.MaxNLocator(2).tick_values(bottom, top), bottom, top)
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
