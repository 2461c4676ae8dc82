"""Rows of a file: JSON, JSON lines, lines of text, Parquet. What can't be read is a row too, that says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tl_jacobian.corpus.rows import Unreadable
from tl_jacobian.errors import CorpusError

_BOM = b"\xef\xbb\xbf"
_KEPT = ("id", "target", "tokens")  # beside the text


def text_rows(path: Path, column: str) -> Iterator[Any]:
    """One prompt a line; blank lines are none."""
    for number, line in _lines(path):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            yield Unreadable(f"line {number} isn't UTF-8: {error}")


def jsonl_rows(path: Path, column: str) -> Iterator[Any]:
    """One JSON value a line."""
    for number, line in _lines(path):
        try:
            yield json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            yield Unreadable(f"line {number} isn't UTF-8: {error}")
        except (ValueError, RecursionError) as error:
            yield Unreadable(f"line {number} isn't JSON: {error}")


def json_rows(path: Path, column: str) -> Iterator[Any]:
    """A JSON list, or an object with one under "data"."""
    try:
        value = json.loads(path.read_bytes().removeprefix(_BOM).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{path} isn't JSON in UTF-8: {error}; with one object a line, name it .jsonl") from error
    rows = value.get("data") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        found = f"an object with {sorted(value)[:8]}" if isinstance(value, dict) else f"a {type(value).__name__}"
        raise CorpusError(f'{path} holds {found}, expected a list of prompts, or {{"data": [...]}}')
    yield from rows


def parquet_rows(path: Path, column: str) -> Iterator[Any]:
    """A row group at a time, the columns that matter."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if column not in names and "tokens" not in names:
                raise CorpusError(
                    f"{path} has no column {column!r}, expected one with the prompts: its columns are {names}; "
                    "choose with column= (--column)"
                )
            wanted = [name for name in names if name in (column, *_KEPT)]
            for batch in file.iter_batches(columns=wanted):
                yield from _table_rows(batch)
    except (pa.ArrowException, OSError) as error:
        raise CorpusError(f"{path} can't be read as Parquet: {error}") from error


def _table_rows(batch: Any) -> Iterator[Any]:
    for i in range(batch.num_rows):
        try:
            yield {name: batch.column(name)[i].as_py() for name in batch.schema.names}
        except UnicodeDecodeError as error:
            yield Unreadable(f"row isn't UTF-8: {error}")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines with something in them, without their ends."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(_BOM)
            line = line.removesuffix(b"\n").removesuffix(b"\r")
            if line.strip():
                yield number, line


ROWS: dict[str, Callable[[Path, str], Iterator[Any]]] = {
    ".json": json_rows,
    ".jsonl": jsonl_rows,
    ".ndjson": jsonl_rows,
    ".txt": text_rows,
    ".parquet": parquet_rows,
}
