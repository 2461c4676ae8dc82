"""What is computed for each prompt, and what happens where it can't be; a scope as such a job."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import msgspec
import torch
from torch import Tensor

from tl_jacobian.analyses.scopes.choose import Chosen, Scope, choose, name_of_function
from tl_jacobian.analyses.scopes.simple import ScalarOutput
from tl_jacobian.core.chat import is_answered
from tl_jacobian.core.host.backward import Rule
from tl_jacobian.core.host.base import Host
from tl_jacobian.core.host.hosts import resolve
from tl_jacobian.core.host.precision import Precision
from tl_jacobian.core.linearize import Options, linearize_read
from tl_jacobian.core.prompts import Read, Target, all_text, read_answer, read_prompt
from tl_jacobian.errors import ArgumentError, AttributionFileError, JacobianScopeError
from tl_jacobian.results.arguments import checked
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.codec import from_plain, to_plain
from tl_jacobian.results.scopes import Confidence, FisherMethod
from tl_jacobian.studies.corpus.read import CorpusPrompt
from tl_jacobian.studies.corpus.store import Record


@runtime_checkable
class Job(Protocol):
    """Something to compute for each prompt of a corpus.

    Attributes:
        settings: JSON values, everything that decides the numbers; a run is only gone on with under the same.

    It may also have an ``example``, a record with a value under every name: Parquet shards then all have its columns,
    of its kinds, so that a folder of them is one table, whatever the values and errors in each.
    """

    @property
    def settings(self) -> Mapping[str, Any]: ...

    def __call__(self, prompts: Sequence[CorpusPrompt]) -> list[dict[str, Any]]:
        """One JSON record a prompt, in order; the prompts have their tokens.

        A :class:`~tl_jacobian.errors.JacobianScopeError`, or memory that runs out, is taken as one of the prompts'
        fault: each is tried alone, and recorded with its error if it fails again. Any other exception ends the run.
        """
        ...


def records_of(job: Job, prompts: Sequence[CorpusPrompt]) -> list[Record]:
    """The records of a batch, ``"prompt"`` and ``"id"`` in front; those of bad prompts hold an ``"error"``."""
    found, error = _attempt(job, prompts)
    if found is not None:
        return [_record(prompt, record) for prompt, record in zip(prompts, found, strict=True)]
    if len(prompts) == 1:
        return [error_record(prompts[0], error)]
    return [record for prompt in prompts for record in records_of(job, [prompt])]


def error_record(prompt: CorpusPrompt, error: str) -> Record:
    return {"prompt": prompt.index, "id": prompt.id, "error": error}


def _attempt(job: Job, prompts: Sequence[CorpusPrompt]) -> tuple[list[Record] | None, str]:
    """Records or, without the exception that would keep the batch's tensors alive, its text."""
    try:
        found = job(prompts)
    except JacobianScopeError as error:
        return None, str(error)
    except Exception as error:
        if not _is_of_memory(error):
            raise
        text = f"{type(error).__name__}: {error}"
    else:
        if len(found) != len(prompts):
            raise ArgumentError(f"the job gave {len(found)} records for {len(prompts)} prompts, expected one each")
        return found, ""
    _free_memory()
    return None, text


def _is_of_memory(error: Exception) -> bool:
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # of PyTorch, on a CPU


def _record(prompt: CorpusPrompt, record: Record) -> Record:
    told = {"prompt": prompt.index, "id": prompt.id}
    if "error" in record or any(record.get(name, value) != value for name, value in told.items()):
        raise ArgumentError(
            f"the job's record of prompt {prompt.index} (id {prompt.id!r}) has prompt={record.get('prompt')!r}, "
            f"id={record.get('id')!r}, error={record.get('error')!r}; these three are the runner's"
        )
    return {**told, **record}


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


# Fields of an attribution that its record has, with a value of each kind; the others are the same for the whole run.
_FIELDS: Mapping[str, Any] = {
    "tokens": [0],
    "str_tokens": [""],
    "scores": [0.5],
    "stderr": [0.5],
    "target": "",
    "position": 0,
    "combine": "",
    "word_groups": [["", 1]],
    "predictions": [[0, "", 0.5]],
    "regions": {},
    "answer_start": 0,
}


# Settings that are written even where they aren't given: a run says what it went by.
_ALWAYS = ("target", "minus", "method", "rank")


@dataclass(frozen=True, eq=False)
class ScopeJob:
    """A scope of each prompt's last token, or of its answer, computed in batches.

    Attributes:
        model: a HookedTransformer or a TransformerBridge, left as it was.
        scope: a scope's name (``"semantic"``, ``"temperature"``, ``"fisher"``, ``"output"`` with ``fn=``), a direction
            v in y, or a function, ``fn(y, logits) -> scalar tensor`` or ``fn(lin) -> Attribution``. Of a function the
            settings have the name: nobody can compare what it does.
        target, minus: of Semantic Scope, where a prompt has no target of its own; default: its most probable token.
        method, rank, n_products, rtol: of Fisher Scope.
        seed: of Fisher's random signs; each prompt has its own, which follow from this and its index.
        max_memory, precision, rule: of a batch: see :func:`linearize`.
        confidence: of Temperature Scope.
        fn, v, name: of ``"output"`` and ``"direction"``.

    Raises:
        ArgumentError: no such scope, or an option that it doesn't take.
    """

    model: Any
    scope: Scope
    target: Target | None = None
    minus: Target | None = None
    method: FisherMethod | None = None
    rank: int | None = None
    seed: int = 0
    max_memory: int | str | None = None
    precision: Precision = None
    rule: Rule = None
    confidence: Confidence | None = None
    n_products: int | None = None
    rtol: float | None = None
    fn: ScalarOutput | None = None
    v: Tensor | None = None
    name: str | None = None
    chosen: Chosen = field(init=False)
    facts: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        chosen = choose(
            self.scope,
            target=self.target,
            minus=self.minus,
            confidence=self.confidence,
            method=self.method,
            rank=self.rank,
            n_products=self.n_products,
            rtol=self.rtol,
            fn=self.fn,
            v=self.v,
            name=self.name,
        )
        if self.rank is not None and chosen.method != "low_rank":
            raise ArgumentError(f'rank={self.rank} is for method="low_rank", not for method={chosen.method!r}')
        object.__setattr__(self, "chosen", chosen)
        host = resolve(self.model, self.precision, self.rule)
        weight = host.unembedding().weight
        facts = {**host.facts(), "weights": host.weights_digest(), "device": weight.device.type}
        object.__setattr__(self, "facts", facts)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the scores; hooks of the caller's on the model aside, which nobody can compare."""
        chosen = self.chosen
        options = {name: None for name in _ALWAYS if chosen.takes(name)}
        options |= {name: _plain(value) for name, value in chosen.options.items()}
        if chosen.method is not None:
            options |= {"method": chosen.method, "seed": self.seed}
        memory = None if self.max_memory is None else str(self.max_memory)
        return {
            "job": "attributions",
            "scope": chosen.label,
            **options,
            "max_memory": memory,
            "model": dict(self.facts),
        }

    @property
    def example(self) -> Mapping[str, Any]:
        """See :class:`Job`."""
        return {**_FIELDS, **({} if self.chosen.spec else {"scope": ""}), "metadata": {}}

    def __call__(self, prompts: Sequence[CorpusPrompt]) -> list[dict[str, Any]]:
        return by_kind(prompts, self._together, self._together)

    def _together(self, prompts: Sequence[CorpusPrompt]) -> list[dict[str, Any]]:
        host = resolve(self.model, self.precision, self.rule)
        batch = linearize_read(host, [read_of(host, p) for p in prompts], Options(max_memory=self.max_memory))
        found = self.chosen.attribute(
            batch,
            target=[self.target if p.target is None else p.target for p in prompts],
            generator=[prompt_generator(self.seed, p.index) for p in prompts],
        )
        own = [{} if self.chosen.spec else {"scope": a.scope} for a in found]  # a function calls it as it likes
        return [{**to_record(a, self.facts), **name} for a, name in zip(found, own, strict=True)]


def by_kind(
    prompts: Sequence[CorpusPrompt],
    predictions: Callable[[Sequence[CorpusPrompt]], list[dict[str, Any]]],
    answers: Callable[[Sequence[CorpusPrompt]], list[dict[str, Any]]],
) -> list[dict[str, Any]]:
    """Records of a batch, in its order: prompts with an answer aren't linearised together with those without."""
    found: dict[int, dict[str, Any]] = {}
    for compute, answered in ((predictions, False), (answers, True)):
        places = [i for i, p in enumerate(prompts) if (p.answer is not None) == answered]
        if places:
            found |= zip(places, compute([prompts[i] for i in places]), strict=True)
    return [found[i] for i in range(len(prompts))]


def read_of(host: Host, prompt: CorpusPrompt) -> Read:
    """A prompt's tokens, its answer's and, where they are those of its messages, whose each of them is."""
    tokens = list(prompt.tokens or ())
    if prompt.answer is not None:
        both = read_answer(host, all_text(tokens), prompt.answer, None, None)
        if prompt.messages is not None:
            own = None if is_answered(prompt.messages) else prompt.answer
            read = read_answer(host, prompt.messages, own, None, None)
            both = read if read.tokens == both.tokens else both
        return both
    if prompt.messages is not None:
        read = read_prompt(host, prompt.messages, [-1], None)
        if read.tokens == tokens:
            return read
    return read_prompt(host, all_text(tokens), [-1], None)


@checked
def prompt_generator(seed: int, index: int) -> torch.Generator:
    """The random signs of one prompt of a corpus, whatever batch it is in; errors of two prompts are independent.

    >>> prompt_generator(0, 5).initial_seed() == prompt_generator(0, 5).initial_seed()
    True
    """
    digest = hashlib.sha256(f"{seed}:{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def to_record(a: Attribution, facts: Mapping[str, Any]) -> dict[str, Any]:
    """An attribution without what is the same for the whole run, which its manifest has."""
    whole = to_plain(a)
    own = {name: v for name, v in a.metadata.items() if name != "versions" and (name not in facts or facts[name] != v)}
    return {**{name: whole[name] for name in _FIELDS}, "metadata": own}


def from_record(record: Mapping[str, Any], settings: Mapping[str, Any], versions: Mapping[str, str]) -> Attribution:
    """The attribution of a record; ``metadata`` says which prompt it is of."""
    which = {name: record.get(name) for name in ("prompt", "id")}
    fields = {"regions": {}, "answer_start": None, **record}  # older records have none
    try:
        metadata = {**record["metadata"], **settings["model"], "versions": dict(versions), **which}
        scope = record["scope"] if "scope" in record else settings["scope"]
        whole = {"scope": scope, **{name: fields[name] for name in _FIELDS}, "metadata": metadata}
        return from_plain(Attribution, whole)
    except KeyError as error:
        raise AttributionFileError(
            f"the record of prompt {which['prompt']}, or the run's manifest, is damaged: {error} is missing"
        ) from error
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise AttributionFileError(
            f"the record of prompt {which['prompt']}, or the run's manifest, is damaged: {error}"
        ) from error


def _plain(option: Any) -> str | int | float | None:
    """An option as a JSON value that tells it from others."""
    if isinstance(option, Tensor) and option.ndim:
        return hashlib.sha256(option.detach().cpu().double().numpy().tobytes()).hexdigest()
    if callable(option):
        return name_of_function(option)
    return option if isinstance(option, (str, float)) else int(option)
