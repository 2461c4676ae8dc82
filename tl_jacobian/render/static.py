"""The static view: coloured tokens as plain HTML that needs no script.

It is what a reader sees where scripts don't run: an untrusted notebook, a code host's
viewer. Such viewers also strip ``<style>``, attributes they don't know and CSS they
don't know (JupyterLab's sanitiser drops ``flex``, ``gap`` and ``unicode-bidi``), so colours,
line breaks and text direction rest on ``<bdi>`` and on simple inline CSS; the style sheet
only makes it prettier.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from tl_jacobian.render import words
from tl_jacobian.render.colors import MAX_OPACITY, NEGATIVE, POSITIVE, Scale, css_color
from tl_jacobian.results.attribution import Attribution, Prediction
from tl_jacobian.results.tokens import visible

_GREY = "#80808066"
_CLEAR = "#80808000"
_HATCHED = (
    f"background-image:linear-gradient(135deg,{_GREY} 25%,{_CLEAR} 25%,{_CLEAR} 50%,{_GREY} 50%,{_GREY} 75%,"
    f"{_CLEAR} 75%);background-size:6px 6px;opacity:0.6"
)


def tokens_html(attribution: Attribution, scale: Scale, after: str = "") -> str:
    """The coloured tokens: one ``<bdi>`` each, in reading order; ``after`` is markup behind the last."""
    marks = _error_bars(attribution)
    units = zip(attribution.str_tokens, attribution.scores.tolist(), marks, strict=True)
    spans = [_token(i, text, score, mark, scale) for i, (text, score, mark) in enumerate(units)]
    return f'<div class="tlj-tokens" style="white-space:pre-wrap;word-wrap:break-word">{"".join(spans)}{after}</div>'


def _token(index: int, text: str, score: float, error_bar: str, scale: Scale) -> str:
    skipped = index < scale.skipped
    style = _HATCHED if skipped else f"background-color:{scale.css(score)}"
    note = " (left out of the colour range)" if skipped else ""
    title = f"{index}: {words.number(score)}{error_bar}{note}"
    # A token's newline is drawn as a sign, and breaks the line once, however many there are.
    line_break = "<br>" if "\n" in text else ""
    return f'<bdi style="{style}" title="{title}">{shown(text)}</bdi>{line_break}'


def _error_bars(attribution: Attribution) -> list[str]:
    if attribution.stderr is None:
        return [""] * len(attribution)
    return [f" ± {words.number(error)}" for error in attribution.stderr.tolist()]


def header_html(attribution: Attribution) -> str:
    """Scope and target; below, in small print, the explained position and the model."""
    return _header(words.scope_name(attribution), words.explained(attribution), attribution)


def comparison_header_html(attributions: Sequence[Attribution]) -> str:
    """The header of several attributions of one prompt."""
    return _header(f"{len(attributions)} attributions", "of one prompt", attributions[0])


def map_header_html(last: Attribution, extent: str) -> str:
    """The header of a map: its scope and size; the model, from any of its rows."""
    return head_html(words.scope_name(last), f"attribution map, {extent}", words.model_facts(last))


def _header(name: str, detail: str, attribution: Attribution) -> str:
    return head_html(name, detail, [words.explained_position(attribution), *words.model_facts(attribution)])


def head_html(name: str, detail: str, facts: Iterable[str]) -> str:
    """A figure's header: what it is, and in small print of what."""
    return (
        f'<div class="tlj-head"><b>{escape(name)}</b> <bdi>{escape(detail)}</bdi></div>'
        f'<div class="tlj-small" style="font-size:12px;opacity:0.75">{_joined(facts)}</div>'
    )


def label_html(attribution: Attribution, scale: Scale) -> str:
    """One row's heading in a comparison: scope, target and the score at full colour."""
    facts = [words.explained(attribution), f"full colour = {words.number(scale.limit)}", words.score_unit(attribution)]
    return (
        f'<div class="tlj-label" style="font-size:12px"><b>{escape(words.scope_name(attribution))}</b> '
        f"{_joined(facts)}</div>"
    )


def legend_html(attribution: Attribution, scale: Scale) -> str:
    """Colour bar from zero (or minus the limit) to the limit, with range and unit."""
    left = words.number(-scale.limit if scale.signed else 0.0)
    extent = f"range {words.number(scale.low)} to {words.number(scale.high)}"
    skipped = "first left out" if scale.skipped else ""
    facts = _joined([words.score_unit(attribution), extent, skipped])
    return _legend(left, words.number(scale.limit), facts, signed=scale.signed)


def shared_legend_html(scales: Sequence[Scale]) -> str:
    """The legend of a comparison: every row has its own full colour, named in its heading."""
    signed = any(scale.signed for scale in scales)
    skipped = "first left out" if scales[0].skipped else ""
    facts = _joined(["each scope on its own scale", skipped])
    return _legend("−full" if signed else "0", "full colour", facts, signed=signed)


def bar_html(full: str, facts: Iterable[str], *, signed: bool) -> str:
    """A legend whose full colour is said in words."""
    return _legend(f"−{escape(full)}" if signed else "0", escape(full), _joined(facts), signed=signed)


def _legend(left: str, right: str, facts: str, *, signed: bool) -> str:
    start = f"{css_color(NEGATIVE, MAX_OPACITY)} 0%,{css_color(NEGATIVE, 0.0)} 50%," if signed else ""
    stops = f"{start}{css_color(POSITIVE, 0.0)} {50 if signed else 0}%,{css_color(POSITIVE, MAX_OPACITY)} 100%"
    bar = (
        f'<span style="display:inline-block;width:96px;height:9px;margin:0 6px;border:1px solid {_GREY};'
        f'background-image:linear-gradient(to right,{stops})"></span>'
    )
    return (
        f'<div class="tlj-legend" style="font-size:12px;margin-top:8px"><span>{left}</span>{bar}<span>{right}</span>'
        f'<span style="opacity:0.75;margin-left:12px">{facts}</span></div>'
    )


def table_html(heads: str, rows: Iterable[Sequence[str]], cell: str) -> str:
    """A plain table: a row of ready-made headings, and texts in cells of the given style."""
    body = "".join(
        "<tr>" + "".join(f'<td style="{cell}"><bdi>{escape(text)}</bdi></td>' for text in row) + "</tr>" for row in rows
    )
    return f'<table style="font-size:12px;border-collapse:collapse;margin:0"><tr>{heads}</tr>{body}</table>'


def predictions_html(predictions: Iterable[Prediction]) -> str:
    """The most probable next tokens as horizontal bars, the longest filling the width."""
    entries = list(predictions)
    if not entries:
        return ""
    largest = max(entry.probability for entry in entries) or 1.0
    rows = "".join(_prediction(entry, entry.probability / largest) for entry in entries)
    return (
        f'<div class="tlj-next" style="font-size:12px"><div style="opacity:0.75">predicted next token</div>'
        f'<table class="tlj-bars" style="font-size:12px;border-collapse:collapse;margin:0">{rows}</table></div>'
    )


def _prediction(entry: Prediction, share: float) -> str:
    """A row. The text sits on a grey plate, on which a leading space can be seen."""
    cell = "padding:1px 8px 1px 0;text-align:left;border:none"
    plate = "background-color:#80808026;white-space:pre-wrap;padding:0 1px"
    bar = f"display:inline-block;height:9px;width:{max(share * 100, 0.5):.1f}%;background-color:#808080cc"
    return (
        f'<tr style="background-color:{_CLEAR}"><td style="{cell}"><bdi style="{plate}" title="token {entry.token}">'
        f'{shown(entry.text)}</bdi></td><td style="{cell};width:90px"><span style="{bar}"></span></td>'
        f'<td style="{cell};text-align:right">{entry.probability:.1%}</td></tr>'
    )


def shown(text: str) -> str:
    """Token text as HTML: hidden characters made visible, markup escaped."""
    return escape(visible(text))


def _joined(facts: Iterable[str]) -> str:
    return " · ".join(f"<bdi>{escape(fact)}</bdi>" for fact in facts if fact)
