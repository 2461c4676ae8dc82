"""Records as the bytes of a shard, JSON lines or Parquet, and back without a change.

In Parquet numbers, texts and lists of them are columns of their kind; anything deeper is a column of
JSON text, which says so in its metadata. All shards of a run have the same columns, of the kinds of an example.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from tl_jacobian.errors import ArgumentError

Format = Literal["jsonl", "parquet"]
Record = dict[str, Any]
_AS_JSON = {b"tl_jacobian": b"json"}
_ALWAYS: Mapping[str, Any] = {"prompt": 0, "id": "", "error": ""}


def encoded(records: Sequence[Record], format: Format, example: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of a shard.

    Args:
        records: of results and of errors.
        format: of the shard.
        example: a result with a value under every name, for the columns of Parquet; a value that doesn't fit is kept,
            in a column of another kind. Without one, columns are of the kinds of the values in this shard.

    Raises:
        ArgumentError: a record isn't JSON (says which prompt's), or there is no such format.
    """
    for record in records:
        _text(record)
    return _ENCODE[format](records, example or {})


def decoded(data: bytes, format: Format) -> list[Record]:
    """The records of a shard's bytes."""
    return _DECODE[format](data)


def _text(record: Record) -> str:
    try:
        return json.dumps(record, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"the job's record of prompt {record.get('prompt')} isn't JSON: {error}; expected text, finite numbers, "
            "lists and dicts (None for a number that isn't there)"
        ) from error


def _to_lines(records: Sequence[Record], _: Mapping[str, Any]) -> bytes:
    return "".join(_text(record) + "\n" for record in records).encode()


def _from_lines(data: bytes) -> list[Record]:
    return [json.loads(line) for line in data.splitlines()]


def _to_parquet(records: Sequence[Record], example: Mapping[str, Any]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    like = {**_ALWAYS, **example}
    names = dict.fromkeys([*like, *(name for record in records for name in record)])
    columns = {name: _column(name, [record.get(name) for record in records], like.get(name)) for name in names}
    schema = pa.schema([field for field, _ in columns.values()])
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([values for _, values in columns.values()], schema=schema), sink)
    return sink.getvalue()


def _column(name: str, values: list[Any], like: Any = None) -> tuple[Any, Any]:
    """A field and its values: of the example's kind, or else their own, where that keeps them exactly; else JSON."""
    import pyarrow as pa

    model = _array(values if like is None else [like])
    if model is None:
        array = pa.array([None if value is None else json.dumps(value) for value in values], pa.string())
        return pa.field(name, pa.string(), metadata=_AS_JSON), array
    array = model if like is None else _array(values, model.type)
    return _column(name, values) if array is None else (pa.field(name, array.type), array)


def _array(values: list[Any], kind: Any = None) -> Any:
    """The values as Arrow has them; None where that would change them, or can't be."""
    import pyarrow as pa

    if any(isinstance(leaf, dict) for value in values for leaf in _leaves(value)):
        return None
    try:
        array = pa.array(values, kind)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):  # of several kinds; half a surrogate pair
        return None
    return array if _same(array.to_pylist(), values) else None


def _leaves(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value]


def _same(a: list[Any], b: list[Any]) -> bool:
    return json.dumps(a) == json.dumps(b)  # which tells 1 from 1.0 and from True


def _from_parquet(data: bytes) -> list[Record]:
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(data))
    columns = {field.name: _values(table.column(field.name).to_pylist(), field) for field in table.schema}
    return [_record({name: values[i] for name, values in columns.items()}) for i in range(table.num_rows)]


def _values(values: list[Any], field: Any) -> list[Any]:
    if (field.metadata or {}).get(b"tl_jacobian") != b"json":
        return values
    return [None if value is None else json.loads(value) for value in values]


def _record(row: Record) -> Record:
    """A row without the columns of another kind of record: those of an error, or of a result."""
    if row.get("error") is not None:
        return {name: row[name] for name in ("prompt", "id", "error")}
    return {name: value for name, value in row.items() if name != "error"}


_ENCODE: dict[str, Callable[[Sequence[Record], Mapping[str, Any]], bytes]] = {
    "jsonl": _to_lines,
    "parquet": _to_parquet,
}
_DECODE: dict[str, Callable[[bytes], list[Record]]] = {"jsonl": _from_lines, "parquet": _from_parquet}


def check_format(format: str) -> None:
    """Raise ArgumentError unless records can be written so."""
    if format not in _ENCODE:
        raise ArgumentError(f"format={format!r}, expected one of {', '.join(map(repr, _ENCODE))}")
