"""The heat map as a matplotlib figure, for papers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tl_jacobian.render import map_words, words
from tl_jacobian.render.axes import heatmap_axes, label, shades
from tl_jacobian.render.colors import Scale
from tl_jacobian.results.attribution_map import AttributionMap
from tl_jacobian.results.tokens import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    scales = map_words.scales(m, skip_first=skip_first, per_row=per_row)
    ax = ax or heatmap_axes(len(m), len(m.str_tokens))
    low = -1.0 if any(scale.signed for scale in scales) else 0.0
    ax.set_facecolor("#ebebeb")  # what can't matter, or is left out of the colours
    look: dict[str, Any] = dict(cmap=shades(signed=low < 0), vmin=low, vmax=1.0, aspect="auto", interpolation="none")
    image = ax.imshow(_shares(m, scales), **look)
    columns = [f"{visible(text)} {i}" for i, text in enumerate(m.str_tokens)]
    label(ax, [map_words.row_name(m, i) for i in range(len(m))], columns)
    ax.set_title(f"{words.scope_name(m[-1])}: attribution map", loc="left", fontsize=10)
    _color_bar(ax, image, m, scales, per_row=per_row)
    return ax


def _shares(m: AttributionMap, scales: list[Scale]) -> Any:
    """Scores as shares of full colour; NaN where there is no colour."""
    limits = torch.tensor([scale.limit or 1.0 for scale in scales])[:, None]
    shares = (m.scores / limits).clamp(-1, 1).masked_fill(~m.mask, torch.nan)
    shares[:, : scales[0].skipped] = torch.nan
    return shares.numpy()


def _color_bar(ax: Axes, image: Any, m: AttributionMap, scales: list[Scale], *, per_row: bool) -> None:
    full, facts = map_words.scale_facts(m, scales, per_row=per_row)
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.6)
    bar.set_ticks([0.0, 1.0], labels=["0", full], fontsize=8)
    bar.set_label("\n".join(filter(None, facts)), fontsize=8)
    bar.ax.yaxis.label.set_parse_math(False)
