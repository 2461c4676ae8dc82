"""Grids where the user is: in a notebook, on a page, in the terminal."""

from __future__ import annotations

from pathlib import Path

from tl_jacobian.render.display import display_html, in_notebook
from tl_jacobian.render.grid_figure import grid_figure
from tl_jacobian.render.grid_terminal import render_grid_terminal
from tl_jacobian.render.page import new_id, output, write_figures
from tl_jacobian.results.grid import Grid
from tl_jacobian.results.tokens import visible


def show_grid(g: Grid, *, skip_first: bool | None = None) -> None:
    """Draw a grid: as HTML in Jupyter, else as a table in the terminal.

    Args:
        g: what to draw.
        skip_first: leave the first token out of the colours; default: wherever columns are tokens.

    Raises:
        ArgumentError: ``skip_first`` where columns aren't tokens.
    """
    if in_notebook():
        display_html(notebook_grid(g, skip_first=skip_first))
    else:
        render_grid_terminal(g, skip_first=skip_first)


def write_grid(g: Grid, path: str | Path, *, skip_first: bool | None = None) -> Path:
    """Write one self-contained page; returns its path. Options: :func:`show_grid`."""
    return write_figures([grid_figure(g, "tlj-0", skip_first=skip_first)], visible(g.title), path)


def notebook_grid(g: Grid, *, skip_first: bool | None = None) -> str:
    """HTML for a notebook output. Options: :func:`show_grid`."""
    return output([grid_figure(g, new_id(), skip_first=skip_first)])
