"""PathSplit: a prompt's attribution, split along a route through the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.base import Value
from tl_jacobian.results.grid import TOKEN, Grid
from tl_jacobian.results.panels import Panel

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PathSplit(Value):
    """A token's influence, split along a route.

    Attributes:
        full: the scope's own scores, ||v^T J_t||.
        through: norm of the part of v^T J_t that flows through the route.
        around: norm of the rest. Norms don't add up; the vectors do, and so does ``share``.
        share: the part of ``full`` that flows through the route: the through-vector's component
            along v^T J_t. Negative where the route works against the rest; shares of routes that
            partition all paths add up to ``full``.

    Raises:
        ArgumentError: they aren't of the same tokens and units.
    """

    full: Attribution
    through: Attribution
    around: Attribution
    share: Attribution

    def __post_init__(self) -> None:
        for name, a in self._parts().items():
            if (a.tokens, a.units) != (self.full.tokens, self.full.units):
                raise ArgumentError(f"{name} is of other tokens or units than full, expected the same for all four")

    def _parts(self) -> dict[str, Attribution]:
        return {"full": self.full, "through": self.through, "around": self.around, "share": self.share}

    @property
    def grid(self) -> Grid:
        """The four as rows of one grid, on one scale."""
        rows = self._parts()
        return Grid(
            values=torch.stack([a.scores for a in rows.values()]),
            rows=tuple(rows),
            columns=self.full.str_tokens,
            title=f"{self.full.target}, {self.through.target}",
            quantity=str(self.full.metadata.get("score", "score")),
            row_axis="part",
            column_axis=TOKEN if self.full.per_token else "word",
            signed=True,
            tokens=self.full.tokens,
            units=self.full.units,
            metadata=self.through.metadata,
        )

    def __repr__(self) -> str:
        best = "".join(f"; largest share: {text!r} {score:.3g}" for _, text, score in self.share.top(1))
        return f"PathSplit({self.full.target}, {self.through.target}{best})"

    def to_dataframe(self) -> pd.DataFrame:
        """One row a unit: position, tokens, text, and the four scores."""
        table = self.full.to_dataframe().drop(columns=["score", "stderr"])
        return table.assign(**{name: a.scores.tolist() for name, a in self._parts().items()})

    def panels(self, *, skip_first: bool = True) -> tuple[Panel, ...]:
        """The four parts on one scale."""
        return self.grid.panels(skip_first=skip_first)
