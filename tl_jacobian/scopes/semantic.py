"""Semantic Scope: one logit, or the difference of two."""

from __future__ import annotations

from typing import Any, overload

from tl_jacobian.attribution import Attribution
from tl_jacobian.linearization import Linearization
from tl_jacobian.linearization_batch import LinearizationBatch
from tl_jacobian.scopes.apply import Explained, apply
from tl_jacobian.targets import Target, name_of, resolve_target


@overload
def semantic_scope(lin: Linearization, target: Target | None = None, *, minus: Target | None = None) -> Attribution: ...
@overload
def semantic_scope(
    lin: LinearizationBatch, target: Target | None = None, *, minus: Target | None = None
) -> list[Attribution]: ...
def semantic_scope(
    lin: Linearization | LinearizationBatch, target: Target | None = None, *, minus: Target | None = None
) -> Attribution | list[Attribution]:
    """Semantic Scope: which tokens drive the logit of one target token (eq. 3).

    v is the unembedding column of the target; with ``minus`` the difference of two columns,
    which explains why the model prefers one token to the other. A score is a norm and has no
    sign: it says how strongly a token moves the logit, not which way.

    Args:
        lin: a linearization, or a batch of them.
        target: token as text or id; default: the most probable next token.
        minus: token to contrast with.

    Returns:
        Scores in logits per unit of embedding norm.

    Raises:
        TargetError: the text isn't exactly one token, or the id is out of range.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> tj.semantic_scope(lin, " Paris").top(1, skip_first=True)[0].text
    ' capital'
    """
    return apply(lin, "semantic", lambda one: explain_logit(one, target, minus))


def explain_logit(lin: Linearization, target: Target | None, minus: Target | None) -> Explained:
    """The direction of one logit, or of the difference of two."""
    token = resolve_target(lin, target)
    v, value = lin.unembedding.direction(token, lin.logits), lin.logits[token]
    words = f"logit of {name_of(lin, token)}"
    details: dict[str, Any] = {"target_token": token}
    if minus is not None:
        other = resolve_target(lin, minus)
        v, value = v - lin.unembedding.direction(other, lin.logits), value - lin.logits[other]
        words += f" minus logit of {name_of(lin, other)}"
        details["minus_token"] = other
    elif lin.unembedding.is_centered():
        words += " (centred: minus the mean logit)"
    return Explained(v[None], words, {**details, "value": value.item(), "score": f"logits per unit of {lin.per}"})
