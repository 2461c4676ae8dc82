"""PatchComparison: first-order predictions of activation patching beside what patching measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results import words
from tl_jacobian.results.base import Value
from tl_jacobian.results.grid import Grid, grid_panels, kept_numbers
from tl_jacobian.results.panels import NOT_IN_FIGURES, Curve, Curves, Guide, Panel, Table
from tl_jacobian.results.panels import Cell as TableCell
from tl_jacobian.results.statistics import correlation

if TYPE_CHECKING:
    import pandas as pd

# Signs of effects below this share of the largest one are noise, and not counted.
_SEEN = 0.01
_LISTED = 12  # places of the table


@words.four_digits
class Miss(NamedTuple):
    """One place of :meth:`PatchComparison.worst`."""

    row_name: str
    column_name: str
    predicted: float
    measured: float


@dataclass(frozen=True, eq=False, kw_only=True)
class PatchComparison(Value):
    """What patching one activation at a time does, predicted and measured.

    Attributes:
        predicted: first-order effects: gradient times (clean minus corrupted activation).
        measured: the metric of the patched run minus that of the corrupted run; same places.
        clean, corrupted: the metric of either prompt; patching everything leads from the second to the first.
        first: first column that can have an effect: before it the two prompts are the same. Agreement is
            judged from there on, for zeros agree always and their rounding errors never.

    >>> import torch
    >>> def grid(values): return Grid(values=torch.tensor(values), rows=("0", "1"), columns=("a", "b"), title="t",
    ...                               quantity="logits", row_axis="layer", column_axis="token", signed=True)
    >>> c = PatchComparison(predicted=grid([[1.0, 2.0], [3.0, -1.0]]), measured=grid([[1.0, 2.5], [4.0, 0.5]]),
    ...                     clean=5.0, corrupted=1.0)
    >>> round(c.spearman, 2), c.sign_agreement, c.worst(1)[0].row_name
    (1.0, 0.75, '1')
    """

    predicted: Grid
    measured: Grid
    clean: float
    corrupted: float
    first: int = 0

    def __post_init__(self) -> None:
        shapes = [tuple(g.values.shape) for g in (self.predicted, self.measured)]
        if shapes[0] != shapes[1]:
            raise ArgumentError(
                f"{shapes[0]} predicted effects and {shapes[1]} measured ones, expected the same places"
            )

    def __repr__(self) -> str:
        return f"PatchComparison({self.summary()})"

    @property
    def n_passes(self) -> int | None:
        """What the prediction cost, in forward passes (a backward pass counts two)."""
        return self.predicted.metadata.get("n_passes")

    # -- agreement -----------------------------------------------------------------

    @property
    def spearman(self) -> float:
        """Rank correlation of predicted and measured effects."""
        return self._correlation("spearman")

    @property
    def pearson(self) -> float:
        """Linear correlation."""
        return self._correlation("pearson")

    @property
    def sign_agreement(self) -> float:
        """Share of places whose signs agree, of those whose measured effect is at least 1% of the largest."""
        predicted, measured = self._pairs()
        seen = self._seen(measured)
        return (predicted[seen].sign() == measured[seen].sign()).double().mean().item()

    @property
    def relative_error(self) -> float:
        """||predicted - measured|| / ||measured||."""
        predicted, measured = self._pairs()
        return ((predicted - measured).norm() / measured.norm()).item()

    def _correlation(self, method: Literal["spearman", "pearson"]) -> float:
        predicted, measured = self._pairs()
        return correlation(predicted.numpy(), measured.numpy(), method)

    def _pairs(self) -> tuple[Float[Tensor, " places"], Float[Tensor, " places"]]:
        """Predicted and measured effects where there are both."""
        predicted, measured = (
            rearrange(g.values[:, self.first :], "row column -> (row column)").double() for g in self._grids
        )
        both = ~(predicted.isnan() | measured.isnan())
        return predicted[both], measured[both]

    @property
    def _grids(self) -> tuple[Grid, Grid]:
        return self.predicted, self.measured

    def _seen(self, measured: Tensor) -> Bool[Tensor, " places"]:
        return measured.abs() >= _SEEN * max(measured.abs().tolist(), default=0.0)

    def worst(self, k: int = 5) -> list[Miss]:
        """The ``k`` places where the prediction is furthest from the measurement; none where either has no number."""
        predicted, measured = self.predicted.values, self.measured.values
        miss = (predicted - measured).abs().flatten()
        order = [i for i in miss.nan_to_num(nan=-1.0).argsort(descending=True, stable=True).tolist() if miss[i] >= 0]
        places = [divmod(i, predicted.shape[1]) for i in order[: max(k, 0)]]
        rows, columns = self.predicted.rows, self.predicted.columns
        return [Miss(rows[r], columns[c], predicted[r, c].item(), measured[r, c].item()) for r, c in places]

    def summary(self) -> str:
        """The agreement in one line."""
        g = self.predicted
        size = words.ruled(f"{len(g.rows)} {g.row_axis}s x {len(g.columns)} {g.column_axis}s", g.metadata)
        return f"{size}; {'; '.join(self._agreement())}"

    def _agreement(self) -> tuple[str, ...]:
        return words.some(
            [
                f"clean {self.clean:.3g}, corrupted {self.corrupted:.3g}",
                f"Spearman {self.spearman:.2f}, Pearson {self.pearson:.2f}, signs agree {self.sign_agreement:.0%}, "
                f"relative error {self.relative_error:.2f}",
                "" if self.n_passes is None else f"predicted for {self.n_passes} forward passes",
            ]
        )

    # -- out of Python -------------------------------------------------------------

    def to_dataframe(self) -> pd.DataFrame:
        """One line for each place: row, column, their names, predicted, measured."""
        table = self.predicted.to_dataframe().rename(columns={"value": "predicted"})
        return table.assign(measured=self.measured.to_dataframe()["value"])

    # -- pictures ------------------------------------------------------------------

    def panels(self, *, skip_first: bool = True) -> tuple[Panel, ...]:
        """Both heat maps on one scale, the largest measured effects beside what was predicted, and all against all."""
        numbers = [x for g in self._grids for x in kept_numbers(g, skip_first)]
        limit = max(map(abs, numbers), default=0.0)
        predicted, measured = (
            grid_panels(g, skip_first=skip_first, limit=limit, facts=facts)
            for g, facts in ((self.predicted, self._agreement()), (self.measured, ()))
        )
        return *predicted, *measured, *self._table(skip_first), self._scatter()

    def _table(self, skip_first: bool) -> tuple[Table, ...]:
        """The largest measured effects, each beside its prediction; none where nothing was measured."""
        cells = self.measured.top(_LISTED, skip_first=skip_first)
        largest = max((abs(c.value) for c in cells), default=0.0) or 1.0

        def shaded(value: float) -> TableCell:
            return TableCell(words.number(value), max(-1.0, min(1.0, value / largest)))

        rows = tuple(
            (
                TableCell(c.row_name),
                TableCell(c.column_name),
                shaded(self.predicted.values[c.row, c.column].item()),
                shaded(c.value),
            )
            for c in cells
        )
        g = self.predicted
        title = words.ruled(f"the {len(rows)} largest measured effects, beside what was predicted", g.metadata)
        header = (g.row_axis, g.column_axis, "predicted", "measured")
        return (Table(title=title, header=header, rows=rows, numbers=(2, 3), views=NOT_IN_FIGURES),) if rows else ()

    def _scatter(self) -> Curves:
        predicted, measured = self._pairs()
        agree = predicted.sign() == measured.sign()
        kinds: list[tuple[str, Tensor, Literal["positive", "negative"]]] = [
            ("signs agree", agree, "positive"),
            ("signs differ", ~agree, "negative"),
        ]
        curves = [
            Curve(name=name, x=tuple(measured[at].tolist()), y=tuple(predicted[at].tolist()), marks="points", role=role)
            for name, at, role in kinds
        ]
        return Curves(
            title=words.ruled(
                f"Spearman {self.spearman:.2f}, signs agree {self.sign_agreement:.0%}", self.predicted.metadata
            ),
            curves=tuple(curves),
            x_axis="measured",
            y_axis="predicted",
            guides=(Guide(axis="diagonal"),),
            square=True,
        )
