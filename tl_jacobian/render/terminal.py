"""The terminal view: coloured tokens with rich, or a ranked table where there is no colour.

Token text goes into ``Text`` objects, never through rich's markup, and only after
``tokens.visible`` has turned escape sequences into text.
"""

from __future__ import annotations

import os

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tl_jacobian.render import words
from tl_jacobian.render.colors import RGB, Scale, contrast, scale_of
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.tokens import visible

_DARK, _LIGHT = (24, 24, 24), (255, 255, 255)
_BLACK_TEXT, _WHITE_TEXT = (16, 16, 16), (245, 245, 245)
_LEGEND_STEPS = 12
_FAINT = 0.04  # weaker colours are left out: on a background unlike the assumed one they would mislead
_EIGHTHS = " ▏▎▍▌▋▊▉"
_BAR_WIDTH = 20
_TOP = 10


def render_terminal(attribution: Attribution, *, skip_first: bool = False, console: Console | None = None) -> None:
    """Print an attribution: its tokens on colours that follow the scores, and the distribution.

    Without colour (``NO_COLOR``, a pipe, a dumb terminal) the tokens with the highest scores
    are listed in a table instead.

    Args:
        attribution: what to draw.
        skip_first: leave the first unit out of the colour range and the ranking.
        console: where to print; default standard output.

    Raises:
        ValueError: a score isn't finite.
    """
    console = console or Console(highlight=False)
    scale = scale_of(attribution.scores, skip_first=skip_first)
    console.print(_view(attribution, scale, console), soft_wrap=False, highlight=False)


def _view(attribution: Attribution, scale: Scale, console: Console) -> Group:
    has_colour = console.color_system is not None and not console.no_color
    draw = _coloured if has_colour else _ranked
    parts = [_header(attribution, console), Text(), *draw(attribution, scale, console)]
    if attribution.predictions:
        parts += [Text(), Text("predicted next token", style="dim"), _predictions(attribution, console)]
    return Group(*parts)


def _header(attribution: Attribution, console: Console) -> Text:
    facts = ", ".join([words.explained_position(attribution), *words.model_facts(attribution)])
    head = Text()
    head.append(fit(words.scope_name(attribution), console), style="bold")
    head.append(f"  {fit(words.explained(attribution), console)}\n")
    return head.append(fit(facts, console), style="dim")


# -- with colour -----------------------------------------------------------------


def _coloured(attribution: Attribution, scale: Scale, console: Console) -> list[RenderableType]:
    background = terminal_background()
    text = Text(overflow="fold")
    for i, (unit, score) in enumerate(zip(attribution.str_tokens, attribution.scores.tolist(), strict=True)):
        style = "dim strike" if i < scale.skipped else style_of(score, scale, background)
        text.append(fit(visible(unit), console), style=style)
        text.append("\n" if "\n" in unit else "")
    return [text, Text(), _legend(attribution, scale, console)]


def style_of(score: float, scale: Scale, background: RGB) -> str:
    """A rich style: the score's colour on ``background``, and black or white text, whichever reads better."""
    if scale.strength(score) < _FAINT:
        return ""
    colour = scale.over(score, background)
    text = max(_BLACK_TEXT, _WHITE_TEXT, key=lambda candidate: contrast(candidate, colour))
    return f"{_rgb(text)} on {_rgb(colour)}"


def _legend(attribution: Attribution, scale: Scale, console: Console) -> Text:
    return color_bar(scale, signed=scale.signed).append(f"  {fit(_caption(attribution, scale), console)}", style="dim")


def color_bar(scale: Scale, *, signed: bool) -> Text:
    """The colours from zero (or minus the limit) to the limit."""
    background = terminal_background()
    low = -scale.limit if signed else 0.0
    legend = Text(f"{words.number(low)} ")
    for step in range(_LEGEND_STEPS):
        score = low + (scale.limit - low) * step / (_LEGEND_STEPS - 1)
        legend.append(" ", style=style_of(score, scale, background))
    return legend.append(f" {words.number(scale.limit)}")


def _caption(attribution: Attribution, scale: Scale) -> str:
    extent = f"range {words.number(scale.low)} to {words.number(scale.high)}"
    skipped = "first left out" if scale.skipped else ""
    return ", ".join(filter(None, [words.score_unit(attribution), extent, _error(attribution), skipped]))


def _error(attribution: Attribution) -> str:
    """The typical standard error, for scores that are estimates."""
    if attribution.stderr is None:
        return ""
    some = attribution.scores > 0
    relative = (attribution.stderr[some] / attribution.scores[some]).mean().item() if some.any() else 0.0
    return f"standard error ±{relative:.1%} on average"


def terminal_background() -> RGB:
    """The terminal's background as far as the environment tells: dark unless it says light."""
    # Set by rxvt, Konsole, iTerm and others: "foreground;background", in the 16 standard colours.
    code = os.environ.get("COLORFGBG", "").rpartition(";")[2]
    return _LIGHT if code in {"7", "15"} else _DARK


def _rgb(colour: RGB) -> str:
    return "#" + "".join(f"{c:02x}" for c in colour)


# -- without colour ---------------------------------------------------------------


def _ranked(attribution: Attribution, scale: Scale, console: Console) -> list[RenderableType]:
    """The prompt as text, and its most influential units as a table with bars."""
    pieces = (fit(visible(t), console) + ("\n" if "\n" in t else "") for t in attribution.str_tokens)
    table = _table()
    for index in _strongest(attribution, scale):
        score = attribution.scores[index].item()
        unit = fit(words.quoted(attribution.str_tokens[index]), console)
        bar = _bar(scale.strength(score), console)
        table.add_row(Text(str(index)), Text(unit), Text(words.number(score)), Text(bar))
    title = f"{len(table.rows)} highest scores of {len(attribution)} ({_caption(attribution, scale)})"
    return [Text("".join(pieces), overflow="fold"), Text(), Text(fit(title, console)), table]


def _strongest(attribution: Attribution, scale: Scale) -> list[int]:
    """Units by ``|score|``, for a strongly negative one is as worth seeing as a positive."""
    order = attribution.scores.abs().argsort(descending=True, stable=True).tolist()
    return [i for i in order if i >= scale.skipped][:_TOP]


# -- shared -----------------------------------------------------------------------


def _predictions(attribution: Attribution, console: Console) -> Table:
    table = _table(numbered=False)
    largest = max(entry.probability for entry in attribution.predictions) or 1.0
    for entry in attribution.predictions:
        bar = _bar(entry.probability / largest, console)
        text = fit(words.quoted(entry.text), console)
        table.add_row(Text(text), Text(f"{entry.probability:.1%}"), Text(bar))
    return table


def _table(*, numbered: bool = True) -> Table:
    table = Table.grid(padding=(0, 2))
    if numbered:
        table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold", max_width=32)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    return table


def _bar(share: float, console: Console) -> str:
    length = share * min(_BAR_WIDTH, console.width // 3)
    if console.options.ascii_only:
        return "#" * round(length)
    full, eighths = divmod(round(length * 8), 8)
    return "█" * full + _EIGHTHS[eighths].strip()


def fit(text: str, console: Console) -> str:
    """``text`` with what the terminal's encoding can't hold written as escapes."""
    return text.encode(console.encoding, "backslashreplace").decode(console.encoding)
