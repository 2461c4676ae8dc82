"""Contributions as JSON, with the grids that they hold."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from tl_jacobian.results.attribution_file import VERSION, checked, is_a, read, write
from tl_jacobian.results.contributions import Contributions
from tl_jacobian.results.grid import Grid
from tl_jacobian.results.grid_file import from_json as grid_from_json
from tl_jacobian.results.grid_file import number, texts
from tl_jacobian.results.grid_file import to_json as grid_to_json

FORMAT = "tl_jacobian.contributions"


def save(c: Contributions, path: str | Path) -> None:
    """Write contributions; the file is whole or absent."""
    write(to_json(c), path)


def load(path: str | Path) -> Contributions:
    """Read contributions; see :meth:`Contributions.load`."""
    return read(path, from_json)


def to_json(c: Contributions) -> dict[str, Any]:
    """The contributions as plain JSON values. float64 numbers are exact as JSON numbers."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "target": c.target,
        "total": c.total,
        "names": list(c.names),
        "values": c.values.tolist(),
        "heads": None if c.heads is None else grid_to_json(c.heads),
        "sources": None if c.sources is None else grid_to_json(c.sources),
        "metadata": dict(c.metadata),
    }


def from_json(data: Any) -> Contributions:
    """The contributions that :func:`to_json` wrote.

    Raises:
        AttributionFileError: not such, or of a newer version.
    """
    return checked(data, FORMAT, _build)


def _build(data: dict[str, Any]) -> Contributions:
    return Contributions(
        names=texts(data["names"]),
        values=torch.tensor([number(value) for value in is_a(list, data["values"])], dtype=torch.float64),
        total=number(data["total"]),
        target=is_a(str, data["target"]),
        heads=_grid(data["heads"]),
        sources=_grid(data["sources"]),
        metadata=is_a(dict, data["metadata"]),
        rtol=math.inf,  # they were checked when they were made, perhaps for a model of low precision
    )


def _grid(data: Any) -> Grid | None:
    return None if data is None else grid_from_json(data)
