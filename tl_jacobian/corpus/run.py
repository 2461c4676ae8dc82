"""run_corpus(): a job over all prompts of a corpus, which may be killed and gone on with at any time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from tl_jacobian.corpus.durable import only_run
from tl_jacobian.corpus.encoding import Format, check_format
from tl_jacobian.corpus.folder import Folder
from tl_jacobian.corpus.job import Job
from tl_jacobian.corpus.manifest import FORMAT, VERSION, compare, write_or_compare
from tl_jacobian.corpus.plan import check_size, make_plan
from tl_jacobian.corpus.processes import Processes, processes
from tl_jacobian.corpus.prompt import CorpusPrompt
from tl_jacobian.corpus.tally import Tally
from tl_jacobian.corpus.tokenized import Corpus, Tokenize
from tl_jacobian.corpus.work import Work, disk
from tl_jacobian.errors import ArgumentError, CorpusError
from tl_jacobian.versions import versions


@dataclass(frozen=True)
class RunReport:
    """What came of a run.

    Attributes:
        out: its folder.
        n_prompts: of the corpus.
        n_resumed: how many of them were done before.
        n_errors: how many have an error in place of a result.
        seconds: that this run took.
    """

    out: Path
    n_prompts: int
    n_resumed: int
    n_errors: int
    seconds: float


def run_corpus(
    job: Job,
    prompts: Sequence[CorpusPrompt],
    out: str | PathLike[str],
    *,
    tokenize: Tokenize,
    batch_size: int = 8,
    shard_size: int = 32,
    format: Format = "jsonl",
    progress: bool = True,
) -> RunReport:
    """Run a job over a corpus; run again with the same arguments, it goes on where it was.

    Prompts are tokenised and checked first, sorted by length and cut into shards, whose records are written as each
    is done. Shards and batches depend on nothing but the corpus and the sizes, so a run that was killed ends with
    the records of one that wasn't. A shard that was damaged or edited since is set aside and done again. The folder of
    a run that ended before its first shard was written is free for another one.
    Processes that ``accelerate launch`` or ``torchrun`` starts share the work.

    Args:
        job: see :class:`Job`.
        prompts: of :func:`read_corpus`, or your own; their indices differ.
        out: folder for the records; created, or gone on with.
        tokenize: from a prompt to its token ids; a JacobianScopeError is recorded as the prompt's. See
            :func:`tokenizer_of`.
        batch_size: prompts that the job is handed at once.
        shard_size: prompts whose records are written together: what is lost at worst.
        format: of the records, ``"jsonl"`` or ``"parquet"``.
        progress: show a bar.

    Raises:
        CorpusError: the folder holds another run (says how it differs), or another one is at work there; the disk is
            full; all prompts of the first shard fail for the same reason; another process has ended.
        ArgumentError: a size or the format, or a record that isn't JSON.
    """
    check_size("batch_size", batch_size)
    check_format(format)
    if len({prompt.index for prompt in prompts}) < len(prompts) or not prompts:
        raise ArgumentError(f"{len(prompts)} prompts, expected at least one, and an index of its own for each")
    corpus = Corpus(prompts, tokenize)
    sizes = {"batch_size": batch_size, "shard_size": shard_size, "records": format}
    folder = Folder(Path(out), format, getattr(job, "example", None))
    work = Work(job, corpus, make_plan(corpus.lengths(), shard_size), folder, batch_size)
    with processes() as among:
        return _carried_out(work, among, _manifest(job, corpus, sizes), progress)


def _manifest(job: Job, corpus: Corpus, sizes: dict[str, Any]) -> dict[str, Any]:
    about = {"n_prompts": len(corpus), "sha256": corpus.digest(), "tokens_sha256": corpus.tokens_digest()}
    head = {"format": FORMAT, "version": VERSION}
    return {**head, "job": dict(job.settings), "corpus": about, **sizes, "versions": versions()}


def _carried_out(work: Work, among: Processes, manifest: dict[str, Any], progress: bool) -> RunReport:
    """The main process prepares the folder and holds it; then all see the same shards to do, and share them."""
    began = time.monotonic()
    with _held(work, manifest) if among.is_main else nullcontext():
        among.meet()
        if not among.is_main:
            compare(work.folder.root, manifest)
        to_do = work.to_do()
        tally = Tally(work.folder, work.plan, hidden=not (progress and among.is_main))
        among.meet()  # nobody writes before everyone has looked
        with closing(tally):
            work.do(to_do[among.index :: among.count], tally)
            among.meet(tally.look)
    return _report(work, tally.resumed, time.monotonic() - began)


@contextmanager
def _held(work: Work, manifest: dict[str, Any]) -> Iterator[None]:
    """The folder, ours alone, with our manifest and nothing in it that isn't what it seems."""
    root = work.folder.root
    with disk(work.folder, lambda: 0):
        root.mkdir(parents=True, exist_ok=True)
    with only_run(root) as alone:
        with disk(work.folder, lambda: 0):
            write_or_compare(root, manifest, alone=alone)
            work.folder.make()
        work.check_done()
        yield


def _report(work: Work, n_resumed: int, seconds: float) -> RunReport:
    notes = [work.folder.note(shard.number) for shard in work.plan]
    if (missing := notes.count(None)) > 0:
        raise CorpusError(
            f"{missing} shards of {str(work.folder.root)!r} have vanished; the same command does them again"
        )
    n_errors = sum(note.errors for note in notes if note is not None)
    return RunReport(work.folder.root, len(work.corpus), n_resumed, n_errors, seconds)
