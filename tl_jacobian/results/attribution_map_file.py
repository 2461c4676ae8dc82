"""Attribution maps as JSON: the saved attributions of their rows, and what binds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tl_jacobian.results.attribution_file import VERSION, checked, is_a, read, words, write
from tl_jacobian.results.attribution_file import from_json as row_from_json
from tl_jacobian.results.attribution_file import to_json as row_to_json
from tl_jacobian.results.attribution_map import AttributionMap

FORMAT = "tl_jacobian.attribution_map"


def save(m: AttributionMap, path: str | Path) -> None:
    """Write one map; the file is whole or absent."""
    write(to_json(m), path)


def load(path: str | Path) -> AttributionMap:
    """Read one map; see :meth:`AttributionMap.load`."""
    return read(path, from_json)


def to_json(m: AttributionMap) -> dict[str, Any]:
    """The map as plain JSON values."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "next_texts": list(m.next_texts),
        "target_words": [list(w) for w in m.target_words],
        "metadata": dict(m.metadata),
        "attributions": [row_to_json(a) for a in m],
    }


def from_json(data: Any) -> AttributionMap:
    """The map that :func:`to_json` wrote.

    Raises:
        AttributionFileError: not one, or of a newer version.
    """
    return checked(data, FORMAT, _build)


def _build(data: dict[str, Any]) -> AttributionMap:
    return AttributionMap(
        attributions=tuple(row_from_json(row) for row in is_a(list, data["attributions"])),
        next_texts=tuple(None if t is None else is_a(str, t) for t in is_a(list, data["next_texts"])),
        target_words=words(data["target_words"]),
        metadata=is_a(dict, data["metadata"]),
    )
