"""A scope as a job: one attribution a prompt, as a record, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import torch

from tl_jacobian.attribution import Attribution
from tl_jacobian.attribution_file import FORMAT, VERSION, from_json, to_json
from tl_jacobian.corpus.prompt import CorpusPrompt
from tl_jacobian.errors import ArgumentError
from tl_jacobian.host.resolve import resolve
from tl_jacobian.linearization_batch import LinearizationBatch
from tl_jacobian.linearize import linearize
from tl_jacobian.scopes.apply import apply
from tl_jacobian.scopes.fisher import fisher_scope
from tl_jacobian.scopes.semantic import explain_logit
from tl_jacobian.scopes.temperature import temperature_scope
from tl_jacobian.targets import Target

Scope = Literal["semantic", "temperature", "fisher"]
FisherMethod = Literal["auto", "exact", "low_rank", "estimate"]
# Fields of an attribution that its record has, with a value of each kind; the others are the same for the whole run.
_FIELDS: Mapping[str, Any] = {
    "tokens": [0],
    "str_tokens": [""],
    "scores": [0.5],
    "stderr": [0.5],
    "target": "",
    "position": 0,
    "combine": "",
    "words": [["", 1]],
    "predictions": [[0, "", 0.5]],
}


@dataclass(frozen=True, eq=False)
class ScopeJob:
    """A scope of each prompt's last token, computed in batches.

    Attributes:
        model: a HookedTransformer or a TransformerBridge, left as it was.
        scope: ``"semantic"``, ``"temperature"`` or ``"fisher"``.
        target, minus: of Semantic Scope, where a prompt has no target of its own; default: its most probable token.
        method, rank: of Fisher Scope.
        seed: of Fisher's random signs; each prompt has its own, which follow from this and its index.
        max_memory: of a batch: see :func:`linearize`.

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
    facts: Mapping[str, Any] = field(init=False)
    example: ClassVar[Mapping[str, Any]] = {**_FIELDS, "metadata": {}}

    def __post_init__(self) -> None:
        self._check()
        host = resolve(self.model)
        weight = host.unembedding().weight
        facts = {**host.facts(), "weights": host.weights_digest(), "device": weight.device.type}
        object.__setattr__(self, "facts", facts)

    def _check(self) -> None:
        if self.scope not in get_args(Scope):
            raise ArgumentError(f"scope={self.scope!r}, expected one of {', '.join(map(repr, get_args(Scope)))}")
        given = {"target": self.target, "minus": self.minus, "method": self.method, "rank": self.rank}
        known = {"semantic": ("target", "minus"), "temperature": (), "fisher": ("method", "rank")}[self.scope]
        for name, value in given.items():
            if value is not None and name not in known:
                raise ArgumentError(f"scope {self.scope!r} takes no {name}={value!r}; leave it out")
        if self.rank is not None and self.method not in (None, "low_rank"):
            raise ArgumentError(f'rank={self.rank} is for method="low_rank", not for method={self.method!r}')

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the scores; hooks of the caller's on the model aside, which nobody can compare."""
        options: dict[str, Any] = {
            "semantic": {"target": _plain(self.target), "minus": _plain(self.minus)},
            "temperature": {},
            "fisher": {"method": self._method, "rank": self.rank, "seed": self.seed},
        }
        memory = None if self.max_memory is None else str(self.max_memory)
        return {
            "job": "attributions",
            "scope": self.scope,
            **options[self.scope],
            "max_memory": memory,
            "model": dict(self.facts),
        }

    def __call__(self, prompts: Sequence[CorpusPrompt]) -> list[dict[str, Any]]:
        batch = linearize(self.model, [list(p.tokens or ()) for p in prompts], max_memory=self.max_memory)
        scopes: dict[str, Callable[[], list[Attribution]]] = {
            "semantic": lambda: self._semantic(batch, prompts),
            "temperature": lambda: temperature_scope(batch),
            "fisher": lambda: self._fisher(batch, prompts),
        }
        return [to_record(a, self.facts) for a in scopes[self.scope]()]

    def _semantic(self, batch: LinearizationBatch, prompts: Sequence[CorpusPrompt]) -> list[Attribution]:
        targets = iter([self.target if p.target is None else p.target for p in prompts])
        return apply(batch, "semantic", lambda one: explain_logit(one, next(targets), self.minus))

    def _fisher(self, batch: LinearizationBatch, prompts: Sequence[CorpusPrompt]) -> list[Attribution]:
        draws = self._method in ("auto", "estimate")
        signs = [prompt_generator(self.seed, p.index) for p in prompts] if draws else None
        return fisher_scope(batch, method=self._method, rank=self.rank, generator=signs)

    @property
    def _method(self) -> FisherMethod:
        return self.method or ("auto" if self.rank is None else "low_rank")


def prompt_generator(seed: int, index: int) -> torch.Generator:
    """The random signs of one prompt of a corpus, whatever batch it is in; errors of two prompts are independent.

    >>> prompt_generator(0, 5).initial_seed() == prompt_generator(0, 5).initial_seed()
    True
    """
    digest = hashlib.sha256(f"{seed}:{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def to_record(a: Attribution, facts: Mapping[str, Any]) -> dict[str, Any]:
    """An attribution without what is the same for the whole run, which its manifest has."""
    whole = to_json(a)
    own = {name: v for name, v in a.metadata.items() if name != "versions" and (name not in facts or facts[name] != v)}
    return {**{name: whole[name] for name in _FIELDS}, "metadata": own}


def from_record(record: Mapping[str, Any], settings: Mapping[str, Any], versions: Mapping[str, str]) -> Attribution:
    """The attribution of a record; ``metadata`` says which prompt it is of."""
    which = {"prompt": record["prompt"], "id": record["id"]}
    whole = {"format": FORMAT, "version": VERSION, "scope": settings["scope"], "sizes": [1] * len(record["tokens"])}
    metadata = {**record["metadata"], **settings["model"], "versions": dict(versions), **which}
    return from_json({**whole, **{name: record[name] for name in _FIELDS}, "metadata": metadata})


def _plain(target: Target | None) -> str | int | None:
    return target if target is None or isinstance(target, str) else int(target)
