"""Shards of a run: which are to do, and the doing."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tl_jacobian.corpus.encoding import Record
from tl_jacobian.corpus.folder import Folder
from tl_jacobian.corpus.job import Job, error_record, records_of
from tl_jacobian.corpus.plan import Shard
from tl_jacobian.corpus.tally import Tally
from tl_jacobian.corpus.tokenized import Corpus
from tl_jacobian.errors import CorpusError
from tl_jacobian.progress import quiet

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Work:
    """A job on a corpus, cut into shards, in a folder."""

    job: Job
    corpus: Corpus
    plan: Sequence[Shard]
    folder: Folder
    batch_size: int

    def check_done(self) -> None:
        """Take back what is said to be done and isn't: damaged, edited or truncated shards."""
        for shard in self.plan:
            if self.folder.is_done(shard.number, self._prompts(shard)):
                continue
            if self.folder.set_aside(shard.number):
                warnings.warn(
                    f"{str(self.folder.shard_path(shard.number))!r} isn't what was written there; it is set aside in "
                    f"{str(self.folder.aside)!r} and done again",
                    stacklevel=4,
                )

    def to_do(self) -> list[Shard]:
        return [shard for shard in self.plan if self.folder.note(shard.number) is None]

    def do(self, shards: Iterable[Shard], tally: Tally) -> None:
        """Compute and write shards, one after the other."""
        for shard in shards:
            records = self._records(shard, tally)
            with disk(self.folder, tally.done):
                self.folder.write(shard.number, records)
            tally.look()

    def _records(self, shard: Shard, tally: Tally) -> list[Record]:
        """In the shard's order: the prompts that can't be used have no length, and come last."""
        errors, prompts = self.corpus.errors, self.corpus.prompts
        good = [place for place in shard.places if place not in errors]
        refused = [error_record(prompts[place], errors[place]) for place in shard.places if place in errors]
        hopeful, made = tally.succeeded, []
        for at in range(0, len(good), self.batch_size):
            with quiet():
                batch = records_of(self.job, [self.corpus[place] for place in good[at : at + self.batch_size]])
            tally.add(batch)
            made += batch
        if not hopeful:
            _check_hope(made)
        tally.add(refused)
        return made + refused

    def _prompts(self, shard: Shard) -> list[int]:
        return [self.corpus.prompts[place].index for place in shard.places]


def _check_hope(records: Sequence[Record]) -> None:
    """Raise CorpusError if all prompts of the first shard fail with the same words: it isn't them, then."""
    errors = {record.get("error") for record in records}
    if len(records) > 1 and len(errors) == 1 and None not in errors:
        raise CorpusError(f"all of the first {len(records)} prompts fail for the same reason: {errors.pop()}")


@contextmanager
def disk(folder: Folder, done: Callable[[], int]) -> Iterator[None]:
    """Say what a disk that is full, or fails, means for the run.

    Raises:
        CorpusError: in place of OSError.
    """
    try:
        yield
    except OSError as error:
        why = "the disk is full" if error.errno in _FULL else "it can't be written to"
        raise CorpusError(
            f"{str(folder.root)!r}: {why} ({error}). {done()} prompts are done and kept, and nothing half-written "
            "counts; put that right, and the same command goes on"
        ) from error
