"""A series, what each of its numbers contributed to a forecast, and the forecast itself, in one figure.

One axis along the series: the values in its upper part, influences as bars in its lower part, so that a
peak of influence stands right below the motif that it belongs to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_jacobian.errors import ArgumentError
from tl_jacobian.render.axes import head, new_axes, unit, whole_ticks
from tl_jacobian.render.colors import NEGATIVE, POSITIVE
from tl_jacobian.results.numbers import NumberDistribution, NumberInfluence
from tl_jacobian.results.scopes import scope_title
from tl_jacobian.results.tokens import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = 7  # points; of all text, to be read at a journal's column width
_BARS = 0.36  # the part of the height that influences have
_INK = "#222222"
_TRUTH = "#009e73"  # bluish green of Okabe and Ito's palette


def plot_series(
    i: NumberInfluence,
    ax: Axes | None = None,
    *,
    distribution: NumberDistribution | None = None,
    log: bool = False,
    skip_first: int = 0,
    width: float = 6.8,
) -> Axes:
    """Draw one series with its influences; arguments: :meth:`NumberInfluence.plot`.

    Raises:
        ImportError: matplotlib isn't installed.
        ArgumentError: an influence isn't finite, there is none above zero to draw, or ``skip_first`` leaves none.
    """
    drawn = _drawn(i, log, skip_first)
    ax = ax or new_axes(width, 1.1 + 0.24 * width)
    _draw_values(ax, i, distribution)
    _draw_bars(ax, i, drawn, log, skip_first)
    if distribution is not None:
        _draw_distribution(ax, distribution)
    return ax


def _drawn(i: NumberInfluence, log: bool, skip_first: int) -> np.ndarray:
    """The influences that the scale is made for, NaN where there is nothing to draw."""
    if isinstance(skip_first, bool) or not 0 <= skip_first < len(i):
        raise ArgumentError(f"skip_first={skip_first!r}, expected 0 to {len(i) - 1} numbers to leave out")
    kept = i.influence.copy()
    if not np.isfinite(kept).all():
        raise ArgumentError("an influence isn't finite: only finite ones can be drawn; look for overflow in the model")
    kept[:skip_first] = np.nan
    if (kept[skip_first:] < 0).any() or (log and not (kept[skip_first:] > 0).any()):
        raise ArgumentError(
            f"influences from {np.nanmin(kept):.3g} to {np.nanmax(kept):.3g}, expected none negative"
            + (" and some above zero for log=True" if log else "")
        )
    return kept


def _draw_values(ax: Axes, i: NumberInfluence, distribution: NumberDistribution | None) -> None:
    ax.plot(range(len(i)), i.values, color=_INK, linewidth=0.9, marker=".", markersize=3, clip_on=False, zorder=3)
    ax.axvline(i.cut_off, color="0.45", linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    low, high = _span(i, distribution)
    ax.set_yticks(_ticks(low, high))
    ax.set_ylim(high - (high - low) / (1 - _BARS), high)
    ax.set_xlim(-0.9, i.cut_off + 0.9)  # no room for ticks where there is no number
    whole_ticks(ax)
    ax.set_xlabel("position of the number", fontsize=_SIZE)
    ax.set_ylabel("value", fontsize=_SIZE, y=(1 + _BARS) / 2)
    ax.tick_params(labelsize=_SIZE)
    ax.spines[["top", "right"]].set_visible(False)
    head(ax, visible(f"{scope_title(i.scope)}: {i.target}"), _SIZE + 1)


def _span(i: NumberInfluence, distribution: NumberDistribution | None) -> tuple[float, float]:
    """What the value axis must show: the series, nearly all of the forecast, and the truth."""
    shown = [i.values.min(), i.values.max()]
    if distribution is not None:
        shown += [distribution.quantile(0.005), distribution.quantile(0.995)]
        shown += [] if distribution.truth is None else [distribution.truth]
    low, high = min(shown), max(shown)
    pad = 0.06 * (high - low) or 1.0
    return low - pad, high + pad


def _ticks(low: float, high: float) -> list[float]:
    """A few round values in a range, whatever else the axis shows."""
    from matplotlib.ticker import MaxNLocator

    return _inside(MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high), low, high)


def _draw_bars(ax: Axes, i: NumberInfluence, drawn: np.ndarray, log: bool, skip_first: int) -> None:
    """Influences on an axis of their own, on the right, in the lower part of the same picture."""
    bars = ax.twinx()
    top = float(np.nanmax(drawn)) or 1.0
    bottom = float(np.nanmin(drawn[drawn > 0])) / 1.5 if log else 0.0
    color = unit(POSITIVE)
    bars.bar(range(len(i)), np.nan_to_num(drawn) - bottom, bottom=bottom, width=0.8, color=color, linewidth=0, zorder=2)
    if i.stderr is not None:
        bars.errorbar(range(len(i)), drawn, yerr=i.stderr, fmt="none", ecolor=_INK, elinewidth=0.5)
    if skip_first:
        hatched: dict[str, Any] = dict(facecolor="none", edgecolor="0.6", hatch="////", linewidth=0)
        bars.axvspan(-0.5, skip_first - 0.5, 0, _BARS * 0.9, **hatched)
    if log:
        bars.set_yscale("log")
        bars.set_ylim(bottom, bottom * (top / bottom) ** (1 / (0.9 * _BARS)))
    else:
        bars.set_ylim(0.0, top / (0.9 * _BARS))
    _label_bars(bars, bottom, top, log)
    ax.set_zorder(bars.get_zorder() + 1)  # the series in front, and its background away
    ax.patch.set_visible(False)


def _label_bars(bars: Axes, bottom: float, top: float, log: bool) -> None:
    from matplotlib import ticker

    bars.yaxis.set_label_position("left")
    bars.yaxis.tick_left()
    chosen = _log_ticks(bottom, top) if log else _inside(ticker.MaxNLocator(2).tick_values(bottom, top), bottom, top)
    bars.yaxis.set_major_locator(ticker.FixedLocator(chosen))
    if log and not all(math.log10(tick).is_integer() for tick in chosen):  # matplotlib labels powers of ten alone
        bars.yaxis.set_major_formatter(ticker.FuncFormatter(lambda tick, _: f"{tick:.3g}"))
    bars.yaxis.set_minor_locator(ticker.NullLocator())
    bars.set_ylabel("influence", fontsize=_SIZE, y=_BARS / 2, color=unit(POSITIVE))
    bars.tick_params(labelsize=_SIZE, colors=unit(POSITIVE))
    bars.spines[["top", "right", "left", "bottom"]].set_visible(False)


def _log_ticks(bottom: float, top: float) -> list[float]:
    """Two to four values of a logarithmic scale: powers of ten; where too few are in the range, rounder first."""
    from matplotlib.ticker import MaxNLocator

    powers = range(math.floor(math.log10(bottom)), math.ceil(math.log10(top)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5)):
        found = _inside([step * 10.0**k for k in powers for step in steps], bottom, top)
        if len(found) > 1:
            return found[:: -(-len(found) // 4)]
    return _inside(MaxNLocator(3).tick_values(bottom, top), bottom, top)


def _inside(ticks: Iterable[float], low: float, high: float) -> list[float]:
    return [float(tick) for tick in ticks if low <= tick <= high]


def _draw_distribution(ax: Axes, d: NumberDistribution) -> None:
    """The forecast sideways, on the series' own value axis."""
    side = ax.inset_axes((1.01, 0.0, 0.2, 1.0), sharey=ax)
    side.barh(d.values, d.conditional, height=d.scale, color=unit(NEGATIVE), alpha=0.75, linewidth=0)
    if d.truth is not None:
        side.axhline(d.truth, color=_TRUTH, linewidth=1.2)
    top = float(d.conditional.max())
    side.set_xlim(0.0, 1.05 * top)
    side.set_xticks([top], labels=[f"{top:.2g}"])
    side.tick_params(labelleft=False, left=False, labelsize=_SIZE)
    side.set_xlabel("probability", fontsize=_SIZE)
    side.spines[["top", "right", "left"]].set_visible(False)
    side.patch.set_visible(False)
    names = [("forecast", unit(NEGATIVE))] + ([("truth", _TRUTH)] if d.truth is not None else [])
    for line, (name, color) in enumerate(names):
        place: dict[str, Any] = dict(transform=side.transAxes, ha="right", va="bottom", fontsize=_SIZE)
        side.text(1.0, 0.05 + 0.12 * line, name, color=color, **place)
