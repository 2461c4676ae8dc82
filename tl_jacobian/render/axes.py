"""What the matplotlib figures share: axes of a fitting size, the HTML's colours, labels that can be read."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from tl_jacobian.render.colors import NEGATIVE, POSITIVE, RGB

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LABELS = 72  # more can't be read at the size of a page
_LETTER = 0.55  # width of a title's letter, in sizes of its font


def pyplot() -> Any:
    """matplotlib's module for new figures.

    Raises:
        ImportError: matplotlib isn't installed.
    """
    try:
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise ImportError("a plot needs matplotlib: pip install 'tl-jacobian[plot]'") from error
    return plt


def new_axes(width: float, height: float) -> Axes:
    """Axes of a figure of their own, of so many inches; raises as :func:`pyplot` does."""
    return pyplot().subplots(figsize=(width, height), layout="constrained")[1]


def heatmap_axes(rows: int, columns: int) -> Axes:
    """Axes with a fifth of an inch for each row and column, as far as a page allows."""
    return new_axes(min(3.5 + 0.2 * columns, 14.0), min(1.5 + 0.2 * rows, 14.0))


def shades(*, signed: bool) -> Any:
    """The HTML's colours on white, from zero or (signed) from minus the limit; nothing for NaN."""
    from matplotlib import colors

    stops = [unit(NEGATIVE), (1.0, 1.0, 1.0), unit(POSITIVE)][0 if signed else 1 :]
    return colors.LinearSegmentedColormap.from_list("tl_jacobian", stops).with_extremes(bad="#00000000")


def label(ax: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Name rows on the left and columns on top."""
    name_ticks(ax, "y", rows)
    name_ticks(ax, "x", columns)
    ax.xaxis.tick_top()
    ax.tick_params(axis="x", rotation=90)
    ax.tick_params(length=0)


def name_ticks(ax: Axes, which: Literal["x", "y"], names: Sequence[str], size: int = 8) -> None:
    """Name the places 0, 1, … along an axis, every second or third where all can't be read."""
    axis, length = (ax.xaxis, _points(ax)[0]) if which == "x" else (ax.yaxis, _points(ax)[1])
    step = -(-len(names) // max(1, min(int(length / (size + 1)), _MOST_LABELS)))
    axis.set_ticks(range(0, len(names), step), labels=names[::step], fontsize=size)
    for text in axis.get_ticklabels():
        text.set_parse_math(False)  # a prompt's dollar signs are text


def whole_ticks(ax: Axes) -> None:
    """Ticks along x at whole numbers only."""
    from matplotlib import ticker

    ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))


def head(ax: Axes, title: str, size: int = 10) -> None:
    """A title of as many lines as it needs: matplotlib's own wrapping would cut other things off."""
    most = max(30, int(_points(ax)[0] / (_LETTER * size)))
    ax.set_title(textwrap.fill(title, most), loc="left", fontsize=size, parse_math=False)


def _points(ax: Axes) -> tuple[float, float]:
    """Width and height of axes in points, as they are before the layout."""
    box, inch = ax.get_window_extent(), ax.figure.get_dpi()
    return box.width / inch * 72, box.height / inch * 72


def unit(rgb: RGB) -> tuple[float, float, float]:
    """A colour as matplotlib wants it."""
    red, green, blue = rgb
    return red / 255, green / 255, blue / 255
