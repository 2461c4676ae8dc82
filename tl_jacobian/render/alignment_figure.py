"""The figures of a word alignment: its heat map, and for each target word the text with that word framed.

As in the paper's figures 3 and 13, source words are shaded by their influence on the framed word's prediction. Other
words before it have influence too; how much of all the source words hold is said beside each picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tl_jacobian.render import static, words
from tl_jacobian.render.colors import NEGATIVE, Scale, css_color, scale_of
from tl_jacobian.render.figure import Figure, frame
from tl_jacobian.render.grid_figure import grid_figure
from tl_jacobian.results.alignment import AlignedWord, WordAlignment
from tl_jacobian.results.tokens import visible

FRAME = f"border:2px solid {css_color(NEGATIVE, 1.0)};border-radius:3px;padding:0 1px"


def alignment_figures(a: WordAlignment, figure_id: str, *, only: int | None = None) -> list[Figure]:
    """The heat map and every target word's picture, or one target word's picture alone."""
    rows = [a.row(i) for i in range(len(a.target_words))] if only is None else [a.row(only)]
    pictures = Figure(_pictures(a, rows), "")
    return [pictures] if only is not None else [grid_figure(a.to_grid(), figure_id), pictures]


def title(a: WordAlignment) -> str:
    """``"Fisher Scope: word alignment"``."""
    return f"{words.scope_name(a)}: word alignment"


def facts_of(row: AlignedWord, scale: Scale) -> list[str]:
    """What there is to know about a row's shades."""
    unit = str(row.alignment.metadata.get("score") or "")
    share = row.source_share
    held = f"source words hold {share:.0%} of all influence on it" if share == share else ""
    return [f"full shade = {words.number(scale.limit)}", visible(unit), held]


def _pictures(a: WordAlignment, rows: Sequence[AlignedWord]) -> str:
    shown = "".join(_picture(row) for row in rows)
    head = static.head_html(
        words.scope_name(a), "which source words drive the prediction of each framed word", _model(a)
    )
    # Every row has its own full shade, named beside it.
    legend = static.bar_html("full shade", ["each word on its own scale"], signed=False)
    return frame(head, f'<div class="tlj-aligned">{shown}</div>{legend}')


def _model(a: WordAlignment) -> list[str]:
    return [visible(str(a.metadata[key])) for key in ("model", "host", "dtype") if a.metadata.get(key)]


def _picture(row: AlignedWord) -> str:
    scale = scale_of(row.scores)
    spans = "".join(_unit(row, i, text, scale) for i, text in enumerate(row.alignment.units))
    facts = " · ".join(f"<bdi>{escape(fact)}</bdi>" for fact in facts_of(row, scale) if fact)
    label = f'<div class="tlj-label" style="font-size:12px"><b><bdi>{static.shown(row.word)}</bdi></b> {facts}</div>'
    return f'{label}<div class="tlj-tokens" style="white-space:pre-wrap;word-wrap:break-word">{spans}</div>'


def _unit(row: AlignedWord, i: int, text: str, scale: Scale) -> str:
    a = row.alignment
    framed = a.targets[row.index]
    if i in a.sources or i == framed:
        word = text.lstrip(" ")
        title = f"{i}: {words.number(a.influence[row.index, i].item())}"
        style = FRAME if i == framed else f"background-color:{scale.css(a.influence[row.index, i].item())}"
        space = text[: len(text) - len(word)]
        return f'{space}<bdi style="{style}" title="{title}">{static.shown(word)}</bdi>'
    later = ";opacity:0.45" if i > framed else ""
    return f'<bdi style="background-color:#80808000{later}">{static.shown(text)}</bdi>'
