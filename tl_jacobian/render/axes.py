"""What figures' axes have in common: titles, ticks and legends, none of whose text is mathematics."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from tl_jacobian.render import chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LETTER = 0.55  # width of a title's letter, in sizes of its font
_MOST_LABELS = 72  # more can't be read at the size of a page


def head(ax: Axes, title: str, size: int = 10, *, wrap: bool = True) -> None:
    """A title of as many lines as it needs: matplotlib's own wrapping would cut other things off."""
    most = max(30, int(points(ax)[0] / (LETTER * size)))
    ax.set_title(textwrap.fill(title, most) if wrap else title, loc="left", fontsize=size, parse_math=False)


def name_ticks(ax: Axes, which: Literal["x", "y"], names: Sequence[str], size: int = 8) -> None:
    """Name the places 0, 1, … along an axis, every second or third where all can't be read."""
    axis, length = (ax.xaxis, points(ax)[0]) if which == "x" else (ax.yaxis, points(ax)[1])
    step = max(1, -(-len(names) // max(1, min(int(length / (size + 1)), _MOST_LABELS))))
    axis.set_ticks(range(0, len(names), step), labels=names[::step], fontsize=size)
    for text in axis.get_ticklabels():
        text.set_parse_math(False)  # a prompt's dollar signs are text


_INSIDE = 9  # names in a legend that leave room for what they name


def add_legend(ax: Axes) -> None:
    many = len(ax.get_legend_handles_labels()[1]) > _INSIDE
    beside: dict[str, Any] = dict(loc="center left", bbox_to_anchor=(1.0, 0.5)) if many else {}
    legend = ax.legend(fontsize=8, frameon=False, **beside)
    for text in legend.get_texts():
        text.set_parse_math(False)


def whole_ticks(ax: Axes) -> None:
    """Ticks along x at whole numbers only."""
    from matplotlib import ticker

    ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))


def round_ticks(low: float, high: float) -> list[float]:
    """A few round values in a range, whatever else the axis shows."""
    from matplotlib.ticker import MaxNLocator

    return inside(MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high), low, high)


def log_ticks(ax: Axes, chosen: Sequence[float]) -> None:
    """Mark these values of a logarithmic y axis: matplotlib's own labels are powers of ten alone."""
    from matplotlib import ticker

    ax.yaxis.set_major_locator(ticker.FixedLocator(list(chosen)))
    if not all(math.log10(tick).is_integer() for tick in chosen):
        ax.yaxis.set_major_formatter(ticker.FuncFormatter(lambda tick, _: chart.tick_label(tick)))
    ax.yaxis.set_minor_locator(ticker.NullLocator())


def inside(ticks: Iterable[float], low: float, high: float) -> list[float]:
    return [float(tick) for tick in ticks if low <= tick <= high]


def points(ax: Axes) -> tuple[float, float]:
    """Width and height of axes in points, as they are before the layout."""
    box, inch = ax.get_window_extent(), ax.figure.get_dpi()
    return box.width / inch * 72, box.height / inch * 72
