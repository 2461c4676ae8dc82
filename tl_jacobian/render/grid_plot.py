"""A grid as a matplotlib figure, for papers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tl_jacobian.render import grid_words
from tl_jacobian.render.axes import head, heatmap_axes, label, shades
from tl_jacobian.results.grid import TOKEN, Grid
from tl_jacobian.results.tokens import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_grid(
    g: Grid,
    ax: Axes | None = None,
    *,
    skip_first: bool | None = None,
    limit: float | None = None,
    title: str | None = None,
    bar: bool = True,
) -> Axes:
    """Draw a grid into ``ax``, or into a figure of its own; returns the axes.

    Args:
        g: what to draw: rows from top to bottom, columns from left to right.
        ax: matplotlib axes; default a new figure's.
        skip_first: draw the first token grey and leave it out of the colours; default: wherever
            columns are tokens.
        limit: what is drawn at full strength, for grids that share a scale.
        title: default the grid's own.
        bar: whether to draw the colour bar.

    Raises:
        ImportError: matplotlib isn't installed.
        ArgumentError: ``skip_first`` where columns aren't tokens.
    """
    scale = grid_words.scale_of_grid(g, skip_first=skip_first, limit=limit)
    ax = ax or heatmap_axes(*g.values.shape)
    values = g.values.clone()
    values[:, : scale.skipped] = torch.nan
    full = scale.limit or 1.0
    look: dict[str, Any] = dict(vmin=-full if g.signed else 0.0, vmax=full, aspect="auto", interpolation="none")
    image = ax.imshow(values.numpy(), cmap=shades(signed=g.signed), **look)
    ax.patch.set(facecolor="#f4f4f4", edgecolor="#b8b8b8", hatch="////")  # seen where there is no number
    if scale.skipped:
        ax.axvspan(-0.5, scale.skipped - 0.5, color="#dddddd", linewidth=0)
    _label(ax, g, grid_words.skipped(g, scale))
    head(ax, visible(title or g.title))
    if bar:
        _bar(ax, image, visible(g.quantity))
    return ax


def _bar(ax: Axes, image: Any, quantity: str) -> None:
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8)
    bar.ax.tick_params(labelsize=8)
    bar.set_label(quantity, fontsize=8)
    bar.ax.yaxis.label.set_parse_math(False)


def _label(ax: Axes, g: Grid, note: str) -> None:
    columns = [f"{visible(t)} {i}" if g.column_axis == TOKEN else visible(t) for i, t in enumerate(g.columns)]
    label(ax, grid_words.row_names(g), columns)
    if max(map(len, columns)) <= 3:
        ax.tick_params(axis="x", rotation=0)
    ax.set_ylabel(visible(g.row_axis), fontsize=8, parse_math=False)
    ax.set_xlabel(visible(g.column_axis) + (f"\n{note}" if note else ""), fontsize=8, parse_math=False)
