"""Pictures of panels: in a notebook, in a page, in a terminal, as a matplotlib figure, as Markdown.

A side branch: it knows panels (:mod:`tl_jacobian.results.panels`) and no value, no model. Each renderer draws each of
the five kinds of panel. matplotlib is loaded when a figure is drawn. Nothing here opens a connection.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tl_jacobian.render.circuitsvis import embed_scripts_again
from tl_jacobian.render.figure import figure
from tl_jacobian.render.html import notebook, page, write
from tl_jacobian.render.markdown import markdown
from tl_jacobian.render.terminal import terminal
from tl_jacobian.results.panels import Panel

__all__ = ["embed_scripts_again", "figure", "markdown", "notebook", "page", "show", "terminal", "write"]


def show(panels: Sequence[Panel]) -> None:
    """Draw panels where the user is: as HTML in Jupyter, else in the terminal.

    Raises:
        ArgumentError: there is nothing to draw.
    """
    if not in_notebook():
        terminal(panels)
        return
    from IPython.display import HTML, display  # pyright: ignore[reportMissingImports]  # present in every kernel

    display(HTML(notebook(panels)))


def in_notebook() -> bool:
    """Whether the code runs in a Jupyter kernel, where HTML can be displayed."""
    # A kernel has imported IPython already; elsewhere importing it would cost a second for nothing.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None
