"""Numbers of a series: how strongly each influenced a prediction, and what the next one is predicted to be.

Frozen values, which like an :class:`~tl_jacobian.results.attribution.Attribution` know nothing of models.
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
from tl_jacobian.results import words
from tl_jacobian.results.arguments import is_id
from tl_jacobian.results.attribution import Positions, check_units
from tl_jacobian.results.base import Value, read_only
from tl_jacobian.results.drawing import renderer
from tl_jacobian.results.panels import Curve, Curves, Guide, Panel
from tl_jacobian.results.scopes import scope_title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_WIDEST = 100  # inches


@dataclass(frozen=True, eq=False, kw_only=True)
class NumberDistribution(Value):
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
        self._own_arrays("numbers", dtype=np.int64)
        self._own_arrays("probabilities")
        self._freeze("metadata")
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
        return read_only(self.probabilities / self.probabilities.sum())

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

    # -- pictures ------------------------------------------------------------------

    def panels(self, *, skip_first: bool = True) -> tuple[Panel, ...]:
        """Probabilities over values as bars, the true value marked."""
        title = f"forecast: {self.mean:.4g} ± {self.std:.2g}"
        return (self._curves(slice(None), title=title, facts=self._facts()),)

    def _facts(self) -> tuple[str, ...]:
        mass = f"{self.mass:.1%} of the probability is on numbers" + ("" if self.exact else ", as far as the beam saw")
        truth = "" if self.truth is None else f"truth {self.truth:.4g}"
        return words.some([mass, truth, *words.model_facts(self.metadata)])

    def _curves(self, part: slice, **fields: Any) -> Curves:
        values, chances = self.values[part].tolist(), self.conditional[part].tolist()
        return Curves(
            curves=(Curve(name="forecast", x=tuple(values), y=tuple(chances), marks="bars", role="negative"),),
            x_axis="value",
            y_axis="probability",
            guides=() if self.truth is None else (Guide(axis="x", at=float(self.truth), label="truth"),),
            **fields,
        )

    def beside(self) -> Curves:
        """The forecast for the side of a series' picture: what lies between its 0.5% and 99.5% quantiles."""
        low, high = self.quantile(0.005), self.quantile(0.995)
        start, stop = np.searchsorted(self.values, [low, high])
        return self._curves(slice(int(start), int(stop) + 1))


@words.four_digits
class RankedNumber(NamedTuple):
    """One entry of :meth:`NumberInfluence.top`; the value is in the data's units."""

    position: int
    value: float
    influence: float


@dataclass(frozen=True, eq=False, kw_only=True)
class NumberInfluence(Value):
    """How strongly each number of a series influenced a prediction.

    Attributes:
        values: the series up to the cut-off, in the data's units; ``(n,)``.
        influence: of each number: that of its tokens jointly, separators left out; ``(n,)``.
        stderr: standard error of each, or None where scores are not estimates.
        cut_off: index of the number that is predicted: ``n``, one after the last.
        positions: token positions of each number in the prompt, where they are known; default none.
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
    positions: tuple[Positions, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._own_arrays("values", "influence", "stderr")
        self._freeze("metadata")
        arrays = (self.values, self.influence, *([] if self.stderr is None else [self.stderr]))
        lengths = {array.shape for array in arrays}
        if len(lengths) > 1 or self.values.ndim != 1 or not len(self.values):
            raise ArgumentError(
                f"values, influence and stderr have shapes {sorted(lengths)}, expected one (n,) for all"
            )
        if self.positions and len(self.positions) != len(self):
            raise ArgumentError(
                f"positions of {len(self.positions)} numbers for {len(self)} numbers, expected one each"
            )
        check_units(self.positions, 1 + max((at for unit in self.positions for at in unit), default=0))

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        top = ", ".join(f"{r.position}: {r.influence:.3g}" for r in self.top(3))
        return f"NumberInfluence({self.scope}: {self.target}; {len(self)} numbers; top: {top})"

    @property
    def cut_off(self) -> int:
        """Index of the number that is predicted."""
        return len(self.values)

    def top(self, k: int = 5, *, skip_first: int | bool | None = None) -> list[RankedNumber]:
        """The ``k`` numbers with the largest influences, largest first (of negative ones, furthest from zero).

        Args:
            k: how many at most.
            skip_first: how many first numbers to leave out, which an attention sink often dominates; default (and
                True): one, where that number holds the prompt's token 0.

        Raises:
            ArgumentError: ``skip_first`` isn't a count.
        """
        first, influence = self._skipped(skip_first), self.influence
        order = np.argsort(-np.abs(influence[first:]), kind="stable")[: max(k, 0)] + first
        return [RankedNumber(i, float(self.values[i]), float(influence[i])) for i in order.tolist()]

    def _skipped(self, skip_first: int | bool | None) -> int:
        """How many first numbers are left out."""
        if skip_first is None or skip_first is True:
            return int(bool(self.positions) and 0 in self.positions[0] and len(self) > 1)
        if skip_first is not False and (not is_id(skip_first) or int(skip_first) < 0):
            raise ArgumentError(
                f"skip_first={skip_first!r}, expected a number of first numbers to leave out, 0 or more"
            )
        return min(int(skip_first), len(self))

    def to_dataframe(self) -> pd.DataFrame:
        """One row a number: position, value, influence, stderr."""
        import pandas as pd  # heavy to import, and a dependency of TransformerLens anyway

        stderr = np.full(len(self), math.nan) if self.stderr is None else self.stderr
        columns = {"position": range(len(self)), "value": self.values, "influence": self.influence, "stderr": stderr}
        return pd.DataFrame(columns)

    # -- pictures ------------------------------------------------------------------

    def panels(
        self,
        *,
        skip_first: int | bool | None = None,
        distribution: NumberDistribution | None = None,
        log: bool = False,
        width: float | None = None,
    ) -> tuple[Panel, ...]:
        """The series, its influences as bars below it, and the forecast beside it.

        Args:
            skip_first: as for :meth:`top`; left out of the scale and drawn hatched.
            distribution: of the next number, drawn sideways on the series' own axis, the true value marked.
            log: a logarithmic scale of the influences, for where a few outshine all others.
            width: of a figure in inches; 3.3 and 6.8 are journal columns.

        Raises:
            ArgumentError: an influence isn't finite or is negative, there is none above zero for ``log``, or
                ``skip_first`` leaves none.
        """
        first = self._skipped(skip_first)
        self._check_drawable(first, log)
        if width is not None and not 0 < width <= _WIDEST:
            raise ArgumentError(f"width={width!r}, expected inches of a figure, above 0 and at most {_WIDEST}")
        x = tuple(map(float, range(len(self))))
        series = Curves(
            title=f"{words.ruled(scope_title(self.scope), self.metadata)}: {self.target}",
            facts=words.model_facts(self.metadata),
            curves=(Curve(name="series", x=x, y=tuple(self.values.tolist()), role="ink"),),
            x_axis="position of the number",
            y_axis="value",
            whole_x=True,
            guides=(Guide(axis="x", at=float(self.cut_off), label="predicted"),),
            below=self._bars(x, first, log),
            beside=None if distribution is None else distribution.beside(),
            width=width,
        )
        return (series,)

    def _check_drawable(self, first: int, log: bool) -> None:
        if first >= len(self):
            raise ArgumentError(f"skip_first={first!r}, expected 0 to {len(self) - 1} numbers to leave out")
        kept = self.influence[first:]
        if not np.isfinite(self.influence).all():
            raise ArgumentError(
                "an influence isn't finite: only finite ones can be drawn; look for overflow in the model"
            )
        if (kept < 0).any() or (log and not (kept > 0).any()):
            raise ArgumentError(
                f"influences from {kept.min():.3g} to {kept.max():.3g}, expected none negative"
                + (" and some above zero for log=True" if log else "")
            )

    def _bars(self, x: tuple[float, ...], first: int, log: bool) -> Curves:
        y, errors = self.influence, self.stderr
        low, high = ((), ()) if errors is None else (tuple((y - errors).tolist()), tuple((y + errors).tolist()))
        bars = Curve(name="influence", x=x, y=tuple(y.tolist()), low=low, high=high, marks="bars", role="positive")
        return Curves(
            curves=(bars,),
            x_axis="position of the number",
            y_axis="influence",
            log_y=log,
            whole_x=True,
            hidden=first,
        )

    def plot(
        self,
        ax: Axes | None = None,
        *,
        skip_first: int | bool | None = None,
        distribution: NumberDistribution | None = None,
        log: bool = False,
        width: float = 6.8,
    ) -> Axes:
        """Draw it with matplotlib (extra ``plot``); returns the axes of the series. Options: :meth:`panels`."""
        drawn = self.panels(skip_first=skip_first, distribution=distribution, log=log, width=width)
        return renderer().figure(drawn, ax)
