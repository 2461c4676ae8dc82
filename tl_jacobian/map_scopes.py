"""One scope at many positions of a text: which function runs, on what, with which targets."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, get_args

from tl_jacobian.attribution import Attribution
from tl_jacobian.errors import ArgumentError
from tl_jacobian.linearization import Linearization
from tl_jacobian.linearization_batch import LinearizationBatch
from tl_jacobian.progress import progress
from tl_jacobian.scopes import direction_scope, fisher_scope, output_scope, semantic_scope, temperature_scope
from tl_jacobian.scopes.apply import apply
from tl_jacobian.scopes.semantic import explain_logit
from tl_jacobian.targets import Target

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
        return partial(_semantic, follows=follows, **options)
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


def _semantic(
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
