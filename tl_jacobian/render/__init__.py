"""Pictures of attributions and of maps: in a notebook, in a page, in a terminal, as a matplotlib figure.

A side branch: it imports the values and :mod:`tl_jacobian.tokens`, and no
model. Every HTML view is complete as static HTML; where scripts run, CircuitsVis' views
take the place of the static ones. Nothing here opens a connection.
"""

from tl_jacobian.render.display import Comparison, compare, show, show_map
from tl_jacobian.render.map_terminal import render_map_terminal
from tl_jacobian.render.page import embed_scripts_again, notebook_html, notebook_map, write_html, write_map
from tl_jacobian.render.plot import plot_map
from tl_jacobian.render.terminal import render_terminal

__all__ = [
    "Comparison",
    "compare",
    "embed_scripts_again",
    "notebook_html",
    "notebook_map",
    "plot_map",
    "render_map_terminal",
    "render_terminal",
    "show",
    "show_map",
    "write_html",
    "write_map",
]
