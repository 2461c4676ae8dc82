"""Any scope by name: its direction, where that is all an analysis needs, or its scores at many positions of a text."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, get_args

from torch import Tensor

from tl_jacobian.analyses.scopes.apply import Explained, apply, check_gradient, one_of
from tl_jacobian.analyses.scopes.fisher import explain_fisher, fisher_scope
from tl_jacobian.analyses.scopes.simple import (
    Confidence,
    ScalarOutput,
    direction_scope,
    explain_confidence,
    explain_direction,
    explain_logit,
    explain_output,
    output_scope,
    semantic_scope,
    temperature_scope,
)
from tl_jacobian.core.linearization import Linearization, LinearizationBatch
from tl_jacobian.core.progress import progress
from tl_jacobian.core.prompts import Target
from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.attribution import Attribution, Combine

Direction = str | Tensor


def explain(lin: Linearization, scope: Direction, options: Mapping[str, Any]) -> Explained:
    """What a scope explains of one linearization.

    Args:
        lin: the linearization.
        scope: ``"semantic"`` (options ``target``, ``minus``), ``"temperature"`` (``confidence``),
            ``"fisher"`` (``rank``, default 1: its leading directions), ``"output"`` (``fn``, ``name``), or a
            direction v in y.
        options: of the scope.

    Raises:
        ArgumentError: no such scope, an option that it doesn't take, or none where it needs one.
    """
    one_of(lin)
    if isinstance(scope, Tensor):
        scope, options = "direction", {"v": scope, **options}
    if not isinstance(scope, str) or scope not in _EXPLAINERS:
        hint = f"; for a target token: target={scope!r}" if isinstance(scope, str) and "target" not in options else ""
        if hasattr(scope, "__array__"):
            raise ArgumentError(f"scope is a {type(scope).__name__}; a direction is a tensor: torch.as_tensor(v)")
        names = ", ".join(map(repr, _EXPLAINERS))
        raise ArgumentError(f"scope={scope!r}, expected one of {names}, or a direction v{hint}")
    known = _OPTIONS[scope]
    for name in options:
        if name not in known:
            raise ArgumentError(f"scope {scope!r} takes no {name}=; its options are {', '.join(map(repr, known))}")
    for name in _REQUIRED.get(scope, ()):
        if name not in options:
            raise ArgumentError(f"scope {scope!r} needs {name}=")
    explained = _EXPLAINERS[scope](lin, **options)
    check_gradient(explained)
    return explained


def combine_of(scope: Direction) -> Combine:
    """How squared influences of several directions make one score: see the scopes."""
    return "sum" if isinstance(scope, str) and scope == "fisher" else "root_sum_squares"


def only_direction(explained: Explained, what: str) -> Tensor:
    """The one direction that is explained.

    Raises:
        ArgumentError: there are several, and ``what`` is linear in v.
    """
    if len(explained.v) != 1:
        raise ArgumentError(
            f"{what} need one direction, and {explained.target} has {len(explained.v)}: take rank=1, or one of "
            "fisher_spectrum(lin).directions"
        )
    return explained.v[0]


def _semantic_direction(lin: Linearization, target: Target | None = None, minus: Target | None = None) -> Explained:
    return explain_logit(lin, target, minus)


def _temperature(lin: Linearization, confidence: Confidence = "hidden_norm") -> Explained:
    return explain_confidence(lin, confidence)


def _fisher(lin: Linearization, rank: int = 1) -> Explained:
    return explain_fisher(lin, rank)


def _output(lin: Linearization, fn: ScalarOutput, name: str | None = None) -> Explained:
    return explain_output(lin, fn, name or getattr(fn, "__name__", type(fn).__name__))


def _direction(lin: Linearization, v: Tensor, name: str | None = None) -> Explained:
    explained = explain_direction(lin, v)
    return explained if name is None else explained._replace(target=name)


_EXPLAINERS: dict[str, Callable[..., Explained]] = {
    "semantic": _semantic_direction,
    "temperature": _temperature,
    "fisher": _fisher,
    "output": _output,
    "direction": _direction,
}
_OPTIONS = {
    "semantic": ("target", "minus"),
    "temperature": ("confidence",),
    "fisher": ("rank",),
    "output": ("fn", "name"),
    "direction": ("v", "name"),
}
_REQUIRED = {"output": ("fn",), "direction": ("v",)}


Scope = Literal["semantic", "temperature", "fisher"] | Callable[..., Any]
TargetRule = Literal["next", "predicted"]

_NAMED: dict[str, Callable[..., Any]] = {
    "semantic": semantic_scope,
    "temperature": temperature_scope,
    "fisher": fisher_scope,
}
_BATCHED = (*_NAMED.values(), output_scope, direction_scope)


def scope_along(
    scope: Scope, target: TargetRule | None, tokens: list[int], options: Mapping[str, Any]
) -> Callable[[LinearizationBatch], list[Attribution]]:
    """A function from the linearizations of a text to their attributions."""
    found = _NAMED.get(scope) if isinstance(scope, str) else scope
    if not callable(found):
        raise ArgumentError(f"scope={scope!r}, expected one of {', '.join(map(repr, _NAMED))}, or a function")
    _check_options(found, options)
    if found is semantic_scope:
        follows = dict(enumerate(tokens[1:])) if rule_of(scope, target) == "next" else {}
        return partial(_semantic_along, follows=follows, **options)
    if target is not None:
        raise ArgumentError(f"target={target!r} is for Semantic Scope, not for {scope!r}")
    run = partial(found, **options)
    return run if _takes_batches(found, options) else partial(_one_by_one, run)


def _check_options(scope: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """What a scope of this library doesn't take is said before any work is done."""
    known = [name for name in list(inspect.signature(scope).parameters)[1:] if name != "target"]
    unknown = [name for name in options if name not in known]
    if scope in _BATCHED and unknown:
        raise ArgumentError(
            f"{scope.__name__} takes no {unknown[0]}=; its options in a map are {', '.join(map(repr, known)) or 'none'}"
        )


def rule_of(scope: Any, target: TargetRule | None) -> str | None:
    """How Semantic Scope chooses its targets; other scopes have no choice."""
    if scope not in ("semantic", semantic_scope):
        return None
    if target not in (None, *get_args(TargetRule)):
        raise ArgumentError(
            f'target={target!r}, expected "next" or "predicted"; for one token at every position pass '
            f"scope=lambda lin: tj.semantic_scope(lin, {target!r})"
        )
    return target or "next"


def _semantic_along(
    batch: LinearizationBatch, *, follows: Mapping[int, int], minus: Target | None = None
) -> list[Attribution]:
    """Semantic Scope, each target with the token that follows it (or the most probable one)."""
    found = apply(batch, "semantic", lambda one: explain_logit(one, follows.get(one.position), minus))
    rules = ["next" if a.position in follows else "predicted" for a in found]
    pairs = zip(found, rules, strict=True)
    return [dataclasses.replace(a, metadata={**a.metadata, "target_rule": rule}) for a, rule in pairs]


def _takes_batches(scope: Callable[..., Any], options: Mapping[str, Any]) -> bool:
    """Whether targets are to share backward passes.

    A full Fisher trace fills them alone, and its directions for many targets would take much memory.
    """
    return scope in _BATCHED and (scope is not fisher_scope or options.get("method") == "low_rank")


def _one_by_one(scope: Callable[..., Any], batch: LinearizationBatch) -> list[Attribution]:
    """A scope on one linearization at a time."""
    with progress(len(batch), "targets") as bar:
        found = []
        for lin in batch:
            found.append(_own(scope(lin), lin))
            bar.update()
    return found


def _own(made: Any, lin: Linearization) -> Attribution:
    if isinstance(made, Attribution) and made.tokens == tuple(lin.tokens.tolist()):
        return made
    got = f"an attribution of {len(made.tokens)} tokens" if isinstance(made, Attribution) else repr(made)
    raise ArgumentError(f"the scope gave {got} for {lin!r}, expected an Attribution of its {len(lin.tokens)} tokens")
