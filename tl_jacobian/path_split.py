"""PathSplit: a prompt's attribution, split along a route through the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tl_jacobian.attribution import Attribution

if TYPE_CHECKING:
    from tl_jacobian.render import Comparison


@dataclass(frozen=True, eq=False)
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

    def show(self, *, skip_first: bool = True) -> None:
        """Draw the four side by side."""
        self._comparison(skip_first).show()

    def to_html(self, path: str | Path, *, skip_first: bool = True) -> Path:
        """Write one self-contained HTML page that works offline; returns its path."""
        return self._comparison(skip_first).to_html(path)

    def _comparison(self, skip_first: bool) -> Comparison:
        from tl_jacobian.render import compare

        return compare([self.full, self.through, self.around, self.share], skip_first=skip_first)

    def _repr_html_(self) -> str:
        return self._comparison(skip_first=True)._repr_html_()
