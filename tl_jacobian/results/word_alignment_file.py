"""Word alignments as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tl_jacobian.results.alignment import WordAlignment
from tl_jacobian.results.attribution_file import VERSION, checked, combine, is_a, read, write
from tl_jacobian.results.grid_file import number, number_rows, texts

FORMAT = "tl_jacobian.word_alignment"


def save(a: WordAlignment, path: str | Path) -> None:
    """Write one alignment; the file is whole or absent."""
    write(to_json(a), path)


def load(path: str | Path) -> WordAlignment:
    """Read one alignment; see :meth:`WordAlignment.load`."""
    return read(path, from_json)


def to_json(a: WordAlignment) -> dict[str, Any]:
    """The alignment as plain JSON values. float32 numbers are exact as JSON numbers."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "scope": a.scope,
        "combine": a.combine,
        "source_words": list(a.source_words),
        "target_words": list(a.target_words),
        "units": list(a.units),
        "sources": list(a.sources),
        "targets": list(a.targets),
        "influence": a.influence.tolist(),
        "metadata": dict(a.metadata),
    }


def from_json(data: Any) -> WordAlignment:
    """The alignment that :func:`to_json` wrote.

    Raises:
        AttributionFileError: not one, or of a newer version.
    """
    return checked(data, FORMAT, _build)


def _build(data: dict[str, Any]) -> WordAlignment:
    rows = [[number(value) for value in row] for row in number_rows(data["influence"])]
    return WordAlignment(
        influence=torch.tensor(rows, dtype=torch.float32),
        units=texts(data["units"]),
        sources=_places(data["sources"]),
        targets=_places(data["targets"]),
        source_words=texts(data["source_words"]),
        target_words=texts(data["target_words"]),
        scope=is_a(str, data["scope"]),
        combine=combine(data["combine"]),
        metadata=is_a(dict, data["metadata"]),
    )


def _places(values: Any) -> tuple[int, ...]:
    return tuple(is_a(int, i) for i in is_a(list, values))
