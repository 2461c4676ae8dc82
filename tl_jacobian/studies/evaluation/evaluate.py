"""evaluate(): attribution methods compared over a corpus, on the runner that survives being killed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

from jaxtyping import Int
from torch import Tensor

from tl_jacobian.core.host.backward import Rule
from tl_jacobian.core.host.hosts import resolve
from tl_jacobian.core.host.precision import Precision
from tl_jacobian.core.linearization import LinearizationBatch
from tl_jacobian.core.linearize import Options, linearize, linearize_read
from tl_jacobian.core.prompts import all_text, resolve_target
from tl_jacobian.errors import ArgumentError, CorpusError, JacobianScopeError, PromptError
from tl_jacobian.results.arguments import checked, fitted
from tl_jacobian.results.evaluation import Evaluation
from tl_jacobian.results.tokens import group_words
from tl_jacobian.studies.corpus import CorpusPrompt, read_corpus, read_records, read_settings, run_corpus, tokenizer_of
from tl_jacobian.studies.corpus.jobs import by_kind, read_of
from tl_jacobian.studies.corpus.processes import is_launched
from tl_jacobian.studies.corpus.read import Given
from tl_jacobian.studies.corpus.run import Tokenize, Tokenized, given_prompts
from tl_jacobian.studies.evaluation.judge import Trial, judge, judge_matched, named_methods
from tl_jacobian.studies.evaluation.matched import with_matched

Explained = Literal["word", "next", "argmax"]
# A record, with a value of each kind.
_EXAMPLE = {
    "n_tokens": 1,
    "target": 1,
    "answer": [1],
    "target_text": "",
    "context": "",
    "log_prob": -0.5,
    "methods": {},
    "also": {},
}


@dataclass(frozen=True)
class EvaluationJob:
    """What the corpus runner does to each batch of prompts.

    Attributes:
        model: a HookedTransformer or a TransformerBridge.
        trial: what to measure.
        explained: what is explained and scored, where a prompt names no target or answer itself: ``"word"`` the
            prompt's last word, all of its tokens, given what stands before it (of conversations the most probable next
            token); ``"next"`` its last token, likewise; ``"argmax"`` the token that the model holds most probable after
            the whole prompt. Where a prompt has an answer, that is explained as a whole, and the tokens of the prompt
            alone are ranked and removed.
        name: of the corpus.
        max_memory, precision, rule: of each forward pass; see :func:`linearize`.

    Raises:
        ArgumentError: a backward rule, and a method that needs exact gradients.
    """

    model: Any
    trial: Trial
    explained: Explained = "word"
    name: str = "prompts"
    max_memory: int | str | None = None
    precision: Precision = None
    rule: Rule = None
    facts: Mapping[str, Any] = field(init=False)
    example: ClassVar[Mapping[str, Any]] = _EXAMPLE

    def __post_init__(self) -> None:
        explained = fitted(self.explained, Explained, "explained")
        object.__setattr__(self, "explained", explained)
        host = resolve(self.model, self.precision, self.rule)
        methods = named_methods(self.trial.methods).items()
        integrated = [name for name, what in methods if what == "integrated_gradients"]
        if self.rule is not None and integrated:
            raise ArgumentError(
                f"rule={self.rule!r} and the method {integrated[0]!r}, which integrates exact gradients: leave one of "
                'them out, Trial(methods=["semantic", "fisher", ...])'
            )
        device = host.unembedding().weight.device.type
        object.__setattr__(self, "facts", {**host.facts(), "weights": host.weights_digest(), "device": device})

    @property
    def settings(self) -> Mapping[str, Any]:
        about = {"job": "evaluate", "name": self.name, "explained": self.explained}
        return {**about, **self.trial.facts(), **self.facts}

    def __call__(self, prompts: Sequence[CorpusPrompt]) -> list[dict[str, Any]]:
        return self.each(prompts, lambda *args: judge(self.trial, *args))

    def each(self, prompts: Sequence[CorpusPrompt], judged: Judged) -> list[dict[str, Any]]:
        """What a judge makes of the prompts, those with an answer linearised apart from those without."""

        def records(linearized: Callable[..., tuple[LinearizationBatch[Any], list[int | None]]]) -> Records:
            return lambda some: judged(*linearized(some), [p.index for p in some])

        return by_kind(prompts, records(self._of_predictions), records(self._of_answers))

    def _of_answers(self, prompts: Sequence[CorpusPrompt]) -> tuple[LinearizationBatch[Any], list[int | None]]:
        host = resolve(self.model, self.precision, self.rule)
        options = Options(max_memory=self.max_memory, record=self.trial.record)
        batch = linearize_read(host, [read_of(host, p) for p in prompts], options)
        return batch, [None] * len(batch)

    def _of_predictions(self, prompts: Sequence[CorpusPrompt]) -> tuple[LinearizationBatch[Any], list[int | None]]:
        tokens = [list(p.tokens or ()) for p in prompts]
        held_out = [self.explained == "next" and p.target is None for p in prompts]
        for ids, held in zip(tokens, held_out, strict=True):
            if held and len(ids) < 2:
                raise PromptError("a prompt of one token has no next one to explain, expected at least two")
        at = [len(ids) - 2 if held else len(ids) - 1 for ids, held in zip(tokens, held_out, strict=True)]
        how: dict[str, Any] = {"max_memory": self.max_memory, "precision": self.precision, "rule": self.rule}
        texts = [all_text(ids) for ids in tokens]
        batch = linearize(self.model, texts, position=at, record=self.trial.record, **how)
        targets: list[int | None] = [
            ids[-1] if held else resolve_target(lin, p.target)
            for ids, held, lin, p in zip(tokens, held_out, batch, prompts, strict=True)
        ]
        return batch, targets


Records = Callable[[Sequence[CorpusPrompt]], list[dict[str, Any]]]
Judged = Callable[[LinearizationBatch[Any], Sequence[int | None], Sequence[int]], list[dict[str, Any]]]


@dataclass(frozen=True)
class MatchedJob:
    """The second run over a corpus: removals at places that other prompts' rankings have.

    Attributes:
        first: the first run.
        records: what it gave, by the prompt's number.
    """

    first: EvaluationJob
    records: Mapping[int, Mapping[str, Any]]
    example: ClassVar[Mapping[str, Any]] = {"matched": {}}

    @property
    def settings(self) -> Mapping[str, Any]:
        return {**self.first.settings, "job": "matched"}

    def __call__(self, prompts: Sequence[CorpusPrompt]) -> list[dict[str, Any]]:
        if failed := [p for p in prompts if p.index not in self.records]:
            raise PromptError(f"prompt {failed[0].id!r} couldn't be evaluated, so there is nothing to match")
        trial, records = self.first.trial, self.records
        return self.first.each(prompts, lambda batch, targets, at: judge_matched(trial, batch, targets, at, records))


def last_word(model: Any, tokens: Sequence[int]) -> Tokenized:
    """Tokens as a prompt and its last word, punctuation after that left out.

    Raises:
        PromptError: there is nothing before it.
    """
    host = resolve(model)
    words = group_words([host.decode([t]) for t in tokens], lambda start, stop: host.decode(list(tokens[start:stop])))
    stop = len(tokens)
    for word in reversed(words):
        if any(character.isalnum() for character in word.text):
            break
        stop -= word.size
    else:
        raise PromptError(f"the prompt {host.decode(list(tokens))!r} has no word to explain, expected one at its end")
    start = stop - word.size
    if not start:
        raise PromptError(f"the prompt {word.text!r} is a single word: nothing before it could explain it")
    return Tokenized(tokens[:start], tokens[start:stop])


def _tokenizer(model: Any, explained: Explained, prepend_bos: bool | None) -> Tokenize:
    """What is read of each prompt: where nothing else is to be explained, the last word is its answer."""
    read = tokenizer_of(model, prepend_bos=prepend_bos)

    def tokenize(prompt: CorpusPrompt) -> Sequence[int] | Tokenized:
        found = read(prompt)
        own = prompt.target is not None or prompt.messages is not None or explained != "word"
        return found if own or isinstance(found, Tokenized) else last_word(model, found)

    return tokenize


def _counted(corpus: Sequence[CorpusPrompt], tokenize: Tokenize) -> Counter[int]:
    """How often each token occurs in the prompts that can be read."""
    counts: Counter[int] = Counter()
    for prompt in corpus:
        if prompt.error is not None:
            continue
        try:
            found = tokenize(prompt)
        except JacobianScopeError:
            continue
        counts.update(found.prompt if isinstance(found, Tokenized) else found)
    return counts


@checked
def evaluate(
    model: Any,
    prompts: str | PathLike[str] | Sequence[Given] | Int[Tensor, "prompts pos"] | Mapping[str, Any],
    trial: Trial | None = None,
    *,
    out: str | PathLike[str] | None = None,
    name: str | None = None,
    explained: Explained = "word",
    prepend_bos: bool | None = None,
    max_memory: int | str | None = None,
    precision: Precision = None,
    rule: Rule = None,
    batch_size: int = 8,
    shard_size: int = 32,
    format: Literal["jsonl", "parquet"] = "jsonl",
    progress: bool = True,
) -> Evaluation:
    """Which attribution method finds the tokens that the prediction falls without? (the paper's AOPC table)

    Every prompt is linearised once; each method ranks its tokens for the same target; the target's log-probability
    is taken again without the tokens that rank highest, and with nothing but those.

    Args:
        model: a HookedTransformer or a TransformerBridge.
        prompts: a file or data set for :func:`read_corpus`, or a list of texts, of token ids (lists, tuples,
            tensors), or of objects with ``"text"`` or ``"tokens"`` that may have an ``"id"``, and a ``"target"`` or an
            ``"answer"``; or what a tokenizer gave for them.
        trial: methods, percentages, perturbation; default: the paper's six methods at 5, 10 and 20%.
        out: folder for the records; killed and called again with the same arguments, it goes on where it was.
            Default: nothing is kept.
        name: of the corpus in tables; default: the file's.
        explained: what is explained and scored where a prompt names nothing itself: its last ``"word"``, its last token
            (``"next"``), or the token that the model holds most probable after it (``"argmax"``); see
            :class:`EvaluationJob`.
        prepend_bos: whether texts get a BOS token; default: the model's own setting.
        max_memory, precision, rule: of each forward pass; see :func:`linearize`.
        batch_size: prompts linearised together.
        shard_size: prompts written together.
        format: of the records.
        progress: show a bar.

    Raises:
        ArgumentError: an option out of range, what is no prompt, or fewer than two prompts that can be used.
        CorpusError: see :func:`run_corpus`.

    >>> import tl_jacobian as tj
    >>> texts = ["The capital of France is", "The capital of Italy is"]
    >>> trial = tj.Trial(methods=("random", "semantic"), k=(20,))
    >>> tj.evaluate(tj.load_demo_model(), texts, trial, progress=False).k
    (20.0,)
    """
    if out is None and is_launched():
        raise ArgumentError("out=None, but several processes share this evaluation: give a folder that all of them see")
    corpus = read_corpus(prompts) if isinstance(prompts, (str, PathLike)) else given_prompts(model, prompts)
    trial, tokenize = trial or Trial(), _tokenizer(model, explained, prepend_bos)
    if trial.counts_tokens and trial.settings.counts is None:
        trial = replace(trial, settings=replace(trial.settings, counts=_counted(corpus, tokenize)))
    job = EvaluationJob(model, trial, explained, name or _name(prompts), max_memory, precision, rule)

    def run(job: EvaluationJob | MatchedJob, folder: Path) -> None:
        run_corpus(
            job,
            corpus,
            folder,
            tokenize=tokenize,
            batch_size=batch_size,
            shard_size=shard_size,
            format=format,
            progress=progress,
        )

    with TemporaryDirectory() as nowhere:
        folder = Path(nowhere) / "records" if out is None else Path(out)
        run(job, folder)
        if trial.matched:
            usable = {r["prompt"]: r for r in read_records(folder) if not r.get("error")}
            run(MatchedJob(job, usable), folder / _MATCHED)
        return load_evaluation(folder)


_MATCHED = "matched"  # the second run's folder, inside the first one's


@checked
def load_evaluation(out: str | PathLike[str]) -> Evaluation:
    """What :func:`evaluate` wrote to a folder.

    Raises:
        CorpusError: not the folder of an evaluation, or one that isn't done.
    """
    settings = read_settings(out)
    if settings.get("job") != "evaluate":
        raise CorpusError(f"{str(out)!r} holds a run of {settings.get('job')!r}, expected one of 'evaluate'")
    metadata = {key: value for key, value in settings.items() if key not in ("job", "name")}
    records = read_records(out)
    if settings.get("matched"):
        records = with_matched(records, read_records(Path(out) / _MATCHED))
    return Evaluation(name=settings["name"], records=tuple(records), metadata=metadata)


def _name(prompts: Any) -> str:
    return Path(prompts).stem if isinstance(prompts, (str, PathLike)) else "prompts"
