"""One figure: header, coloured tokens (static, upgraded by a script), legend, distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tl_jacobian.render import static
from tl_jacobian.render.colors import Scale, scale_of
from tl_jacobian.render.interactive import asset, figure_script
from tl_jacobian.results.attribution import Attribution


@dataclass(frozen=True)
class Figure:
    """A figure's markup, and the script that makes it interactive where scripts run; "" if it needs none."""

    html: str
    script: str


def figure(attributions: Sequence[Attribution], figure_id: str, *, skip_first: bool = False) -> Figure:
    """Draw one attribution, or several of one prompt as rows of one figure.

    Args:
        attributions: one, or several with the same tokens (:func:`check_comparable`).
        figure_id: an HTML id that nothing else on the page has.
        skip_first: draw the first unit hatched and leave it out of the colour range.
    """
    scales = [scale_of(a.scores, skip_first=skip_first) for a in attributions]
    draw = _single if len(attributions) == 1 else _comparison
    return Figure(draw(attributions, scales, figure_id), figure_script(figure_id, attributions, scales))


def _single(attributions: Sequence[Attribution], scales: Sequence[Scale], figure_id: str) -> str:
    (attribution,), (scale,) = attributions, scales
    return frame(
        static.header_html(attribution),
        _swappable(figure_id, static.tokens_html(attribution, scale)) + static.legend_html(attribution, scale),
        static.predictions_html(attribution.predictions),
    )


def _comparison(attributions: Sequence[Attribution], scales: Sequence[Scale], figure_id: str) -> str:
    pairs = zip(attributions, scales, strict=True)
    rows = "".join(static.label_html(a, scale) + static.tokens_html(a, scale) for a, scale in pairs)
    predictions = next((a.predictions for a in attributions if a.predictions), ())
    return frame(
        static.comparison_header_html(attributions),
        _swappable(figure_id, _folding(rows)) + static.shared_legend_html(scales),
        static.predictions_html(predictions),
    )


def _folding(rows: str) -> str:
    return f'<details class="tlj-rows" open><summary>side by side</summary>{rows}</details>'


def _swappable(figure_id: str, still: str) -> str:
    """The part of a figure that the script works on: it replaces a single row, and adds to several."""
    return f'<div id="{figure_id}" class="tlj-figure">{still}</div>'


def frame(header: str, main: str, aside: str = "") -> str:
    """A figure's outermost element."""
    # The two "ignore" classes keep MathJax, which Jupyter runs over HTML outputs, off a prompt's dollar signs.
    return (
        f'<div class="tlj tex2jax_ignore mathjax_ignore" dir="ltr" translate="no">{header}'
        f'<div class="tlj-body"><div class="tlj-main">{main}</div>{aside}</div></div>'
    )


def style_tag() -> str:
    """The figures' style sheet."""
    return f"<style>{asset('figure.css')}</style>"


def check_comparable(attributions: Sequence[Attribution]) -> None:
    """Refuse attributions that aren't of one prompt.

    Raises:
        ValueError: there is none, or their tokens or units differ.
    """
    if not attributions:
        raise ValueError("nothing to compare: got an empty list, expected attributions of one prompt")
    first = attributions[0]
    for i, other in enumerate(attributions[1:], start=1):
        if (other.tokens, other.str_tokens) != (first.tokens, first.str_tokens):
            raise ValueError(
                f"attributions 0 and {i} aren't of the same tokens ({_excerpt(first)} and {_excerpt(other)}): only "
                "attributions of one prompt, at one position and all per token or all per word, can be compared; "
                "show them one by one"
            )


def _excerpt(attribution: Attribution) -> str:
    text = "".join(attribution.str_tokens)
    return f"{len(attribution)} units, {text[:40]!r}" + ("…" if len(text) > 40 else "")
