"""Counterfactual edits as a table: in a notebook, on a page, in the terminal."""

from __future__ import annotations

from html import escape
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tl_jacobian.errors import ArgumentError
from tl_jacobian.render import static
from tl_jacobian.render.colors import Scale, scale_of
from tl_jacobian.render.display import display_html, in_notebook
from tl_jacobian.render.figure import Figure, frame
from tl_jacobian.render.page import output, write_figures
from tl_jacobian.render.terminal import fit, style_of, terminal_background
from tl_jacobian.render.words import number, quoted
from tl_jacobian.results.counterfactuals import Counterfactuals, Edit, ranked
from tl_jacobian.results.tokens import visible

_HEADS = ("word", "score", "edit", "value", "change", "KL, nats", "predicted")
_NUMBERS = (1, 3, 4, 5)  # columns


def show_counterfactuals(c: Counterfactuals) -> None:
    """Draw the edits, those of the highest-scored word first: as HTML in Jupyter, else as a table in the terminal."""
    if in_notebook():
        display_html(notebook_counterfactuals(c))
    else:
        render_counterfactuals_terminal(c)


def write_counterfactuals(c: Counterfactuals, path: str | Path) -> Path:
    """Write one self-contained page; returns its path."""
    return write_figures([Figure(_html(c), "")], f"Counterfactuals: {visible(c.quantity)}", path)


def notebook_counterfactuals(c: Counterfactuals) -> str:
    """HTML for a notebook output."""
    return output([Figure(_html(c), "")])


def render_counterfactuals_terminal(c: Counterfactuals, *, console: Console | None = None) -> None:
    """Print the table; scores and changes on colours of their own scales where there is colour."""
    console = console or Console(highlight=False)
    table = Table(padding=(0, 1), show_edge=False)
    for i, name in enumerate(_HEADS):
        table.add_column(Text(name), justify="right" if i in _NUMBERS else "left", no_wrap=i < 6)
    scores, changes = _scales(c)
    for edit in ranked(c.edits):
        cells = [Text(fit(cell, console)) for cell in _cells(c, edit)]
        cells[1].stylize(style_of(edit.score, scores, terminal_background()))
        cells[4].stylize(style_of(edit.change, changes, terminal_background()))
        table.add_row(*cells)
    lines = [Text(fit(line, console), style="dim") for line in _notes(c)]
    console.print(Text(fit(visible(c.prompt), console)), *lines, table, sep="\n", highlight=False)


def _html(c: Counterfactuals) -> str:
    scores, changes = _scales(c)
    rows = "".join(_row(c, edit, scores, changes) for edit in ranked(c.edits))
    heads = "".join(
        f'<th style="{_style(i)};font-weight:normal;opacity:0.75">{escape(name)}</th>' for i, name in enumerate(_HEADS)
    )
    style = "font-size:13px;border-collapse:collapse;margin:0"
    table = f'<table class="tlj-edits" style="{style}"><tr>{heads}</tr>{rows}</table>'
    prompt = f'<div class="tlj-tokens" style="white-space:pre-wrap"><bdi>{static.shown(c.prompt)}</bdi></div>'
    return frame(static.head_html("Counterfactuals", visible(c.quantity), map(visible, _notes(c))), prompt + table)


def _style(column: int) -> str:
    return f"padding:1px 8px;border:none;text-align:{'right' if column in _NUMBERS else 'left'}"


def _row(c: Counterfactuals, edit: Edit, scores: Scale, changes: Scale) -> str:
    shades = {1: scores.css(edit.score), 4: changes.css(edit.change)}
    cells = [
        f'<td style="{_style(i)};background-color:{shades.get(i, "#80808000")}"><bdi>{escape(cell)}</bdi></td>'
        for i, cell in enumerate(_cells(c, edit))
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _cells(c: Counterfactuals, edit: Edit) -> list[str]:
    new = " *" if edit.prediction.token != c.prediction.token else ""
    predicted = f"{quoted(edit.prediction.text)} {edit.prediction.probability:.0%}{new}"
    return [
        f"{edit.at} {visible(edit.word)}",
        number(edit.score),
        f"→ {visible(edit.replacement)}" if edit.kind == "replaced" else "removed",
        number(edit.value),
        f"{edit.change:+.3g}",
        number(edit.kl),
        predicted,
    ]


def _scales(c: Counterfactuals) -> tuple[Scale, Scale]:
    return scale_of(torch.tensor(c.scores)), scale_of(torch.tensor([e.change for e in c.edits]))


def _notes(c: Counterfactuals) -> list[str]:
    """The unedited prompt's value and prediction, and whether scores and changes rank words alike."""
    predicted = f"{quoted(c.prediction.text)} predicted with {c.prediction.probability:.0%}"
    before = f"{c.quantity} = {number(c.value)}, {predicted} (*: another is)"
    try:
        found = c.agreement()
    except ArgumentError:
        return [visible(before), visible(c.scope)]
    p = "p < 0.001" if found.p < 0.001 else f"p = {found.p:.3f}"
    return [
        visible(before),
        visible(f"scores: {c.scope}"),
        f"scores and sizes of changes by removal: Spearman {found.spearman:.2f} ({p}, one-sided: whether the two go "
        f"together; {found.n} words); the word scored "
        f"highest, {visible(found.first)!r}, is number {found.rank_of_first} by change",
    ]
