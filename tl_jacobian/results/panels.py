"""Panels: what there is to see in a value, as plain data that every renderer draws.

A value answers ``panels()`` with a few of five kinds of picture, and knows nothing of how they are drawn. A panel
holds raw text (renderers make it visible and escape it), numbers as Python floats (NaN where there is none), and the
token positions of its units, so that a click on a picture can be answered. It is a ``msgspec`` struct: immutable,
compared by value, and JSON as it is, NaN as null (:func:`to_json`).

======================  =============================================================================
:class:`TokenStrip`     a text whose units are coloured: one attribution, several compared, or a choice
:class:`HeatMap`        numbers for rows x columns: maps, layers x tokens, words x words
:class:`Bars`           named numbers on both sides of zero: contributions, predicted tokens
:class:`Curves`         numbers over numbers: drops over k, a spectrum's decay, a series, a scatter plot
:class:`Table`          rows of text, some on colour
======================  =============================================================================
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from tl_jacobian.errors import ArgumentError

View = Literal["terminal", "page", "figure"]
EVERYWHERE: tuple[View, ...] = ("terminal", "page", "figure")
NOT_IN_FIGURES: tuple[View, ...] = ("terminal", "page")


class _Plain(msgspec.Struct, frozen=True):
    """Plain data that can't be changed."""


class Unit(_Plain, frozen=True):
    """What a number belongs to: a named set of token positions, which need not be neighbours.

    Attributes:
        text: the name: a token's text, a word, a layer.
        positions: token positions of the prompt; none where it isn't made of tokens.
    """

    text: str
    positions: tuple[int, ...] = ()


class Scale(_Plain, frozen=True, kw_only=True):
    """A colour range, symmetric about zero.

    Attributes:
        limit: the ``|value|`` drawn at full strength; 0 where every value is 0.
        low, high: smallest and largest value inside the range.
        signed: whether it diverges from zero into two colours.
    """

    limit: float
    low: float
    high: float
    signed: bool

    def strength(self, value: float) -> float:
        """``|value|`` as a share of the range, from 0 to 1; linear, so that the colour can be read back."""
        return min(abs(value) / self.limit, 1.0) if self.limit and not math.isnan(value) else 0.0


class Panel(_Plain, frozen=True, kw_only=True, tag_field="kind", tag=lambda name: name.lower()):
    """What every picture has: a heading, and where it is drawn.

    Attributes:
        title: in bold: ``"Semantic Scope"``.
        detail: beside it: ``"logit of ' Paris' = 14.2"``.
        facts: below, in small print: the explained position, the model.
        legend: what there is to know about colours and marks; the unit first.
        views: which renderers draw it.
    """

    title: str = ""
    detail: str = ""
    facts: tuple[str, ...] = ()
    legend: tuple[str, ...] = ()
    views: tuple[View, ...] = EVERYWHERE


class StripRow(_Plain, frozen=True, kw_only=True):
    """One colouring of a :class:`TokenStrip`'s text.

    Attributes:
        values: of each unit; NaN where there is none. Fewer than units: the rest comes later and can't matter.
        scale: of these values.
        label: what they are: ``"Semantic Scope: logit of ' Paris' = 14.2"``.
        facts: about this row alone, such as its unit.
        errors: standard error of each value, or None.
        framed: units in a frame: what is predicted, or the one with which an answer begins.
        coming: what comes after the text's last unit: ``"' Paris' (predicted)"``.
    """

    values: tuple[float, ...]
    scale: Scale
    label: str = ""
    facts: tuple[str, ...] = ()
    errors: tuple[float, ...] | None = None
    framed: tuple[int, ...] = ()
    coming: str = ""


class TokenStrip(Panel, frozen=True, kw_only=True):
    """A text whose units are coloured by their values.

    Attributes:
        units: in reading order.
        rows: one or more colourings of the same text.
        together: whether several rows stand below each other (a comparison) or one at a time is chosen.
        chosen: the row shown first where one at a time is.
        hidden: units drawn hatched, and left out of the colour ranges: token 0, most often an attention sink.
        inside: the tokens that the units are made of, with rows of their own: units are then blocks, named below each
            other, and where this strip's views say so, each has its tokens (a page folds them).
    """

    units: tuple[Unit, ...]
    rows: tuple[StripRow, ...]
    together: bool = True
    chosen: int = 0
    hidden: tuple[int, ...] = ()
    inside: TokenStrip | None = None


class Frame(_Plain, frozen=True, kw_only=True):
    """A cell of a heat map in a frame: a gold link; dashed where it isn't sure."""

    row: int
    column: int
    dashed: bool = False


class HeatMap(Panel, frozen=True, kw_only=True):
    """Numbers for rows x columns.

    Attributes:
        values: by row; NaN where there is none. A row shorter than the longest ends early: what comes later can't
            matter.
        rows: name of each row.
        columns: name and token positions of each column.
        row_axis, column_axis: what a row and a column is: ``"layer"``, ``"token"``.
        scales: one for all rows, or one each.
        quantity: what one number is, with its unit.
        numbered: whether columns are numbered, as tokens are, whose texts repeat.
        hidden: columns drawn hatched, and left out of the colour ranges.
        frames: cells in a frame.
    """

    values: tuple[tuple[float, ...], ...]
    rows: tuple[str, ...]
    columns: tuple[Unit, ...]
    row_axis: str
    column_axis: str
    scales: tuple[Scale, ...]
    quantity: str = ""
    numbered: bool = False
    hidden: tuple[int, ...] = ()
    frames: tuple[Frame, ...] = ()

    def scale(self, row: int) -> Scale:
        """The colour range of a row."""
        return self.scales[row if len(self.scales) > 1 else 0]


class Bar(_Plain, frozen=True, kw_only=True):
    """One named number.

    Attributes:
        kind: bars of one kind share a colour: ``"attn"``; empty for what has no kind.
        line: bars that follow each other with the same one may share a line: the layer ``"5"``; empty: its own.
        error: its standard error.
        note: more about it, for the pointer.
    """

    name: str
    value: float
    kind: str = ""
    line: str = ""
    error: float | None = None
    note: str = ""


class Bars(Panel, frozen=True, kw_only=True):
    """Named numbers as bars on both sides of zero.

    Attributes:
        bars: in order.
        quantity: what one number is.
        percent: whether numbers are shares, written as percentages.
        aside: whether it is a footnote to the panel before it (the predicted tokens), drawn beside it where it fits.
        running: whether the running total is drawn: the bars add up to something.
    """

    bars: tuple[Bar, ...]
    quantity: str = ""
    percent: bool = False
    aside: bool = False
    running: bool = False


class Curve(_Plain, frozen=True, kw_only=True):
    """One series of points.

    Attributes:
        low, high: ends of each point's interval; none where empty.
        marks: ``"line"`` joins the points, ``"points"`` doesn't, ``"bars"`` stands on zero.
        role: decides the colour: ``""`` the next of the palette, ``"positive"``, ``"negative"``, ``"ink"``.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    marks: Literal["line", "points", "bars"] = "line"
    role: Literal["", "positive", "negative", "ink"] = ""


class Guide(_Plain, frozen=True, kw_only=True):
    """A straight line to compare with: ``x = at``, ``y = at``, or the diagonal ``y = x``."""

    axis: Literal["x", "y", "diagonal"]
    at: float = 0.0
    label: str = ""


class Curves(Panel, frozen=True, kw_only=True):
    """Numbers over numbers.

    Attributes:
        curves: in order.
        x_axis, y_axis: what the axes are, with units.
        log_x, log_y: logarithmic axes.
        whole_x: x counts something: only whole numbers are marked.
        guides: lines to compare with.
        hidden: x from 0 up to here is hatched: left out.
        square: both axes on one scale (a scatter plot of one thing against the same thing measured).
        below: curves on the same x, drawn under these, with a y axis of their own.
        beside: curves over the same y axis, drawn sideways on the right (their x is our y).
        width: of the figure in inches, or None.
    """

    curves: tuple[Curve, ...]
    x_axis: str
    y_axis: str
    log_x: bool = False
    log_y: bool = False
    whole_x: bool = False
    guides: tuple[Guide, ...] = ()
    hidden: int = 0
    square: bool = False
    below: Curves | None = None
    beside: Curves | None = None
    width: float | None = None


class Cell(_Plain, frozen=True):
    """A cell of a table: text, and where it is a number on colour, how strong: from -1 to 1, zero clear."""

    text: str
    shade: float = 0.0


class Table(Panel, frozen=True, kw_only=True):
    """Rows of text.

    Attributes:
        header: of each column.
        rows: cells in the header's order.
        numbers: columns that are aligned to the right.
        above: text above the table: the prompt that it is about.
        notes: below it, a line each.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numbers: tuple[int, ...] = ()
    above: str = ""
    notes: tuple[str, ...] = ()


AnyPanel = TokenStrip | HeatMap | Bars | Curves | Table


def to_json(panels: Sequence[Panel]) -> bytes:
    """Panels as a JSON list, each with its ``"kind"``; NaN is null.

    >>> to_json([Bars(bars=(Bar(name="a", value=1.0),))])[:26]
    b'[{"kind":"bars","title":""'
    """
    try:
        return msgspec.json.encode(list(panels))
    except UnicodeEncodeError:  # a lone surrogate, which UTF-8 lacks and ASCII escapes
        return json.dumps(_with_nulls(msgspec.to_builtins(list(panels))), separators=(",", ":")).encode("ascii")


def from_json(data: bytes) -> tuple[AnyPanel, ...]:
    """The panels that :func:`to_json` wrote, null among numbers as NaN.

    >>> from_json(to_json([Bars(bars=(Bar(name="a", value=math.nan),))]))[0].bars[0].name
    'a'
    """
    return msgspec.convert(_with_nans(json.loads(data)), type=tuple[AnyPanel, ...], strict=True)


def _with_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nulls(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_nulls(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_nans(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _with_nans(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [math.nan if item is None else _with_nans(item) for item in value]
    return math.nan if value is None and name == "value" else value


def scale_of(values: Iterable[float], *, signed: bool | None = None, limit: float | None = None) -> Scale:
    """The colour range of the values that aren't NaN: symmetric about zero, as wide as the largest of them.

    Args:
        values: those that count: hidden units are left out by the caller.
        signed: whether there are two colours; default: whether one is negative.
        limit: what is drawn at full strength, where several pictures share a range; default their largest size.

    Raises:
        ArgumentError: one is infinite, and so has no colour.

    >>> scale_of([1.0, -2.0, float("nan")])
    Scale(limit=2.0, low=-2.0, high=1.0, signed=True)
    """
    kept = [value for value in values if not math.isnan(value)]
    if any(map(math.isinf, kept)):
        raise ArgumentError(
            "an infinite value can't be drawn, expected finite numbers; look for overflow in the model, for instance "
            "with dtype=float32"
        )
    low, high = min(kept, default=0.0), max(kept, default=0.0)
    largest = max(map(abs, kept), default=0.0)
    return Scale(
        limit=largest if limit is None else limit, low=low, high=high, signed=low < 0 if signed is None else signed
    )


def named_positions(texts: Iterable[str], positions: Iterable[tuple[int, ...]]) -> tuple[Unit, ...]:
    """Units by their texts and token positions."""
    return tuple(Unit(text, at) for text, at in zip(texts, positions, strict=True))


def hidden_units(units: Sequence[Sequence[int]], skip_first: bool) -> tuple[int, ...]:
    """Units that are token 0 alone, where there are others: most often an attention sink that outshines everything.

    Which tokens are sinks is detected and named beside pictures (:mod:`tl_jacobian.core.sinks`), and hides no more.

    Args:
        units: the token positions of each unit.
        skip_first: whether token 0 is left out at all.

    >>> hidden_units([(0,), (1, 2)], True), hidden_units([(0, 1), (2,)], True)
    ((0,), ())
    """
    if not skip_first or len(units) < 2:
        return ()
    return tuple(i for i, positions in enumerate(units) if tuple(positions) == (0,))
