"""How far a run is, while it runs."""

from __future__ import annotations

from collections.abc import Sequence

from tl_jacobian.corpus.encoding import Record
from tl_jacobian.corpus.folder import Folder
from tl_jacobian.corpus.plan import Shard
from tl_jacobian.progress import counting


class Tally:
    """A bar over all prompts of a run, those done before and those that other processes do included.

    Attributes:
        resumed: prompts that were done before.
        succeeded: whether any prompt has a result yet.
    """

    def __init__(self, folder: Folder, plan: Sequence[Shard], hidden: bool) -> None:
        self._folder, self._plan = folder, plan
        notes = [note for shard in plan if (note := folder.note(shard.number)) is not None]
        self.resumed = sum(len(note.prompts) for note in notes)
        self._errors = sum(note.errors for note in notes)
        self.succeeded = self._errors < self.resumed
        total = sum(len(shard.places) for shard in plan)
        self._bar = counting(total, self.resumed, "corpus", "prompts", hidden=hidden)

    def add(self, records: Sequence[Record]) -> None:
        """Records made by this process."""
        errors = sum("error" in record for record in records)
        self._errors += errors
        self.succeeded = self.succeeded or errors < len(records)
        self._bar.set_postfix(errors=self._errors, refresh=False)
        self._bar.update(len(records))

    def look(self) -> None:
        """See in the folder what all processes have done."""
        if not self._bar.disable:
            self._bar.n = max(self._bar.n, self.done())
            self._bar.refresh()

    def done(self) -> int:
        """Prompts whose records are written."""
        return sum(len(self._plan[number].places) for number in self._folder.done() if number < len(self._plan))

    def close(self) -> None:
        self._bar.close()
