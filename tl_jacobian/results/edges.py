"""EdgeAttribution: what every edge between attention heads and MLPs is predicted to do, as a frozen value."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results import words
from tl_jacobian.results.base import Value
from tl_jacobian.results.grid import Grid, grid_panels
from tl_jacobian.results.panels import Cell as TableCell
from tl_jacobian.results.panels import Curve, Curves, Guide, Panel, Table

if TYPE_CHECKING:
    import pandas as pd

_DRAWN = 24  # edges in pictures, the strongest
_HEAD = re.compile(r"L(\d+)H(\d+)")
_MLP = re.compile(r"L(\d+)MLP")


@words.four_digits
class Edge(NamedTuple):
    """One edge.

    Attributes:
        sender, receiver: ``"L3H5"``, ``"L3MLP"``; a receiver may be ``"logits"``.
        predicted: its first-order effect.
        measured: by path patching; NaN where it wasn't measured.
    """

    sender: str
    receiver: str
    predicted: float
    measured: float = math.nan


@dataclass(frozen=True, eq=False, kw_only=True)
class EdgeAttribution(Value):
    """Effects of sending a component's clean output, instead of its corrupted one, to one later component alone.

    Attributes:
        effects: predicted, senders x receivers, in units of the metric; NaN where no edge leads. A sender's row adds up
            to the effect of patching it for all, as :func:`predict_patching` has it.
        checked: edges that were measured too, by path patching.
        clean, corrupted: the metric of either prompt.
        metadata: what the metric is, and of what model (JSON values).

    >>> import torch
    >>> g = Grid(values=torch.tensor([[0.5, 2.0], [math.nan, -3.0]]), rows=("L0H0", "L0MLP"),
    ...          columns=("L0MLP", "logits"), title="t", quantity="logits", row_axis="sender", column_axis="receiver",
    ...          signed=True)
    >>> e = EdgeAttribution(effects=g, checked=(Edge("L0MLP", "logits", -3.0, -2.5),), clean=1.0, corrupted=0.0)
    >>> e.top(1)
    [Edge(sender='L0MLP', receiver='logits', predicted=-3.0, measured=-2.5)]
    >>> print(e.dot(1))
    digraph edges {
      rankdir=BT;
      "L0MLP" -> "logits" [label="-3", color="red", penwidth=4.0];
    }
    """

    effects: Grid
    checked: tuple[Edge, ...] = ()
    clean: float
    corrupted: float
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._freeze("metadata")
        for edge in self.checked:
            if edge.sender not in self.effects.rows or edge.receiver not in self.effects.columns:
                raise ArgumentError(f"{edge.sender} -> {edge.receiver} was measured, but isn't among the edges")

    def __repr__(self) -> str:
        best = ", ".join(f"{e.sender}->{e.receiver} {e.predicted:+.3g}" for e in self.top(3))
        size = words.ruled(f"{len(self)} edges, {len(self.checked)} of them measured", self.metadata)
        return f"EdgeAttribution({size}; top: {best})"

    def __len__(self) -> int:
        return int((~self.effects.values.isnan()).sum())

    def top(self, k: int = 10) -> list[Edge]:
        """The ``k`` edges whose predicted effects are furthest from zero, furthest first."""
        measured = {(e.sender, e.receiver): e.measured for e in self.checked}
        cells = self.effects.top(k, skip_first=False)
        return [
            Edge(c.row_name, c.column_name, c.value, measured.get((c.row_name, c.column_name), math.nan)) for c in cells
        ]

    def to_dataframe(self) -> pd.DataFrame:
        """One line for each edge: sender, receiver, predicted, measured; the strongest first."""
        import pandas as pd  # heavy to import, and a dependency of TransformerLens anyway

        return pd.DataFrame(self.top(len(self)), columns=list(Edge._fields))

    def dot(self, k: int = _DRAWN) -> str:
        """The ``k`` strongest edges as a graph in Graphviz's language: blue raises the metric, red lowers it."""
        edges = self.top(k)
        largest = max((abs(e.predicted) for e in edges), default=1.0) or 1.0
        lines = []
        for e in edges:
            color, width = "blue" if e.predicted > 0 else "red", max(0.5, 4 * abs(e.predicted) / largest)
            lines.append(
                f'  "{e.sender}" -> "{e.receiver}" [label="{e.predicted:.3g}", color="{color}", penwidth={width:.1f}];'
            )
        return "\n".join(["digraph edges {", "  rankdir=BT;", *lines, "}"])

    def panels(self, *, skip_first: bool = True) -> tuple[Panel, ...]:
        """The strongest edges as a graph over layers, as a heat map, and those measured beside what was predicted."""
        edges = self.top(_DRAWN)
        found = self._graph(edges), *grid_panels(self._part(edges), skip_first=False), self._table(edges)
        return (*found, self._scatter()) if self.checked else found

    def _graph(self, edges: list[Edge]) -> Curves:
        """Components at their layers, an edge a line."""
        layers, heads = [], []
        for name in (*self.effects.rows, *self.effects.columns):
            if match := _HEAD.fullmatch(name) or _MLP.fullmatch(name):
                layers.append(int(match[1]))
                heads.append(int(match[2]) if match.re is _HEAD else 0)
        right, above = max(heads, default=0) + 1, max(layers, default=0) + 1

        def place(name: str) -> tuple[float, float]:
            if match := _HEAD.fullmatch(name):
                return float(match[2]), float(match[1])
            match = _MLP.fullmatch(name)
            return (float(right), float(match[1]) + 0.3) if match else (right / 2, float(above))

        curves = []
        for sign, role, what in ((1, "positive", "raises it"), (-1, "negative", "lowers it")):
            chosen = [e for e in edges if sign * e.predicted > 0]
            ends = [(place(e.sender), place(e.receiver)) for e in chosen]
            points = [p for a, b in ends for p in (a, b, (math.nan, math.nan))]
            xs, ys = tuple(p[0] for p in points), tuple(p[1] for p in points)
            curves.append(Curve(name=what, x=xs, y=ys, role=role))  # type: ignore[arg-type]
        return Curves(
            title=words.ruled(f"the {len(edges)} strongest edges", self.metadata),
            detail=self.effects.quantity,
            facts=words.model_facts(self.metadata),
            curves=tuple(c for c in curves if c.x),
            x_axis=f"head (MLPs at {right}, the logits above)",
            y_axis="layer",
        )

    def _part(self, edges: list[Edge]) -> Grid:
        rows = [i for i, name in enumerate(self.effects.rows) if any(e.sender == name for e in edges)]
        columns = [i for i, name in enumerate(self.effects.columns) if any(e.receiver == name for e in edges)]
        return dataclasses.replace(
            self.effects,
            values=self.effects.values[rows][:, columns],
            rows=tuple(self.effects.rows[i] for i in rows),
            columns=tuple(self.effects.columns[i] for i in columns),
        )

    def _table(self, edges: list[Edge]) -> Table:
        largest = max((abs(e.predicted) for e in edges), default=1.0) or 1.0
        rows = tuple(
            (
                TableCell(e.sender),
                TableCell(e.receiver),
                TableCell(words.number(e.predicted), e.predicted / largest),
                *((TableCell("" if math.isnan(e.measured) else words.number(e.measured)),) if self.checked else ()),
            )
            for e in edges
        )
        header = ("sender", "receiver", "predicted", *(("measured",) if self.checked else ()))
        title = words.ruled("strongest edges", self.metadata)
        return Table(title=title, header=header, rows=rows, numbers=tuple(range(2, len(header))))

    def _scatter(self) -> Curves:
        x, y = (tuple(values) for values in zip(*((e.measured, e.predicted) for e in self.checked), strict=True))
        return Curves(
            title=words.ruled(f"{len(self.checked)} edges by path patching", self.metadata),
            curves=(Curve(name="edges", x=x, y=y, marks="points"),),
            x_axis="measured",
            y_axis="predicted",
            guides=(Guide(axis="diagonal"),),
            square=True,
        )
