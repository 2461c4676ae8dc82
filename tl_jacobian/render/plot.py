"""The heat map as a matplotlib figure, for papers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tl_jacobian.attribution_map import AttributionMap
from tl_jacobian.render import map_words, words
from tl_jacobian.render.colors import NEGATIVE, POSITIVE, RGB, Scale
from tl_jacobian.tokens import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LABELS = 60  # more can't be read at the size of a page


def plot_map(m: AttributionMap, ax: Axes | None = None, *, skip_first: bool = True, per_row: bool = True) -> Axes:
    """Draw a map into ``ax``, or into a figure of its own; returns the axes.

    Args:
        m: what to draw: targets from top to bottom, sources from left to right.
        ax: matplotlib axes; default a new figure's.
        skip_first: draw the first unit grey and leave it out of the colour ranges.
        per_row: each row has a colour range of its own.

    Raises:
        ImportError: matplotlib isn't installed.
        ValueError: a score isn't finite.
    """
    try:
        from matplotlib import colors
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise ImportError("a plot needs matplotlib: pip install 'tl-jacobian[plot]'") from error
    scales = map_words.scales(m, skip_first=skip_first, per_row=per_row)
    ax = ax or plt.subplots(figsize=_size(m), layout="constrained")[1]
    low = -1.0 if any(scale.signed for scale in scales) else 0.0
    stops = [_unit(NEGATIVE), (1.0, 1.0, 1.0), _unit(POSITIVE)][0 if low else 1 :]
    shades = colors.LinearSegmentedColormap.from_list("tl_jacobian", stops).with_extremes(bad="#00000000")
    ax.set_facecolor("#ebebeb")  # what can't matter, or is left out of the colours
    image = ax.imshow(_shares(m, scales), cmap=shades, vmin=low, vmax=1.0, aspect="auto", interpolation="none")
    _label(ax, m)
    _color_bar(ax, image, m, scales, per_row=per_row)
    return ax


def _shares(m: AttributionMap, scales: list[Scale]) -> Any:
    """Scores as shares of full colour; NaN where there is no colour."""
    limits = torch.tensor([scale.limit or 1.0 for scale in scales])[:, None]
    shares = (m.scores / limits).clamp(-1, 1).masked_fill(~m.mask, torch.nan)
    shares[:, : scales[0].skipped] = torch.nan
    return shares.numpy()


def _label(ax: Axes, m: AttributionMap) -> None:
    columns = [f"{visible(text)} {i}" for i, text in enumerate(m.str_tokens)]
    rows = [map_words.row_name(m, i) for i in range(len(m))]
    for axis, names in ((ax.xaxis, columns), (ax.yaxis, rows)):
        step = -(-len(names) // _MOST_LABELS)
        axis.set_ticks(range(0, len(names), step), labels=names[::step], fontsize=8)
        for label in axis.get_ticklabels():
            label.set_parse_math(False)  # a prompt's dollar signs are text
    ax.xaxis.tick_top()
    ax.tick_params(axis="x", rotation=90)
    ax.tick_params(length=0)
    ax.set_title(f"{words.scope_name(m[-1])}: attribution map", loc="left", fontsize=10)


def _color_bar(ax: Axes, image: Any, m: AttributionMap, scales: list[Scale], *, per_row: bool) -> None:
    full, facts = map_words.scale_facts(m, scales, per_row=per_row)
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.6)
    bar.set_ticks([0.0, 1.0], labels=["0", full], fontsize=8)
    bar.set_label("\n".join(filter(None, facts)), fontsize=8)
    bar.ax.yaxis.label.set_parse_math(False)


def _size(m: AttributionMap) -> tuple[float, float]:
    """Inches: a fifth for each row and column, as far as a page allows."""
    return min(3.5 + 0.2 * len(m.str_tokens), 14.0), min(1.5 + 0.2 * len(m), 14.0)


def _unit(rgb: RGB) -> tuple[float, float, float]:
    red, green, blue = rgb
    return red / 255, green / 255, blue / 255
