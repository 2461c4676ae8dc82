"""PatchComparison: first-order predictions of activation patching beside what patching measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.grid import Grid

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# Signs of effects below this share of the largest one are noise, and not counted.
_SEEN = 0.01


class Miss(NamedTuple):
    """One place of :meth:`PatchComparison.worst`."""

    row_name: str
    column_name: str
    predicted: float
    measured: float


@dataclass(frozen=True, eq=False, kw_only=True)
class PatchComparison:
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
        if self.predicted.values.shape != self.measured.values.shape:
            raise ArgumentError(
                f"{tuple(self.predicted.values.shape)} predicted effects and {tuple(self.measured.values.shape)} "
                "measured ones, expected the same places"
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
        import pandas as pd

        predicted, measured = (pd.Series(values.numpy()) for values in self._pairs())
        return float(predicted.corr(measured, method=method))

    def _pairs(self) -> tuple[Float[Tensor, " places"], Float[Tensor, " places"]]:
        predicted, measured = (g.values[:, self.first :].double().flatten() for g in (self.predicted, self.measured))
        return predicted, measured

    def _seen(self, measured: Tensor) -> Bool[Tensor, " places"]:
        return measured.abs() >= _SEEN * measured.abs().max()

    def worst(self, k: int = 5) -> list[Miss]:
        """The ``k`` places where the prediction is furthest from the measurement."""
        predicted, measured = self.predicted.values, self.measured.values
        order = (predicted - measured).abs().flatten().argsort(descending=True)[:k].tolist()
        places = [divmod(i, predicted.shape[1]) for i in order]
        rows, columns = self.predicted.rows, self.predicted.columns
        return [Miss(rows[r], columns[c], predicted[r, c].item(), measured[r, c].item()) for r, c in places]

    def summary(self) -> str:
        """The agreement in one line."""
        cost = "" if self.n_passes is None else f"; predicted for {self.n_passes} forward passes"
        return (
            f"{len(self.predicted.rows)} {self.predicted.row_axis}s x {len(self.predicted.columns)} "
            f"{self.predicted.column_axis}s; clean {self.clean:.3g}, corrupted {self.corrupted:.3g}; Spearman "
            f"{self.spearman:.2f}, Pearson {self.pearson:.2f}, signs agree {self.sign_agreement:.0%}, relative error "
            f"{self.relative_error:.2f}{cost}"
        )

    # -- out of Python -------------------------------------------------------------

    def to_dataframe(self) -> pd.DataFrame:
        """One line for each place: row, column, their names, predicted, measured."""
        table = self.predicted.to_dataframe().rename(columns={"value": "predicted"})
        return table.assign(measured=self.measured.to_dataframe()["value"])

    def show(self) -> None:
        """Draw both grids on one scale: in Jupyter as HTML, elsewhere in the terminal."""
        from tl_jacobian.render.patching import show_patching

        show_patching(self)

    def plot(self) -> Figure:
        """Both heat maps on one scale, and a scatter plot of one against the other (extra ``plot``)."""
        from tl_jacobian.render.patching import plot_patching

        return plot_patching(self)

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained HTML page that works offline; returns its path."""
        from tl_jacobian.render.patching import write_patching

        return write_patching(self, path)

    def _repr_html_(self) -> str:
        from tl_jacobian.render.patching import notebook_patching

        return notebook_patching(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PatchComparison):
            return NotImplemented
        mine, theirs = ((c.predicted, c.measured, c.clean, c.corrupted, c.first) for c in (self, other))
        return mine == theirs

    __hash__ = None  # type: ignore[assignment]  # holds grids
