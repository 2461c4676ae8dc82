"""A grid in the terminal: a table that fits its width, with numbers where there is room for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group
from rich.text import Text

from tl_jacobian.render import grid_words, words
from tl_jacobian.render.colors import Scale
from tl_jacobian.render.terminal import color_bar, fit, style_of, terminal_background
from tl_jacobian.results.grid import Grid
from tl_jacobian.results.tokens import visible

MAX_ROWS = 64
_LONGEST_NAME = 28  # of a row
_BARE = 3  # the least width of a column that shows a colour and no number
_WIDEST = 10  # the most that a column takes for its name


class Layout(NamedTuple):
    """What fits: which rows and columns, how wide each column is, and whether it holds numbers."""

    rows: list[int]
    columns: list[int]
    names: int
    width: int
    numbers: bool


def render_grid_terminal(
    g: Grid,
    *,
    skip_first: bool | None = None,
    limit: float | None = None,
    console: Console | None = None,
    max_rows: int = MAX_ROWS,
) -> None:
    """Print a grid as a table of coloured numbers, or of colours alone where numbers don't fit.

    Where there are too many rows or columns, those with the numbers furthest from zero are printed.

    Args:
        g: what to print.
        skip_first: leave the first token out of the colour range; default: wherever columns are tokens.
        limit: what is drawn at full strength, for grids that share a scale.
        console: where to print; default standard output.
        max_rows: how many rows at most.

    Raises:
        ArgumentError: ``skip_first`` where columns aren't tokens.
    """
    console = console or Console(highlight=False)
    scale = grid_words.scale_of_grid(g, skip_first=skip_first, limit=limit)
    cells, unit = _numbers(g, scale)
    layout = _layout(g, scale, cells, console, max_rows)
    head = Text(fit(f"{visible(g.title)}\n", console), style="bold")
    facts = ", ".join([grid_words.extent(g), *words.model_facts(g)])
    head.append(fit(facts, console), style="dim not bold")
    table = _table(g, scale, cells, layout, console)
    console.print(Group(head, Text(), table, Text(), *_legend(g, scale, layout, unit, console)), highlight=False)


# -- what fits ---------------------------------------------------------------------


def _layout(g: Grid, scale: Scale, cells: list[list[str]], console: Console, max_rows: int) -> Layout:
    longest = max(cell_len(fit(name, console)) for name in [*grid_words.row_names(g), visible(g.row_axis)])
    names = min(longest, _LONGEST_NAME, console.width // 3)
    room = console.width - names - 1
    for_number = 1 + max(len(cell) for row in cells for cell in row)
    wanted = 1 + max(cell_len(fit(visible(name), console)) for name in g.columns)
    numbers = not _coloured(console) or for_number * len(g.columns) <= room
    least = for_number if numbers else _BARE
    columns = _strongest(g, scale, max(1, room // least), dim=1)
    width = max(least, min(wanted, _WIDEST, room // len(columns)))
    return Layout(_strongest(g, scale, max_rows, dim=0), columns, names, width, numbers)


def _coloured(console: Console) -> bool:
    return console.color_system is not None and not console.no_color


def _strongest(g: Grid, scale: Scale, n: int, *, dim: int) -> list[int]:
    """The ``n`` rows (``dim`` 0) or columns (1) with the numbers furthest from zero, in their own order."""
    size = g.values.abs().nan_to_num(nan=-1.0)
    size[:, : scale.skipped] = -1.0
    return sorted(size.amax(dim=1 - dim).argsort(descending=True, stable=True)[:n].tolist())


# -- numbers -----------------------------------------------------------------------


def _numbers(g: Grid, scale: Scale) -> tuple[list[list[str]], float]:
    """The numbers as short text, all in one unit, and that unit: a power of a thousand."""
    limit = scale.limit or 1.0
    unit = 1.0 if 0.01 <= limit < 1000 else 1000.0 ** math.floor(math.log10(limit) / 3)
    digits = max(0, 2 - math.floor(math.log10(limit / unit)))
    return [[_number(value / unit, min(digits, 3)) for value in row] for row in g.values.tolist()], unit


def _number(value: float, digits: int) -> str:
    if math.isnan(value):
        return "-"
    text = f"{value:.{digits}f}" if abs(value) < 10_000 else f"{value:.0e}"
    return text if text.strip("-0.") else text.lstrip("-")  # no "-0.00"


# -- the table ----------------------------------------------------------------------


def _table(g: Grid, scale: Scale, cells: list[list[str]], layout: Layout, console: Console) -> Text:
    names = grid_words.row_names(g)
    heads = [visible(g.columns[i]) for i in layout.columns]
    table = Text().append(_line(visible(g.row_axis), heads, layout, console), style="dim")
    for row in layout.rows:
        table.append(f"\n{_right(_ending(names[row], layout.names, console), layout.names, console)}", style="dim")
        table.append_text(_row(g, row, scale, cells[row], layout))
    return table


def _line(first: str, rest: Sequence[str], layout: Layout, console: Console) -> str:
    return _right(first, layout.names, console) + "".join(" " + _right(t, layout.width - 1, console) for t in rest)


def _row(g: Grid, row: int, scale: Scale, texts: Sequence[str], layout: Layout) -> Text:
    background, line = terminal_background(), Text()
    for column in layout.columns:
        value = g.values[row, column].item()
        shown = texts[column] if layout.numbers or math.isnan(value) else ""
        plain = math.isnan(value) or column < scale.skipped
        line.append(" ")
        line.append(shown.rjust(layout.width - 1), style="dim" if plain else style_of(value, scale, background))
    return line


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


def _legend(g: Grid, scale: Scale, layout: Layout, unit: float, console: Console) -> list[Text]:
    facts = [visible(g.quantity), grid_words.skipped(g, scale)]
    facts.append(f"numbers in units of {unit:g}" if unit != 1 and layout.numbers else "")
    facts.append("-: none" if g.values.isnan().any() else "")
    for shown, axis, n in (
        (layout.rows, g.row_axis, len(g.rows)),
        (layout.columns, g.column_axis, len(g.columns)),
    ):
        facts.append(f"the strongest {len(shown)} of {grid_words.counted(n, axis)}" if len(shown) < n else "")
    bar = [color_bar(scale, signed=g.signed)] if _coloured(console) else []
    return [*bar, Text(fit(", ".join(filter(None, facts)), console), style="dim")]
