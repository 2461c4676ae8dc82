"""How far first order reaches: as a table (terminal, notebook) and as a plot of its error."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tl_jacobian.render import static, words
from tl_jacobian.render.axes import head, new_axes
from tl_jacobian.render.colors import POSITIVE, css_color
from tl_jacobian.render.display import display_html, in_notebook
from tl_jacobian.render.figure import frame
from tl_jacobian.render.terminal import fit
from tl_jacobian.results.linearity import Linearity
from tl_jacobian.results.tokens import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TOKENS = 3  # columns; more would not stand side by side in a terminal
_NOTE = "tokens: predicted → actual change, in logits"


def title(found: Linearity) -> str:
    """``"Linearity of logit of ' Paris'"``."""
    return visible(f"Linearity of {found.metadata.get('target', 'a logit')}")


def facts(found: Linearity) -> list[str]:
    """What the columns are, which way the embeddings moved, and the model."""
    n = len(found.positions)
    way = found.metadata.get("way")
    some = [f"{_TOKENS} of {n} tokens shown"] if n > _TOKENS else []
    return [_NOTE, *some, *([f"way: {visible(str(way))}"] if way else []), *words.model_facts(found)]


def heads(found: Linearity) -> list[str]:
    """Of the columns: epsilon, its error, and the first few tokens."""
    tokens = zip(found.positions, found.str_tokens, strict=True)
    return ["epsilon", "relative error", *[f"{i} {words.quoted(text)}" for i, text in tokens][:_TOKENS]]


def rows(found: Linearity) -> Iterator[list[str]]:
    """A row for each epsilon."""
    numbers = zip(found.epsilons, found.relative_error.tolist(), found.predicted, found.actual, strict=True)
    for epsilon, error, predicted, actual in numbers:
        pairs = zip(predicted[:_TOKENS].tolist(), actual[:_TOKENS].tolist(), strict=True)
        yield [f"{epsilon:g}", words.number(error), *(f"{a:+.2g} → {b:+.2g}" for a, b in pairs)]


def show_linearity(found: Linearity) -> None:
    """Draw the table: as HTML in Jupyter, else in the terminal."""
    if in_notebook():
        display_html(linearity_html(found))
    else:
        render_linearity_terminal(found)


def render_linearity_terminal(found: Linearity, *, console: Console | None = None) -> None:
    """Print the table."""
    console = console or Console(highlight=False)
    table = Table(padding=(0, 1), show_edge=False)
    for i, name in enumerate(heads(found)):
        table.add_column(Text(fit(name, console)), justify="right", no_wrap=i < 2)
    for row in rows(found):
        table.add_row(*(Text(fit(cell, console)) for cell in row))
    lines = Text(fit(title(found), console), style="bold"), Text(fit("; ".join(facts(found)), console), style="dim")
    console.print(*lines, table, sep="\n", highlight=False)


def linearity_html(found: Linearity) -> str:
    """The same table as static HTML, with inline styles only (notebook viewers strip others)."""
    cell = "padding:1px 8px;border:none;text-align:right"
    names = "".join(
        f'<th style="{cell};font-weight:normal;opacity:0.75"><bdi>{escape(name)}</bdi></th>' for name in heads(found)
    )
    return frame(static.head_html(title(found), "", facts(found)), static.table_html(names, rows(found), cell))


def plot_linearity(found: Linearity, ax: Axes | None = None) -> Axes:
    """Plot the relative error over epsilon, both logarithmic, with a line at 1.

    Args:
        found: what to plot.
        ax: matplotlib axes; default a new figure's.

    Raises:
        ImportError: matplotlib isn't installed.
    """
    ax = ax or new_axes(5.0, 3.2)
    errors = found.relative_error.tolist()
    ax.plot(found.epsilons, errors, marker="o", color=css_color(POSITIVE, 1.0))
    ax.axhline(1.0, color="0.5", linestyle="--", linewidth=1, label="1: as wrong as the prediction is large")
    ax.set_xscale("log")
    if any(error > 0 for error in errors):
        ax.set_yscale("log")
    ax.set_xlabel("epsilon: how far an embedding moves, as a share of its norm", fontsize=8)
    ax.set_ylabel("relative error of first order", fontsize=8)
    ax.tick_params(labelsize=8)
    head(ax, title(found))
    ax.legend(fontsize=8)
    return ax
