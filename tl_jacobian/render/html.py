"""Panels as HTML: a self-contained page, or the output of a notebook cell.

Every panel is complete as static HTML that needs no script; where scripts run, CircuitsVis' coloured tokens take the
place of the static ones. The static view is what a reader sees in an untrusted notebook or a code host's viewer. Such
viewers also strip ``<style>``, attributes they don't know and CSS they don't know (JupyterLab's sanitiser drops
``flex``, ``gap`` and ``unicode-bidi``), so colours, line breaks and text direction rest on ``<bdi>`` and on simple
inline CSS; the style sheet only makes it prettier. Nothing here opens a connection.

The markup is in ``templates/``. All that is written into it passes ``tokens.visible`` and is escaped.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Sequence
from functools import cache, singledispatch
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from tl_jacobian.render import svg, words
from tl_jacobian.render.circuitsvis import Notebook, asset, caption, csp_hash, runtime_scripts, strip_script
from tl_jacobian.render.colors import (
    MAX_OPACITY,
    NEGATIVE,
    POSITIVE,
    css,
    css_color,
    hue,
    kind_colors,
    kinds_of,
    shade_css,
)
from tl_jacobian.render.png import RGBA, data_url
from tl_jacobian.render.tables import tables_of
from tl_jacobian.results.files import atomic
from tl_jacobian.results.panels import Bar, Bars, Curves, HeatMap, Panel, Scale, StripRow, Table, TokenStrip
from tl_jacobian.results.tokens import visible

# A cell of a table takes 100 bytes and a place in the browser's memory, a pixel next to nothing.
MAX_TABLE_CELLS = 5000
_MANY_ROWS = (
    48  # more are folded by layer, below the strongest ones; those that belong to none go into a box that scrolls
)
_STRONGEST = 12
_OF_A_LAYER = re.compile(r"(?:L|blocks\.)?(\d+)(?:H\d|\.)")
_MAX_POINTS = 500  # of curves whose numbers are listed below them
_PICTURE_WIDTH = 760
_BAR_WIDTH = 130  # pixels of the longest bar, where kinds stand side by side
_HIDDEN: RGBA = (128, 128, 128, 60)
_NONE: RGBA = (128, 128, 128, 150)

_GREY = "#80808066"
_CLEAR = "#80808000"
_HATCHED = (
    f"background-image:linear-gradient(135deg,{_GREY} 25%,{_CLEAR} 25%,{_CLEAR} 50%,{_GREY} 50%,{_GREY} 75%,"
    f"{_CLEAR} 75%);background-size:6px 6px;opacity:0.6"
)
_FRAME = f"border:2px solid {css_color(NEGATIVE)}"
# Chromium rounds the height of a table's collapsed borders up, and that of the box around it down: without a pixel
# more the box would scroll up and down, too.
_SIDEWAYS = "overflow-x:auto;padding:0 0 1px"
_SCROLL = "display:inline-block;max-width:100%;overflow:auto;max-height:620px"


class Picture(NamedTuple):
    """A panel's markup below its heading, and the script that makes it interactive; "" if it needs none."""

    html: Markup
    script: str = ""


# -- pages and outputs ---------------------------------------------------------------------------


def page(panels: Sequence[Panel]) -> str:
    """The whole page: figures first, so that they show before the scripts have loaded.

    The page works offline and makes no request: its content security policy allows none, and only its own scripts,
    named by their hashes.

    Raises:
        ArgumentError: there is nothing to draw.
    """
    shown = words.seen(panels, "page")
    figures = _figures(shown, "tlj")
    calls = [figure.script for figure in figures if figure.script]
    scripts = [*runtime_scripts(), *calls] if calls else []
    sources = " ".join(map(csp_hash, scripts)) or "'none'"
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {sources}"
    policy += "; img-src data:"  # the pictures of large heat maps, which are in the page
    return _render(
        "page.html",
        title=words.heading(shown[0]) or "tl_jacobian",
        policy=Markup(policy),  # ours: quotes in it are meant
        styles=[Markup(asset("page.css")), Markup(asset("figure.css"))],
        figures=[figure.html for figure in figures],
        scripts=list(map(Markup, scripts)),
    )


def write(panels: Sequence[Panel], path: str | Path) -> Path:
    """Write :func:`page` to a file, which appears whole or not at all; returns its path.

    Raises:
        ArgumentError: there is nothing to draw.
        OSError: the file can't be written.
    """
    text = page(panels)
    with atomic(path) as file:
        file.write(text)
    return Path(path)


def notebook(panels: Sequence[Panel]) -> str:
    """HTML for a notebook output.

    The scripts (0.5 MB) are in the outputs of the first two cells that need them; later figures find them in the
    notebook page, and stay static where they don't. :func:`embed_scripts_again` puts them into the next output once
    more.

    Raises:
        ArgumentError: there is nothing to draw.
    """
    figures = _figures(words.seen(panels, "page"), f"tlj-{uuid.uuid4().hex}")
    calls = [figure.script for figure in figures if figure.script]
    return _render(
        "notebook.html",
        style=Markup(asset("figure.css")),
        figures=[figure.html for figure in figures],
        scripts=list(map(Markup, [*Notebook.scripts(), *calls] if calls else [])),
    )


def _figures(panels: Sequence[Panel], first_id: str) -> list[Picture]:
    """A frame around each panel and its footnotes."""
    found = []
    for i, (panel, asides) in enumerate(words.with_asides(panels)):
        picture = draw(panel, f"{first_id}-{i}")
        html = _render(
            "figure.html",
            title=panel.title,
            detail=panel.detail,
            facts=[*([words.extent(panel)] if isinstance(panel, HeatMap) else []), *panel.facts],
            main=picture.html,
            asides=[draw(aside, "").html for aside in asides],
        )
        found.append(Picture(Markup(html), picture.script))
    return found


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("tl_jacobian.render"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: Any) -> Any:
    """What a template writes: text with hidden characters made visible (and then escaped), markup as it is."""
    if not isinstance(value, str) or isinstance(value, Markup) or (value.isascii() and value.isprintable()):
        return value
    return visible(value)


def _render(template: str, **values: Any) -> str:
    return _templates().get_template(template).render(values)


def _picture(template: str, script: str = "", **values: Any) -> Picture:
    return Picture(Markup(_render(template, **values)), script)


@singledispatch
def draw(panel: Panel, figure_id: str) -> Picture:
    """A panel below its heading.

    Args:
        panel: what to draw.
        figure_id: an HTML id that nothing else on the page has.
    """
    raise TypeError(f"pages draw no {type(panel).__name__}")


# -- texts on colours ---------------------------------------------------------------------------


@draw.register
def _(panel: TokenStrip, figure_id: str) -> Picture:
    if panel.inside is not None:
        return _blocks(panel)
    one = panel.rows[min(panel.chosen, len(panel.rows) - 1)] if len(panel.rows) > 1 and not panel.together else None
    return _picture(
        "strip.html",
        strip_script(panel, figure_id),
        id=figure_id,
        rows=[_row(panel, row) for row in (panel.rows if one is None else (one,))],
        single=len(panel.rows) == 1,
        caption="" if one is None else caption(panel, one),
        legend=_strip_legend(panel),
    )


def _row(panel: TokenStrip, row: StripRow) -> dict[str, Any]:
    return {
        "label": row.label,
        "facts": words.row_facts(panel, row),
        "coming": row.coming,
        "units": [_unit(panel, row, i) for i in range(len(panel.units))],
    }


def _blocks(panel: TokenStrip) -> Picture:
    """Units below each other, each of which folds out to its tokens; no script is needed, and the keyboard works."""
    rows = []
    for i, row in enumerate(panel.rows):
        blocks = [
            {
                "name": block.name,
                "number": block.number,
                "style": _unit_style(panel, row, block.unit),
                "frame": f";{_FRAME}" if block.unit in row.framed else "",
                "bar": 0 if math.isnan(block.share) else max(1, round(block.share * _BAR_WIDTH)),
                "color": css_color(POSITIVE if row.values[block.unit] >= 0 else NEGATIVE),
                "title": words.unit_title(panel, row, block.unit),
                "count": words.counted(len(panel.units[block.unit].positions), "token"),
                "tokens": _inner_tokens(panel, i, block.tokens),
            }
            for block in words.blocks(panel, row)
        ]
        facts = [*words.row_facts(panel, row), words.inner_scale(panel, i)]
        rows.append({"label": row.label, "facts": facts, "coming": row.coming, "blocks": blocks})
    legend = _strip_legend(panel)
    if len(rows) == 1:
        legend["facts"].append(words.inner_scale(panel, 0))
    return _picture("blocks.html", rows=rows, width=_BAR_WIDTH, legend=legend)


def _inner_tokens(panel: TokenStrip, row: int, tokens: Sequence[int]) -> list[dict[str, Any]]:
    """The tokens of a block, where the page draws them; an ellipsis stands for those between that aren't in it."""
    inner = panel.inside
    if inner is None or "page" not in inner.views:
        return []
    found = [_unit(inner, inner.rows[row], j) for j in tokens]
    for before, (j, after) in zip(found, pairwise(tokens), strict=False):
        if after > j + 1:
            before |= {"gap": True, "breaks": False}
    return found


def _unit(panel: TokenStrip, row: StripRow, i: int) -> dict[str, Any]:
    """A unit: the spaces before it where it has a frame, its text and looks."""
    text, framed = panel.units[i].text, i in row.framed
    bare = text.lstrip(" ") if framed else text
    return {
        "space": text[: len(text) - len(bare)],
        "text": bare,
        "style": _unit_style(panel, row, i) + (f";{_FRAME};padding:0 1px" if framed else ""),
        "title": words.unit_title(panel, row, i),
        # A newline is drawn as a sign, and breaks the line once, however many there are.
        "breaks": "\n" in text,
        "gap": False,
    }


def _unit_style(panel: TokenStrip, row: StripRow, i: int) -> str:
    if i in panel.hidden:
        return _HATCHED
    value = row.values[i] if i < len(row.values) else math.nan
    color = _CLEAR if math.isnan(value) else css(row.scale, value)
    return f"background-color:{color}" + (";opacity:0.45" if words.is_later(row, i) else "")


def _strip_legend(panel: TokenStrip) -> dict[str, Any]:
    scales, facts = [row.scale for row in panel.rows], [*panel.legend]
    if len(scales) == 1:
        facts += [*panel.rows[0].facts, words.scale_range(scales[0])]
    elif not words.one_scale(panel.rows):
        facts.insert(0, "each on its own scale")
    full = words.number(scales[0].limit) if scales and words.one_scale(panel.rows) else "full colour"
    return _legend(
        full, [*facts, words.strip_left_out(panel, panel.rows)], signed=any(scale.signed for scale in scales)
    )


def _legend(full: str, facts: Sequence[str], *, signed: bool) -> dict[str, Any]:
    """A colour bar from zero (or minus the limit) to the limit, and what there is to know."""
    start = f"{css_color(NEGATIVE, MAX_OPACITY)} 0%,{css_color(NEGATIVE, 0.0)} 50%," if signed else ""
    middle = 50 if signed else 0
    stops = f"{start}{css_color(POSITIVE, 0.0)} {middle}%,{css_color(POSITIVE, MAX_OPACITY)} 100%"
    low = "−full" if full == "full colour" else f"−{full}"
    return {"low": low if signed else "0", "high": full, "facts": list(dict.fromkeys(facts)), "stops": stops}


# -- heat maps -----------------------------------------------------------------------------------


@draw.register
def _(panel: HeatMap, figure_id: str) -> Picture:
    heads = words.column_names(panel)
    small = sum(map(len, panel.values)) <= MAX_TABLE_CELLS
    axes = f"{words.extent(panel)}, {panel.row_axis}s from top to bottom, {panel.column_axis}s from left to right"
    many = small and len(panel.rows) > _MANY_ROWS
    rows = _heat_rows(panel) if small else []
    layers = _layers(panel) if many else {}
    return _picture(
        "heatmap.html",
        box=_SCROLL if many and not layers else _SIDEWAYS,
        corner=f"{panel.row_axis} ↓  {panel.column_axis} →",
        heads=heads,
        upright=max(map(len, heads), default=0) <= 3,
        rows=[rows[i] for i in _strongest_rows(panel)] if layers else rows,
        folds=[
            {"name": f"layer {layer}, {words.counted(len(inside), panel.row_axis)}", "rows": [rows[i] for i in inside]}
            for layer, inside in layers.items()
        ],
        image=_image(panel) if not small else None,
        axes=axes,
        legend=_legend(
            words.full_color(panel),
            [*words.heat_facts(panel), *([f"the strongest {_STRONGEST} rows first"] if layers else [])],
            signed=words.heat_signed(panel),
        ),
    )


def _layers(panel: HeatMap) -> dict[int, list[int]]:
    """Rows by their layer, where all are named by one, such as ``L5H3`` or ``5.mlp``, and several share it."""
    found: dict[int, list[int]] = {}
    for i, name in enumerate(panel.rows):
        if (match := _OF_A_LAYER.match(name)) is None:
            return {}
        found.setdefault(int(match[1]), []).append(i)
    return found if len(found) < len(panel.rows) else {}


def _strongest_rows(panel: HeatMap) -> list[int]:
    """The rows with the numbers furthest from zero, the furthest first."""
    size = [0.0] * len(panel.rows)
    for row, _, value in words.numbers(panel):
        size[row] = max(size[row], abs(value))
    return sorted(range(len(size)), key=lambda i: -size[i])[:_STRONGEST]


def _heat_rows(panel: HeatMap) -> list[dict[str, Any]]:
    hidden = set(panel.hidden)
    frames = {(frame.row, frame.column): frame.dashed for frame in panel.frames}
    return [
        {
            "name": panel.rows[i],
            "cells": [_heat_cell(panel, i, j, value, hidden, frames) for j, value in enumerate(values)],
            "rest": len(panel.columns) - len(values),
        }
        for i, values in enumerate(panel.values)
    ]


def _heat_cell(
    panel: HeatMap, row: int, column: int, value: float, hidden: set[int], frames: dict[tuple[int, int], bool]
) -> dict[str, str]:
    none = math.isnan(value)
    color = "#80808033" if none else "#80808040" if column in hidden else css(panel.scale(row), value)
    dashed = frames.get((row, column))
    frame = "" if dashed is None else f";{_FRAME.replace('solid', 'dashed') if dashed else _FRAME}"
    note = " (left out of the colours)" if column in hidden and not none else ""
    classes = [*(["tlj-none"] if none or column in hidden else []), *([] if dashed is None else ["tlj-gold"])]
    return {
        "look": " ".join(classes),
        "style": f"background-color:{color}{frame}",
        "title": f"{words.cell_name(panel, row, column)}: {words.number(value)}{note}",
    }


def _image(panel: HeatMap) -> dict[str, Any]:
    width = len(panel.columns)
    rows = [_pixels(values, panel.scale(i), set(panel.hidden), width) for i, values in enumerate(panel.values)]
    across = max(_PICTURE_WIDTH, width)
    # Squares; but a table of few columns isn't drawn higher than wide.
    height = max(1, min(across, round(across * len(panel.rows) / width)))
    return {"src": data_url(rows), "width": across, "height": height}


def _pixels(values: Sequence[float], scale: Scale, hidden: set[int], width: int) -> list[RGBA]:
    drawn = [_pixel(value, scale, hidden=at in hidden) for at, value in enumerate(values)]
    return drawn + [(0, 0, 0, 0)] * (width - len(values))


def _pixel(value: float, scale: Scale, *, hidden: bool) -> RGBA:
    if math.isnan(value):
        return _NONE
    return _HIDDEN if hidden else (*hue(value), round(255 * MAX_OPACITY * scale.strength(value)))


# -- bars -----------------------------------------------------------------------------------------


@draw.register
def _(panel: Bars, figure_id: str) -> Picture:
    if panel.aside:
        return _aside(panel)
    lines, kinds, colors = words.bar_lines(panel), kinds_of(panel), kind_colors(panel)
    totals = words.running_totals(panel)
    negative = any(bar.value < 0 for bar in panel.bars)
    largest = max((abs(bar.value) for bar in panel.bars if math.isfinite(bar.value)), default=0.0) or 1.0
    # Kinds stand side by side where lines have several; else below each other, so that lengths can be compared.
    columns = [[kind] for kind in kinds] if any(len(members) > 1 for _, members in lines) else [kinds]
    found = []
    for name, members in lines:
        by_kind = {bar.kind: (place, bar) for place, bar in members}
        chosen = [next((kind for kind in column if kind in by_kind), None) for column in columns]
        cells = [
            None if kind is None else {**_bar(panel, *by_kind[kind], largest, totals), "color": css_color(colors[kind])}
            for kind in chosen
        ]
        found.append({"name": name, "cells": cells})
    return _picture(
        "bars.html",
        box=_SCROLL if len(lines) > _MANY_ROWS else _SIDEWAYS,
        heads=[[(words.kind_name(panel, k), css_color(colors[k])) for k in one] for one in columns if any(kinds)],
        lines=found,
        left=f"width:{_BAR_WIDTH}px;" if negative else "",
        width=_BAR_WIDTH,
        facts=list(dict.fromkeys([panel.quantity, *panel.legend])),
    )


def _bar(panel: Bars, place: int, bar: Bar, largest: float, totals: Sequence[float]) -> dict[str, Any]:
    length = 0 if not math.isfinite(bar.value) else round(abs(bar.value) / largest * _BAR_WIDTH)
    return {
        "length": max(1 if math.isfinite(bar.value) and bar.value else 0, length),
        "negative": bar.value < 0,
        "number": words.bar_number(panel, bar),
        "title": words.bar_title(panel, place, totals),
    }


def _aside(panel: Bars) -> Picture:
    """Names on a grey plate, on which a leading space can be seen; the longest bar fills the width."""
    largest = max((bar.value for bar in panel.bars), default=0.0) or 1.0
    rows = [
        {
            "name": bar.name,
            "note": bar.note,
            "number": words.bar_number(panel, bar),
            "width": f"{min(max((bar.value if math.isfinite(bar.value) else 0.0) / largest * 100, 0.5), 100.0):.1f}",
        }
        for bar in panel.bars
    ]
    return _picture("aside.html", title=words.heading(panel) or panel.quantity, rows=rows, clear=_CLEAR)


# -- curves and tables ------------------------------------------------------------------------------


@draw.register
def _(panel: Curves, figure_id: str) -> Picture:
    tables = tables_of(panel) if sum(len(curve.x) for curve in panel.curves) <= _MAX_POINTS else []
    chart = svg.chart_of(panel)
    return _picture(
        "curves.html",
        chart=chart,
        label=words.heading(panel) or f"{panel.y_axis} over {panel.x_axis}",
        facts=[*panel.legend, *_curves_left_out(panel)],
        tables=list(map(_table, tables)),
        box=_SCROLL,
    )


def _curves_left_out(panel: Curves) -> list[str]:
    """What is hatched, in this chart and below it."""
    return [words.curves_left_out(one) for one in (panel, panel.below) if one is not None]


@draw.register
def _(panel: Table, figure_id: str) -> Picture:
    scroll = _SCROLL if len(panel.rows) > _MANY_ROWS else _SIDEWAYS
    above = [visible(line) for line in panel.above.splitlines(keepends=True)]
    return _picture("table.html", table=_table(panel), above=above, box=scroll, notes=[*panel.legend, *panel.notes])


def _table(panel: Table) -> dict[str, Any]:
    sides = ["right" if i in panel.numbers else "left" for i in range(len(panel.header))]
    rows = [
        [{"text": cell.text, "color": shade_css(cell.shade) if cell.shade else _CLEAR} for cell in row]
        for row in panel.rows
    ]
    return {"header": panel.header, "sides": sides, "rows": rows}
