"""NumberDistribution: a forecast of a series' next number, as a frozen value.

Like an :class:`~tl_jacobian.attribution.Attribution` it knows nothing of models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64

from tl_jacobian.errors import ArgumentError
from tl_jacobian.frozen import Frozen, owned

if TYPE_CHECKING:
    import pandas as pd


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
