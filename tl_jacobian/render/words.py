"""The words around a picture, the same in every view; all made visible, none escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.panels import Bar, Bars, Curves, HeatMap, Panel, Scale, StripRow, TokenStrip, Unit, View
from tl_jacobian.results.tokens import visible


def number(value: float) -> str:
    """Three significant digits.

    >>> number(12.3456), number(0.0), number(float("nan"))
    ('12.3', '0', 'none')
    """
    return "none" if math.isnan(value) else f"{value:.3g}"


def bar_number(panel: Bars, bar: Bar) -> str:
    """A bar's number, with its standard error where it has one."""
    write = (lambda value: f"{value:.1%}") if panel.percent and not math.isnan(bar.value) else number
    return write(bar.value) + ("" if bar.error is None else f" ± {write(bar.error)}")


def quoted(text: str) -> str:
    """``text`` made visible, in quotes that show where its spaces are."""
    return f"'{visible(text)}'"


def heading(panel: Panel) -> str:
    """``"Semantic Scope: logit of ' Paris' = 14.2"``."""
    return visible(": ".join(filter(None, (panel.title, panel.detail))))


def counted(n: int, axis: str) -> str:
    """``"1 layer"``, ``"2 layers"``."""
    return f"{n} {visible(axis)}" + ("" if n == 1 else "s")


def seen(panels: Sequence[Panel], view: View) -> list[Panel]:
    """Those that a renderer draws.

    Raises:
        ArgumentError: there is none, or something isn't a panel.
    """
    several = list(panels)
    wrong = next((panel for panel in several if not isinstance(panel, Panel)), None)
    if wrong is not None:
        raise ArgumentError(f"can't draw {type(wrong).__name__}, expected panels: what a value's panels() gives")
    if not several:
        raise ArgumentError("nothing to draw: got an empty list, expected at least one panel")
    found = [panel for panel in several if view in panel.views]
    if not found:
        where = {"terminal": "terminals", "page": "pages", "figure": "figures"}[view]
        raise ArgumentError(f"nothing to draw: none of these {len(several)} panels has a picture for {where}")
    return found


# -- token strips --------------------------------------------------------------------


def scale_range(scale: Scale) -> str:
    """``"range 1 to 2.5"``."""
    return f"range {number(scale.low)} to {number(scale.high)}"


def left_out(what: str, values: Iterable[float] = ()) -> str:
    """``"first 'The' left out"``, and how strong it is: one number as it is, the largest size of several.

    >>> left_out("'The'", [12.34, math.nan]), left_out("'The'", [1.0, -12.34]), left_out("'The'", [])
    ("first 'The' left out (would be 12.3)", "first 'The' left out (up to 12.3)", "first 'The' left out")
    """
    kept = [value for value in values if not math.isnan(value)]
    strength = f" (would be {number(kept[0])})" if len(kept) == 1 else ""
    return f"first {what} left out" + (f" (up to {number(max(map(abs, kept)))})" if len(kept) > 1 else strength)


def _names(units: Sequence[Unit], hidden: Sequence[int]) -> str:
    return quoted(units[hidden[0]].text) if len(hidden) == 1 else f"{len(hidden)} units"


def strip_left_out(strip: TokenStrip, rows: Sequence[StripRow]) -> str:
    """What is left out of these rows, and how strong it is where they share a scale; empty where nothing is."""
    if not strip.hidden:
        return ""
    return left_out(_names(strip.units, strip.hidden), _sinks(strip, rows) if one_scale(rows) else ())


def _sinks(strip: TokenStrip, rows: Sequence[StripRow]) -> list[float]:
    """The values of hidden units."""
    return [row.values[i] for row in rows for i in strip.hidden if i < len(row.values)]


def row_facts(strip: TokenStrip, row: StripRow) -> list[str]:
    """What there is to know about one of several rows; where each has a scale of its own, also what is left out."""
    facts = [f"full colour = {number(row.scale.limit)}", *map(visible, row.facts)]
    sinks = [value for value in _sinks(strip, [row]) if not math.isnan(value)]
    if len(sinks) == 1 and not one_scale(strip.rows):
        facts.append(f"{_names(strip.units, strip.hidden)} would be {number(sinks[0])}")
    return facts


def curves_left_out(panel: Curves) -> str:
    """How many first points are left out, and how strong they are; empty where none is."""
    values = [y for curve in panel.curves for x, y in zip(curve.x, curve.y, strict=True) if x < panel.hidden]
    what = "point" if panel.hidden == 1 else f"{panel.hidden} points"
    return left_out(what, values) if panel.hidden else ""


def unit_title(strip: TokenStrip, row: StripRow, i: int) -> str:
    """``"3: 0.12 ± 0.01"``; empty where a unit has no value."""
    if i >= len(row.values) or math.isnan(row.values[i]):
        return ""
    error = "" if row.errors is None else f" ± {number(row.errors[i])}"
    note = " (left out of the colour range)" if i in strip.hidden else ""
    return f"{i}: {number(row.values[i])}{error}{note}"


def is_later(row: StripRow, i: int) -> bool:
    """Whether a unit comes after all that matters, and isn't what is predicted."""
    return i >= len(row.values) and i not in row.framed


def strongest(strip: TokenStrip, row: StripRow, n: int) -> list[int]:
    """Units by ``|value|``, for a strongly negative one is as worth seeing as a positive; hidden ones aren't listed."""
    hidden = set(strip.hidden)
    kept = [i for i, value in enumerate(row.values) if i not in hidden and not math.isnan(value)]
    return sorted(kept, key=lambda i: -abs(row.values[i]))[:n]


def relative_error(strip: TokenStrip, row: StripRow) -> str:
    """The typical standard error, for values that are estimates."""
    if row.errors is None:
        return ""
    pairs = [(v, e) for i, (v, e) in enumerate(zip(row.values, row.errors, strict=True)) if i not in strip.hidden]
    shares = [error / abs(value) for value, error in pairs if value and not math.isnan(value)]
    return f"standard error ±{sum(shares) / len(shares) if shares else 0.0:.1%} on average"


class Block(NamedTuple):
    """A unit of a strip that is drawn as a block.

    Attributes:
        unit: its place.
        name: what it is called, on one line, long names cut.
        number: its value, with its standard error.
        share: of the colour range, from 0 to 1; NaN where there is no colour.
        tokens: places of the inner strip's units that it is made of.
    """

    unit: int
    name: str
    number: str
    share: float
    tokens: list[int]


_LONGEST_BLOCK = 90


def blocks(strip: TokenStrip, row: StripRow) -> list[Block]:
    """Units as blocks, those that come later left out."""
    inner = strip.inside.units if strip.inside else ()
    place = {at: j for j, unit in enumerate(inner) for at in unit.positions}
    found = []
    for i, (unit, value) in enumerate(zip(strip.units, row.values, strict=False)):
        error = "" if row.errors is None else f" ± {number(row.errors[i])}"
        share = math.nan if i in strip.hidden or math.isnan(value) else row.scale.strength(value)
        tokens = sorted({place[at] for at in unit.positions if at in place})
        found.append(Block(i, block_name(unit.text), f"{number(value)}{error}", share, tokens))
    return found


def block_name(text: str) -> str:
    """A segment's name on one line: spaces around it don't count, and long ones are cut in the middle."""
    name = visible(text.strip() or text)
    half = _LONGEST_BLOCK // 2
    return name if len(name) <= _LONGEST_BLOCK else f"{name[:half].rstrip()} … {name[-half:].lstrip()}"


def inner_scale(strip: TokenStrip, row: int) -> str:
    """What full colour is among the tokens of blocks."""
    return f"tokens: full colour = {number(strip.inside.rows[row].scale.limit)}" if strip.inside else ""


def one_scale(rows: Sequence[StripRow]) -> bool:
    """Whether all rows share one colour range."""
    return len({row.scale.limit for row in rows}) <= 1


# -- heat maps ------------------------------------------------------------------------


def row_names(panel: HeatMap) -> list[str]:
    """Names of the rows."""
    return [visible(name) for name in panel.rows]


def column_names(panel: HeatMap) -> list[str]:
    """Names of the columns; tokens are numbered."""
    return [f"{i} {visible(c.text)}" if panel.numbered else visible(c.text) for i, c in enumerate(panel.columns)]


def cell_name(panel: HeatMap, row: int, column: int) -> str:
    """``"layer 5, token 3 ' is'"``."""
    name = panel.columns[column].text
    at = f"{column} {quoted(name)}" if panel.numbered else visible(name)
    return visible(f"{panel.row_axis} {panel.rows[row]}, {panel.column_axis} ") + at


def extent(panel: HeatMap) -> str:
    """``"30 layers × 12 tokens"``."""
    return f"{counted(len(panel.rows), panel.row_axis)} × {counted(len(panel.columns), panel.column_axis)}"


def numbers(panel: HeatMap) -> Iterator[tuple[int, int, float]]:
    """Row, column and value of every cell that has one and isn't hidden."""
    hidden = set(panel.hidden)
    for row, values in enumerate(panel.values):
        for column, value in enumerate(values):
            if column not in hidden and not math.isnan(value):
                yield row, column, value


def has_gaps(panel: HeatMap) -> bool:
    """Whether a cell has no value."""
    return any(math.isnan(value) for values in panel.values for value in values)


def full_color(panel: HeatMap) -> str:
    """What full colour means."""
    return "largest of its row" if len(panel.scales) > 1 else number(panel.scales[0].limit if panel.scales else 0.0)


def heat_signed(panel: HeatMap) -> bool:
    """Whether there are two colours."""
    return any(scale.signed for scale in panel.scales)


def heat_facts(panel: HeatMap) -> list[str]:
    """What there is to know about a heat map's colours."""
    single = len(panel.scales) == 1
    best = max(numbers(panel), key=lambda cell: abs(cell[2]), default=None) if single else None
    return [
        *dict.fromkeys(map(visible, filter(None, (panel.quantity, *panel.legend)))),
        scale_range(panel.scales[0]) if single else "each row on its own scale" if panel.scales else "",
        f"strongest: {cell_name(panel, best[0], best[1])}" if best and best[2] else "",
        heat_left_out(panel),
        "hatched: no value" if has_gaps(panel) else "",
    ]


def heat_left_out(panel: HeatMap) -> str:
    """Which columns are left out, and how strong they are."""
    if not panel.hidden:
        return ""
    values = [row[i] for row in panel.values for i in panel.hidden if i < len(row)]
    return left_out(_names(panel.columns, panel.hidden), values)


# -- bars -------------------------------------------------------------------------------


def bar_lines(panel: Bars) -> list[tuple[str, list[tuple[int, Bar]]]]:
    """Bars by line, each with its place: those that follow each other with one line's name and differ in kind."""
    found: list[tuple[str, list[tuple[int, Bar]]]] = []
    for place, bar in enumerate(panel.bars):
        joins = bar.line and found and found[-1][0] == bar.line and found[-1][1][-1][1].line == bar.line
        if joins and bar.kind not in {other.kind for _, other in found[-1][1]}:
            found[-1][1].append((place, bar))
        else:
            found.append((bar.line or bar.name, [(place, bar)]))
    return found


def kind_name(panel: Bars, kind: str) -> str:
    """A kind's name; ``"other"`` of what has none where something has."""
    return visible(kind) if kind else "other" if any(bar.kind for bar in panel.bars) else ""


def running_totals(panel: Bars) -> list[float]:
    """What the bars up to each add up to."""
    total, found = 0.0, []
    for bar in panel.bars:
        total += 0.0 if math.isnan(bar.value) else bar.value
        found.append(total)
    return found


def bar_title(panel: Bars, place: int, totals: Sequence[float]) -> str:
    """``"5.attn: 4; running total 5.5"``: for the pointer."""
    bar = panel.bars[place]
    total = f"running total {number(totals[place])}" if panel.running else ""
    return "; ".join(filter(None, (f"{visible(bar.name)}: {bar_number(panel, bar)}", total, visible(bar.note))))


def with_asides(panels: Sequence[Panel]) -> list[tuple[Panel, list[Bars]]]:
    """Panels, each with the footnotes that follow it."""
    groups: list[tuple[Panel, list[Bars]]] = []
    for aside, run in groupby(panels, key=lambda panel: isinstance(panel, Bars) and panel.aside):
        for panel in run:
            if aside and groups and isinstance(panel, Bars):
                groups[-1][1].append(panel)
            else:
                groups.append((panel, []))
    return groups
