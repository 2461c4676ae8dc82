"""A spectrum as a table (terminal, notebook) and as a plot of its decay."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from tl_jacobian.render import static, words
from tl_jacobian.render.axes import new_axes, whole_ticks
from tl_jacobian.render.colors import POSITIVE, css_color
from tl_jacobian.render.display import display_html, in_notebook
from tl_jacobian.render.figure import frame
from tl_jacobian.render.terminal import fit
from tl_jacobian.results.spectra import Move, Spectrum
from tl_jacobian.results.tokens import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TOKENS = 3
_HEADS = ("share", "raises", "lowers")


class Row(NamedTuple):
    """One direction, in words."""

    number: str
    value: str
    share: str
    raises: str
    lowers: str


def rows(spectrum: Spectrum, n: int, between: str) -> Iterator[Row]:
    """The first n directions, each with the tokens that it moves and their probabilities."""
    for i in range(min(n, len(spectrum))):
        value, share = spectrum.values[i].item(), spectrum.shares[i].item()
        raises, lowers = (between.join(map(_named, moves)) for moves in spectrum.moves(i, _TOKENS))
        yield Row(str(i), words.number(value), f"{share:.1%}", raises, lowers)


def facts(spectrum: Spectrum) -> list[str]:
    """Effective rank, what the leading directions add up to, and the model."""
    error = spectrum.effective_rank_stderr
    rank = f"effective rank {words.number(spectrum.effective_rank)}" + (f" ± {error:.1g}" if error else "")
    model = [str(spectrum.metadata[key]) for key in ("model", "host", "dtype") if spectrum.metadata.get(key)]
    return [rank, f"{len(spectrum)} leading directions: {spectrum.explained:.1%} of all", *model]


def _named(move: Move) -> str:
    return f"{words.quoted(move.text)} {move.probability:.2g}"


def show_spectrum(spectrum: Spectrum, n: int = 8) -> None:
    """Draw a spectrum: as HTML in Jupyter, else in the terminal."""
    if in_notebook():
        display_html(spectrum_html(spectrum, n))
    else:
        render_spectrum_terminal(spectrum, n)


def render_spectrum_terminal(spectrum: Spectrum, n: int = 8, *, console: Console | None = None) -> None:
    """Print a table of the first n directions.

    Args:
        spectrum: what to print.
        n: how many directions.
        console: where to print; default standard output.
    """
    console = console or Console(highlight=False)
    head = Text(fit(visible(spectrum.title), console), style="bold")
    head.append(f"\n{fit(visible(', '.join(facts(spectrum))), console)}\n", style="dim not bold")
    table = Table("", spectrum.value_name, *_HEADS, box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for row in rows(spectrum, n, "\n"):
        table.add_row(*(Text(fit(cell, console), overflow="fold") for cell in row))
    console.print(Group(head, table), soft_wrap=False, highlight=False)


def spectrum_html(spectrum: Spectrum, n: int = 8) -> str:
    """The same table as static HTML, with inline styles only (notebook viewers strip others)."""
    cell = "padding:1px 12px 1px 0;text-align:left;border:none;vertical-align:top"
    heads = "".join(f'<th style="{cell};opacity:0.75">{head}</th>' for head in ("", spectrum.value_name, *_HEADS))
    small = " · ".join(f"<bdi>{escape(visible(fact))}</bdi>" for fact in facts(spectrum))
    return frame(
        f'<div class="tlj-head"><b><bdi>{escape(visible(spectrum.title))}</bdi></b></div>'
        f'<div class="tlj-small" style="font-size:12px;opacity:0.75">{small}</div>',
        static.table_html(heads, rows(spectrum, n, ", "), cell),
    )


def plot_spectrum(spectrum: Spectrum, ax: Axes | None = None) -> Axes:
    """Plot the decay of the values on a logarithmic axis, the effective rank marked.

    Directions are numbered from 0, and so many as the effective rank says lie left of its line.

    Args:
        spectrum: what to plot.
        ax: matplotlib axes; default a new figure's.

    Raises:
        ImportError: matplotlib isn't installed.
    """
    ax = ax or new_axes(6.0, 3.5)
    whole_ticks(ax)
    values = spectrum.values.tolist()
    ax.errorbar(range(len(spectrum)), values, yerr=spectrum.bound.tolist(), marker="o", color=css_color(POSITIVE, 1.0))
    if any(value > 0 for value in values):
        ax.set_yscale("log")
    label = f"effective rank {words.number(spectrum.effective_rank)}"
    ax.axvline(spectrum.effective_rank - 0.5, color="0.5", linestyle="--", label=label)
    ax.set_xlim(-0.5, len(spectrum) - 0.5)  # a larger effective rank stands in the legend alone
    ax.set_xlabel("direction (the leading one is 0)")
    ax.set_ylabel(spectrum.value_name)
    ax.set_title(visible(spectrum.title), loc="left", fontsize=10, parse_math=False)
    ax.legend()
    return ax
