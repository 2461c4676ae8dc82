"""Predicted and measured effects of patching, side by side on one colour scale."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from tl_jacobian.render.axes import pyplot, unit
from tl_jacobian.render.colors import NEGATIVE, POSITIVE
from tl_jacobian.render.display import display_html, in_notebook
from tl_jacobian.render.figure import Figure
from tl_jacobian.render.grid_figure import grid_figure
from tl_jacobian.render.grid_plot import plot_grid
from tl_jacobian.render.grid_terminal import render_grid_terminal
from tl_jacobian.render.page import new_id, output, write_figures
from tl_jacobian.results.grid import Grid
from tl_jacobian.results.patching import PatchComparison
from tl_jacobian.results.tokens import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Plot


def show_patching(c: PatchComparison) -> None:
    """Draw both grids: as HTML in Jupyter, else in the terminal."""
    if in_notebook():
        display_html(notebook_patching(c))
        return
    console = Console(highlight=False)
    for grid in (c.predicted, c.measured):
        render_grid_terminal(grid, skip_first=False, limit=_limit(c), console=console)
        console.print()
    console.print(visible(c.summary()), markup=False)


def write_patching(c: PatchComparison, path: str | Path) -> Path:
    """Write one self-contained page; returns its path."""
    return write_figures(_figures(c, lambda i: f"tlj-{i}"), visible(c.measured.title), path)


def notebook_patching(c: PatchComparison) -> str:
    """HTML for a notebook output."""
    return output(_figures(c, lambda _: new_id()))


def _figures(c: PatchComparison, ids: Callable[[int], str]) -> list[Figure]:
    grids = (c.predicted, c.measured)
    drawn = [grid_figure(g, ids(i), skip_first=False, limit=_limit(c)) for i, g in enumerate(grids)]
    line = f'<div class="tlj-caption" style="font:12px sans-serif;margin:4px 0"><bdi>{escape(c.summary())}</bdi></div>'
    return [Figure(line + drawn[0].html, drawn[0].script), drawn[1]]


def _limit(c: PatchComparison) -> float:
    """The largest effect of both: full colour in either picture."""
    return max(_largest(c.predicted), _largest(c.measured))


def _largest(g: Grid) -> float:
    return g.values.nan_to_num().abs().max().item()


def plot_patching(c: PatchComparison) -> Plot:
    """Two heat maps and a scatter plot; returns the matplotlib figure.

    Raises:
        ImportError: matplotlib isn't installed.
    """
    rows, columns = c.predicted.values.shape
    size = (8.0 + min(0.5 * columns, 8.0), min(2.5 + 0.2 * rows, 10.0))
    figure, axes = pyplot().subplots(
        1, 3, figsize=size, layout="constrained", width_ratios=[1, 1, 1.2], gridspec_kw={"wspace": 0.05}
    )
    for ax, grid, name in zip(axes, (c.predicted, c.measured), ("predicted", "measured"), strict=False):
        plot_grid(grid, ax, skip_first=False, limit=_limit(c), title=name, bar=grid is c.measured)
    axes[1].set_ylabel("")
    figure.suptitle(visible(c.measured.title.removeprefix("measured ")), fontsize=11, parse_math=False)
    _scatter(c, axes[2])
    return figure


def _scatter(c: PatchComparison, ax: Axes) -> None:
    predicted, measured = (g.values[:, c.first :].flatten() for g in (c.predicted, c.measured))
    limit = 1.05 * (_limit(c) or 1.0)
    ax.axline((0.0, 0.0), slope=1.0, color="0.7", linewidth=1)
    agree = predicted.sign() == measured.sign()
    for kept, color, name in ((agree, POSITIVE, "signs agree"), (~agree, NEGATIVE, "signs differ")):
        kept = kept & torch.isfinite(measured)
        ax.scatter(measured[kept].numpy(), predicted[kept].numpy(), s=12, color=[unit(color)], alpha=0.6, label=name)
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    ax.set_xlabel("measured", fontsize=8)
    ax.set_ylabel("predicted", fontsize=8)
    ax.set_title(f"Spearman {c.spearman:.2f}, signs agree {c.sign_agreement:.0%}", loc="left", fontsize=10)
    ax.tick_params(labelsize=8)
    ax.legend(fontsize=8)
