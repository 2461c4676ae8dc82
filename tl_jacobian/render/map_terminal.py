"""A map in the terminal: one line for each target, with the sources that drove it most."""

from __future__ import annotations

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from tl_jacobian.render import map_words, words
from tl_jacobian.render.terminal import fit
from tl_jacobian.results.attribution_map import AttributionMap

_TOP = 3


def render_map_terminal(m: AttributionMap, *, skip_first: bool = True, console: Console | None = None) -> None:
    """Print a map: for each target what follows, and the strongest sources with their scores.

    Args:
        m: what to print.
        skip_first: leave the first unit out of the ranking.
        console: where to print; default standard output.
    """
    console = console or Console(highlight=False)
    head = Text(fit(f"{words.scope_name(m[-1])}  attribution map, {map_words.extent(m)}\n", console), style="bold")
    facts = ", ".join(filter(None, [*words.model_facts(m[-1]), words.score_unit(m[-1])]))
    head.append(fit(facts, console), style="dim not bold")
    console.print(Group(head, Text(), _table(m, console, skip_first)), soft_wrap=False, highlight=False)


def _table(m: AttributionMap, console: Console, skip_first: bool) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(overflow="fold", max_width=44)
    table.add_column(overflow="fold")
    for i, a in enumerate(m):
        top = a.top(_TOP, skip_first=skip_first)
        sources = ", ".join(f"{words.quoted(text)} {words.number(score)}" for _, text, score in top)
        table.add_row(Text(fit(map_words.row_name(m, i), console)), Text(fit(sources, console)))
    return table
