"""Pictures of attributions: coloured tokens in a notebook, in a page, in a terminal.

A side branch: it imports :mod:`tl_jacobian.attribution` and :mod:`tl_jacobian.tokens`, and no
model. Every HTML view is complete as static HTML; where scripts run, CircuitsVis' coloured
tokens take the place of the static ones. Nothing here opens a connection.
"""

from tl_jacobian.render.display import Comparison, compare, show
from tl_jacobian.render.page import embed_scripts_again, notebook_html, write_html
from tl_jacobian.render.terminal import render_terminal

__all__ = [
    "Comparison",
    "compare",
    "embed_scripts_again",
    "notebook_html",
    "render_terminal",
    "show",
    "write_html",
]
