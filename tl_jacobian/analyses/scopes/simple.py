"""The scopes of one direction: Semantic (a logit), Temperature (confidence), Output (any scalar), Direction (any v)."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.analyses.scopes.apply import Explained, along, apply, attribution, members_of
from tl_jacobian.core.answer import AnswerLinearization
from tl_jacobian.core.graph import recording, scaled, unit
from tl_jacobian.core.linearization import Linearization, LinearizationBatch, Linearized
from tl_jacobian.core.prompts import Target, name_of, resolve_target
from tl_jacobian.core.unembedding import exact, log_prob
from tl_jacobian.errors import ArgumentError, DegenerateScopeError, DirectionError, TargetError
from tl_jacobian.results.arguments import checked, excerpt
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.scopes import Confidence

ScalarOutput = Callable[[Float[Tensor, " d_model"], Any], Tensor] | Callable[[Float[Tensor, " d_model"]], Tensor]


@overload
def direction_scope(
    lin: Linearized, v: Float[Tensor, "*answer d_model"], *, name: str | None = None
) -> Attribution: ...
@overload
def direction_scope(
    lin: LinearizationBatch[Any], v: Float[Tensor, "*answer d_model"], *, name: str | None = None
) -> list[Attribution]: ...
@checked
def direction_scope(
    lin: Linearized | LinearizationBatch[Any], v: Float[Tensor, "*answer d_model"], *, name: str | None = None
) -> Attribution | list[Attribution]:
    """Which tokens move the final hidden state along any direction v (eq. 1).

    Args:
        lin: a linearization, or a batch of them.
        v: the direction, in the precision that you like; ``(d_model,)``. For an answer one for all its tokens, or
            ``(answer, d_model)``, one for each: the sum of the v_i.y_i is explained.
        name: what to call v.y.

    Raises:
        DirectionError: v has the wrong shape, or isn't finite.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> len(tj.direction_scope(lin, lin.y))
    5
    """
    return apply(lin, "direction", lambda one: explain_direction(one, v, name))


def explain_direction(lin: Linearized, v: Float[Tensor, "*answer d_model"], name: str | None = None) -> Explained:
    """A direction as it is given."""
    if isinstance(v, Tensor) and v.shape == lin.y.shape[-1:]:
        v = v.expand_as(lin.y)
    lin.check_direction(v)
    v, (power,) = unit(v.detach()[None])
    value = math.ldexp((v[0].to(lin.y) * lin.y).sum().item(), power)  # values hand out directions on the CPU
    words = "v.y for the direction v given" if lin.y.ndim == 1 else "v.y for the directions v given, over the answer"
    details = {"value": value, "score": f"change of v.y per unit of {lin.per}"}
    return Explained(scaled(v, [power]).to(lin.y.device), name or words, details)


@overload
def output_scope(lin: Linearized, fn: ScalarOutput, *, name: str | None = None) -> Attribution: ...
@overload
def output_scope(lin: LinearizationBatch[Any], fn: ScalarOutput, *, name: str | None = None) -> list[Attribution]: ...
@checked
def output_scope(
    lin: Linearized | LinearizationBatch[Any], fn: ScalarOutput, *, name: str | None = None
) -> Attribution | list[Attribution]:
    """Which tokens drive any scalar of the final hidden state and the logits.

    v is the gradient of the scalar in y, through bias and soft-cap.

    Args:
        lin: a linearization, or a batch of them.
        fn: ``fn(y, logits) -> scalar tensor`` (or of y alone), differentiable: a log-probability, the entropy,
            the activation of a sparse-autoencoder feature. Where y is the activation at another
            ``output_hook``, logits is None. For an answer y is ``(answer, d_model)`` and logits ``(answer, d_vocab)``.
        name: what to call it; default: the function's name.

    Raises:
        DirectionError: fn doesn't give one finite number that depends on y or the logits.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> tj.output_scope(lin, lambda y, z: z.log_softmax(-1)[7042], name="log p(Paris)").target
    'log p(Paris)'
    """
    return apply(lin, "output", lambda one: explain_output(one, fn, name))


def explain_output(
    lin: Linearized, fn: ScalarOutput, name: str | None = None, call: str = "fn(y, logits)"
) -> Explained:
    """The gradient of ``fn`` in y; ``call`` is what the caller knows it as."""
    label = name or getattr(fn, "__name__", type(fn).__name__)
    with recording():
        y = lin.y.clone().requires_grad_()
        value = _called(lin, fn, y, call)
        v = gradient(value, y, call)
    lin.check_direction(v)
    return Explained(v[None], label, {"value": value.item(), "score": f"change of {label} per unit of {lin.per}"})


def gradient(value: Any, y: Float[Tensor, "*own"], call: str) -> Float[Tensor, "*own"]:
    """Of one number in y, from which it was made.

    Raises:
        DirectionError: it isn't one finite number, or doesn't depend on y.
    """
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        hint = "; leave out .item()" if isinstance(value, (int, float)) else ""
        raise DirectionError(f"{call} gave {got}, expected a tensor with one number{hint}")
    if value.is_complex() or not value.isfinite():
        raise DirectionError(f"{call} gave {value.item()}, expected a finite real number")
    if not value.requires_grad:
        raise DirectionError(
            f"{call} gave a number without a gradient; compute it from its arguments with torch operations"
        )
    (v,) = torch.autograd.grad(value.reshape(()), y)
    return v


def can_take(fn: Callable[..., Any], n: int) -> bool:
    """Whether a function can be called with n values by place; where nobody can tell, yes."""
    try:
        inspect.signature(fn.forward if isinstance(fn, torch.nn.Module) else fn).bind(*range(n))
    except TypeError:
        return False
    except ValueError:  # it has no signature
        return True
    return True


def _called(lin: Linearized, fn: Callable[..., Any], y: Tensor, call: str) -> Any:
    """What ``fn`` makes of y and the logits; of y alone where that is all it takes, or where y isn't unembedded."""
    if not can_take(fn, 2) and can_take(fn, 1):
        return fn(y)
    if lin.output_hook is None:
        return fn(y, lin.unembedding.logits(y))
    try:
        return fn(y, None)
    except (TypeError, AttributeError) as error:
        raise ArgumentError(
            f"{call} failed with logits=None ({error}): {lin.output_hook} isn't unembedded, so make it of y alone"
        ) from error


@overload
def semantic_scope(lin: Linearization, target: Target | None = None, *, minus: Target | None = None) -> Attribution: ...
@overload
def semantic_scope(
    lin: AnswerLinearization, target: None = None, *, minus: AnswerLinearization | None = None
) -> Attribution: ...
@overload
def semantic_scope(
    lin: LinearizationBatch[Any],
    target: Target | Sequence[Target | None] | None = None,
    *,
    minus: Target | None = None,
) -> list[Attribution]: ...
@checked
def semantic_scope(
    lin: Linearized | LinearizationBatch[Any],
    target: Target | Sequence[Target | None] | None = None,
    *,
    minus: Target | AnswerLinearization | None = None,
) -> Attribution | list[Attribution]:
    """Semantic Scope: which tokens drive the logit of one target token (eq. 3), or the probability of an answer.

    v is the unembedding column of the target; with ``minus`` the difference of two columns,
    which explains why the model prefers one token to the other. A score is a norm and has no
    sign: it says how strongly a token moves the logit, not which way.

    Of an answer, ``linearize(model, prompt, answer=...)``, the log-probability is explained: v_i is the gradient of
    log p(a_i) in y_i, and all rows are pulled back together.

    Args:
        lin: a linearization, or a batch of them.
        target: token as text or id; default: the most probable next token. For a batch, one for all, or one each.
            An answer is its own target.
        minus: token to contrast with. For an answer, another linearized answer to the same prompt: their gradients are
            subtracted before the norm is taken, and only the prompt's tokens, which they share, have a score.

    Returns:
        Scores in logits per unit of embedding norm; in nats per unit for an answer.

    Raises:
        TargetError: the text isn't exactly one token, or the id is out of range.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> tj.semantic_scope(lin, " Paris").top(1, skip_first=True)[0].text
    ' capital'
    """
    if isinstance(lin, AnswerLinearization) and minus is not None:
        return _contrasted(lin, target, minus)
    if isinstance(minus, AnswerLinearization):
        raise TargetError(f"minus={minus!r} is an answer's linearization, expected a token: lin has no answer")
    if isinstance(target, str) or not isinstance(target, Sequence):
        return apply(lin, "semantic", lambda one: explain_logit(one, target, minus))
    if isinstance(lin, Linearized):
        raise TargetError(f"target={target!r} for one linearization, expected one token: its text or its id")
    if len(target) != len(lin):
        raise TargetError(f"{len(target)} targets for {len(lin)} prompts, expected one for all, or one each")
    targets = iter(target)
    return apply(lin, "semantic", lambda one: explain_logit(one, next(targets), minus))


def explain_logit(lin: Linearized, target: Target | None = None, minus: Target | None = None) -> Explained:
    """The direction of one logit, or of the difference of two; the directions of an answer's log-probability."""
    if isinstance(lin, AnswerLinearization):
        return _explain_answer(lin, target, minus)
    if not isinstance(lin, Linearization):
        raise ArgumentError(f"got a {type(lin).__name__}, expected a linearization")
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


def _explain_answer(lin: AnswerLinearization, target: Target | None, minus: Target | None) -> Explained:
    """v_i: the gradient of log p(a_i) in y_i."""
    for name, given in (("target", target), ("minus", minus)):
        if given is not None:
            raise TargetError(
                f"{name}={given!r} for an answer's linearization, which explains the answer {lin.text!r}: leave it "
                "out, or ask at one of its positions, lin[i]"
            )
    lin.check_unembedded()
    words = f"log-probability of the answer {excerpt(lin.text)}"
    v, _, details = explain_output(lin, lambda _, logits: log_prob(logits, lin.answer), words)
    value = lin.log_probs.sum().item()
    more = {"answer_tokens": list(lin.answer), "value": value, "score": f"nats per unit of {lin.per}"}
    return Explained(v, words, {**details, **more})


def _contrasted(lin: AnswerLinearization, target: Any, minus: Any) -> Attribution:
    """The difference of two answers' log-probabilities, from the gradients of two forward passes."""
    if not isinstance(minus, AnswerLinearization):
        raise TargetError(
            f"minus={excerpt(minus)} for an answer, expected another answer to the same prompt: "
            "linearize(model, prompt, answer=...)"
        )
    n = lin.answer_start
    prompts = [one.tokens[: one.answer_start].tolist() for one in (lin, minus)]
    if prompts[0] != prompts[1] or lin.input_hook != minus.input_hook:
        raise TargetError(
            f"minus answers another prompt ({len(prompts[1])} tokens), or was linearized at another hook point, "
            f"expected an answer to the same {len(prompts[0])} tokens"
        )
    explained = [explain_logit(one, target) for one in members_of(lin) + members_of(minus)]
    grads = [exact(one.vjp(e.v[0])[:n]) for one, e in zip((lin, minus), explained, strict=True)]
    words = f"{explained[0].target} minus that of {excerpt(minus.text)}"
    details = {
        **explained[0].details,
        "value": explained[0].details["value"] - explained[1].details["value"],
        "minus_answer_tokens": list(minus.answer),
    }
    return attribution(lin, "semantic", words, (grads[0] - grads[1]).norm(dim=-1), "root_sum_squares", details).prompt


@overload
def temperature_scope(lin: Linearized, *, confidence: Confidence = "hidden_norm") -> Attribution: ...
@overload
def temperature_scope(lin: LinearizationBatch[Any], *, confidence: Confidence = "hidden_norm") -> list[Attribution]: ...
@checked
def temperature_scope(
    lin: Linearized | LinearizationBatch[Any], *, confidence: Confidence = "hidden_norm"
) -> Attribution | list[Attribution]:
    """Temperature Scope: which tokens drive the model's confidence (eq. 7), or the sum of those along an answer.

    Args:
        lin: a linearization, or a batch of them.
        confidence: ``"hidden_norm"`` is the paper's effective inverse temperature ||y||, with
            v = y / ||y||. ``"logit_norm"`` is the norm of the centred logits ||z - mean(z)||,
            which doesn't change when LayerNorm is folded or the unembedding centred.

    Raises:
        DegenerateScopeError: ||y|| is the same for every input, because the final norm's gain
            was folded into the unembedding.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> tj.temperature_scope(lin).target
    'confidence: effective inverse temperature ||y||'
    """
    return apply(lin, "temperature", lambda one: explain_confidence(one, confidence))


def explain_confidence(lin: Linearized, confidence: Confidence = "hidden_norm") -> Explained:
    """The direction of either confidence."""
    lin.check_unembedded()  # the norm of another activation is no inverse temperature
    if confidence == "logit_norm":
        return explain_output(lin, _logit_norm, "confidence: norm of the centred logits" + along(lin))
    return _hidden_norm(lin)


def _hidden_norm(lin: Linearized) -> Explained:
    norm = lin.y.norm(dim=-1, keepdim=True)
    if lin.bare_norm:
        raise DegenerateScopeError(
            f"||y|| = {norm[-1].item():.4g} for every input: this model's final norm has no gain or bias, so the "
            "gradient of ||y|| is rounding noise. If LayerNorm was folded into the unembedding, pass the original "
            'norm, linearize(model, prompt, final_norm="original") or final_norm=hf_model.model.norm, or load the '
            "model unfolded: HookedTransformer.from_pretrained_no_processing(...), or a TransformerBridge without "
            "compatibility mode. If the norm was never trained (gain 1, bias 0), only another confidence makes "
            'sense: temperature_scope(lin, confidence="logit_norm"), which folding doesn\'t change either'
        )
    details = {"value": norm.sum().item(), "score": f"change of ||y|| per unit of {lin.per}"}
    words = "confidence: effective inverse temperature ||y||"
    return Explained((lin.y / norm)[None], words + along(lin), details)


def _logit_norm(y: Tensor, logits: Tensor) -> Tensor:
    return (logits - logits.mean(dim=-1, keepdim=True)).norm(dim=-1).sum()
