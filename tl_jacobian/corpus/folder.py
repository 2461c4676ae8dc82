"""The folder of a run: a manifest, a file of records a shard, and a note for each that is done.

    OUT/manifest.json       what is computed, of what
    OUT/shards/00017.jsonl  records of the prompts of shard 17 (or .parquet)
    OUT/done/00017.json     written after it: its prompts, its hash
    OUT/set_aside/          shards that were changed after they were written

A shard counts as done if its note is about exactly its prompts and its bytes have the hash in the note.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tl_jacobian.corpus.durable import sweep, sync_folder, write_durably
from tl_jacobian.corpus.encoding import Format, Record, decoded, encoded
from tl_jacobian.errors import CorpusError


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
            return Note(tuple(found["prompts"]), int(found["errors"]), str(found["sha256"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

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
        """Numbers of the shards that have a note."""
        return sorted(int(path.stem) for path in self.notes.glob("[0-9]*.json"))

    def _hash(self, number: int) -> str | None:
        try:
            with self.shard_path(number).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return None
