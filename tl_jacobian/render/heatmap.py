"""The heat map that needs no script: a table of coloured cells, or a picture where those are too many."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from tl_jacobian.render import words
from tl_jacobian.render.colors import MAX_OPACITY, Scale, hue
from tl_jacobian.render.png import RGBA, data_url

# A cell of a table takes 70 bytes and a place in the browser's memory, a pixel next to nothing.
MAX_TABLE_CELLS = 5000
_PICTURE_WIDTH = 760
_SKIPPED: RGBA = (128, 128, 128, 60)
_NONE: RGBA = (128, 128, 128, 150)
_LABEL = "font-size:11px;font-weight:normal;white-space:pre;padding:0 6px"


class Heat(NamedTuple):
    """What a heat map shows; all texts made visible, none escaped.

    Attributes:
        values: numbers by row; NaN where there is none. A row shorter than the longest ends early.
        scales: the colour range of each row.
        rows, columns: their names.
        axes: what rows and columns are, in words.
        named: the name of a cell by row and column, for the pointer.
    """

    values: Sequence[Sequence[float]]
    scales: Sequence[Scale]
    rows: Sequence[str]
    columns: Sequence[str]
    axes: str
    named: Callable[[int, int], str]
    corner: str = ""


def heatmap_html(heat: Heat, *, scroll: bool = False) -> str:
    """Rows from top to bottom, columns from left to right; ``scroll`` keeps a high one in a box of its own."""
    draw = _table if sum(map(len, heat.values)) <= MAX_TABLE_CELLS else _picture
    box = "display:inline-block;max-width:100%;overflow:auto;max-height:620px" if scroll else "overflow-x:auto"
    return f'<div class="tlj-heat" style="{box}">{draw(heat)}</div>'


def _table(heat: Heat) -> str:
    upright = max(map(len, heat.columns)) <= 3
    heads = "".join(_head(name, upright) for name in heat.columns)
    corner = f'<th style="{_LABEL};text-align:right;vertical-align:bottom"><bdi>{escape(heat.corner)}</bdi></th>'
    rows = "".join(_row(heat, i) for i in range(len(heat.rows)))
    return f'<table style="border-collapse:collapse;margin:0"><tr>{corner}{heads}</tr>{rows}</table>'


def _head(name: str, upright: bool) -> str:
    """A column's name, on its side unless all are short."""
    if upright:
        return f'<th style="{_LABEL};padding:2px;text-align:center"><bdi>{escape(name)}</bdi></th>'
    return (
        f'<th style="{_LABEL};padding:2px 0;vertical-align:bottom;text-align:right">'
        f'<span style="writing-mode:vertical-rl"><bdi>{escape(name)}</bdi></span></th>'
    )


def _row(heat: Heat, i: int) -> str:
    values = heat.values[i]
    cells = "".join(_cell(heat, i, at, value) for at, value in enumerate(values))
    rest = len(heat.columns) - len(values)
    later = f'<td colspan="{rest}"></td>' if rest else ""
    return f'<tr><th style="{_LABEL};text-align:right"><bdi>{escape(heat.rows[i])}</bdi></th>{cells}{later}</tr>'


def _cell(heat: Heat, row: int, column: int, value: float) -> str:
    name, scale = escape(heat.named(row, column)), heat.scales[row]
    if math.isnan(value):
        return f'<td class="tlj-none" style="background-color:#80808033" title="{name}: none"></td>'
    color = "#80808040" if column < scale.skipped else scale.css(value)
    return f'<td style="background-color:{color}" title="{name}: {words.number(value)}"></td>'


def _picture(heat: Heat) -> str:
    width = len(heat.columns)
    rows = [_pixels(values, scale, width) for values, scale in zip(heat.values, heat.scales, strict=True)]
    across = max(_PICTURE_WIDTH, width)
    # Squares; but a table of few columns isn't drawn higher than wide.
    size = f'width="{across}" height="{max(1, min(across, round(across * len(heat.rows) / width)))}"'
    image = f'<img src="{data_url(rows)}" {size} alt="Heat map: {escape(heat.axes)}" style="image-rendering:pixelated">'
    return f'{image}<div style="font-size:12px;opacity:0.75"><bdi>{escape(heat.axes)}</bdi></div>'


def _pixels(values: Sequence[float], scale: Scale, width: int) -> list[RGBA]:
    drawn = [_pixel(value, scale, skipped=at < scale.skipped) for at, value in enumerate(values)]
    return drawn + [(0, 0, 0, 0)] * (width - len(values))


def _pixel(value: float, scale: Scale, *, skipped: bool) -> RGBA:
    if math.isnan(value):
        return _NONE
    return _SKIPPED if skipped else (*hue(value), round(255 * MAX_OPACITY * scale.strength(value)))
