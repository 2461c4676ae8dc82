"""NumberInfluence: how strongly each number of a series influenced a prediction, as a frozen value.

Like an :class:`~tl_jacobian.attribution.Attribution` it knows nothing of models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from tl_jacobian.errors import ArgumentError
from tl_jacobian.frozen import Frozen, owned
from tl_jacobian.number_distribution import NumberDistribution
from tl_jacobian.plain import is_id

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class RankedNumber(NamedTuple):
    """One entry of :meth:`NumberInfluence.top`; the value is in the data's units."""

    position: int
    value: float
    influence: float


@dataclass(frozen=True, eq=False, kw_only=True)
class NumberInfluence(Frozen):
    """How strongly each number of a series influenced a prediction.

    Attributes:
        values: the series up to the cut-off, in the data's units; ``(n,)``.
        influence: of each number: that of its tokens jointly, separators left out; ``(n,)``.
        stderr: standard error of each, or None where scores are not estimates.
        cut_off: index of the number that is predicted: ``n``, one after the last.
        scope, target: of the attribution that it was made from.
        metadata: of that attribution, and how influences were combined (JSON values).

    >>> i = NumberInfluence(values=np.array([0.5, 0.7]), influence=np.array([2.0, 3.0]), scope="s", target="t")
    >>> i.cut_off, i.to_dataframe()["influence"].tolist()
    (2, [2.0, 3.0])
    >>> i.top(1)
    [RankedNumber(position=1, value=0.7, influence=3.0)]
    """

    values: Float64[np.ndarray, " n"]
    influence: Float64[np.ndarray, " n"]
    scope: str
    target: str
    stderr: Float64[np.ndarray, " n"] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("values", "influence", "stderr"):
            if getattr(self, name) is not None:
                self._set(name, owned(getattr(self, name)))
        self._protect_metadata()
        lengths = {self.values.shape, self.influence.shape} | (
            {self.stderr.shape} if self.stderr is not None else set()
        )
        if len(lengths) > 1 or self.values.ndim != 1 or not len(self.values):
            raise ArgumentError(
                f"values, influence and stderr have shapes {sorted(lengths)}, expected one (n,) for all"
            )

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        top = ", ".join(f"{r.position}: {r.influence:.3g}" for r in self.top(3))
        return f"NumberInfluence({self.scope}: {self.target}; {len(self)} numbers; top: {top})"

    @property
    def cut_off(self) -> int:
        """Index of the number that is predicted."""
        return len(self.values)

    def top(self, k: int = 5, *, skip_first: int = 0) -> list[RankedNumber]:
        """The ``k`` numbers with the largest influences, largest first (of negative ones, furthest from zero).

        Args:
            k: how many at most.
            skip_first: how many first numbers to leave out, which an attention sink often dominates.

        Raises:
            ArgumentError: ``skip_first`` isn't a count.
        """
        if not is_id(skip_first) or int(skip_first) < 0:
            raise ArgumentError(
                f"skip_first={skip_first!r}, expected a number of first numbers to leave out, 0 or more"
            )
        order = np.argsort(-np.abs(self.influence[skip_first:]), kind="stable")[: max(k, 0)] + skip_first
        return [RankedNumber(i, float(self.values[i]), float(self.influence[i])) for i in order.tolist()]

    def to_dataframe(self) -> pd.DataFrame:
        """One row a number: position, value, influence, stderr."""
        import pandas as pd  # heavy to import, and a dependency of TransformerLens anyway

        stderr = np.full(len(self), math.nan) if self.stderr is None else self.stderr
        columns = {"position": range(len(self)), "value": self.values, "influence": self.influence, "stderr": stderr}
        return pd.DataFrame(columns)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        distribution: NumberDistribution | None = None,
        log: bool = False,
        skip_first: int = 0,
        width: float = 6.8,
    ) -> Axes:
        """Draw the series, its influences as bars below it, and the forecast beside it (extra ``plot``).

        Args:
            ax: matplotlib axes; default a new figure's.
            distribution: of the next number, drawn sideways on the series' own axis, the true value marked.
            log: a logarithmic scale of the influences, for where a few outshine all others.
            skip_first: how many first numbers to leave out of the scale (an attention sink), drawn hatched.
            width: of the new figure in inches; 3.3 and 6.8 are journal columns.

        Returns:
            The axes of the series.
        """
        from tl_jacobian.render import plot_series

        return plot_series(self, ax, distribution=distribution, log=log, skip_first=skip_first, width=width)
