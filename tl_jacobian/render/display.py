"""Showing attributions and maps where the user is: in a notebook, or in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tl_jacobian.errors import ArgumentError
from tl_jacobian.render.figure import check_comparable
from tl_jacobian.render.map_terminal import render_map_terminal
from tl_jacobian.render.page import notebook_figures, notebook_html, notebook_map, write_page
from tl_jacobian.render.terminal import render_terminal
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.attribution_map import AttributionMap


def show(attributions: Attribution | Sequence[Attribution], *, skip_first: bool = False) -> None:
    """Draw one attribution or several: as HTML in Jupyter, else in the terminal.

    Args:
        attributions: what to draw, in order.
        skip_first: draw the first unit without colour and leave it out of the colour range.

    Raises:
        ValueError: there is nothing to draw, or a score isn't finite.
    """
    several = [attributions] if isinstance(attributions, Attribution) else list(attributions)
    if not several:
        raise ValueError("nothing to show: got an empty list, expected at least one attribution")
    if in_notebook():
        display_html(notebook_html(several, skip_first=skip_first))
        return
    for attribution in several:
        render_terminal(attribution, skip_first=skip_first)


def show_map(m: AttributionMap, *, skip_first: bool = True, per_row: bool = True) -> None:
    """Draw a map: as HTML in Jupyter, else the strongest sources of each target in the terminal.

    Args:
        m: what to draw.
        skip_first: leave the first unit out of colours and rankings.
        per_row: each row has a colour range of its own (in HTML).

    Raises:
        ValueError: a score isn't finite.
    """
    if in_notebook():
        display_html(notebook_map(m, skip_first=skip_first, per_row=per_row))
    else:
        render_map_terminal(m, skip_first=skip_first)


class Comparison:
    """Several attributions of one prompt, side by side; made by :func:`compare`.

    Attributes:
        attributions: what is compared, in order.
        skip_first: whether the first unit is left out of the colour ranges.
    """

    def __init__(self, attributions: Sequence[Attribution], *, skip_first: bool = False) -> None:
        check_comparable(attributions)
        self.attributions = tuple(attributions)
        self.skip_first = skip_first

    def __repr__(self) -> str:
        return f"Comparison({', '.join(f'{a.scope}: {a.target}' for a in self.attributions)})"

    def show(self) -> None:
        """Draw the comparison: as HTML in Jupyter, else one below the other in the terminal."""
        if in_notebook():
            display_html(self._repr_html_())
        else:
            show(self.attributions, skip_first=self.skip_first)

    def to_html(self, path: str | Path) -> Path:
        """Write the comparison as one self-contained page that works offline; returns its path."""
        return write_page([self.attributions], path, skip_first=self.skip_first)

    def _repr_html_(self) -> str:
        return notebook_figures([self.attributions], skip_first=self.skip_first)


def compare(attributions: Sequence[Attribution], *, skip_first: bool = False) -> Comparison:
    """Several attributions of one prompt in one figure.

    Each has its own colour scale, for scores of different scopes have different units.

    Args:
        attributions: at least one, all of the same tokens.
        skip_first: draw the first unit hatched and leave it out of the colour ranges.

    Raises:
        ValueError: there is none, they aren't attributions, or their tokens differ.
    """
    if not isinstance(attributions, Sequence) or not all(isinstance(a, Attribution) for a in attributions):
        raise ArgumentError(f"compare() got {attributions!r}, expected a list of attributions of one prompt")
    return Comparison(attributions, skip_first=skip_first)


def in_notebook() -> bool:
    """Whether the code runs in a Jupyter kernel, where HTML can be displayed."""
    # A kernel has imported IPython already; elsewhere importing it would cost a second for nothing.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def display_html(html: str) -> None:
    """Show HTML in a notebook."""
    from IPython.display import HTML, display  # pyright: ignore[reportMissingImports]  # present in every kernel

    display(HTML(html))


def display_markdown(text: str) -> None:
    """Show Markdown in a notebook."""
    from IPython.display import Markdown, display  # pyright: ignore[reportMissingImports]  # present in every kernel

    display(Markdown(text))
