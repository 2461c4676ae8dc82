"""The figure of a map: the text, whose tokens light up for the target pointed at, and the heat map.

Without scripts the text shows the last target, and the heat map is a table or a picture. With
them every target can be pointed at, and CircuitsVis' attention view takes the heat map's place,
unless the map is too large for it; where few of the text's tokens are targets it comes below, folded.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from tl_jacobian.render import map_words, static, words
from tl_jacobian.render.colors import MAX_OPACITY, NEGATIVE, POSITIVE, Scale, blend
from tl_jacobian.render.figure import Figure, frame
from tl_jacobian.render.heatmap import Heat, heatmap_html
from tl_jacobian.render.interactive import call_script
from tl_jacobian.results.attribution_map import AttributionMap
from tl_jacobian.results.tokens import visible

# CircuitsVis draws every cell three times (two scalings to choose from, and one of them large).
MAX_ATTENTION_CELLS = 25_000
# Its view is square: with fewer targets than this share of the text much of it is empty, so it's folded away.
_MIN_SHARE = 0.75
_WHITE = (255, 255, 255)


def map_figure(m: AttributionMap, figure_id: str, *, skip_first: bool = True, per_row: bool = True) -> Figure:
    """Draw a map.

    Args:
        m: the map, per token or per word.
        figure_id: an HTML id that nothing else on the page has.
        skip_first: leave the first unit out of the colour ranges.
        per_row: each row has a colour range of its own.
    """
    scales = map_words.scales(m, skip_first=skip_first, per_row=per_row)
    script = call_script("mountMap", _props(m, scales, figure_id, per_row=per_row))
    return Figure(_html(m, scales, figure_id, per_row=per_row), script)


def _html(m: AttributionMap, scales: Sequence[Scale], figure_id: str, *, per_row: bool) -> str:
    heat = heatmap_html(_heat(m, scales))
    full, facts = map_words.scale_facts(m, list(scales), per_row=per_row)
    legend = static.bar_html(full, facts, signed=any(scale.signed for scale in scales))
    return frame(
        static.map_header_html(m[-1], map_words.extent(m)),
        f'<div id="{figure_id}" class="tlj-figure tlj-map">{_text_html(m, scales[-1])}{heat}</div>' + legend,
    )


def _heat(m: AttributionMap, scales: Sequence[Scale]) -> Heat:
    return Heat(
        values=[a.scores.tolist() for a in m],
        scales=scales,
        rows=[map_words.row_name(m, i) for i in range(len(m))],
        columns=[f"{i} {visible(text)}" for i, text in enumerate(m.str_tokens)],
        axes=f"{map_words.extent(m)}, targets from top to bottom, sources from left to right",
        named=lambda row, column: str(column),
    )


def _text_html(m: AttributionMap, scale: Scale) -> str:
    """The text as the last target sees it, and what that predicts."""
    coming = f'<bdi class="tlj-coming" style="opacity:0.75">{escape(map_words.predicted_text(m, len(m) - 1))}</bdi>'
    return (
        f'<div class="tlj-caption" style="font-size:12px;margin-bottom:4px"><bdi>'
        f"{escape(map_words.caption(m, len(m) - 1))}</bdi></div>"
        f"{static.tokens_html(m[-1], scale, after=coming)}"
    )


def _props(m: AttributionMap, scales: Sequence[Scale], figure_id: str, *, per_row: bool) -> dict[str, Any]:
    own = map_words.scales(m, skip_first=bool(scales[0].skipped), per_row=True)
    return {
        "id": figure_id,
        "rows": [[_short(score) for score in a.scores.tolist()] for a in m],
        "limits": [_short(scale.limit) for scale in own],
        "perRow": per_row,
        "skipped": scales[0].skipped,
        "predicted": map_words.predicted_units(m),
        "captions": [map_words.caption(m, i) for i in range(len(m))],
        "tokens": [visible(text) for text in m.str_tokens],
        "attention": int(m.mask.sum()) <= MAX_ATTENTION_CELLS,
        "square": len(m) >= _MIN_SHARE * len(m.str_tokens),
        "names": ["each row's scale", f"one scale, to {words.number(max(scale.limit for scale in own))}"],
        "positive": POSITIVE,
        "negative": NEGATIVE,
        "opacity": MAX_OPACITY,
        # CircuitsVis' view is opaque, on white: the colours that the others have there
        "shades": [blend(color, _WHITE, MAX_OPACITY) for color in (POSITIVE, NEGATIVE)],
    }


def _short(score: float) -> float:
    """Four digits: the file of a long text stays small."""
    return float(f"{score:.4g}")
