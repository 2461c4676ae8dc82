"""The heat map that needs no script: a table of coloured cells, or a picture where those are too many."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tl_jacobian.attribution_map import AttributionMap
from tl_jacobian.render import map_words, words
from tl_jacobian.render.colors import MAX_OPACITY, Scale, hue
from tl_jacobian.render.png import RGBA, data_url
from tl_jacobian.render.static import shown

# A cell of a table takes 70 bytes and a place in the browser's memory, a pixel next to nothing.
MAX_TABLE_CELLS = 5000
_PICTURE_WIDTH = 760
_SKIPPED: RGBA = (128, 128, 128, 60)
_LABEL = "font-size:11px;font-weight:normal;white-space:pre;padding:0 6px"


def heatmap_html(m: AttributionMap, scales: Sequence[Scale]) -> str:
    """Targets from top to bottom, sources from left to right."""
    draw = _table if int(m.mask.sum()) <= MAX_TABLE_CELLS else _picture
    return f'<div class="tlj-heat" style="overflow-x:auto">{draw(m, scales)}</div>'


def _table(m: AttributionMap, scales: Sequence[Scale]) -> str:
    heads = "".join(
        f'<th style="{_LABEL};padding:2px 0;vertical-align:bottom;text-align:right">'
        f'<span style="writing-mode:vertical-rl"><bdi>{i} {shown(text)}</bdi></span></th>'
        for i, text in enumerate(m.str_tokens)
    )
    rows = "".join(_row(m, i, scale) for i, scale in enumerate(scales))
    return f'<table style="border-collapse:collapse;margin:0"><tr><th></th>{heads}</tr>{rows}</table>'


def _row(m: AttributionMap, i: int, scale: Scale) -> str:
    cells = "".join(_cell(scale, at, score) for at, score in enumerate(m[i].scores.tolist()))
    rest = len(m.str_tokens) - len(m[i])
    later = f'<td colspan="{rest}"></td>' if rest else ""
    name = escape(map_words.row_name(m, i))
    return f'<tr><th style="{_LABEL};text-align:right"><bdi>{name}</bdi></th>{cells}{later}</tr>'


def _cell(scale: Scale, at: int, score: float) -> str:
    color = "#80808040" if at < scale.skipped else scale.css(score)
    return f'<td style="background-color:{color}" title="{at}: {words.number(score)}"></td>'


def _picture(m: AttributionMap, scales: Sequence[Scale]) -> str:
    width = len(m.str_tokens)
    rows = [_pixels(a.scores.tolist(), scale, width) for a, scale in zip(m, scales, strict=True)]
    across = max(_PICTURE_WIDTH, width)
    size = f'width="{across}" height="{max(1, round(across * len(m) / width))}"'
    what = f"Heat map: {map_words.extent(m)}, targets from top to bottom, sources from left to right"
    return f'<img src="{data_url(rows)}" {size} alt="{what}" style="image-rendering:pixelated">'


def _pixels(scores: Sequence[float], scale: Scale, width: int) -> list[RGBA]:
    drawn = [
        _SKIPPED if at < scale.skipped else (*hue(score), round(255 * MAX_OPACITY * scale.strength(score)))
        for at, score in enumerate(scores)
    ]
    return drawn + [(0, 0, 0, 0)] * (width - len(scores))
