"""What the matplotlib figures share: axes of a fitting size, the HTML's colours, labels that can be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tl_jacobian.render.colors import NEGATIVE, POSITIVE, RGB

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LABELS = 64  # more can't be read at the size of a page
_LINE = 9.0  # points that a label takes


def new_axes(width: float, height: float) -> Axes:
    """Axes of a figure of their own, of so many inches.

    Raises:
        ImportError: matplotlib isn't installed.
    """
    try:
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise ImportError("a plot needs matplotlib: pip install 'tl-jacobian[plot]'") from error
    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def heatmap_axes(rows: int, columns: int) -> Axes:
    """Axes with a fifth of an inch for each row and column, as far as a page allows."""
    return new_axes(min(3.5 + 0.2 * columns, 14.0), min(1.5 + 0.2 * rows, 14.0))


def shades(*, signed: bool) -> Any:
    """The HTML's colours on white, from zero or (signed) from minus the limit; nothing for NaN."""
    from matplotlib import colors

    stops = [unit(NEGATIVE), (1.0, 1.0, 1.0), unit(POSITIVE)][0 if signed else 1 :]
    return colors.LinearSegmentedColormap.from_list("tl_jacobian", stops).with_extremes(bad="#00000000")


def label(ax: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Name rows on the left and columns on top, every second or third where all can't be read."""
    box = ax.get_window_extent()
    for axis, names, length in ((ax.xaxis, columns, box.width), (ax.yaxis, rows, box.height)):
        room = max(1, int(length / ax.figure.get_dpi() * 72 / _LINE))
        step = -(-len(names) // min(room, _MOST_LABELS))
        axis.set_ticks(range(0, len(names), step), labels=names[::step], fontsize=8)
        for text in axis.get_ticklabels():
            text.set_parse_math(False)  # a prompt's dollar signs are text
    ax.xaxis.tick_top()
    ax.tick_params(axis="x", rotation=90)
    ax.tick_params(length=0)


def unit(rgb: RGB) -> tuple[float, float, float]:
    """A colour as matplotlib wants it."""
    red, green, blue = rgb
    return red / 255, green / 255, blue / 255
