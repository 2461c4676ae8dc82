"""Contributions where the user is: in a notebook, on a page, in the terminal."""

from __future__ import annotations

from pathlib import Path

from tl_jacobian.render import contributions_words
from tl_jacobian.render.contributions_figure import contributions_figures
from tl_jacobian.render.contributions_terminal import render_contributions_terminal
from tl_jacobian.render.display import display_html, in_notebook
from tl_jacobian.render.page import new_id, output, write_figures
from tl_jacobian.results.contributions import Contributions


def show_contributions(c: Contributions) -> None:
    """Draw contributions: as HTML in Jupyter, else as lines in the terminal."""
    if in_notebook():
        display_html(notebook_contributions(c))
    else:
        render_contributions_terminal(c)


def write_contributions(c: Contributions, path: str | Path) -> Path:
    """Write one self-contained page; returns its path."""
    return write_figures(contributions_figures(c, "tlj"), contributions_words.title(c), path)


def notebook_contributions(c: Contributions) -> str:
    """HTML for a notebook output."""
    return output(contributions_figures(c, new_id()))
