"""Interventions: change one activation or edit the prompt, and hold the true effect against the first-order promise.

A score says what a small change would do. The change that one cares about isn't small: a token gone, a head silenced.
To first order it does ``gradient . (new - old)``, which costs one backward pass for any number of changes; the truth
costs a forward pass each. Both are given here, so that nobody has to take the one for the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor

from tl_jacobian.analyses.baselines.runs import inputs_of, quantity, rerun_of, unit_of
from tl_jacobian.analyses.scopes.apply import one_of
from tl_jacobian.analyses.scopes.simple import explain_logit
from tl_jacobian.core.answer import AnswerLinearization
from tl_jacobian.core.hooks import EMBED, label_of
from tl_jacobian.core.linearization import Linearization, Linearized
from tl_jacobian.core.prompts import Target
from tl_jacobian.core.unembedding import exact
from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import checked, excerpt
from tl_jacobian.results.attribution import Prediction
from tl_jacobian.results.intervention import Intervention

Replacement = Literal["zero", "mean"] | Tensor
_SHOWN = 5  # predictions of either run


@checked
def intervene(
    lin: Linearized,
    hook: str | None = None,
    *,
    positions: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    replacement: Replacement = "zero",
    target: Target | None = None,
    minus: Target | None = None,
) -> Intervention:
    """Replace an activation, and compare what the gradient promises with what the model then does.

    Args:
        lin: a linearization of one position or an answer; with ``record=`` of the hook point.
        hook: whose activation is replaced, such as ``"blocks.5.attn.hook_z"``; None: the token embeddings.
        positions: at these tokens only, counted from the start; None: all.
        heads: of these heads only, where the activation has heads; None: all.
        replacement: ``"zero"``; the ``"mean"`` over the prompt's tokens; or activations of the same shape, such as
            those of another prompt's run.
        target, minus: whose logit is watched, less that of another, as for :func:`semantic_scope`; for an answer it
            is its log-probability.

    Raises:
        HookPointError: the hook point wasn't recorded, or what is explained doesn't depend on it.
        ArgumentError: the replacement has another shape, or there are no such positions or heads.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is", record="heads")
    >>> found = intervene(lin, "blocks.20.attn.hook_z", heads=[3], target=" Paris")
    >>> found.quantity, found.unit
    ("logit of ' Paris'", 'logits')
    """
    one_of(lin)
    rerun, explained = rerun_of(lin), explain_logit(lin, target, minus)
    if hook is None:
        old, (grad,) = inputs_of(lin), lin.vjp(explained.v)
        again = rerun
    else:
        (found,) = lin.stream_at(explained.v, [hook])
        old, grad, again = lin.taps[hook], found[hook][0], rerun.at(hook)
    where = _mask(old, positions, heads)
    new = torch.where(where, _replaced(old, replacement), old)
    promised = exact((exact(grad) * (exact(new) - exact(old))).sum()).item()
    logits = again.logits(rearrange(new, "pos ... -> 1 pos (...)"))[0]
    return _compared(lin, _named(lin, hook, positions, heads, replacement), logits, promised, target, minus)


@checked
def compare_edit(
    lin: Linearized, other: Linearized, *, target: Target | None = None, minus: Target | None = None
) -> Intervention:
    """Another prompt (or the same answer to it) in place of the first: what the gradient promises, and what happens.

    Args:
        lin: of the prompt; other: of the edited one. Where they have as many tokens, the promise is the gradient at
            ``lin`` times the change of the embeddings; else there is none.
        target, minus: see :func:`intervene`; of ``lin``, as token ids both mean the same.

    Raises:
        ArgumentError: one explains a position, the other an answer, or another answer.
    """
    lin, other = one_of(lin), one_of(other)
    answers = [one.answer if isinstance(one, AnswerLinearization) else None for one in (lin, other)]
    if answers[0] != answers[1]:
        raise ArgumentError(
            "one prompt's prediction and another one's answer can't be compared: expected the same answer"
        )
    promised = None
    if len(lin.tokens) == len(other.tokens):
        (grad,) = lin.vjp(explain_logit(lin, target, minus).v)
        promised = (exact(grad) * (exact(inputs_of(other)) - exact(inputs_of(lin)))).sum().item()
    pairs = list(zip(lin.str_tokens, other.str_tokens, strict=False))
    changed = [f"{a!r} → {b!r}" for a, b in pairs if a != b]
    short = (
        f"{changed[0]}" + (f" and {len(changed) - 1} more tokens" if len(changed) > 1 else "") if changed else "none"
    )
    what = f"edited: {short}" if promised is not None else f"edited: {len(lin.tokens)} → {len(other.tokens)} tokens"
    return _compared(lin, what, other.logits, promised, target, minus)


def _mask(old: Tensor, positions: Sequence[int] | None, heads: Sequence[int] | None) -> Tensor:
    mask = torch.zeros_like(old, dtype=torch.bool)
    if heads is not None and old.ndim != 3:
        raise ArgumentError(f"heads={list(heads)} at an activation of shape {tuple(old.shape)}, which has no heads")
    for name, given, size in (("positions", positions, len(old)), ("heads", heads, old.shape[1])):
        if given is not None and (not len(given) or min(given) < 0 or max(given) >= size):
            raise ArgumentError(f"{name}={list(given)}, expected at least one, each 0 to {size - 1}")
    rows = range(len(old)) if positions is None else positions
    mask[list(rows)] = True
    if heads is not None:
        others = [h for h in range(old.shape[1]) if h not in heads]
        mask[:, others] = False
    return mask


def _replaced(old: Tensor, replacement: Replacement) -> Tensor:
    if isinstance(replacement, Tensor):
        if replacement.shape != old.shape or not replacement.isfinite().all():
            raise ArgumentError(
                f"replacement has shape {tuple(replacement.shape)}, expected finite numbers of shape "
                f"{tuple(old.shape)}: activations are exchanged token by token, so take prompts of as many tokens"
            )
        return replacement.to(old)
    return torch.zeros_like(old) if replacement == "zero" else old.mean(0, keepdim=True).expand_as(old)


def _named(
    lin: Linearized,
    hook: str | None,
    positions: Sequence[int] | None,
    heads: Sequence[int] | None,
    replacement: Replacement,
) -> str:
    """``"20.z, heads 3: zero at token 3 ' France'"``."""
    place = "embeddings" if hook in (None, EMBED) else label_of(hook)
    whose = "" if heads is None else f", head{'s' if len(heads) > 1 else ''} {', '.join(map(str, heads))}"
    how = replacement if isinstance(replacement, str) else "those of another run"
    if positions is None:
        return f"{place}{whose}: {how} at all tokens"
    first = positions[0]
    more = f" and {len(positions) - 1} more" if len(positions) > 1 else ""
    return f"{place}{whose}: {how} at token {first} {excerpt(lin.str_tokens[first], 30)}{more}"


def _compared(
    lin: Linearized, what: str, logits: Tensor, promised: float | None, target: Target | None, minus: Target | None
) -> Intervention:
    before, after = exact(lin.logits).log_softmax(-1), exact(logits).log_softmax(-1)
    asked, explained = quantity(lin, target, minus), explain_logit(lin, target, minus)
    values = [asked.of(exact(one)[None]).item() for one in (lin.logits, logits)]
    shown: tuple[tuple[Prediction, ...], ...] = ((), ())
    if isinstance(lin, Linearization):
        watched = [token for token in (asked.token, asked.other) if token is not None]
        shown = _predictions(lin, before, after, watched)
    return Intervention(
        what=what,
        quantity=explained.target,
        unit=unit_of(lin),
        before=values[0],
        after=values[1],
        promised=promised,
        divergence=float((before.exp() * (before - after)).sum().clamp_min(0.0)),
        predictions_before=shown[0],
        predictions_after=shown[1],
        metadata=dict(lin.facts),
    )


def _predictions(
    lin: Linearization, before: Tensor, after: Tensor, named: Sequence[int]
) -> tuple[tuple[Prediction, ...], ...]:
    """The most probable tokens of both runs, and those that are watched, with their probabilities in each."""
    tokens: dict[int, Any] = dict.fromkeys(
        [*named, *before.topk(_SHOWN).indices.tolist(), *after.topk(_SHOWN).indices.tolist()]
    )
    order = sorted(tokens, key=lambda token: -max(float(before[token]), float(after[token])))
    return tuple(
        tuple(Prediction(token, lin.decode(token), float(logs[token].exp())) for token in order)
        for logs in (before, after)
    )
