"""An evaluation as tables: Markdown, which notebooks draw, and rich draws it in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markdown import Markdown

from tl_jacobian.evaluation_result import METRICS, Evaluation
from tl_jacobian.render.display import display_markdown, in_notebook
from tl_jacobian.statistics import Difference, Interval

_LEVEL = 0.05


def evaluation_markdown(e: Evaluation) -> str:
    """The table of methods and metrics, the paired differences of AOPC, and what the numbers mean."""
    columns = e.columns()
    table = [[m, *(_cell(e.interval(metric, m, k)) for _, metric, k in columns)] for m in e.methods]
    parts = [
        f"**{e.name}**: {_counted(len(e.usable), 'prompt')}, tokens removed by "
        f"{_PERTURBATIONS[e.metadata.get('perturbation', 'zero')]}",
        _markdown(["method", *(heading for heading, _, _ in columns)], table),
        "Means over prompts with 95% bootstrap intervals. " + _meaning(e),
        *_gaps(e),
        *_compared(e.differences()),
        *_failed(e),
    ]
    return "\n\n".join(parts) + "\n"


def show_evaluation(e: Evaluation) -> None:
    """The tables, in Jupyter or in the terminal."""
    text = evaluation_markdown(e)
    if in_notebook():
        display_markdown(text)
    else:
        Console().print(Markdown(text))


_PERTURBATIONS = {
    "zero": "putting zeros in the place of their embeddings",
    "mean": "putting the prompt's mean embedding in their place",
    "delete": "deleting them",
}


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(i: Interval) -> str:
    return f"{i.mean:.2f} [{i.low:.2f}, {i.high:.2f}]"


def _meaning(e: Evaluation) -> str:
    named = [(heading, METRICS[metric]) for heading, metric, k in e.columns() if k is None]
    words = "; ".join(f"{heading}: {what}" for heading, what in named)
    return f"Drop: {METRICS['drop']} (the paper prints it with a minus sign). {words}."


def _gaps(e: Evaluation) -> list[str]:
    gaps = [(m, gap) for m in e.methods if (gap := e.completeness_gap(m)) is not None]
    return [f"Completeness gap of {m}, median over the prompts: {gap:.0%}." for m, gap in gaps]


def _compared(differences: Sequence[Difference]) -> list[str]:
    if not differences:
        return []
    rows = [[d.method, d.other, _cell(d.interval), f"{d.p:.4f}", f"{d.adjusted:.4f}", _verdict(d)] for d in differences]
    header = ["method", "other", "difference of AOPC", "p", "adjusted", "larger"]
    words = "Paired sign-flip tests; adjusted for all pairs (false discovery rate, Benjamini and Hochberg)."
    return [_markdown(header, rows), words]


def _verdict(d: Difference) -> str:
    if d.adjusted >= _LEVEL:
        return "neither, beyond chance"
    return d.method if d.interval.mean > 0 else d.other


def _failed(e: Evaluation) -> list[str]:
    if not e.errors:
        return []
    return [f"Left out: {_counted(len(e.errors), 'prompt')} with errors, such as: {e.errors[0]['error']}"]


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
