"""Records of a run, read back."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from tl_jacobian.corpus.encoding import check_format
from tl_jacobian.corpus.folder import Folder
from tl_jacobian.corpus.manifest import read_manifest
from tl_jacobian.errors import CorpusError


def read_records(out: str | PathLike[str], *, partial: bool = False) -> list[dict[str, Any]]:
    """All records of a run, in the corpus' order, each prompt's exactly once; an error's holds ``"error"``.

    Args:
        out: the run's folder.
        partial: take what there is of a run that isn't done.

    Raises:
        CorpusError: not the folder of a run, one that isn't done, or a shard that isn't what was written.
    """
    return sorted(each_record(out, partial=partial), key=lambda record: record["prompt"])


def each_record(out: str | PathLike[str], *, partial: bool = False) -> Iterator[dict[str, Any]]:
    """The same one by one, in the order of work: one shard in memory at a time."""
    manifest = read_manifest(Path(out))
    check_format(manifest["records"])
    folder = Folder(Path(out), manifest["records"])
    notes = {number: note for number in folder.done() if (note := folder.note(number)) is not None}
    n_done, n_prompts = sum(len(note.prompts) for note in notes.values()), manifest["corpus"]["n_prompts"]
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


def read_settings(out: str | PathLike[str]) -> dict[str, Any]:
    """The settings of the job that made a run, as its manifest has them."""
    return read_manifest(Path(out))["job"]
