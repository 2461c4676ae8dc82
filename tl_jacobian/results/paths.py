"""PathSplit: a prompt's attribution, split along a route through the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.grid import Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class PathSplit:
    """A token's influence, split along a route.

    Attributes:
        full: the scope's own scores, ||v^T J_t||.
        through: norm of the part of v^T J_t that flows through the route.
        around: norm of the rest. Norms don't add up; the vectors do, and so does ``share``.
        share: the part of ``full`` that flows through the route: the through-vector's component
            along v^T J_t. Negative where the route works against the rest; shares of routes that
            partition all paths add up to ``full``.
    """

    full: Attribution
    through: Attribution
    around: Attribution
    share: Attribution

    @property
    def grid(self) -> Grid:
        """The four as rows of one grid, on one scale."""
        rows = {"full": self.full, "through": self.through, "around": self.around, "share": self.share}
        return Grid(
            values=torch.stack([a.scores for a in rows.values()]),
            rows=tuple(rows),
            columns=self.full.str_tokens,
            title=f"{self.full.target}, {self.through.target}",
            quantity=str(self.full.metadata.get("score", "score")),
            row_axis="part",
            column_axis="token",
            signed=True,
            tokens=self.full.tokens,
            metadata=self.through.metadata,
        )

    def __repr__(self) -> str:
        best = self.share.top(1, skip_first=len(self.share) > 1)[0]
        return f"PathSplit({self.full.target}, {self.through.target}; largest share: {best.text!r} {best.score:.3g})"

    def show(self, *, skip_first: bool = True) -> None:
        """Draw the four parts on one scale."""
        self.grid.show(skip_first=skip_first)

    def plot(self, ax: Axes | None = None, *, skip_first: bool = True) -> Axes:
        """The same with matplotlib (extra ``plot``)."""
        return self.grid.plot(ax, skip_first=skip_first)

    def to_html(self, path: str | Path, *, skip_first: bool = True) -> Path:
        """Write one self-contained HTML page that works offline; returns its path."""
        return self.grid.to_html(path, skip_first=skip_first)

    def _repr_html_(self) -> str:
        return self.grid._repr_html_()
