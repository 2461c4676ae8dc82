"""Contributions in the terminal: a bar on either side of zero for each part."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group
from rich.text import Text

from tl_jacobian.render import contributions_words as of_parts
from tl_jacobian.render import words
from tl_jacobian.render.grid_terminal import render_grid_terminal
from tl_jacobian.render.terminal import fit
from tl_jacobian.results.contributions import Contributions, Part
from tl_jacobian.results.tokens import visible

MAX_PARTS = 80
_SOURCES = 16  # rows of heads x tokens
_LONGEST_NAME = 24
_NUMBER = 10
_LONGEST_BAR = 40


def render_contributions_terminal(c: Contributions, *, console: Console | None = None) -> None:
    """Print a line for each part in the model's order, then the grids that there are.

    Args:
        c: what to print.
        console: where to print; default standard output.
    """
    console = console or Console(highlight=False)
    parts = sorted(c.top(MAX_PARTS))
    head = Text(fit(f"{of_parts.title(c)} {of_parts.extent(c)}\n", console), style="bold")
    head.append(fit(", ".join(of_parts.facts(c)), console), style="dim not bold")
    note = [Text(f"{len(parts)} of {len(c)} parts shown, the largest", style="dim")] if len(parts) < len(c) else []
    console.print(Group(head, Text(), *_bars(c, parts, console), *note), highlight=False)
    for grid, rows in ((c.heads, len(c)), (c.sources, _SOURCES)):
        if grid is not None:
            console.print()
            render_grid_terminal(grid, console=console, max_rows=rows)


def _bars(c: Contributions, parts: list[Part], console: Console) -> list[Text]:
    names = [fit(visible(part.name), console) for part in parts]
    width = min(max(map(cell_len, names)), _LONGEST_NAME, console.width // 3)
    room = max(4, min(_LONGEST_BAR, console.width - width - _NUMBER - 3))
    low, high = min(0.0, c.values.min().item()), max(0.0, c.values.max().item())
    cells = room / (high - low or 1.0)
    left = round(-low * cells)
    return [
        _line(c, part, set_cell_size(name, width), left, round(part.value * cells), console)
        for part, name in zip(parts, names, strict=True)
    ]


def _line(c: Contributions, part: Part, name: str, left: int, length: int, console: Console) -> Text:
    """Name, number, and ``length`` cells to the side of a zero that ``left`` cells are kept for."""
    full, zero = ("#", "|") if console.options.ascii_only else ("█", "│")
    style = "#" + "".join(f"{channel:02x}" for channel in of_parts.color(c, of_parts.kind(part.name)))
    line = Text(f"{name} {words.number(part.value):>{_NUMBER}} ")
    line.append((full * -length).rjust(left), style=style)
    line.append(zero, style="dim")
    return line.append(full * length, style=style)
