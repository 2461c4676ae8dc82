"""Grid: a table of numbers whose rows and columns have names, as a frozen value.

Layers x tokens, layers x heads, heads x source tokens: whatever measures one number for each
pair is a grid. Like an :class:`~tl_jacobian.results.attribution.Attribution` it knows nothing of models.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.base import Frozen

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

NamedAxes = tuple[tuple[str, Sequence[str]], tuple[str, Sequence[str]]]  # what rows are, and their names; columns


def check_shape(values: Tensor, axes: NamedAxes) -> None:
    """Refuse a table without one name for each row and each column."""
    names = (len(axes[0][1]), len(axes[1][1]))
    if tuple(values.shape) != names:
        raise ArgumentError(
            f"values of shape {tuple(values.shape)} for {names[0]} rows and {names[1]} columns, "
            f"expected shape {names}: one name for each row and each column"
        )
    if 0 in names:
        raise ArgumentError(f"a grid of {names[0]} rows and {names[1]} columns, expected at least one of each")


def check_numbers(values: Tensor, axes: NamedAxes, *, signed: bool) -> None:
    """Refuse infinite numbers, and negative ones where there are to be none; NaN is no number."""
    if values.isinf().any():
        raise ArgumentError(
            f"{_place(values.isinf(), axes)} is infinite, expected finite numbers, or NaN where there is none; "
            "look for overflow in the model, for instance with dtype=float32"
        )
    if not signed and (values < 0).any():
        raise ArgumentError(
            f"{_place(values < 0, axes)} is {values[values < 0][0].item():.3g}, expected none below zero in a grid "
            "that isn't signed: pass signed=True"
        )


def _place(where: Tensor, axes: NamedAxes) -> str:
    """The first place where a condition holds, in words."""
    return ", ".join(f"{axis} {names[i]!r}" for i, (axis, names) in zip(where.nonzero()[0].tolist(), axes, strict=True))


def rows_of(name: str, rows: Sequence[str], axis: str) -> list[int]:
    """The rows called ``name``; where there are none, those with it between dots; else those that contain it.

    Raises:
        ArgumentError: there are none of these either.
    """
    rules = (lambda row: row == name, lambda row: name in row.split("."), lambda row: name in row)
    found = next((at for rule in rules if (at := [i for i, row in enumerate(rows) if rule(row)])), [])
    if not found:
        raise ArgumentError(
            f"no row is called {name!r} or has that as a part; the nearest is {nearest(name, rows)!r} "
            f"of {len(rows)} {axis}s from {rows[0]!r} to {rows[-1]!r}"
        )
    return found


def nearest(name: str, names: Sequence[str]) -> str:
    """The one of ``names`` that looks most like ``name``."""
    return difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]


TOKEN = "token"  # the column axis of a prompt's tokens, whose first an attention sink often dominates


class Cell(NamedTuple):
    """One entry of :meth:`Grid.top`."""

    row: int
    column: int
    row_name: str
    column_name: str
    value: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Grid(Frozen):
    """One number for each row and each column.

    Attributes:
        values: the numbers; shape ``(rows, columns)``, CPU float32. NaN where there is none.
        rows: name of each row.
        columns: name of each column, the text of each token where ``column_axis`` is ``"token"``;
            names may repeat.
        title: what is shown, in words: ``"influence of the residual stream on logit of ' Paris'"``.
        quantity: what one number is, with its unit.
        row_axis, column_axis: what a row and a column is: ``"layer"``, ``"head"``, ``"token"``.
        signed: whether numbers may be negative, and are drawn in two colours around zero.
        tokens: token ids of the prompt, if there is one.
        metadata: what exactly was measured, and by what (JSON values).

    Raises:
        ArgumentError: names and numbers don't go together, a number is infinite, or negative in a
            grid that isn't signed.

    >>> g = Grid(values=torch.tensor([[9.0, 1.0], [8.0, -2.0]]), rows=("0", "1"), columns=("The", " cat"),
    ...          title="v", quantity="logits", row_axis="layer", column_axis="token", signed=True)
    >>> g.top(1, skip_first=True)
    [Cell(row=1, column=1, row_name='1', column_name=' cat', value=-2.0)]
    >>> g.pick("0").values
    tensor([[9., 1.]])
    """

    values: Float[Tensor, "rows columns"]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    title: str
    quantity: str
    row_axis: str
    column_axis: str
    signed: bool
    tokens: tuple[int, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A frozen value owns what it holds: a copy, on the CPU, in one precision. All NaNs are one,
        # for a file doesn't tell them apart.
        values = self.values.detach().to("cpu", torch.float32, copy=True)
        self._set("values", values.masked_fill_(values.isnan(), torch.nan))
        self._protect_metadata()
        self._check()

    def _check(self) -> None:
        axes = ((self.row_axis, self.rows), (self.column_axis, self.columns))
        check_shape(self.values, axes)
        check_numbers(self.values, axes, signed=self.signed)
        if self.column_axis == TOKEN and self.tokens and len(self.tokens) != len(self.columns):
            raise ArgumentError(
                f"{len(self.tokens)} tokens for {len(self.columns)} columns, expected one each, or none at all"
            )

    def __eq__(self, other: object) -> bool:
        """Equal in every field, numbers bit for bit."""
        if not isinstance(other, Grid):
            return NotImplemented
        same = all(getattr(self, f.name) == getattr(other, f.name) for f in dataclasses.fields(self)[1:])
        return same and torch.equal(self.values.view(torch.int32), other.values.view(torch.int32))

    __hash__ = None  # type: ignore[assignment]  # holds a tensor

    def __repr__(self) -> str:
        size = f"{len(self.rows)} {self.row_axis}s x {len(self.columns)} {self.column_axis}s"
        best = "".join(f"; largest: {c.value:.3g} at {c.row_name!r}, {c.column_name!r}" for c in self.top(1))
        return f"Grid({self.title}; {size}{best})"

    # -- ranking and choosing ------------------------------------------------------

    def top(self, k: int = 5, *, skip_first: bool = False) -> list[Cell]:
        """The ``k`` numbers furthest from zero, furthest first; NaN is none.

        Args:
            k: how many at most.
            skip_first: leave out the first token, which an attention sink often dominates.

        Raises:
            ArgumentError: ``skip_first`` where columns aren't tokens.
        """
        self.check_skip(skip_first)
        size = self.values.abs().nan_to_num(nan=-1.0)  # behind every number
        size[:, : int(skip_first)] = -1.0
        order = size.flatten().argsort(descending=True, stable=True)[: min(max(k, 0), int((size >= 0).sum()))]
        return [self._cell(*divmod(i, len(self.columns))) for i in order.tolist()]

    def _cell(self, row: int, column: int) -> Cell:
        return Cell(row, column, self.rows[row], self.columns[column], self.values[row, column].item())

    def check_skip(self, skip_first: bool) -> None:
        """Refuse to leave out the first column of a grid whose columns aren't tokens.

        Raises:
            ArgumentError: the first column is as good as any other.
        """
        if skip_first and self.column_axis != TOKEN:
            raise ArgumentError(
                f"skip_first=True leaves out the first token, but this grid's columns are {self.column_axis}s; "
                "expected skip_first=False"
            )

    def pick(self, *names: str | int) -> Grid:
        """The rows with these names, or that have one of them as a part, in this grid's order.

        Args:
            names: ``"5"`` is row ``"5"`` alone if there is one, else the rows ``"5.attn"``, ``"5.mlp"``, ...,
                else every row with a 5 in its name; ``pick("attn")`` is ``"0.attn"``, ``"1.attn"``, ....

        Raises:
            ArgumentError: no row goes by one of these names.
        """
        chosen = sorted({i for name in names for i in rows_of(str(name), self.rows, self.row_axis)})
        if not chosen:
            raise ArgumentError(f"pick() got no name of a row, expected some of {', '.join(map(repr, self.rows[:4]))}…")
        return dataclasses.replace(self, values=self.values[chosen], rows=tuple(self.rows[i] for i in chosen))

    def strongest(self, k: int = 16) -> Grid:
        """The ``k`` rows whose largest numbers are furthest from zero, in this grid's order."""
        largest = self.values.abs().nan_to_num(nan=-1.0).max(dim=1).values
        chosen = sorted(largest.argsort(descending=True, stable=True)[: max(k, 1)].tolist())
        return dataclasses.replace(self, values=self.values[chosen], rows=tuple(self.rows[i] for i in chosen))

    # -- out of Python -------------------------------------------------------------

    def to_dataframe(self) -> pd.DataFrame:
        """One line for each number: row, column, row_name, column_name, value."""
        import pandas as pd  # heavy to import, and a dependency of TransformerLens anyway

        places = [(row, column) for row in range(len(self.rows)) for column in range(len(self.columns))]
        return pd.DataFrame([self._cell(*place) for place in places], columns=list(Cell._fields))

    def save(self, path: str | Path) -> None:
        """Write this grid as JSON; :meth:`load` gives back an equal one."""
        from tl_jacobian.results.grid_file import save

        save(self, path)

    @staticmethod
    def load(path: str | Path) -> Grid:
        """Read a grid that :meth:`save` wrote.

        Raises:
            AttributionFileError: the file is damaged, truncated, foreign, or from a newer version.
        """
        from tl_jacobian.results.grid_file import load

        return load(path)

    # -- pictures ------------------------------------------------------------------
    # One colour scale for the whole grid, so that rows can be compared. Where columns are tokens, the
    # first (an attention sink that outshines everything) is left out of it. The values never hide it.

    def show(self, *, skip_first: bool | None = None) -> None:
        """Draw the heat map: in Jupyter as HTML, elsewhere in the terminal.

        Args:
            skip_first: leave the first token out of the colours; default: wherever columns are tokens.

        Raises:
            ArgumentError: ``skip_first`` where columns aren't tokens.
        """
        from tl_jacobian.render.grid_display import show_grid

        show_grid(self, skip_first=skip_first)

    def to_html(self, path: str | Path, *, skip_first: bool | None = None) -> Path:
        """Write one self-contained HTML page that works offline; returns its path. Options: :meth:`show`."""
        from tl_jacobian.render.grid_display import write_grid

        return write_grid(self, path, skip_first=skip_first)

    def plot(self, ax: Axes | None = None, *, skip_first: bool | None = None) -> Axes:
        """Draw the heat map with matplotlib (extra ``plot``); returns its axes. Options: :meth:`show`."""
        from tl_jacobian.render.grid_plot import plot_grid

        return plot_grid(self, ax, skip_first=skip_first)

    def _repr_html_(self) -> str:
        from tl_jacobian.render.grid_display import notebook_grid

        return notebook_grid(self)
