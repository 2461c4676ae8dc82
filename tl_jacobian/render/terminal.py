"""Panels in the terminal, with rich: coloured where there is colour, with ranked tables and numbers in either case.

Text goes into ``Text`` objects, never through rich's markup, and only after ``tokens.visible`` has turned escape
sequences into text; what the terminal's encoding lacks is written as escapes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.color import Color, ColorSystem
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from tl_jacobian.render import chart, words
from tl_jacobian.render.canvas import Canvas
from tl_jacobian.render.colors import RGB, contrast, hex_color, hue, kind_colors, over
from tl_jacobian.render.tables import tables_of
from tl_jacobian.results.panels import Bar, Bars, Curves, HeatMap, Panel, Scale, StripRow, Table, TokenStrip
from tl_jacobian.results.tokens import visible

_DARK, _LIGHT, _GREY = (24, 24, 24), (255, 255, 255), (185, 185, 185)
_BLACK_TEXT, _WHITE_TEXT = (16, 16, 16), (255, 255, 255)  # a softer white is no 4.2 above the middle of 256 colours
_LEGEND_STEPS = 12
_FAINT, _FAINT_ON_GREY = 0.04, 0.12  # weaker colours are left out
_EIGHTHS = " ▏▎▍▌▋▊▉"
_BAR_WIDTH = 20
_TOP = 10
_INSIDE = 5  # tokens of a block that are named where there is no colour

_MAX_ROWS = 64  # of a heat map
_MAX_BARS = 80
_LONGEST_NAME = 28  # of a row
_BARE = 3  # the least width of a column that shows a colour and no number
_WIDEST = 10  # the most that a column takes for its name
_NUMBER = 10
_LONGEST_BAR = 40

_MARKS = "*o+x#@%&"
_CHART_HEIGHT, _BELOW_HEIGHT = 14, 6
_LEAST_CHART, _WIDEST_CHART = 36, 100  # characters


def terminal(panels: Sequence[Panel], *, console: Console | None = None) -> None:
    """Print panels.

    The strongest units of a text are listed below it, with their numbers. Without colour (``NO_COLOR``, a pipe, a dumb
    terminal) they are all there is, and heat maps are numbers. Where there are too many rows or columns, the strongest
    are printed.

    Args:
        panels: what to print, in order.
        console: where to print; default standard output.

    Raises:
        ArgumentError: there is nothing to draw.
    """
    console = console or Console(highlight=False)
    for i, panel in enumerate(words.seen(panels, "terminal")):
        if i:
            console.print()
        console.print(Group(*_head(panel, console), *draw(panel, console)), soft_wrap=False, highlight=False)


@singledispatch
def draw(panel: Panel, console: Console) -> list[RenderableType]:
    """A panel below its heading."""
    raise TypeError(f"the terminal draws no {type(panel).__name__}")


def _head(panel: Panel, console: Console) -> list[RenderableType]:
    if isinstance(panel, Bars) and panel.aside:
        return [_dim(words.heading(panel) or visible(panel.quantity), console)]
    facts = list(map(visible, panel.facts))
    if isinstance(panel, HeatMap):
        facts.insert(0, words.extent(panel))
    head = Text()
    if panel.title:
        head.append(fit(visible(panel.title), console), style="bold")
    if panel.detail:
        head.append(("  " if panel.title else "") + fit(visible(panel.detail), console))
    if any(facts):
        head.append("\n" if head else "").append(fit(", ".join(filter(None, facts)), console), style="dim")
    return [head, Text()] if head else []


# -- a text on colours --------------------------------------------------------------------


@draw.register
def _(panel: TokenStrip, console: Console) -> list[RenderableType]:
    if not panel.together and len(panel.rows) > 1:
        return _choices(panel, console)
    if len(panel.rows) == 1:
        return _single(panel, panel.rows[0], console)
    found: list[RenderableType] = []
    for i, row in enumerate(panel.rows):
        found += [
            *([Text()] if i else []),
            Text(fit(visible(row.label), console), style="bold"),
            *_single(panel, row, console),
        ]
    return found


def _single(panel: TokenStrip, row: StripRow, console: Console) -> list[RenderableType]:
    if panel.inside is not None:
        return _blocks(panel, panel.inside, row, console)
    if has_color(console):
        caption = [_strongest(panel, row), *_caption(panel, row)] if row.framed else _caption(panel, row)
        legend = color_bar(row.scale, console).append(f"  {fit(_joined(caption), console)}", style="dim")
        return [_text(panel, row, console), Text(), legend, Text(), *_ranked(panel, row, "", console)]
    return [_text(panel, row, console), Text(), *_ranked(panel, row, _joined(_caption(panel, row)), console)]


def _blocks(panel: TokenStrip, inner: TokenStrip, row: StripRow, console: Console) -> list[RenderableType]:
    """A line for each block, and below it its tokens where they are drawn here."""
    colored = has_color(console)
    tokens = inner.rows[panel.rows.index(row)] if "terminal" in inner.views else None
    blocks = words.blocks(panel, row)
    width = max((len(block.number) for block in blocks), default=0)
    room = min(_BAR_WIDTH, console.width // 4)
    found: list[RenderableType] = []
    for block in blocks:
        line = Text(overflow="fold")
        bar = set_cell_size("" if math.isnan(block.share) else _bar(block.share * room / _BAR_WIDTH, console), room)
        line.append(f"{block.number:>{width}} ")
        line.append(bar, style=hex_color(hue(row.values[block.unit])) if colored else "")
        style = "dim strike" if math.isnan(block.share) else style_of(row.values[block.unit], row.scale, console)
        name = fit(block.name, console)
        line.append(" ").append(f"[{name}]" if block.unit in row.framed else name, style=style if colored else "")
        line.append(
            f"  {words.counted(len(panel.units[block.unit].positions), 'token')}", style="dim" if colored else ""
        )
        found.append(line)
        if tokens is not None and len(block.tokens) > 1:
            found.append(Padding(_inner_text(inner, tokens, block.tokens, console), (0, 0, 1, width + 1)))
    caption = _dim(
        _joined([*_caption(panel, row), words.inner_scale(panel, panel.rows.index(row)) if tokens else ""]), console
    )
    return [*found, Text(), caption]


def _inner_text(inner: TokenStrip, row: StripRow, tokens: Sequence[int], console: Console) -> Text:
    """The tokens of a block on colours; where there are none, its strongest ones with their numbers."""
    kept = [j for j in tokens if j < len(row.values)]
    if not has_color(console):
        best = sorted((j for j in kept if j not in inner.hidden), key=lambda j: -abs(_finite(row.values[j])))[:_INSIDE]
        listed = (f"{words.quoted(inner.units[j].text)} {words.number(row.values[j])}" for j in best)
        return Text(fit(", ".join(listed), console), overflow="fold")
    text = Text(overflow="fold")
    for before, j in zip([None, *kept], kept, strict=False):
        text.append(" … " if before is not None and j > before + 1 else "", style="dim")
        style = "dim strike" if j in inner.hidden else style_of(row.values[j], row.scale, console)
        text.append(fit(visible(inner.units[j].text), console), style=style)
    return text


def _text(panel: TokenStrip, row: StripRow, console: Console) -> Text:
    """The text, on colours if there are any; framed units are in brackets."""
    text, colored = Text(overflow="fold"), has_color(console)
    hidden, framed = set(panel.hidden), set(row.framed)
    for i, unit in enumerate(panel.units):
        word = fit(visible(unit.text), console)
        style = ""
        if colored:
            value = row.values[i] if i < len(row.values) else math.nan
            style = (
                "dim strike"
                if i in hidden
                else "dim"
                if words.is_later(row, i)
                else style_of(value, row.scale, console)
            )
        if i in framed:
            bare = word.lstrip(" ")
            text.append(word[: len(word) - len(bare)])
            text.append(f"[{bare}]", style=f"bold {style}" if colored else "")
        else:
            text.append(word, style=style)
        text.append("\n" if "\n" in unit.text else "")
    if row.coming:
        text.append(f" {fit(visible(row.coming), console)}", style="italic dim" if colored else "")
    return text


def _caption(panel: TokenStrip, row: StripRow) -> list[str]:
    facts = dict.fromkeys(map(visible, (*panel.legend, *row.facts)))
    return [*facts, words.scale_range(row.scale), words.relative_error(panel, row), words.strip_left_out(panel, [row])]


def _strongest(panel: TokenStrip, row: StripRow, n: int = 3) -> str:
    best = words.strongest(panel, row, n)
    return ", ".join(f"{words.quoted(panel.units[i].text)} {words.number(row.values[i])}" for i in best)


def _ranked(panel: TokenStrip, row: StripRow, caption: str, console: Console) -> list[RenderableType]:
    """The most influential units as a table with bars; fewer of each where several texts are drawn."""
    table = _grid()
    for i in words.strongest(panel, row, _TOP if len(panel.rows) == 1 else _INSIDE):
        name = fit(words.quoted(panel.units[i].text), console)
        bar = _bar(row.scale.strength(row.values[i]), console)
        table.add_row(Text(str(i)), Text(name), Text(words.number(row.values[i])), Text(bar))
    of = sum(not math.isnan(value) for value in row.values)
    title = f"{len(table.rows)} highest scores of {of}" + (f" ({caption})" if caption else "")
    return [Text(fit(title, console)), table]


def _choices(panel: TokenStrip, console: Console) -> list[RenderableType]:
    """A line for each row, with the units that drove it most."""
    table = RichTable.grid(padding=(0, 2))
    table.add_column(overflow="fold", max_width=44)
    table.add_column(overflow="fold")
    for row in panel.rows:
        table.add_row(Text(fit(visible(row.label), console)), Text(fit(_strongest(panel, row), console)))
    facts = _joined([*map(visible, panel.legend), words.strip_left_out(panel, panel.rows)])
    return [table, *([_dim(facts, console)] if facts else [])]


def _grid() -> RichTable:
    table = RichTable.grid(padding=(0, 2))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold", max_width=32)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    return table


# -- heat maps: a table that fits, with numbers where there is room for them ------------------------


class _Layout(NamedTuple):
    """What fits: which rows and columns, how wide each column is, and whether it holds numbers."""

    rows: list[int]
    columns: list[int]
    names: int
    width: int
    numbers: bool


@draw.register
def _(panel: HeatMap, console: Console) -> list[RenderableType]:
    if not panel.rows or not panel.columns:
        return [_dim("empty", console)]
    cells, unit = _cells(panel)
    layout = _layout(panel, cells, console)
    bar = [color_bar(panel.scales[0], console)] if has_color(console) and len(panel.scales) == 1 else []
    return [_heat_table(panel, cells, layout, console), Text(), *bar, _heat_legend(panel, layout, unit, console)]


def _layout(panel: HeatMap, cells: list[list[str]], console: Console) -> _Layout:
    longest = max(cell_len(fit(name, console)) for name in [*words.row_names(panel), visible(panel.row_axis)])
    names = min(longest, _LONGEST_NAME, console.width // 3)
    room = console.width - names - 1
    for_number = 1 + max((len(cell) for row in cells for cell in row), default=1)
    wanted = 1 + max(cell_len(fit(visible(column.text), console)) for column in panel.columns)
    numbers = not has_color(console) or for_number * len(panel.columns) <= room
    least = for_number if numbers else _BARE
    columns = _furthest(panel, max(1, room // least), lambda row, column: column, len(panel.columns))
    width = max(least, min(wanted, _WIDEST, room // len(columns)))
    rows = _furthest(panel, _MAX_ROWS, lambda row, _: row, len(panel.rows))
    if len(rows) < len(panel.rows):  # of what was measured for some places alone, those
        filled = {row for row, _, _ in words.numbers(panel)}
        rows = [row for row in rows if row in filled] or rows
    return _Layout(rows, columns, names, width, numbers)


def _furthest(panel: HeatMap, n: int, key: Callable[[int, int], int], count: int) -> list[int]:
    """The ``n`` rows or columns with the numbers furthest from zero, in their own order."""
    size = [-1.0] * count
    for row, column, value in words.numbers(panel):
        place = key(row, column)
        size[place] = max(size[place], abs(value))
    return sorted(sorted(range(count), key=lambda i: -size[i])[:n])


def _cells(panel: HeatMap) -> tuple[list[list[str]], float]:
    """The numbers as short text, all in one unit, and that unit: a power of a thousand."""
    limit = max((scale.limit for scale in panel.scales), default=0.0) or 1.0
    unit = 1.0 if 0.01 <= limit < 1000 else 1000.0 ** math.floor(math.log10(limit) / 3)
    digits = max(0, 2 - math.floor(math.log10(limit / unit)))
    end = " " if panel.frames else ""
    marks = _marks(panel)
    return [
        [_short(value / unit, min(digits, 3)) + marks.get((i, j), end) for j, value in enumerate(row)]
        for i, row in enumerate(panel.values)
    ], unit


def _marks(panel: HeatMap) -> dict[tuple[int, int], str]:
    """What stands behind the number of a cell in a frame."""
    return {(frame.row, frame.column): "+" if frame.dashed else "*" for frame in panel.frames}


def _short(value: float, digits: int) -> str:
    if math.isnan(value):
        return "-"
    text = f"{value:.{digits}f}" if abs(value) < 10_000 else f"{value:.0e}"
    return text if text.strip("-0.") else text.lstrip("-")  # no "-0.00"


def _heat_table(panel: HeatMap, cells: list[list[str]], layout: _Layout, console: Console) -> Text:
    names = words.row_names(panel)
    heads = [visible(panel.columns[i].text) for i in layout.columns]
    first = _right(visible(panel.row_axis), layout.names, console)
    table = Text().append(first + "".join(" " + _right(head, layout.width - 1, console) for head in heads), style="dim")
    for row in layout.rows:
        table.append(f"\n{_right(_ending(names[row], layout.names, console), layout.names, console)}", style="dim")
        _append_row(table, panel, row, cells[row], layout, console)
    return table


def _append_row(table: Text, panel: HeatMap, row: int, texts: Sequence[str], layout: _Layout, console: Console) -> None:
    hidden, values = set(panel.hidden), panel.values[row]
    marks = _marks(panel)
    for column in layout.columns:
        if column >= len(values):
            break
        value = values[column]
        shown = texts[column] if layout.numbers or math.isnan(value) else marks.get((row, column), "")
        plain = math.isnan(value) or column in hidden
        table.append(" ")
        style = "dim" if plain else style_of(value, panel.scale(row), console)
        table.append(shown.rjust(layout.width - 1), style=style)


def _right(text: str, width: int, console: Console) -> str:
    """``text`` at the right of ``width`` cells; where it is longer, its beginning without the space before it."""
    text = fit(text, console)
    if cell_len(text) > width:
        text = set_cell_size(text.lstrip(), width)
    return " " * (width - cell_len(text)) + text


def _ending(name: str, width: int, console: Console) -> str:
    """``name``, or its end where it is longer: hook points differ there."""
    cut = fit(name, console)
    while cell_len(cut) > width:
        cut = f"..{cut.removeprefix('..')[1:]}" if len(cut) > 3 else cut[1:]
    return cut


def _heat_legend(panel: HeatMap, layout: _Layout, unit: float, console: Console) -> Text:
    facts = [*dict.fromkeys(map(visible, (panel.quantity, *panel.legend))), words.heat_left_out(panel)]
    facts.append("each row on its own scale" if len(panel.scales) > 1 else "")
    facts.append(f"numbers in units of {unit:g}" if unit != 1 and layout.numbers else "")
    facts.append("-: none" if words.has_gaps(panel) else "")
    if panel.frames:
        facts.append("*: in a frame" + (", +: dashed" if any(frame.dashed for frame in panel.frames) else ""))
    for shown, axis, n in (
        (layout.rows, panel.row_axis, len(panel.rows)),
        (layout.columns, panel.column_axis, len(panel.columns)),
    ):
        facts.append(f"the strongest {len(shown)} of {words.counted(n, axis)}" if len(shown) < n else "")
    return _dim(_joined(facts), console)


# -- bars -------------------------------------------------------------------------------------


@draw.register
def _(panel: Bars, console: Console) -> list[RenderableType]:
    if not panel.bars:
        return [_dim("none", console)]
    return [_shares(panel, console)] if panel.aside else _sided(panel, console)


def _shares(panel: Bars, console: Console) -> RichTable:
    """Names of tokens in quotes, numbers, bars."""
    table = RichTable.grid(padding=(0, 2))
    table.add_column(overflow="fold", max_width=32)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    largest = _largest(panel.bars)
    for bar in panel.bars:
        name, number = fit(words.quoted(bar.name), console), fit(words.bar_number(panel, bar), console)
        table.add_row(Text(name), Text(number), Text(_bar(_finite(bar.value) / largest, console)))
    return table


def _sided(panel: Bars, console: Console) -> list[RenderableType]:
    """A line for each bar, on either side of zero; the largest of very many."""
    order = sorted(range(len(panel.bars)), key=lambda i: -abs(_finite(panel.bars[i].value)))
    bars = [panel.bars[i] for i in sorted(order[:_MAX_BARS])]
    names = [fit(visible(bar.name), console) for bar in bars]
    numbers = [fit(words.bar_number(panel, bar), console) for bar in bars]
    digits = max(_NUMBER, *map(cell_len, numbers))
    width = min(max(map(cell_len, names)), _LONGEST_NAME, console.width // 3)
    room = max(4, min(_LONGEST_BAR, console.width - width - digits - 3))
    values = [_finite(bar.value) for bar in panel.bars]
    low, high = min(0.0, *values), max(0.0, *values)
    cells = room / (high - low or 1.0)
    colors, left = kind_colors(panel), round(-low * cells)
    lines = Text()
    for bar, name, number in zip(bars, names, numbers, strict=True):
        lines.append("\n" if lines else "")
        lines.append(f"{set_cell_size(name, width)} {number:>{digits}} ")
        _append_bar(lines, round(_finite(bar.value) * cells), left, hex_color(colors[bar.kind]), console)
    facts = [f"{len(bars)} of {len(panel.bars)} shown, the largest" if len(bars) < len(panel.bars) else ""]
    facts = [*map(visible, (panel.quantity, *panel.legend)), *facts]
    kinds = Text()
    for kind, rgb in colors.items():
        if any(colors) and has_color(console):
            kinds.append(_full(console), style=hex_color(rgb)).append(
                f" {fit(words.kind_name(panel, kind), console)}  "
            )
    return [lines, *([kinds] if kinds else []), *([_dim(_joined(facts), console)] if any(facts) else [])]


def _append_bar(line: Text, length: int, left: int, color: str, console: Console) -> None:
    """``length`` cells to the side of a zero that ``left`` cells are kept for."""
    line.append((_full(console) * -length).rjust(left), style=color)
    line.append("|" if console.options.ascii_only else "│", style="dim")
    line.append(_full(console) * length, style=color)


def _full(console: Console) -> str:
    return "#" if console.options.ascii_only else "█"


def _largest(bars: Sequence[Bar]) -> float:
    return max((abs(_finite(bar.value)) for bar in bars), default=0.0) or 1.0


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


# -- curves: a chart of characters ------------------------------------------------------------------


@draw.register
def _(panel: Curves, console: Console) -> list[RenderableType]:
    if console.width < _LEAST_CHART:
        return [part for table in tables_of(panel) for part in draw(table, console)]
    found = _chart(panel, panel.below, console, _CHART_HEIGHT)
    if panel.below is not None:
        found += _chart(panel.below, panel, console, _BELOW_HEIGHT)
    if panel.beside is not None:
        found += [Text(), *_chart(panel.beside, None, console, _BELOW_HEIGHT)]
    return found


def _chart(panel: Curves, shared: Curves | None, console: Console, height: int) -> list[RenderableType]:
    """Rows of characters from top to bottom, y ticks on their left, x ticks below, then the legend."""
    log_x, log_y = chart.log_axes(panel)
    across = chart.square_axis(panel) if panel.square else chart.x_axis(panel, shared)
    up = chart.square_axis(panel) if panel.square else chart.y_axis(panel)
    ticks = {round((1 - up.share(tick)) * (height - 1)): chart.tick_label(tick) for tick in up.ticks(4)}
    margin = max(map(len, ticks.values()), default=1)
    width = min(_WIDEST_CHART, console.width - 1) - margin - 2
    canvas = Canvas(width, height, across, up)
    for guide in panel.guides:
        canvas.guide(guide.axis, guide.at)
    if panel.hidden:
        canvas.hatch(panel.hidden)
    curves = chart.drawn(panel, log_x=log_x, log_y=log_y)
    for i, curve in enumerate(curves):
        canvas.curve(curve, _MARKS[i % len(_MARKS)], _full(console))
    wall = "|" if console.options.ascii_only else "│"
    text = Text(f"{fit(visible(panel.y_axis), console)}\n", style="dim")
    for row, line in enumerate(canvas.lines(has_color(console))):
        text.append(f"{ticks.get(row, ''):>{margin}} {wall}", style="dim").append_text(line).append("\n")
    text.append(" " * (margin + 2) + _x_ticks(across, width, whole=panel.whole_x), style="dim")
    text.append(f"\n{' ' * (margin + 2)}{fit(visible(panel.x_axis), console)}", style="dim")
    return [text, *_curve_legend(panel, curves, console)]


def _curve_legend(panel: Curves, curves: Sequence[chart.Drawn], console: Console) -> list[RenderableType]:
    legend = Text()
    for i, one in enumerate(curves):
        if one.curve.name:
            mark = _full(console) if one.curve.marks == "bars" else _MARKS[i % len(_MARKS)]
            legend.append(mark, style="" if one.color is None else hex_color(one.color))
            legend.append(f" {fit(visible(one.curve.name), console)}  ")
    signs = {"x": ":", "y": "-", "diagonal": "/"}
    for guide in panel.guides:
        if guide.label:
            legend.append(f"{signs[guide.axis]} {fit(visible(guide.label), console)}  ", style="dim")
    facts = [*map(visible, panel.legend), words.curves_left_out(panel)]
    return [*([legend] if legend else []), *([_dim(_joined(facts), console)] if any(facts) else [])]


def _x_ticks(across: chart.Axis, width: int, *, whole: bool) -> str:
    line = ""
    for tick in across.ticks(max(2, width // 14), whole=whole):
        label = chart.tick_label(tick)
        at = round(across.share(tick) * (width - 1)) - len(label) // 2
        if at >= 0 and at + len(label) <= width + 1 and (not line or at > len(line)):
            line = line.ljust(at) + label
    return line


# -- tables ---------------------------------------------------------------------------------------


@draw.register
def _(panel: Table, console: Console) -> list[RenderableType]:
    table = RichTable(padding=(0, 1), show_edge=False)
    for i, name in enumerate(panel.header):
        right = i in panel.numbers
        # Text, not markup: intervals are in brackets.
        table.add_column(Text(fit(visible(name), console)), justify="right" if right else "left", overflow="fold")
    for row in panel.rows:
        cells = [Text(fit(visible(cell.text), console)) for cell in row]
        for cell, text in zip(row, cells, strict=True):
            if cell.shade:
                text.stylize(_painted(min(abs(cell.shade), 1.0), cell.shade, console))
        table.add_row(*cells)
    above = [Text(fit(_lines(panel.above), console), overflow="fold")] if panel.above else []
    notes = [_dim(visible(note), console) for note in (_joined(map(visible, panel.legend)), *panel.notes) if note]
    return [*above, table, *notes]


def _lines(text: str) -> str:
    return "\n".join(visible(line) for line in text.splitlines(keepends=True))


# -- colour, and what all share ------------------------------------------------------------------------


def has_color(console: Console) -> bool:
    """Whether colours can be seen."""
    return console.color_system is not None and not console.no_color


def style_of(value: float, scale: Scale, console: Console) -> str:
    """A rich style: the value's colour as the background, and black or white text, whichever reads better."""
    return _painted(scale.strength(value), value, console)


def _painted(strength: float, value: float, console: Console) -> str:
    if console.color_system == "standard":  # 8 or 16 colours, of which no two terminals have the same shades
        if strength < 1 / 3:
            return ""
        return "underline" if strength < 2 / 3 else f"black on {'cyan' if value < 0 else 'yellow'}"
    background, faint = terminal_background()
    if strength < faint:
        return ""
    color = over(strength, value, background)
    shown = color
    if console.color_system == "256":  # what the terminal makes of it
        red, green, blue = Color.from_rgb(*color).downgrade(ColorSystem.EIGHT_BIT).get_truecolor()
        shown = (red, green, blue)
    text = max(_BLACK_TEXT, _WHITE_TEXT, key=lambda candidate: contrast(candidate, shown))
    return f"{hex_color(text)} on {hex_color(color)}"


def color_bar(scale: Scale, console: Console) -> Text:
    """The colours from zero (or minus the limit) to the limit."""
    low = -scale.limit if scale.signed else 0.0
    legend = Text(f"{words.number(low)} ")
    for step in range(_LEGEND_STEPS):
        value = low + (scale.limit - low) * step / (_LEGEND_STEPS - 1)
        legend.append(" ", style=style_of(value, scale, console))
    return legend.append(f" {words.number(scale.limit)}")


def terminal_background() -> tuple[RGB, float]:
    """What colours fade into, as far as the environment tells, and how strong they must be to be drawn at all."""
    # Set by rxvt, Konsole, iTerm and others: "foreground;background", in the 16 standard colours.
    code = os.environ.get("COLORFGBG", "").rpartition(";")[2]
    if not code.isdigit():
        return _GREY, _FAINT_ON_GREY  # on a light background what fades into black would be white on black
    return (_LIGHT if code in {"7", "15"} else _DARK), _FAINT


def fit(text: str, console: Console) -> str:
    """``text`` with what the terminal's encoding can't hold written as escapes."""
    return text.encode(console.encoding, "backslashreplace").decode(console.encoding)


def _bar(share: float, console: Console) -> str:
    length = abs(share) * min(_BAR_WIDTH, console.width // 3)
    if console.options.ascii_only:
        return "#" * round(length)
    full, eighths = divmod(round(length * 8), 8)
    return "█" * full + _EIGHTHS[eighths].strip()


def _dim(text: str, console: Console) -> Text:
    return Text(fit(text, console), style="dim")


def _joined(facts: Sequence[str] | map[str]) -> str:
    return ", ".join(filter(None, facts))
