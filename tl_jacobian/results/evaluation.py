"""Evaluation: what a trial of attribution methods over many prompts came to, as a value.

It is made of plain records, one a prompt, so it knows nothing of models and can be made again from
files that another machine wrote.
"""

from __future__ import annotations

import math
import statistics as plain_statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import excerpt
from tl_jacobian.results.base import Value, frozen
from tl_jacobian.results.drawing import renderer
from tl_jacobian.results.panels import Cell, Curve, Curves, Guide, Panel, Table
from tl_jacobian.results.statistics import Difference, Interval, bootstrap_mean, paired_differences

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# metric -> what it is. Larger is better unless said otherwise.
METRICS: Mapping[str, str] = {
    "drop": "nats by which the target's log-probability falls without the top k%",
    "aopc": "mean of the drop over k",
    "comprehensiveness": "mean over k of p - p(without the top k%)",
    "sufficiency": "mean over k of p - p(with the top k% alone); smaller is better",
    "kendall_kl": "Kendall's tau with leaving one token out (divergence of the distribution)",
    "spearman_kl": "Spearman's correlation with the same",
    "overlap_kl": "share of the top 20% in common with the same",
    "kendall_log_prob": "Kendall's tau with leaving one token out (the target's log-probability)",
    "spearman_log_prob": "Spearman's correlation with the same",
    "overlap_log_prob": "share of the top 20% in common with the same",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Evaluation(Value):
    """Attribution methods compared on the same prompts.

    Attributes:
        name: of the corpus.
        records: one a prompt, in the corpus's order; a prompt that couldn't be used has an ``"error"``.
        metadata: what was measured, and with what model (JSON values).

    >>> def record(drop): return {"log_prob": -1.0, "methods": {"semantic": {"removed": [-1.0 - drop], "kept": [-2.0]}}}
    >>> e = Evaluation(name="two prompts", records=(record(1.0), record(3.0)), metadata={"k": [20.0]})
    >>> e.interval("drop", "semantic", k=20).mean
    2.0
    """

    name: str
    records: tuple[Mapping[str, Any], ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._set("records", tuple(frozen(record, "a record") for record in self.records))
        self._freeze("metadata")
        if "k" not in self.metadata:
            raise ArgumentError(f"metadata={excerpt(dict(self.metadata))} doesn't say which percentages k were removed")
        if len(self.usable) < 2:
            why = f"; the first error: {self.errors[0]['error']}" if self.errors else ""
            raise ArgumentError(
                f"{self.name}: {len(self.usable)} of {len(self.records)} prompts could be used, expected at least two "
                f"to compare methods on{why}"
            )

    def __repr__(self) -> str:
        rows = ", ".join(f"{m} {self.interval('aopc', m).mean:.3g}" for m in self.methods)
        return f"Evaluation({self.name}: {len(self.usable)} prompts; AOPC: {rows})"

    @cached_property
    def usable(self) -> tuple[Mapping[str, Any], ...]:
        """Records of the prompts that could be evaluated."""
        return tuple(r for r in self.records if not r.get("error"))

    @property
    def errors(self) -> tuple[Mapping[str, Any], ...]:
        """Records of those that couldn't."""
        return tuple(r for r in self.records if r.get("error"))

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(self.usable[0]["methods"])

    @property
    def k(self) -> tuple[float, ...]:
        """Percentages of the tokens that were removed."""
        return tuple(self.metadata["k"])

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what was measured; agreement with leave-one-out only where it was asked for."""
        one = self.usable[0]["methods"][self.methods[0]]
        measured = {*_CURVES, *one, *(["sufficiency"] if "kept" in one else [])}
        return tuple(m for m in METRICS if m in measured)

    # -- numbers -------------------------------------------------------------------

    def values(self, metric: str, method: str, k: float | int | None = None) -> list[float]:
        """One number for each usable prompt; NaN where it isn't defined.

        Args:
            metric: one of :attr:`metrics`.
            method: one of :attr:`methods`.
            k: percentage, for ``"drop"``.
        """
        if metric not in self.metrics or method not in self.methods:
            raise ArgumentError(
                f"metric={metric!r}, method={method!r}, expected one of {self.metrics} and one of {self.methods}"
            )
        if (metric == "drop") != (k is not None) or (k is not None and k not in self.k):
            raise ArgumentError(f"k={k!r} for metric={metric!r}; 'drop' needs one of {self.k}, the others none")
        at = None if k is None else self.k.index(k)
        return [_value(r["methods"][method], r["log_prob"], metric, at) for r in self.usable]

    def interval(self, metric: str, method: str, k: float | int | None = None, *, confidence: float = 0.95) -> Interval:
        """The mean over prompts, with its bootstrap interval."""
        return bootstrap_mean(_finite([self.values(metric, method, k)])[0], confidence=confidence)

    def differences(self, metric: str = "aopc", k: float | int | None = None) -> list[Difference]:
        """Every pair of methods, compared prompt by prompt."""
        columns = _finite([self.values(metric, m, k) for m in self.methods])
        return paired_differences(dict(zip(self.methods, columns, strict=True)))

    def completeness_gap(self, method: str) -> float | None:
        """Median over prompts of the relative gap that a method's parts leave; None where it has no such promise."""
        if method not in self.methods:
            raise ArgumentError(f"method={method!r}, expected one of {self.methods}")
        gaps = [g for r in self.usable if (g := r["methods"][method].get("completeness_gap")) is not None]
        return plain_statistics.median(gaps) if gaps else None

    # -- tables and pictures -------------------------------------------------------

    def columns(self) -> list[tuple[str, str, float | None]]:
        """Headings of the table, with the metric and k behind each."""
        drops = [(f"drop at {k:g}%", "drop", k) for k in self.k]
        return [*drops, *((_HEADINGS.get(m, m), m, None) for m in self.metrics if m != "drop")]

    def to_dataframe(self) -> pd.DataFrame:
        """One row a method and metric: mean, interval, prompts."""
        import pandas as pd

        return pd.DataFrame(
            [
                {"method": m, "metric": metric, "k": k, **self.interval(metric, m, k)._asdict()}
                for m in self.methods
                for _, metric, k in self.columns()
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """The table as JSON values: intervals, paired differences, what was measured, and errors."""
        return {
            "corpus": self.name,
            "prompts": len(self.usable),
            "errors": [{"id": r.get("id"), "error": r["error"]} for r in self.errors],
            "settings": dict(self.metadata),
            "metrics": {m: METRICS[m] for m in self.metrics},
            "table": {
                m: {heading: self.interval(metric, m, k)._asdict() for heading, metric, k in self.columns()}
                for m in self.methods
            },
            "completeness_gap": {m: gap for m in self.methods if (gap := self.completeness_gap(m)) is not None},
            "differences": [{**d._asdict(), "interval": d.interval._asdict()} for d in self.differences()],
        }

    def to_markdown(self) -> str:
        """The tables, and which differences are more than chance."""
        return renderer().markdown(self._tables())

    def panels(self, *, skip_first: bool = True) -> tuple[Panel, ...]:
        """Drops at each k, means over k, agreement with leave-one-out, pairs of methods; and the drops as curves."""
        return (*self._tables(), self._curves())

    def plot(self, ax: Axes | None = None, *, skip_first: bool = True) -> Axes:
        """Drops over k, a line with intervals for each method; needs matplotlib, and returns its axes."""
        return renderer().figure((self._curves(),), ax)

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

    def _tables(self) -> tuple[Table, ...]:
        drops = [(f"{k:g}%", "drop", k) for k in self.k]
        means = [(heading, name, None) for name, heading in _MEANS.items() if name in self.metrics]
        agreed = [(heading, name, None) for name, heading in _AGREEMENTS.items() if name in self.metrics]
        first = f"{_first_up(METRICS['drop'])}; the paper prints it with a minus sign."
        meaning = "; ".join(f"{heading}: {METRICS[name]}" for heading, name, _ in means) + "."
        compared, end = _compared(self.differences()), self._notes()
        return (
            self._numbers(drops, (first,), title=self.name, detail=self._summary()),
            self._numbers(means, (meaning, *(() if agreed or compared else end))),
            *([self._numbers(agreed, (_AGREEMENT_NOTE, *(() if compared else end)))] if agreed else []),
            *(_table(header, rows, (*notes, *end)) for header, rows, notes in compared),
        )

    def _numbers(self, columns: Sequence[tuple[str, str, float | None]], notes: Sequence[str], **fields: Any) -> Table:
        header = ["method", *(heading for heading, _, _ in columns)]
        rows = [
            [m.replace("_", " "), *(_cell(self.interval(name, m, k)) for _, name, k in columns)] for m in self.methods
        ]
        return _table(header, rows, notes, **fields)

    def _summary(self) -> str:
        how = _PERTURBATIONS[self.metadata.get("perturbation", "zero")]
        return f"{len(self.usable):,} prompts, tokens removed by {how}. Means with 95% bootstrap intervals."

    def _notes(self) -> tuple[str, ...]:
        gaps = [(m.replace("_", " "), gap) for m in self.methods if (gap := self.completeness_gap(m)) is not None]
        steps = self.metadata.get("settings", {}).get("integration_steps")
        taken = "" if steps is None else f" with {steps} steps"
        more = "for a smaller one take more (--integration-steps, Settings(integration_steps=))"
        notes = [f"Completeness gap of {m}, median over the prompts: {gap:.0%}{taken}; {more}." for m, gap in gaps]
        if self.errors:
            notes.append(f"Prompts left out for errors: {len(self.errors):,}, such as: {self.errors[0]['error']}")
        return tuple(notes)

    def _curves(self) -> Curves:
        curves = []
        for method in self.methods:
            found = [self.interval("drop", method, k) for k in self.k]
            curves.append(
                Curve(
                    name=method.replace("_", " "),
                    x=self.k,
                    y=tuple(one.mean for one in found),
                    low=tuple(one.low for one in found),
                    high=tuple(one.high for one in found),
                )
            )
        return Curves(
            title=f"{self.name}: {len(self.usable):,} prompts, 95% intervals",
            curves=tuple(curves),
            x_axis="tokens removed, highest scores first (%)",
            y_axis="fall of the log-probability (nats)",
            guides=(Guide(axis="y", at=0.0),),
        )


_CURVES = ("drop", "aopc", "comprehensiveness")
_HEADINGS = {"aopc": "AOPC (mean over k)"}


def _value(found: Mapping[str, Any], clean: float, metric: str, at: int | None) -> float:
    removed = found["removed"]
    if at is not None:
        return clean - removed[at]
    if metric == "aopc":
        return clean - math.fsum(removed) / len(removed)
    if metric in ("comprehensiveness", "sufficiency"):
        left = removed if metric == "comprehensiveness" else found["kept"]
        return math.exp(clean) - math.fsum(map(math.exp, left)) / len(left)
    return math.nan if found[metric] is None else found[metric]


def _finite(columns: Sequence[Sequence[float]]) -> list[list[float]]:
    """The prompts for which every method has a number."""
    whole = [row for row in zip(*columns, strict=True) if not any(map(math.isnan, row))]
    return [list(column) for column in zip(*whole, strict=True)] or [[] for _ in columns]


# -- tables ----------------------------------------------------------------------------

_LEVEL = 0.05
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


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str], **fields: Any) -> Table:
    return Table(
        header=tuple(header),
        rows=tuple(tuple(map(Cell, row)) for row in rows),
        numbers=tuple(range(1, len(header))),
        notes=tuple(notes),
        **fields,
    )


def _compared(differences: Sequence[Difference]) -> list[tuple[list[str], list[list[str]], list[str]]]:
    """Header, rows and note of the table of pairs, where there are some."""
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
    return [
        (["difference of AOPC", "mean", "p", "adjusted", "larger"], rows, [note + _too_few(differences[0].interval.n)])
    ]


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


def _cell(i: Interval) -> str:
    return f"{i.mean:.2f} [{i.low:.2f}, {i.high:.2f}]"


def _first_up(text: str) -> str:
    return text[:1].upper() + text[1:]
