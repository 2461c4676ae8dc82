"""Numbers of a series as frozen values: NumberDistribution, a forecast of the next; NumberInfluence, what drove it.

Like an :class:`~tl_jacobian.results.attribution.Attribution` they know nothing of models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.base import Frozen, owned
from tl_jacobian.results.plain import is_id

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, kw_only=True)
class NumberDistribution(Frozen):
    """What a model predicts the next number of a series to be.

    ``probabilities`` are the model's own: what it gives to anything that isn't a number of the series' kind
    is missing from their sum, :attr:`mass`. Moments and quantiles are those *given* that it is one.

    Attributes:
        numbers: the numbers as the prompt writes them, increasing; ``(k,)``.
        probabilities: the product of its tokens' conditional probabilities for each; ``(k,)``, not normalised.
        offset, scale: ``value = offset + scale * number`` in the data's units.
        exact: whether every number there is has been evaluated; False where a beam left some out, whose
            probability is then missing from :attr:`mass` too.
        truth: the value that really came next, in the data's units, if it is known.
        metadata: how it was computed, and by what model (JSON values).

    >>> d = NumberDistribution(numbers=np.array([10, 11, 12]), probabilities=np.array([0.1, 0.2, 0.1]),
    ...                        offset=-5.0, scale=0.5, truth=0.4)
    >>> round(d.mass, 2), round(d.mean, 2), d.mode, round(d.log_score, 2)
    (0.4, 0.5, 0.5, -1.61)
    """

    numbers: Int64[np.ndarray, " k"]
    probabilities: Float64[np.ndarray, " k"]
    offset: float = 0.0
    scale: float = 1.0
    exact: bool = True
    truth: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._set("numbers", owned(self.numbers, np.int64))
        self._set("probabilities", owned(self.probabilities))
        self._protect_metadata()
        numbers, p = self.numbers, self.probabilities
        if numbers.ndim != 1 or numbers.shape != p.shape or not len(numbers) or (np.diff(numbers) <= 0).any():
            raise ArgumentError(
                f"numbers of shape {numbers.shape} and probabilities of shape {p.shape}, expected one probability for "
                "each of at least one number, numbers increasing"
            )
        if not np.isfinite(p).all() or (p < 0).any() or not 0 < p.sum() <= 1 + 1e-6:
            raise ArgumentError(
                f"probabilities from {p.min():.3g} to {p.max():.3g} with sum {p.sum():.6g}, expected them not negative "
                "and their sum at most 1 and more than 0"
            )

    def __len__(self) -> int:
        return len(self.numbers)

    def __repr__(self) -> str:
        after = "" if self.truth is None else f"; truth {self.truth:.4g}"
        return (
            f"NumberDistribution({self.mean:.4g} ± {self.std:.2g}, mode {self.mode:.4g}; mass {self.mass:.1%}{after})"
        )

    @property
    def values(self) -> Float64[np.ndarray, " k"]:
        """The numbers in the data's units."""
        return self.offset + self.scale * self.numbers

    @property
    def mass(self) -> float:
        """The probability that the next tokens are one of these numbers at all."""
        return min(float(self.probabilities.sum()), 1.0)

    @cached_property
    def conditional(self) -> Float64[np.ndarray, " k"]:
        """Probabilities given that it is one of these numbers; they add up to 1."""
        return self.probabilities / self.probabilities.sum()

    @property
    def mean(self) -> float:
        return float(self.conditional @ self.values)

    @property
    def std(self) -> float:
        """The width of the forecast: its standard deviation, in the data's units."""
        return math.sqrt(float(self.conditional @ (self.values - self.mean) ** 2))

    @property
    def mode(self) -> float:
        """The most probable value."""
        return float(self.values[self.probabilities.argmax()])

    def quantile(self, q: float) -> float:
        """The smallest value that a share ``q`` of the distribution doesn't exceed.

        Raises:
            ArgumentError: q isn't from 0 to 1.
        """
        if isinstance(q, bool) or not 0 <= q <= 1:
            raise ArgumentError(f"q={q!r}, expected a share from 0 to 1")
        at = np.searchsorted(self.conditional.cumsum(), q - 1e-12)
        return float(self.values[min(int(at), len(self) - 1)])

    # -- against what really came ------------------------------------------------------

    @property
    def log_score(self) -> float:
        """Log-probability of the true number, in nats; probability on what isn't a number counts as lost.

        -inf where the true value can't be written in the prompt's range (:func:`predict_number` warns of it).

        Raises:
            ArgumentError: the true value isn't known, or the beam left its number out.
        """
        true = round((self._truth() - self.offset) / self.scale)
        at = np.flatnonzero(self.numbers == true)
        if len(at):
            with np.errstate(divide="ignore"):
                return float(np.log(self.probabilities[at[0]]))
        if not self.exact:
            raise ArgumentError(
                f"the beam left out the true number {true}, so its probability isn't known; use beam=None"
            )
        return -math.inf

    @property
    def crps(self) -> float:
        """Continuous ranked probability score E|X - truth| - E|X - X'| / 2, in the data's units; smaller is better.

        Raises:
            ArgumentError: the true value isn't known.
        """
        values, p = self.values, self.conditional
        spread = p @ np.abs(values[:, None] - values) @ p
        return float(p @ np.abs(values - self._truth()) - spread / 2)

    def _truth(self) -> float:
        if self.truth is None:
            raise ArgumentError("the true value isn't known: pass truth= to predict_number")
        return self.truth

    def to_dataframe(self) -> pd.DataFrame:
        """One row a number: number, value, probability."""
        import pandas as pd  # heavy to import, and a dependency of TransformerLens anyway

        return pd.DataFrame({"number": self.numbers, "value": self.values, "probability": self.probabilities})


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
        from tl_jacobian.render.series import plot_series

        return plot_series(self, ax, distribution=distribution, log=log, skip_first=skip_first, width=width)
