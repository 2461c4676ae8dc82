"""run_corpus(): a job over all prompts of a corpus, which may be killed and gone on with at any time.

All prompts are tokenised and checked before anything is computed. What is computed together is a pure function of the
prompts' lengths, so that every run makes the same batches: prompts of like length go together, because a batch is
padded to its longest. The shard with the longest comes first: what doesn't fit into memory shows at once. The others
follow in an order that has nothing to do with length, so that the time left can be told from the time so far.

attribute_corpus() runs a scope over a corpus, and read_attributions() gives what came of it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import time
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Int
from torch import Tensor

from tl_jacobian.analyses.scopes.choose import Scope
from tl_jacobian.analyses.scopes.simple import ScalarOutput
from tl_jacobian.core.build import versions
from tl_jacobian.core.chat import is_answered
from tl_jacobian.core.host.backward import Rule
from tl_jacobian.core.host.hosts import resolve
from tl_jacobian.core.host.precision import Precision
from tl_jacobian.core.progress import counting, quiet
from tl_jacobian.core.prompts import Target, is_batch, members, read_answer, read_prompt, unpadded
from tl_jacobian.errors import ArgumentError, CorpusError, JacobianScopeError
from tl_jacobian.results.arguments import checked, excerpt, ids, warn, whole
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.run_report import RunReport
from tl_jacobian.results.scopes import Confidence, FisherMethod
from tl_jacobian.studies.corpus.jobs import Job, ScopeJob, error_record, from_record, records_of
from tl_jacobian.studies.corpus.processes import Processes, processes
from tl_jacobian.studies.corpus.read import CorpusPrompt, Given, as_prompts, check_ids
from tl_jacobian.studies.corpus.store import (
    FORMAT,
    VERSION,
    Folder,
    Format,
    Record,
    compare,
    only_run,
    read_manifest,
    read_records,
    write_or_compare,
)


@checked
def tokenizer_of(model: Any, *, prepend_bos: bool | None = None) -> Tokenize:
    """From a prompt to its token ids, and those of its answer, for :func:`run_corpus`.

    It raises PromptError for a prompt that is empty, too long for the model, or has ids out of range.

    Args:
        model: a HookedTransformer or a TransformerBridge.
        prepend_bos: whether text gets a BOS token in front; default: the model's own setting.
    """
    host = resolve(model)

    def tokenize(prompt: CorpusPrompt) -> list[int] | Tokenized:
        given = prompt.text if prompt.messages is None else prompt.messages
        given = given if prompt.tokens is None else list(prompt.tokens)
        if prompt.answer is None and not is_answered(given):
            return read_prompt(host, given, [-1], prepend_bos).tokens
        read = read_answer(host, given, prompt.answer, None, prepend_bos)
        return Tokenized(read.tokens[: read.answer_start], read.answer)

    return tokenize


def given_prompts(model: Any, prompts: Any) -> list[CorpusPrompt]:
    """:func:`as_prompts`, of a tokenizer's output and of rows of ids too, whose padding is left out or refused."""
    if isinstance(prompts, Mapping) and "input_ids" in prompts and not is_batch(prompts):
        prompts = [prompts]
    if is_batch(prompts):
        prompts = [_tokens(one) for one in members(resolve(model), prompts)]
    return as_prompts(prompts)


def _tokens(prompt: Any) -> Any:
    """The ids of what a tokenizer gave for one prompt; anything else as it is."""
    if not isinstance(prompt, Mapping) or "input_ids" not in prompt:
        return prompt
    return unpadded(prompt)[0]


class Shard(NamedTuple):
    """Prompts whose records are written together, by their places, longest first."""

    number: int
    places: tuple[int, ...]


def make_plan(lengths: Sequence[int], shard_size: int) -> tuple[Shard, ...]:
    """Shards in the order of work, each prompt in exactly one.

    >>> make_plan([1, 5, 3, 4, 0], 2)
    (Shard(number=0, places=(1, 3)), Shard(number=1, places=(4,)), Shard(number=2, places=(2, 0)))
    """
    whole("shard_size", shard_size, what="a number of prompts")
    by_length = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    first, *rest = [tuple(by_length[at : at + shard_size]) for at in range(0, len(by_length), shard_size)] or [()]
    order = sorted(rest, key=lambda places: hashlib.sha256(str(places[0]).encode()).digest())
    return tuple(Shard(number, places) for number, places in enumerate([first, *order]))


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


class Tokenized(NamedTuple):
    """Token ids of a prompt and of its answer."""

    prompt: Sequence[int]
    answer: Sequence[int]


Tokenize = Callable[[CorpusPrompt], Sequence[int] | Tokenized]


class Corpus:
    """Prompts with their token ids, four bytes an id, or with what is wrong with them.

    Attributes:
        prompts: as they were read.
        errors: of the prompts that can't be used, by place.
    """

    def __init__(self, prompts: Sequence[CorpusPrompt], tokenize: Tokenize) -> None:
        self.prompts = prompts
        self.errors: dict[int, str] = {}
        self._answers: dict[int, tuple[int, ...]] = {}
        self._tokens = [self._tokenized(at, prompt, tokenize) for at, prompt in enumerate(prompts)]

    def _tokenized(self, at: int, prompt: CorpusPrompt, tokenize: Tokenize) -> array[int]:
        if prompt.error is not None:
            self.errors[at] = prompt.error
            return array("i")
        try:
            found = tokenize(prompt)
        except JacobianScopeError as error:
            self.errors[at] = str(error)
            return array("i")
        if isinstance(found, Tokenized):
            self._answers[at] = tuple(found.answer)
            found = found.prompt
        if (listed := ids(found)) is None:
            raise ArgumentError(f"tokenize gave {excerpt(found)} for prompt {at}, expected a list of token ids")
        tokens = array("i", listed)
        if not tokens:
            self.errors[at] = "the prompt has no tokens, expected at least one"
        return tokens

    def __len__(self) -> int:
        return len(self.prompts)

    def lengths(self) -> list[int]:
        """Tokens of each prompt and its answer; 0 where it can't be used."""
        return [len(tokens) + len(self._answers.get(at, ())) for at, tokens in enumerate(self._tokens)]

    def __getitem__(self, at: int) -> CorpusPrompt:
        """A prompt as a job is handed it: with its tokens, and those of its answer."""
        return replace(self.prompts[at], tokens=tuple(self._tokens[at]), answer=self._answers.get(at))

    def digest(self) -> str:
        """Of everything that was read."""
        rows = ([p.index, p.id, p.text, p.tokens, p.target, p.error] for p in self.prompts)
        return _digest(
            [*row, *(more for more in (p.messages, p.answer) if more is not None)]
            for row, p in zip(rows, self.prompts, strict=True)
        )

    def tokens_digest(self) -> str:
        """Of what the tokenizer made of it."""
        return _digest(
            [self.errors.get(at), *tokens, *([self._answers[at]] if at in self._answers else [])]
            for at, tokens in enumerate(self._tokens)
        )


def _digest(rows: Any) -> str:
    total = hashlib.sha256()
    for row in rows:
        total.update(json.dumps(row, default=str).encode() + b"\n")
    return total.hexdigest()


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Work:
    """A job on a corpus, cut into shards, in a folder."""

    job: Job
    corpus: Corpus
    plan: Sequence[Shard]
    folder: Folder
    batch_size: int
    told: set[str] = field(default_factory=set)

    def check_done(self) -> None:
        """Take back what is said to be done and isn't: damaged, edited or truncated shards."""
        for shard in self.plan:
            if self.folder.is_done(shard.number, self._prompts(shard)):
                continue
            if self.folder.set_aside(shard.number):
                warn(
                    f"{str(self.folder.shard_path(shard.number))!r} isn't what was written there; it is set aside in "
                    f"{str(self.folder.aside)!r} and done again"
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
            with quiet(), told_once(self.told):
                batch = records_of(self.job, [self.corpus[place] for place in good[at : at + self.batch_size]])
            tally.add(batch)
            made += batch
        if not hopeful:
            _check_hope(made)
        tally.add(refused)
        return made + refused

    def _prompts(self, shard: Shard) -> list[int]:
        return [self.corpus.prompts[place].index for place in shard.places]


@contextmanager
def told_once(told: set[str]) -> Iterator[None]:
    """Warnings that differ in numbers alone, from one prompt to the next, are given once."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    for one in caught:
        if (kind := re.sub(r"\d+", "0", str(one.message))) not in told:
            told.add(kind)
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


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


@checked
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
        prompts: of :func:`read_corpus`, or your own; their indices differ, and so do their ids.
        out: folder for the records; created, or gone on with.
        tokenize: from a prompt to its token ids; a JacobianScopeError is recorded as the prompt's. See
            :func:`tokenizer_of`.
        batch_size: prompts that the job is handed at once.
        shard_size: prompts whose records are written together: what is lost at worst.
        format: of the records, ``"jsonl"`` or ``"parquet"``.
        progress: show a bar.

    Raises:
        CorpusError: two prompts have the same id; the folder holds another run (says how it differs), or another one is
            at work there; the disk is full; all prompts of the first shard fail for the same reason; another process
            has ended.
        ArgumentError: a size or the format, or a record that isn't JSON.
    """
    whole("batch_size", batch_size, what="a number of prompts")
    if len({prompt.index for prompt in prompts}) < len(prompts) or not prompts:
        raise ArgumentError(f"{len(prompts)} prompts, expected at least one, and an index of its own for each")
    check_ids(prompts)
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
    return RunReport(
        out=work.folder.root, n_prompts=len(work.corpus), n_resumed=n_resumed, n_errors=n_errors, seconds=seconds
    )


@checked
def attribute_corpus(
    model: Any,
    prompts: Sequence[Given] | Int[Tensor, "prompts pos"] | Mapping[str, Any],
    scope: Scope,
    out: str | PathLike[str],
    *,
    target: Target | None = None,
    minus: Target | None = None,
    method: FisherMethod | None = None,
    rank: int | None = None,
    seed: int = 0,
    confidence: Confidence | None = None,
    n_products: int | None = None,
    rtol: float | None = None,
    fn: ScalarOutput | None = None,
    v: Tensor | None = None,
    name: str | None = None,
    prepend_bos: bool | None = None,
    max_memory: int | str | None = None,
    precision: Precision = None,
    rule: Rule = None,
    batch_size: int = 8,
    shard_size: int = 32,
    format: Format = "jsonl",
    progress: bool = True,
) -> RunReport:
    """Which tokens drove the prediction after each prompt of a corpus.

    A run that was killed goes on where it was when this is called again with the same arguments, and ends with the
    same scores; see :func:`run_corpus`. :func:`read_attributions` gives them back.

    Args:
        model: a HookedTransformer or a TransformerBridge; left as it was.
        prompts: of :func:`read_corpus`, or a list of texts, of token ids (lists, tuples, tensors), of conversations
            (lists of messages), or of objects with ``"text"``, ``"tokens"`` or ``"messages"`` that may have an ``"id"``
            and a ``"target"``; or what a tokenizer gave for them.
        scope: a scope's name (``"semantic"``, ``"temperature"``, ``"fisher"``, ``"output"`` with ``fn=``), a direction
            v in y, or a function, ``fn(y, logits) -> scalar tensor`` or ``fn(lin) -> Attribution``: see
            :class:`ScopeJob`.
        out: folder for the records.
        target, minus: of Semantic Scope, for prompts without a target of their own; default: the most probable token.
        method, rank, n_products, rtol: of Fisher Scope: see :func:`fisher_scope`.
        seed: of Fisher's random signs. Each prompt has its own, so its scores don't depend on its batch, and the errors
            of different prompts average out.
        confidence: of Temperature Scope.
        fn, v, name: of ``"output"`` and ``"direction"``, and what to call the result.
        prepend_bos: whether text gets a BOS token in front; default: the model's own setting.
        max_memory: the most that a batch may take beyond the model: see :func:`linearize`. The default, what is free
            at the time, can change how a batch is computed, and with it scores in their last digits.
        precision, rule: see :func:`linearize`.
        batch_size: prompts in one forward pass.
        shard_size, format, progress: see :func:`run_corpus`.

    Raises:
        CorpusError, ArgumentError: as :func:`run_corpus` does; ArgumentError for what is no prompt.

    >>> import tempfile, tl_jacobian as tj
    >>> out = tempfile.mkdtemp()
    >>> report = tj.corpus.attribute_corpus(tj.load_demo_model(), ["Rome is", ""], "semantic", out, progress=False)
    >>> report.n_prompts, report.n_errors, [a.str_tokens for a in tj.corpus.read_attributions(out)]
    (2, 1, [('Rome', ' is')])
    """
    job = ScopeJob(
        model,
        scope,
        target=target,
        minus=minus,
        confidence=confidence,
        method=method,
        rank=rank,
        n_products=n_products,
        rtol=rtol,
        fn=fn,
        v=v,
        name=name,
        seed=seed,
        max_memory=max_memory,
        precision=precision,
        rule=rule,
    )
    return run_corpus(
        job,
        given_prompts(model, prompts),
        out,
        tokenize=tokenizer_of(model, prepend_bos=prepend_bos),
        batch_size=batch_size,
        shard_size=shard_size,
        format=format,
        progress=progress,
    )


@checked
def read_attributions(out: str | PathLike[str], *, partial: bool = False) -> Iterator[Attribution]:
    """The attributions of a run, in the corpus' order.

    Prompts that have an error instead are left out; ``metadata["prompt"]`` and ``["id"]`` say which these are of.

    Args:
        out: the run's folder.
        partial: take what there is of a run that isn't done.

    Raises:
        CorpusError: not a run of attributions, one that isn't done, or a shard that isn't what was written.
    """
    manifest = read_manifest(Path(out))
    settings = manifest["job"]
    if settings.get("job") != "attributions":
        raise CorpusError(f"{str(out)!r} holds no attributions but {settings.get('job')!r}: use read_records")
    for record in read_records(out, partial=partial):
        if "error" not in record:
            yield from_record(record, settings, manifest["versions"])
