"""An evaluation as tables: in Markdown for files and notebooks, and drawn in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from tl_jacobian.render.display import display_markdown, in_notebook
from tl_jacobian.results.evaluation import METRICS, Evaluation
from tl_jacobian.results.statistics import Difference, Interval

_LEVEL = 0.05


class Table(NamedTuple):
    """Rows of text under a heading, and what they mean."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str


def evaluation_markdown(e: Evaluation) -> str:
    """The tables of :func:`tables` with their notes."""
    parts = [f"**{e.name}**: {_summary(e)}"]
    for table in tables(e):
        lines = [table.header, ["---", *["---:"] * (len(table.header) - 1)], *table.rows]
        parts += ["\n".join("| " + " | ".join(line) + " |" for line in lines), table.note]
    return "\n\n".join([*parts, *_notes(e)]) + "\n"


def show_evaluation(e: Evaluation) -> None:
    """The same, in Jupyter or in the terminal."""
    if in_notebook():
        return display_markdown(evaluation_markdown(e))
    console = Console()
    console.print(Text(e.name, "bold"), Text(_summary(e)), sep=": ")
    for table in tables(e):
        drawn = RichTable(padding=(0, 1), show_edge=False)
        for i, heading in enumerate(table.header):
            # Text, not markup: intervals are in brackets.
            drawn.add_column(Text(heading), justify="left" if i == 0 else "right", no_wrap=i == 0)
        for row in table.rows:
            drawn.add_row(*map(Text, row))
        console.print(drawn, Text(table.note, "dim"), sep="\n", end="\n\n")
    for note in _notes(e):
        console.print(Text(note))


def tables(e: Evaluation) -> list[Table]:
    """Drops at each k, means over k, agreement with leave-one-out, and pairs of methods."""
    drops = [(f"{k:g}%", "drop", k) for k in e.k]
    means = [(heading, name, None) for name, heading in _MEANS.items() if name in e.metrics]
    agreed = [(heading, name, None) for name, heading in _AGREEMENTS.items() if name in e.metrics]
    return [
        _numbers(e, drops, f"{_first_up(METRICS['drop'])}; the paper prints it with a minus sign."),
        _numbers(e, means, "; ".join(f"{heading}: {METRICS[name]}" for heading, name, _ in means) + "."),
        *([_numbers(e, agreed, _AGREEMENT_NOTE)] if agreed else []),
        *_compared(e.differences()),
    ]


_MEANS = {"aopc": "AOPC", "comprehensiveness": "comprehensiveness", "sufficiency": "sufficiency"}
_AGREEMENTS = {
    "kendall_kl": "tau, KL",
    "spearman_kl": "rho, KL",
    "overlap_kl": "top 20%, KL",
    "kendall_log_prob": "tau, log p",
    "spearman_log_prob": "rho, log p",
    "overlap_log_prob": "top 20%, log p",
}
_AGREEMENT_NOTE = (
    "Agreement with leaving out one token at a time, judged by how far the distribution moves (KL) or the target's "
    "log-probability falls (log p, its size): Kendall's tau, Spearman's rho, and the share of the top 20% in common."
)
_PERTURBATIONS = {
    "zero": "putting zeros in the place of their embeddings",
    "mean": "putting the prompt's mean embedding in their place",
    "delete": "deleting them",
}


def _numbers(e: Evaluation, columns: Sequence[tuple[str, str, float | None]], note: str) -> Table:
    rows = [[m.replace("_", " "), *(_cell(e.interval(name, m, k)) for _, name, k in columns)] for m in e.methods]
    return Table(["method", *(heading for heading, _, _ in columns)], rows, note)


def _compared(differences: Sequence[Difference]) -> list[Table]:
    if not differences:
        return []
    rows = [
        [
            f"{d.method} - {d.other}".replace("_", " "),
            _cell(d.interval),
            f"{d.p:.4f}",
            f"{d.adjusted:.4f}",
            _larger(d).replace("_", " "),
        ]
        for d in differences
    ]
    note = (
        "Paired over prompts; p by flipping signs, adjusted for all pairs (false discovery rate, Benjamini and "
        f"Hochberg); the larger one is named where that is below {_LEVEL:g}."
    )
    note += _too_few(differences[0].interval.n)
    return [Table(["difference of AOPC", "mean", "p", "adjusted", "larger"], rows, note)]


def _too_few(n: int) -> str:
    """Of the 2^n ways to flip n signs, the one that was seen and its mirror image are as extreme, whatever the data."""
    least = 2 / 2**n
    if least < _LEVEL:
        return ""
    return f" With {n} prompts no difference can reach p < {_LEVEL:g} (the smallest possible is {least:g})."


def _larger(d: Difference) -> str:
    if d.adjusted >= _LEVEL:
        return "neither"
    return d.method if d.interval.mean > 0 else d.other


def _summary(e: Evaluation) -> str:
    how = _PERTURBATIONS[e.metadata.get("perturbation", "zero")]
    return f"{len(e.usable):,} prompts, tokens removed by {how}. Means with 95% bootstrap intervals."


def _notes(e: Evaluation) -> list[str]:
    gaps = [(m.replace("_", " "), gap) for m in e.methods if (gap := e.completeness_gap(m)) is not None]
    steps = e.metadata.get("settings", {}).get("integration_steps")
    taken = "" if steps is None else f" with {steps} steps"
    more = "for a smaller one take more (--integration-steps, Settings(integration_steps=))"
    notes = [f"Completeness gap of {m}, median over the prompts: {gap:.0%}{taken}; {more}." for m, gap in gaps]
    if e.errors:
        notes.append(f"Prompts left out for errors: {len(e.errors):,}, such as: {e.errors[0]['error']}")
    return notes


def _cell(i: Interval) -> str:
    return f"{i.mean:.2f} [{i.low:.2f}, {i.high:.2f}]"


def _first_up(text: str) -> str:
    return text[:1].upper() + text[1:]
