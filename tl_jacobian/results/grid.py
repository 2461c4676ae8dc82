"""Grid: a table of numbers whose rows and columns have names, as a frozen value.

Layers x tokens, layers x heads, heads x source tokens: whatever measures one number for each
pair is a grid. Like an :class:`~tl_jacobian.results.attribution.Attribution` it knows nothing of models.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from einops import reduce
from jaxtyping import Bool, Float
from torch import Tensor

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results import words
from tl_jacobian.results.attribution import COMBINE, PER_TOKEN, Positions, check_units, consecutive
from tl_jacobian.results.base import FrozenDict, Value
from tl_jacobian.results.panels import (
    EVERYWHERE,
    Frame,
    HeatMap,
    Panel,
    Scale,
    StripRow,
    TokenStrip,
    View,
    hidden_units,
    named_positions,
    scale_of,
)
from tl_jacobian.results.scopes import Combine
from tl_jacobian.results.segments import InSegments, TokenText, read
from tl_jacobian.results.tokens import Region, Regions

if TYPE_CHECKING:
    import pandas as pd

TOKEN = "token"  # the column axis of a prompt's tokens, whose first an attention sink often dominates
_MOST_ROWS = 130  # of a text that one row at a time is shown on
_MOST_CELLS = 20_000


@words.four_digits
class Cell(NamedTuple):
    """One entry of :meth:`Grid.top`."""

    row: int
    column: int
    row_name: str
    column_name: str
    value: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Grid(Value, InSegments):
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
        combine: how numbers of several tokens make one, where they can: :meth:`segments` needs it.
        units: token positions of each column; default one token each where ``column_axis`` is ``"token"``, else none.
        regions: of a conversation, the token positions of its ``"roles"`` and ``"messages"``.
        answer_start: index of the answer's first token, where an answer was explained.
        metadata: what exactly was measured, and by what (JSON values).

    Raises:
        ArgumentError: names and numbers don't go together, a number is infinite, or negative in a
            grid that isn't signed.

    >>> g = Grid(values=torch.tensor([[9.0, 1.0], [8.0, -2.0]]), rows=("0", "1"), columns=("The", " cat"),
    ...          title="v", quantity="logits", row_axis="layer", column_axis="token", signed=True)
    >>> g.top(1)
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
    units: tuple[Positions, ...] = ()
    combine: Combine | None = None
    regions: Regions = field(default_factory=dict)
    answer_start: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._own("values", dtype=torch.float32)
        self._freeze("metadata")
        self._set("regions", FrozenDict(self.regions))
        self._check_shape()
        self._check_numbers()
        self._check_units()

    def _check_shape(self) -> None:
        shape, names = tuple(self.values.shape), (len(self.rows), len(self.columns))
        if shape != names:
            raise ArgumentError(
                f"values of shape {shape} for {names[0]} rows and {names[1]} columns, "
                f"expected shape {names}: one name for each row and each column"
            )
        if 0 in names:
            raise ArgumentError(f"a grid of {names[0]} rows and {names[1]} columns, expected at least one of each")

    def _check_numbers(self) -> None:
        """Infinite numbers aren't there, and negative ones only where they may be; NaN is no number."""
        values = self.values
        if values.isinf().any():
            raise ArgumentError(
                f"{self._place(values.isinf())} is infinite, expected finite numbers, or NaN where there is none; "
                "look for overflow in the model, for instance with dtype=float32"
            )
        if not self.signed and (values < 0).any():
            raise ArgumentError(
                f"{self._place(values < 0)} is {values[values < 0][0].item():.3g}, expected none below zero in a grid "
                "that isn't signed: pass signed=True"
            )

    def _place(self, where: Bool[Tensor, "rows columns"]) -> str:
        """The first place where a condition holds, in words."""
        row, column = where.nonzero()[0].tolist()
        return f"{self.row_axis} {self.rows[row]!r}, {self.column_axis} {self.columns[column]!r}"

    def _check_units(self) -> None:
        n = len(self.columns)
        if not self.units and self.column_axis == TOKEN:
            if self.tokens and len(self.tokens) != n:
                raise ArgumentError(
                    f"{len(self.tokens)} tokens for {n} columns, expected one each, or none at all; columns of "
                    "several tokens say which with units="
                )
            self._set("units", consecutive([1] * n))
        if self.units and len(self.units) != n:
            raise ArgumentError(f"units of {len(self.units)} columns for {n} columns, expected one each")
        places = [at for positions in self.units for at in positions]
        check_units(self.units, len(self.tokens) or 1 + max(places, default=0))

    def __repr__(self) -> str:
        size = f"{len(self.rows)} {self.row_axis}s x {len(self.columns)} {self.column_axis}s"
        best = "".join(f"; largest: {c.value:.3g} at {c.row_name!r}, {c.column_name!r}" for c in self.top(1))
        return f"Grid({self.title}; {size}{best})"

    # -- ranking and choosing ------------------------------------------------------

    def top(self, k: int = 5, *, skip_first: bool = True) -> list[Cell]:
        """The ``k`` numbers furthest from zero, furthest first; NaN is none.

        Args:
            k: how many at most.
            skip_first: leave out the column of token 0, which an attention sink often dominates, where there is one
                beside others.
        """
        values = self.values
        size = values.abs().nan_to_num(nan=-1.0)  # behind every number
        size[:, list(hidden_units(self.units, skip_first))] = -1.0
        order = size.flatten().argsort(descending=True, stable=True)[: min(max(k, 0), int((size >= 0).sum()))].tolist()
        numbers = values.flatten()[order].tolist()
        places = [divmod(i, len(self.columns)) for i in order]
        return [self._cell(row, column, value) for (row, column), value in zip(places, numbers, strict=True)]

    def _cell(self, row: int, column: int, value: float) -> Cell:
        return Cell(row, column, self.rows[row], self.columns[column], value)

    def pick(self, *names: str | int) -> Grid:
        """The rows with these names, or that have one of them as a part, in this grid's order.

        Args:
            names: ``"5"`` is row ``"5"`` alone if there is one, else the rows ``"5.attn"``, ``"5.mlp"``, ...,
                else every row with a 5 in its name; ``pick("attn")`` is ``"0.attn"``, ``"1.attn"``, ....

        Raises:
            ArgumentError: no row goes by one of these names.
        """
        chosen = sorted({i for name in names for i in _rows_of(str(name), self.rows, self.row_axis)})
        if not chosen:
            raise ArgumentError(f"pick() got no name of a row, expected some of {', '.join(map(repr, self.rows[:4]))}…")
        return self._chosen(chosen)

    def strongest(self, k: int = 16) -> Grid:
        """The ``k`` rows whose largest numbers are furthest from zero, in this grid's order."""
        largest = reduce(self.values.abs().nan_to_num(nan=-1.0), "row column -> row", "max")
        return self._chosen(sorted(largest.argsort(descending=True, stable=True)[: max(k, 1)].tolist()))

    def _chosen(self, rows: list[int]) -> Grid:
        return dataclasses.replace(self, values=self.values[rows], rows=tuple(self.rows[i] for i in rows))

    # -- segments of the columns: see InSegments -----------------------------------

    def _token_text(self) -> TokenText:
        if self.column_axis != TOKEN or any(len(unit) != 1 for unit in self.units):
            raise ArgumentError(f"the columns are {self.column_axis}s, expected tokens, which have a text")
        if self.combine is None:
            raise ArgumentError(
                f"numbers of several tokens don't make one here ({self.title}): what is done to several at once isn't "
                "known from what is done to each"
            )
        return read(self.columns)

    def _begins(self) -> list[int]:
        return sorted({*super()._begins(), *([self.answer_start] if self.answer_start else [])})

    def _of_segments(self, segments: Sequence[Region], mean: bool) -> Grid:
        combine = self.combine or "sum"
        share, what = PER_TOKEN[combine]
        values = self.values.double()
        columns = [
            torch.stack([COMBINE[combine](row) for row in values[:, list(segment.positions)]])
            / (share(len(segment.positions)) if mean else 1)
            for segment in segments
        ]
        return dataclasses.replace(
            self,
            values=torch.stack(columns, dim=1).float(),
            columns=tuple(segment.name for segment in segments),
            column_axis="segment",
            units=tuple(segment.positions for segment in segments),
            quantity=f"{self.quantity}, {what}" if mean else self.quantity,
        )

    # -- out of Python -------------------------------------------------------------

    def to_dataframe(self) -> pd.DataFrame:
        """One line for each number: row, column, row_name, column_name, value."""
        import pandas as pd  # heavy to import, and a dependency of TransformerLens anyway

        numbers = self.values.tolist()
        cells = [self._cell(i, j, value) for i, row in enumerate(numbers) for j, value in enumerate(row)]
        return pd.DataFrame(cells, columns=list(Cell._fields))

    # -- pictures ------------------------------------------------------------------

    def panels(self, *, skip_first: bool = True) -> tuple[Panel, ...]:
        """The heat map on one colour scale, so that rows can be compared; where columns are tokens, also the text."""
        return grid_panels(self, skip_first=skip_first)


def grid_panels(
    g: Grid,
    *,
    skip_first: bool = True,
    limit: float | None = None,
    title: str | None = None,
    facts: Sequence[str] = (),
    notes: Sequence[str] = (),
    frames: Sequence[Frame] = (),
    views: tuple[View, ...] = EVERYWHERE,
    text: bool = True,
) -> tuple[Panel, ...]:
    """A grid's heat map, and below it the text on the colours of one row at a time.

    Args:
        g: what to draw.
        skip_first: leave the column of token 0 out of the colours.
        limit: what is drawn at full strength, for grids that share a scale.
        title: default the grid's own.
        facts: more of them, before those about the model.
        notes: more for the legend.
        frames: cells in a frame.
        views: where the heat map is drawn.
        text: whether the text is drawn too, where columns are tokens and there aren't too many rows.
    """
    hidden = hidden_units(g.units, skip_first)
    values = [tuple(row) for row in g.values.tolist()]
    scale = scale_of(kept_numbers(g, skip_first), signed=g.signed, limit=limit)
    units = g.units or ((),) * len(g.columns)
    columns = named_positions(g.columns, units)
    heat_map = HeatMap(
        views=views,
        title=words.ruled(g.title if title is None else title, g.metadata),
        facts=(*facts, *(words.sinks(g.metadata) if g.column_axis == TOKEN else ()), *words.model_facts(g.metadata)),
        legend=tuple(notes),
        values=tuple(values),
        rows=g.rows,
        columns=columns,
        row_axis=g.row_axis,
        column_axis=g.column_axis,
        scales=(scale,),
        quantity=g.quantity,
        numbered=g.column_axis == TOKEN,
        hidden=hidden,
        frames=tuple(frames),
    )
    live = text and g.column_axis == TOKEN and len(g.rows) <= _MOST_ROWS and g.values.numel() <= _MOST_CELLS
    return (heat_map, _text(g, heat_map, scale)) if live and "page" in views else (heat_map,)


def kept_numbers(g: Grid, skip_first: bool) -> list[float]:
    """The numbers that colours are made for: those of shown columns that aren't NaN."""
    hidden = hidden_units(g.units, skip_first)
    shown = [i for i in range(len(g.columns)) if i not in hidden]
    values = g.values[:, shown]
    return values[~values.isnan()].tolist()


def _text(g: Grid, heat_map: HeatMap, scale: Scale) -> TokenStrip:
    """The text on the colours of one row, to be chosen."""
    return TokenStrip(
        views=("page",),
        title=f"one {g.row_axis} at a time, all on the scale above",
        units=heat_map.columns,
        rows=tuple(
            StripRow(values=v, scale=scale, label=name) for v, name in zip(heat_map.values, g.rows, strict=True)
        ),
        together=False,
        chosen=g.top(1, skip_first=bool(heat_map.hidden))[0].row if kept_numbers(g, bool(heat_map.hidden)) else 0,
        hidden=heat_map.hidden,
    )


# -- rows by name ----------------------------------------------------------------------


def _rows_of(name: str, rows: Sequence[str], axis: str) -> list[int]:
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
