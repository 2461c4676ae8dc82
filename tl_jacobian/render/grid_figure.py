"""The figure of a grid: its heat map, and below it the prompt on the colours of the row pointed at.

The heat map needs no script. The prompt below is CircuitsVis' ``ColoredTokensMulti``: a button
for each row, all on the heat map's one scale. It is drawn where columns are tokens, scripts run,
and there aren't too many rows to choose from.
"""

from __future__ import annotations

import math
from typing import Any

from tl_jacobian.render import grid_words, static, words
from tl_jacobian.render.colors import MAX_OPACITY, NEGATIVE, POSITIVE, Scale
from tl_jacobian.render.figure import Figure, frame
from tl_jacobian.render.heatmap import Heat, heatmap_html
from tl_jacobian.render.interactive import call_script
from tl_jacobian.results.grid import TOKEN, Grid
from tl_jacobian.results.tokens import visible

MAX_BUTTONS = 130
MAX_LIVE_CELLS = 20_000
_MANY_ROWS = 48  # more go into a box that scrolls
_PLAIN = (1e-2, 1e6)  # limits whose numbers can be read as they are: CircuitsVis writes six decimals


def grid_figure(g: Grid, figure_id: str, *, skip_first: bool | None = None, limit: float | None = None) -> Figure:
    """Draw a grid.

    Args:
        g: what to draw.
        figure_id: an HTML id that nothing else on the page has.
        skip_first: leave the first token out of the colour range; default: wherever columns are tokens.
        limit: what is drawn at full strength, for grids that share a scale.

    Raises:
        ArgumentError: ``skip_first`` where columns aren't tokens.
    """
    scale = grid_words.scale_of_grid(g, skip_first=skip_first, limit=limit)
    script = call_script("mountGrid", _props(g, scale, figure_id)) if _live(g) else ""
    return Figure(_html(g, scale, figure_id), script)


def _live(g: Grid) -> bool:
    return g.column_axis == TOKEN and len(g.rows) <= MAX_BUTTONS and g.values.numel() <= MAX_LIVE_CELLS


def _html(g: Grid, scale: Scale, figure_id: str) -> str:
    legend = static.bar_html(words.number(scale.limit), grid_words.facts(g, scale), signed=g.signed)
    return frame(
        static.head_html(visible(g.title), grid_words.extent(g), words.model_facts(g)),
        f'<div class="tlj-grid">{heatmap_html(_heat(g, scale), scroll=len(g.rows) > _MANY_ROWS)}</div>{legend}'
        f'<div id="{figure_id}" class="tlj-figure tlj-row"></div>',
    )


def _heat(g: Grid, scale: Scale) -> Heat:
    return Heat(
        values=g.values.tolist(),
        scales=[scale] * len(g.rows),
        rows=grid_words.row_names(g),
        columns=grid_words.column_names(g),
        axes=f"{grid_words.extent(g)}, {visible(g.row_axis)}s from top to bottom, "
        f"{visible(g.column_axis)}s from left to right",
        named=lambda row, column: grid_words.cell_name(g, row, column),
        corner=f"{visible(g.row_axis)} ↓  {visible(g.column_axis)} →",
    )


def _props(g: Grid, scale: Scale, figure_id: str) -> dict[str, Any]:
    unit = _unit(scale.limit)
    return {
        "id": figure_id,
        "caption": f"one {visible(g.row_axis)} at a time, all on the scale above"
        + (f"; the numbers are in units of {unit:g}" if unit != 1 else ""),
        "tokens": [visible(text) for text in g.columns],
        "breaks": [i for i, text in enumerate(g.columns) if "\n" in text],
        "columns": [[None if math.isnan(v) else float(f"{v / unit:.6g}") for v in row] for row in g.values.tolist()],
        "errors": None,
        "limit": float(f"{scale.limit / unit:.6g}"),
        "labels": grid_words.row_names(g),
        "skipped": scale.skipped,
        "positive": POSITIVE,
        "negative": NEGATIVE,
        "opacity": MAX_OPACITY,
    }


def _unit(limit: float) -> float:
    """A power of ten that makes the numbers readable with six decimals."""
    if not limit or _PLAIN[0] <= limit < _PLAIN[1]:
        return 1.0
    return 10.0 ** math.floor(math.log10(limit))
