"""The figure of contributions: bars on both sides of zero, a line for each layer, attention beside MLP.

A table of plain cells with inline styles, which needs no script and which notebook viewers leave as it is.
"""

from __future__ import annotations

from html import escape

from tl_jacobian.render import contributions_words as of_parts
from tl_jacobian.render import static, words
from tl_jacobian.render.colors import RGB, css_color
from tl_jacobian.render.contributions_words import REST, Line
from tl_jacobian.render.figure import Figure, frame
from tl_jacobian.render.grid_figure import grid_figure
from tl_jacobian.results.contributions import Contributions, Part
from tl_jacobian.results.tokens import visible

_SOURCES = 24  # heads whose source tokens are shown, the strongest
_MANY_LINES = 48  # more go into a box that scrolls
_WIDTH = 130  # pixels of the longest bar, where kinds stand side by side
_BARE = "padding:0;border:none;"


def contributions_figures(c: Contributions, first_id: str) -> list[Figure]:
    """The bars, and the grids that there are.

    Args:
        c: what to draw.
        first_id: an HTML id; the figures' ids start with it.
    """
    grids = [g for g in (c.heads, c.sources and c.sources.strongest(_SOURCES)) if g is not None]
    return [Figure(_html(c), ""), *(grid_figure(g, f"{first_id}-{i}") for i, g in enumerate(grids))]


def _html(c: Contributions) -> str:
    lines = of_parts.lines(c)
    box = (
        "display:inline-block;max-width:100%;overflow:auto;max-height:620px"
        if len(lines) > _MANY_LINES
        else "overflow-x:auto"
    )
    return frame(
        static.head_html(of_parts.title(c), of_parts.extent(c), of_parts.facts(c)),
        f'<div class="tlj-figure" style="{box}">{_table(c, lines)}</div>',
    )


def _table(c: Contributions, lines: list[Line]) -> str:
    kinds = _columns(lines)
    heads = "".join(_head(c, kind) for kind in kinds)
    totals, rows = _totals(c), []
    for line in lines:
        cells = "".join(_cells(c, line.parts.get(kind), totals, of_parts.color(c, kind)) for kind in kinds)
        name = f'<th style="{_BARE}padding-right:8px;font-weight:normal;text-align:right;white-space:pre">'
        rows.append(f"<tr>{name}<bdi>{static.shown(line.name)}</bdi></th>{cells}</tr>")
    return f'<table class="tlj-parts"><thead><tr><th></th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _columns(lines: list[Line]) -> list[str]:
    """The kinds in order, what belongs to no layer last."""
    kinds = dict.fromkeys(kind for line in lines for kind in line.parts)
    return [*(kind for kind in kinds if kind != REST), *([REST] if REST in kinds else [])]


def _totals(c: Contributions) -> list[float]:
    return c.values.cumsum(0).tolist()


def _head(c: Contributions, kind: str) -> str:
    color = css_color(of_parts.color(c, kind), 1.0)
    mark = f'<span style="display:inline-block;width:9px;height:9px;background-color:{color}"></span>'
    name = escape(visible(kind)) if kind != REST else "other" if of_parts.kinds(c) else "part"
    return f'<th colspan="3" style="{_BARE}text-align:center;font-weight:normal">{mark} <bdi>{name}</bdi></th>'


def _cells(c: Contributions, part: Part | None, totals: list[float], rgb: RGB) -> str:
    """Three cells: what is below zero, what is above, and the number."""
    if part is None:
        return f'<td style="{_BARE}"></td>' * 3
    largest = c.values.abs().max().item() or 1.0
    length = max(1 if part.value else 0, round(abs(part.value) / largest * _WIDTH))
    bar = (
        f'<span style="display:inline-block;width:{length}px;height:9px;background-color:{css_color(rgb, 1.0)}"></span>'
    )
    left, right = (bar, "") if part.value < 0 else ("", bar)
    note = escape(f"{visible(part.name)}: {words.number(part.value)}; running total {words.number(totals[part.place])}")
    room = f"width:{_WIDTH}px;" if c.values.min() < 0 else ""
    return (
        f'<td style="{_BARE}{room}text-align:right" title="{note}">{left}</td>'
        f'<td style="padding:0;border:none;border-left:1px solid #80808099;width:{_WIDTH}px;text-align:left" '
        f'title="{note}">{right}</td>'
        f'<td style="{_BARE}padding:0 18px 0 4px;text-align:right">{words.number(part.value)}</td>'
    )
