"""The words and the colour range around a grid, the same in every view."""

from __future__ import annotations

from torch import Tensor

from tl_jacobian.render import words
from tl_jacobian.render.colors import Scale
from tl_jacobian.results.grid import TOKEN, Grid
from tl_jacobian.results.tokens import visible


def scale_of_grid(g: Grid, *, skip_first: bool | None = None, limit: float | None = None) -> Scale:
    """One colour range for the whole grid: as wide as its number furthest from zero.

    Args:
        g: the grid.
        skip_first: leave the first token out; default: wherever columns are tokens (and there is another).
        limit: what is drawn at full strength, for grids that share a scale; default the grid's own largest.

    Raises:
        ArgumentError: ``skip_first`` where columns aren't tokens.
    """
    skipped = skips(g, skip_first)
    kept = numbers(g.values[:, int(skipped) :])
    return Scale(
        limit=max(map(abs, kept), default=0.0) if limit is None else limit,
        low=min(kept, default=0.0),
        high=max(kept, default=0.0),
        skipped=int(skipped),
    )


def numbers(values: Tensor) -> list[float]:
    """The values that aren't NaN."""
    return values[~values.isnan()].tolist()


def skips(g: Grid, skip_first: bool | None) -> bool:
    """Whether the first column is left out of the colours."""
    if skip_first is None:
        return g.column_axis == TOKEN and len(g.columns) > 1
    g.check_skip(skip_first)
    return skip_first


def row_names(g: Grid) -> list[str]:
    """Names of the rows, safe to print."""
    return [visible(name) for name in g.rows]


def column_names(g: Grid) -> list[str]:
    """Names of the columns, safe to print; tokens are numbered."""
    return [f"{i} {visible(name)}" if g.column_axis == TOKEN else visible(name) for i, name in enumerate(g.columns)]


def cell_name(g: Grid, row: int, column: int) -> str:
    """``"layer 5, token 3 ' is'"``."""
    name = g.columns[column]
    number = f"{column} {words.quoted(name)}" if g.column_axis == TOKEN else visible(name)
    return visible(f"{g.row_axis} {g.rows[row]}, {g.column_axis} ") + number


def extent(g: Grid) -> str:
    """``"30 layers × 12 tokens"``."""
    return f"{counted(len(g.rows), g.row_axis)} × {counted(len(g.columns), g.column_axis)}"


def counted(n: int, axis: str) -> str:
    """``"1 layer"``, ``"2 layers"``."""
    return f"{n} {visible(axis)}" + ("" if n == 1 else "s")


def facts(g: Grid, scale: Scale) -> list[str]:
    """What there is to know about the colours."""
    extent = f"range {words.number(scale.low)} to {words.number(scale.high)}"
    gaps = "hatched: no value" if g.values.isnan().any() else ""
    return [visible(g.quantity), extent, strongest(g, scale), skipped(g, scale), gaps]


def strongest(g: Grid, scale: Scale) -> str:
    """Where the number furthest from zero is: in a grid of hundreds of rows it is hard to find."""
    cells = g.top(1, skip_first=bool(scale.skipped))
    return f"strongest: {cell_name(g, cells[0].row, cells[0].column)}" if cells else ""


def skipped(g: Grid, scale: Scale) -> str:
    """That the first token is left out, and how strong it is."""
    if not scale.skipped:
        return ""
    largest = max(map(abs, numbers(g.values[:, 0])), default=0.0)
    return f"first {words.quoted(g.columns[0])} left out (up to {words.number(largest)})"
