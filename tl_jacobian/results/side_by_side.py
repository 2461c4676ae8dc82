"""Several evaluations in one table: models, corpora and ways to remove tokens side by side, and whether they agree.

Values that other machines wrote can be put beside one's own: records hold all that is needed.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import checked
from tl_jacobian.results.evaluation import HIGHEST, LOWEST, Evaluation
from tl_jacobian.results.panels import Cell, Table
from tl_jacobian.results.statistics import correlation
from tl_jacobian.results.words import four_digits

_UNJUDGED = (LOWEST, HIGHEST)  # bounds, no methods


@four_digits
class Agreement(NamedTuple):
    """Do two evaluations rank methods alike?

    Attributes:
        one, other: which, in words.
        tau: Kendall's, of the methods' mean AOPC; NaN with fewer than two methods in common.
        n: how many methods.
    """

    one: str
    other: str
    tau: float
    n: int


@checked
def ranks_agree(evaluations: Mapping[str, Evaluation], metric: str = "aopc") -> list[Agreement]:
    """Every pair of evaluations: how alike the methods' order is, random rankings and bounds left out.

    Args:
        evaluations: by what tells them apart, such as how tokens were removed.
        metric: whose means are ranked.

    >>> def record(a, b): return {"log_prob": 0.0, "methods": {"a": {"removed": [-a]}, "b": {"removed": [-b]}}}
    >>> made = lambda a, b: Evaluation(name="x", records=(record(a, b),) * 2, metadata={"k": [20.0]})
    >>> ranks_agree({"zero": made(1.0, 2.0), "mean": made(3.0, 1.0)})[0].tau
    -1.0
    """
    means = {
        name: {m: statistics.fmean(e.values(metric, m)) for m in e.methods if m not in (*_UNJUDGED, "random")}
        for name, e in evaluations.items()
    }
    found = []
    for one, other in combinations(means, 2):
        both = [m for m in means[one] if m in means[other]]
        tau = correlation([means[one][m] for m in both], [means[other][m] for m in both], "kendall")
        found.append(Agreement(one, other, tau, len(both)))
    return found


@checked
def side_by_side(evaluations: Sequence[Evaluation], metric: str = "aopc") -> tuple[Table, ...]:
    """One column an evaluation and way to remove tokens: means with intervals and ranks; then how far ranks agree.

    Args:
        evaluations: of any models and corpora; each brings all of its :attr:`Evaluation.operators`.
        metric: one that all of them have.

    Raises:
        ArgumentError: no evaluation, or two that nothing tells apart.

    >>> def record(a): return {"log_prob": 0.0, "methods": {"a": {"removed": [-a]}, "random": {"removed": [-0.1]}}}
    >>> e = Evaluation(name="x", records=(record(1.0), record(2.0)), metadata={"k": [20.0], "model": "demo"})
    >>> [row[0].text for row in side_by_side([e])[0].rows]
    ['a', 'random']
    """
    if not evaluations:
        raise ArgumentError("evaluations=[], expected one or more: [load_evaluation(folder), ...]")
    columns: dict[str, Evaluation] = {}
    for e in evaluations:
        for operator in e.operators:
            one = e.under(operator)
            name = ", ".join(part for part in (_model(e), e.name, operator) if part)
            if name in columns:
                raise ArgumentError(f"two evaluations are of {name!r}, expected each model, corpus and operator once")
            columns[name] = one
    methods = list(dict.fromkeys(m for e in columns.values() for m in e.methods))
    rows = []
    for method in methods:
        cells = [_cell(e, method, metric) for e in columns.values()]
        rows.append(tuple(map(Cell, [method.replace("_", " "), *cells])))
    sizes = "; ".join(f"{name}: {len(e.usable)} prompts" for name, e in columns.items())
    table = Table(
        title=f"{metric.replace('_', ' ')}, side by side",
        header=("method", *columns),
        rows=tuple(rows),
        numbers=tuple(range(1, len(columns) + 1)),
        notes=(f"{sizes}. Means with 95% intervals; in brackets the method's place among those of its column.",),
    )
    return (table, *_agreement(columns, metric))


def _agreement(columns: Mapping[str, Evaluation], metric: str) -> list[Table]:
    found = ranks_agree(columns, metric)
    if not found:
        return []
    rows = tuple(tuple(map(Cell, (f"{a.one} / {a.other}", f"{a.tau:.2f}", str(a.n)))) for a in found)
    note = "Kendall's tau of the methods' means, random rankings left out: 1 the same order, 0 unrelated ones."
    header = ("are methods ranked alike?", "tau", "methods")
    return [Table(header=header, rows=rows, numbers=(1, 2), notes=(note,))]


def _cell(e: Evaluation, method: str, metric: str) -> str:
    if method not in e.methods:
        return ""
    i = e.interval(metric, method)
    judged = [m for m in e.methods if m not in _UNJUDGED]
    place = ""
    if method in judged:
        means = {m: statistics.fmean(e.values(metric, m)) for m in judged}
        place = f" ({1 + sum(mean > means[method] for mean in means.values())})"
    return f"{i.mean:.2f} [{i.low:.2f}, {i.high:.2f}]{place}"


def _model(e: Evaluation) -> str:
    return Path(str(e.metadata.get("model", ""))).name
