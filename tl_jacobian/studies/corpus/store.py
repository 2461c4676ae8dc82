"""The folder of a run: a manifest, a file of records a shard, and a note for each that is done.

    OUT/manifest.json       what is computed, of what: who goes on with it must want the same
    OUT/shards/00017.jsonl  records of the prompts of shard 17 (or .parquet)
    OUT/done/00017.json     written after it: its prompts, its hash
    OUT/set_aside/          shards that were changed after they were written

A shard counts as done if its note is about exactly its prompts and its bytes have the hash in the note.

Files are on the disk, whole, or not there at all, even when the process is killed or the power fails. The bytes go to
a hidden file, are flushed to the disk, and then the file gets its name, which is flushed too. A killed process leaves
its hidden file behind; the next run sweeps it away, knowing from a lock that the kernel released with the process
that nobody is writing to it.

Records come back from either format without a change. In Parquet numbers, texts and lists of them are columns of
their kind; anything deeper is a column of JSON text, which says so in its metadata. All shards of a run have the same
columns, of the kinds of an example.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple

from filelock import lock_descriptor

from tl_jacobian.errors import ArgumentError, CorpusError
from tl_jacobian.results.arguments import checked, excerpt, warn
from tl_jacobian.results.files import new_file

_ENDING = ".tmp"
_WINDOWS = os.name == "nt"  # where a file that someone has open can't be renamed or deleted


def write_durably(path: Path, data: bytes) -> None:
    """Write a file whole and flush it and its name to the disk, or raise OSError and leave everything as it was."""
    handle, name = _claimed(path)
    held = None if _WINDOWS else os.dup(handle)  # keeps the claim until the file has its name
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    finally:
        if held is not None:
            os.close(held)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's names to the disk."""
    if _WINDOWS:  # no such thing there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path) -> int:
    """Delete hidden files that killed processes left behind, none of a living one; returns how many."""
    return sum(_swept(path) for path in folder.glob(f".*{_ENDING}"))


@contextmanager
def only_run(folder: Path) -> Iterator[bool]:
    """Hold a run's folder; a second run in it is refused, a killed one's hold ends with it.

    Gives whether the hold is certain: where there are no locks, nobody is refused.

    Raises:
        CorpusError: another run holds it, or its lock can't be opened.
    """
    path = folder / ".lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise CorpusError(
            f"{str(path)!r} can't be opened ({error}), expected a file that may be written: what stands there is no "
            "part of a run, remove it; or choose another folder"
        ) from error
    try:
        held = _locked(handle)
        if held is False:
            raise CorpusError(
                f"another run is at work in {str(folder)!r}: wait until it has ended, or write to another folder"
            )
        yield held is True
    finally:
        os.close(handle)


def _claimed(path: Path) -> tuple[int, str]:
    """A new hidden file beside ``path``, locked."""
    while True:
        handle, name = new_file(path.parent, f".{path.name}.", _ENDING)
        _locked(handle, wait=True)
        if os.path.exists(name):
            return handle, name
        os.close(handle)  # swept away before it was locked


def _locked(handle: int, wait: bool = False) -> bool | None:
    """Whether the file is ours now, until it is closed; None on a file system without locks, which lets everyone in."""
    try:
        return lock_descriptor(handle, blocking=wait)
    except OSError:
        return None


def _swept(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDWR)
        try:
            mine = _locked(handle) is not False
            if mine and not _WINDOWS:
                path.unlink()
        finally:
            os.close(handle)
        if mine and _WINDOWS:
            path.unlink()
    except OSError:  # gone meanwhile, or (Windows) open elsewhere
        return False
    return mine


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


FORMAT, VERSION = "tl_jacobian.corpus_run", 1
NAME = "manifest.json"
_ADVISORY = "versions"  # may differ: the user is told


def write_or_compare(root: Path, wanted: Mapping[str, Any], *, alone: bool) -> None:
    """Write the manifest of a new run, or check that of an old one.

    An old one that never finished a shard makes way: a run may fail at its first prompts, and be put right.

    Args:
        root: the run's folder.
        wanted: the manifest.
        alone: whether it is certain that no other run is at work here, which may not have finished one *yet*.

    Raises:
        CorpusError: the folder holds another run (says how it differs), or isn't one.
    """
    if not (root / NAME).exists():
        if any((root / name).exists() for name in ("shards", "done")):
            raise CorpusError(
                f"{str(root)!r} has shards but no {NAME}, so it can't be told what of; choose another folder"
            )
        _write(root, wanted)
    elif (old := read_manifest(root)) != json.loads(json.dumps(wanted)):
        if alone and not _has_work(root):
            _write(root, wanted)
            return
        _warn_of_versions(old.get(_ADVISORY, {}), wanted[_ADVISORY])
        compare(root, wanted)


def _write(root: Path, wanted: Mapping[str, Any]) -> None:
    write_durably(root / NAME, (json.dumps(wanted, indent=1) + "\n").encode())


def _has_work(root: Path) -> bool:
    """Whether any shard was written there, noted or not; what a killed write left half-done (hidden) is none."""
    return any(any(root.glob(f"{name}/[!.]*")) for name in ("shards", "done", "set_aside"))


def compare(root: Path, wanted: Mapping[str, Any]) -> None:
    """Raise CorpusError unless the manifest there says the same, versions apart."""
    both = (read_manifest(root), json.loads(json.dumps(wanted)))
    old, new = (dict(_flat({key: value for key, value in m.items() if key != _ADVISORY})) for m in both)
    differ = [name for name in dict.fromkeys([*old, *new]) if old.get(name, ...) != new.get(name, ...)]
    if differ:
        says = "; ".join(_change(name, old, new) for name in differ[:6])
        more = f"; also {', '.join(differ[6:])}" if len(differ) > 6 else ""
        raise CorpusError(
            f"{str(root)!r} holds another run: {says}{more}. To go on with that run use its settings; for this one "
            "choose another folder"
        )


def read_manifest(root: Path) -> dict[str, Any]:
    """The manifest of a run's folder.

    Raises:
        CorpusError: there is none, or it isn't one of a version known here.
    """
    path = root / NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CorpusError(f"{str(root)!r} isn't the folder of a run: {error}") from error
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{str(path)!r} is damaged: {error}; choose another folder") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise CorpusError(
            f'{str(path)!r} isn\'t a run\'s manifest, expected "format": "{FORMAT}"; choose another folder'
        )
    if found.get("version") != VERSION:
        raise CorpusError(
            f"{str(path)!r} is of version {found.get('version')!r}, expected {VERSION}; upgrade tl-jacobian"
        )
    _check_manifest(path, found)
    return found


_KINDS = {"job": dict, "corpus": dict, "versions": dict, "records": str, "batch_size": int, "shard_size": int}


def _check_manifest(path: Path, found: Mapping[str, Any]) -> None:
    """Raise CorpusError unless everything is there that a run writes, each of its kind."""
    kinds: list[tuple[str, Any, type]] = [(name, found.get(name), kind) for name, kind in _KINDS.items()]
    if isinstance(found.get("corpus"), dict):
        kinds.append(("corpus.n_prompts", found["corpus"].get("n_prompts"), int))
    wrong = [
        (name, value, kind) for name, value, kind in kinds if type(value) is not kind or (kind is int and value < 1)
    ]
    if wrong:
        name, value, kind = wrong[0]
        raise CorpusError(
            f"{str(path)!r} is damaged: {name} is {excerpt(value)}, expected {_CALLED[kind]}; put back what was "
            "written there (shards and notes are of no use without it), or choose another folder"
        )
    if found["records"] not in _ENCODE:
        raise CorpusError(
            f"{str(path)!r} is damaged: records is {excerpt(found['records'])}, expected one of "
            f"{', '.join(map(repr, _ENCODE))}; put back what was written there, or choose another folder"
        )


_CALLED = {dict: "an object", str: "text", int: "a positive integer"}


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Settings inside settings, by dotted names."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else key)
    else:
        yield name, value


def _change(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """How a setting differs; of a list the entries that only one of the two has."""
    was, now = old.get(name), new.get(name)
    if isinstance(was, list) and isinstance(now, list):
        gone, come = [one for one in was if one not in now], [one for one in now if one not in was]
        lists = (f"had {gone}" if gone else "", f"now has {come}" if come else "")
        if said := " and ".join(filter(None, lists)):
            return f"{name} {said}"
    return f"{name} was {_shown(old, name)} and is now {_shown(new, name)}"


def _shown(settings: Mapping[str, Any], name: str) -> str:
    text = repr(settings[name]) if name in settings else "not there"
    return text if len(text) <= 60 else text[:57] + "..."


def _warn_of_versions(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    differ = [f"{name} {old.get(name)} then, {new[name]} now" for name in new if old.get(name) != new[name]]
    if differ:
        warn(
            f"the run was begun with other versions ({'; '.join(differ)}): what is still to do may come out "
            "differently; if that matters, install those versions again, or begin again in another folder"
        )


class Note(NamedTuple):
    """What is said of a shard that is done: indices of its prompts, how many failed, the hash of its file."""

    prompts: tuple[int, ...]
    errors: int
    sha256: str


class Folder:
    """A run's folder, whose shards are in one format, with the columns of one example."""

    def __init__(self, root: Path, format: Format, example: Mapping[str, Any] | None = None) -> None:
        self.root, self.example = root, example
        self.format: Format = format
        self.shards, self.notes, self.aside = root / "shards", root / "done", root / "set_aside"

    def make(self) -> None:
        """Create what isn't there; clear away what killed runs left half-written."""
        for folder in (self.shards, self.notes):
            folder.mkdir(parents=True, exist_ok=True)
            sync_folder(folder.parent)
        for folder in (self.root, self.shards, self.notes):
            sweep(folder)

    def shard_path(self, number: int) -> Path:
        return self.shards / f"{number:05d}.{self.format}"

    def note_path(self, number: int) -> Path:
        return self.notes / f"{number:05d}.json"

    def write(self, number: int, records: Sequence[Record]) -> Note:
        """Records first, then the note: a run that dies in between does the shard again."""
        data = encoded(records, self.format, self.example)
        errors = sum("error" in record for record in records)
        note = Note(tuple(record["prompt"] for record in records), errors, hashlib.sha256(data).hexdigest())
        write_durably(self.shard_path(number), data)
        write_durably(self.note_path(number), json.dumps(note._asdict()).encode() + b"\n")
        return note

    def note(self, number: int) -> Note | None:
        """The note of a shard; None where it isn't done."""
        try:
            found: Any = json.loads(self.note_path(number).read_text())
            note = Note(tuple(found["prompts"]), found["errors"], found["sha256"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        whole = all(type(value) is int for value in (*note.prompts, note.errors)) and isinstance(note.sha256, str)
        return note if whole else None

    def is_done(self, number: int, prompts: Sequence[int]) -> bool:
        """Whether the shard is whole and unchanged, and of exactly these prompts."""
        note = self.note(number)
        return note is not None and note.prompts == tuple(prompts) and self._hash(number) == note.sha256

    def set_aside(self, number: int) -> bool:
        """Move away a shard that isn't what its note says, and the note; returns whether there was a note."""
        noted, path = self.note_path(number), self.shard_path(number)
        surprise = noted.exists()
        if surprise and path.exists():
            self.aside.mkdir(exist_ok=True)
            path.replace(self._free(path))
        noted.unlink(missing_ok=True)
        return surprise

    def _free(self, path: Path) -> Path:
        """A name in set_aside/ that no earlier one has."""
        number = 0
        while (free := self.aside / f"{path.stem}.{number}{path.suffix}").exists():
            number += 1
        return free

    def read(self, number: int) -> list[Record]:
        """The records of a shard that is done.

        Raises:
            CorpusError: it isn't whole, or was changed.
        """
        note, path = self.note(number), self.shard_path(number)
        if note is None or self._hash(number) != note.sha256:
            raise CorpusError(
                f"{str(path)!r} is missing, or isn't what was written there; the command that wrote it does it again"
            )
        return decoded(path.read_bytes(), self.format)

    def done(self) -> Iterable[int]:
        """Numbers of the shards that have a note; what else may lie there (a copy, an editor's file) is no note."""
        found = (path for path in self.notes.glob("*.json") if path.stem.isdecimal() and path.stem.isascii())
        return sorted(int(path.stem) for path in found if path == self.note_path(int(path.stem)))

    def _hash(self, number: int) -> str | None:
        try:
            with self.shard_path(number).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return None


@checked
def read_records(out: str | PathLike[str], *, partial: bool = False) -> list[dict[str, Any]]:
    """All records of a run, in the corpus' order, each prompt's exactly once; an error's holds ``"error"``.

    Args:
        out: the run's folder.
        partial: take what there is of a run that isn't done.

    Raises:
        CorpusError: not the folder of a run, one that isn't done, or a shard that isn't what was written.
    """
    return sorted(each_record(out, partial=partial), key=lambda record: record["prompt"])


@checked
def each_record(out: str | PathLike[str], *, partial: bool = False) -> Iterator[dict[str, Any]]:
    """The same one by one, in the order of work: one shard in memory at a time."""
    manifest = read_manifest(Path(out))
    folder = Folder(Path(out), manifest["records"])
    n_prompts = manifest["corpus"]["n_prompts"]
    n_shards = math.ceil(n_prompts / manifest["shard_size"])  # what has a higher number was put there by someone else
    notes = {
        number: note for number in folder.done() if number < n_shards and (note := folder.note(number)) is not None
    }
    n_done = sum(len(note.prompts) for note in notes.values())
    if n_done > len({prompt for note in notes.values() for prompt in note.prompts}):
        raise CorpusError(
            f"{str(folder.notes)!r} has notes of the same prompts twice: delete those that were copied there"
        )
    if n_done < n_prompts and not partial:
        raise CorpusError(
            f"{n_done} of {n_prompts} prompts of {str(out)!r} are done: run the command again that began it, or read "
            "what there is with partial=True"
        )
    for number in notes:
        yield from folder.read(number)


@checked
def read_settings(out: str | PathLike[str]) -> dict[str, Any]:
    """The settings of the job that made a run, as its manifest has them."""
    return read_manifest(Path(out))["job"]
