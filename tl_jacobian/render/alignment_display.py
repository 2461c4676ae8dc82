"""Word alignments where the user is: in a notebook, on a page, in the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from tl_jacobian.render.alignment_figure import alignment_figures, facts_of, title
from tl_jacobian.render.colors import scale_of
from tl_jacobian.render.display import display_html, in_notebook
from tl_jacobian.render.grid_terminal import render_grid_terminal
from tl_jacobian.render.page import new_id, output, write_figures
from tl_jacobian.render.terminal import fit, style_of, terminal_background
from tl_jacobian.render.words import number
from tl_jacobian.results.alignment import AlignedWord, WordAlignment
from tl_jacobian.results.tokens import visible


def show_alignment(a: WordAlignment) -> None:
    """Draw the heat map and each target word's picture: as HTML in Jupyter, else in the terminal."""
    if in_notebook():
        return display_html(notebook_alignment(a))
    render_grid_terminal(a.to_grid())
    for i in range(len(a.target_words)):
        render_aligned_word_terminal(a.row(i))


def show_aligned_word(row: AlignedWord) -> None:
    """Draw one target word's picture: as HTML in Jupyter, else in the terminal."""
    if in_notebook():
        return display_html(notebook_alignment(row.alignment, only=row.index))
    render_aligned_word_terminal(row)


def write_alignment(a: WordAlignment, path: str | Path, *, only: int | None = None) -> Path:
    """Write one self-contained page; returns its path."""
    return write_figures(alignment_figures(a, "tlj-0", only=only), title(a), path)


def notebook_alignment(a: WordAlignment, *, only: int | None = None) -> str:
    """HTML for a notebook output."""
    return output(alignment_figures(a, new_id(), only=only))


def render_aligned_word_terminal(row: AlignedWord, *, console: Console | None = None) -> None:
    """Print the text, source words shaded and the target word in brackets; below, the strongest source words."""
    console = console or Console(highlight=False)
    a, scale = row.alignment, scale_of(row.scores)
    framed, background = a.targets[row.index], terminal_background()
    text = Text(overflow="fold")
    for i, unit in enumerate(a.units):
        word = visible(unit)
        if i == framed:
            space = word[: len(word) - len(word.lstrip(" "))]
            text.append(fit(f"{space}[{word.lstrip(' ')}]", console), style="bold")
        else:
            style = style_of(a.influence[row.index, i].item(), scale, background) if i in a.sources else ""
            text.append(fit(word, console), style=style or ("dim" if i > framed else ""))
    best = ", ".join(f"{visible(r.text)} {number(r.score)}" for r in row.top())
    facts = "; ".join(fact for fact in [f"{visible(row.word)}: {best}", *facts_of(row, scale)[2:]] if fact)
    console.print(text, Text(fit(facts, console), style="dim"), sep="\n", end="\n\n", highlight=False)
