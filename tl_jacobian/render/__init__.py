"""Pictures of values: in a notebook, in a page, in a terminal, as a matplotlib figure.

A side branch: it imports the values and :mod:`tl_jacobian.results.tokens`, and no
model. Every HTML view is complete as static HTML; where scripts run, CircuitsVis' views
take the place of the static ones. Nothing here opens a connection.
"""

from tl_jacobian.render.alignment_display import (
    notebook_alignment,
    render_aligned_word_terminal,
    show_aligned_word,
    show_alignment,
    write_alignment,
)
from tl_jacobian.render.alignment_plot import plot_aligned_word, plot_alignment
from tl_jacobian.render.contributions_display import notebook_contributions, show_contributions, write_contributions
from tl_jacobian.render.contributions_plot import plot_contributions
from tl_jacobian.render.contributions_terminal import render_contributions_terminal
from tl_jacobian.render.counterfactual_table import (
    notebook_counterfactuals,
    render_counterfactuals_terminal,
    show_counterfactuals,
    write_counterfactuals,
)
from tl_jacobian.render.display import Comparison, compare, show, show_map
from tl_jacobian.render.evaluation_plot import evaluations_figure, plot_evaluation
from tl_jacobian.render.evaluation_table import evaluation_markdown, show_evaluation
from tl_jacobian.render.grid_display import notebook_grid, show_grid, write_grid
from tl_jacobian.render.grid_plot import plot_grid
from tl_jacobian.render.grid_terminal import render_grid_terminal
from tl_jacobian.render.map_terminal import render_map_terminal
from tl_jacobian.render.page import embed_scripts_again, notebook_html, notebook_map, write_html, write_map
from tl_jacobian.render.patching import notebook_patching, plot_patching, show_patching, write_patching
from tl_jacobian.render.plot import plot_map
from tl_jacobian.render.series import plot_series
from tl_jacobian.render.terminal import render_terminal

__all__ = [
    "Comparison",
    "compare",
    "embed_scripts_again",
    "evaluation_markdown",
    "evaluations_figure",
    "notebook_alignment",
    "notebook_contributions",
    "notebook_counterfactuals",
    "notebook_grid",
    "notebook_html",
    "notebook_map",
    "notebook_patching",
    "plot_aligned_word",
    "plot_alignment",
    "plot_contributions",
    "plot_evaluation",
    "plot_grid",
    "plot_map",
    "plot_patching",
    "plot_series",
    "render_aligned_word_terminal",
    "render_contributions_terminal",
    "render_counterfactuals_terminal",
    "render_grid_terminal",
    "render_map_terminal",
    "render_terminal",
    "show",
    "show_aligned_word",
    "show_alignment",
    "show_contributions",
    "show_evaluation",
    "show_counterfactuals",
    "show_grid",
    "show_map",
    "show_patching",
    "write_alignment",
    "write_contributions",
    "write_counterfactuals",
    "write_grid",
    "write_html",
    "write_map",
    "write_patching",
]
