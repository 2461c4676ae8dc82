"""Grids as JSON: NaN, which JSON doesn't have, is null."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from tl_jacobian.results.attribution_file import VERSION, checked, is_a, read, write
from tl_jacobian.results.grid import Grid

FORMAT = "tl_jacobian.grid"


def save(g: Grid, path: str | Path) -> None:
    """Write one grid; the file is whole or absent."""
    write(to_json(g), path)


def load(path: str | Path) -> Grid:
    """Read one grid; see :meth:`Grid.load`."""
    return read(path, from_json)


def to_json(g: Grid) -> dict[str, Any]:
    """The grid as plain JSON values. float32 numbers are exact as JSON numbers."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "title": g.title,
        "quantity": g.quantity,
        "row_axis": g.row_axis,
        "column_axis": g.column_axis,
        "signed": g.signed,
        "rows": list(g.rows),
        "columns": list(g.columns),
        "values": [[None if math.isnan(value) else value for value in row] for row in g.values.tolist()],
        "tokens": list(g.tokens),
        "metadata": dict(g.metadata),
    }


def from_json(data: Any) -> Grid:
    """The grid that :func:`to_json` wrote.

    Raises:
        AttributionFileError: not one, or of a newer version.
    """
    return checked(data, FORMAT, _build)


def _build(data: dict[str, Any]) -> Grid:
    return Grid(
        values=torch.tensor(
            [[math.nan if value is None else number(value) for value in row] for row in number_rows(data["values"])],
            dtype=torch.float32,
        ),
        rows=texts(data["rows"]),
        columns=texts(data["columns"]),
        title=is_a(str, data["title"]),
        quantity=is_a(str, data["quantity"]),
        row_axis=is_a(str, data["row_axis"]),
        column_axis=is_a(str, data["column_axis"]),
        signed=_bool(data["signed"]),
        tokens=tuple(is_a(int, t) for t in is_a(list, data["tokens"])),
        metadata=is_a(dict, data["metadata"]),
    )


def texts(values: Any) -> tuple[str, ...]:
    """A JSON list of text."""
    return tuple(is_a(str, text) for text in is_a(list, values))


def number(value: Any) -> float:
    """A finite JSON number: Python's reader takes ``NaN`` and ``Infinity`` too.

    Raises:
        TypeError: it isn't a number.
        ValueError: it isn't finite.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"expected a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {value!r}")
    return float(value)


def number_rows(values: Any) -> list[list[Any]]:
    """Rows of one length, or what's wrong with them."""
    rows = [is_a(list, row) for row in is_a(list, values)]
    if not rows or len({len(row) for row in rows}) > 1:
        raise ValueError(f"rows of {sorted({len(row) for row in rows})} numbers, expected rows of one length")
    return rows


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"expected true or false, got {value!r}")
    return value
