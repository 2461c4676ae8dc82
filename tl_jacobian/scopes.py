"""The Jacobian Scopes: each only chooses a direction v at the output; one VJP does the rest.

    influence_t = || v^T J_t ||_2                                  (paper, eq. 1 and 2)

Every scope takes a :class:`Linearization` and gives an :class:`Attribution`, or takes a
:class:`LinearizationBatch` and gives a list of them from one backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, overload

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.attribution import Attribution, Combine, Prediction
from tl_jacobian.errors import DegenerateScopeError, DirectionError
from tl_jacobian.linalg.fisher import eigenpairs, fisher_matrix
from tl_jacobian.linearization import Linearization, LinearizationBatch, squared_norms
from tl_jacobian.targets import Target, name_of, resolve_target

ScalarOutput = Callable[[Float[Tensor, " d_model"], Float[Tensor, " d_vocab"]], Tensor]


class Explained(NamedTuple):
    """What a scope explains: directions at the output, and words for them.

    Attributes:
        v: k directions; scores combine ||v_i^T J_t||^2 over them.
        target: the explained quantity in words.
        details: more of the same for the metadata.
    """

    v: Float[Tensor, "k d_model"]
    target: str
    details: dict[str, Any]


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
    which explains why the model prefers one token to the other.

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
    >>> tj.semantic_scope(lin, " Paris").top(1)[0].text
    ' France'
    """
    return _apply(lin, "semantic", lambda one: _semantic(one, target, minus))


def _semantic(lin: Linearization, target: Target | None, minus: Target | None) -> Explained:
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
    return Explained(v[None], words, {**details, "value": value.item(), "score": "logits per unit of embedding norm"})


@overload
def temperature_scope(
    lin: Linearization, *, confidence: Literal["hidden_norm", "logit_norm"] = "hidden_norm"
) -> Attribution: ...
@overload
def temperature_scope(
    lin: LinearizationBatch, *, confidence: Literal["hidden_norm", "logit_norm"] = "hidden_norm"
) -> list[Attribution]: ...
def temperature_scope(
    lin: Linearization | LinearizationBatch, *, confidence: Literal["hidden_norm", "logit_norm"] = "hidden_norm"
) -> Attribution | list[Attribution]:
    """Temperature Scope: which tokens drive the model's confidence (eq. 7).

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
    if confidence == "logit_norm":
        return _apply(lin, "temperature", lambda one: _explain_output(one, _logit_norm, "confidence: norm of the centred logits"))
    if confidence != "hidden_norm":
        raise ValueError(f'confidence={confidence!r}, expected "hidden_norm" or "logit_norm"')
    return _apply(lin, "temperature", _temperature)


def _temperature(lin: Linearization) -> Explained:
    if lin.bare_norm:
        raise DegenerateScopeError(
            f"||y|| = {lin.y.norm().item():.4g} for every input: this model's final norm has no gain or bias, "
            "most likely because it was folded into the unembedding, so the gradient of ||y|| is rounding noise. "
            'Either pass the original norm, linearize(model, prompt, final_norm="original") or '
            "final_norm=hf_model.model.norm; or ask for the confidence that folding doesn't change, "
            'temperature_scope(lin, confidence="logit_norm"); or load the model unfolded: '
            "HookedTransformer.from_pretrained_no_processing(...), or a TransformerBridge without compatibility mode"
        )
    norm = lin.y.norm()
    details = {"value": norm.item(), "score": "change of ||y|| per unit of embedding norm"}
    return Explained((lin.y / norm)[None], "confidence: effective inverse temperature ||y||", details)


def _logit_norm(y: Tensor, logits: Tensor) -> Tensor:
    return (logits - logits.mean()).norm()


@overload
def fisher_scope(
    lin: Linearization, *, method: Literal["auto", "exact", "low_rank"] = "auto", rank: int | None = None
) -> Attribution: ...
@overload
def fisher_scope(
    lin: LinearizationBatch, *, method: Literal["auto", "exact", "low_rank"] = "auto", rank: int | None = None
) -> list[Attribution]: ...
def fisher_scope(
    lin: Linearization | LinearizationBatch,
    *,
    method: Literal["auto", "exact", "low_rank"] = "auto",
    rank: int | None = None,
) -> Attribution | list[Attribution]:
    """Fisher Scope: which tokens drive the whole predicted distribution (eq. 4 to 6).

    The score is tr(J_t^T F J_t), twice the KL divergence that a unit perturbation of the
    token's embedding causes, summed over all directions. With F = sum of lambda_i u_i u_i^T
    that is the sum of lambda_i ||u_i^T J_t||^2: one vector-Jacobian product an eigenvector.

    Args:
        lin: a linearization, or a batch of them.
        method: ``"exact"`` takes all d_model eigenvectors; ``"low_rank"`` the ``rank`` leading
            ones, a lower bound; ``"auto"`` is exact.
        rank: for ``"low_rank"``; default 1, the direction u_1 of the paper's later version
            (scores there are ||u_1^T J_t||, here their square times lambda_1).

    Returns:
        Scores in nats per squared unit of embedding norm (times two).

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> a = tj.fisher_scope(lin, method="low_rank", rank=4)
    >>> a.metadata["n_products"]
    4
    """
    if method not in ("auto", "exact", "low_rank"):
        raise ValueError(f'method={method!r}, expected "auto", "exact" or "low_rank"')
    if method != "low_rank":
        if rank is not None:
            raise ValueError(f'rank={rank} is for method="low_rank", not for method={method!r}')
        return _apply(lin, "fisher", lambda one: _fisher(one, "exact", one.d_model), combine="sum")
    return _apply(lin, "fisher", lambda one: _fisher(one, "low_rank", 1 if rank is None else rank), combine="sum")


def _fisher(lin: Linearization, method: str, rank: int) -> Explained:
    if not 1 <= rank <= lin.d_model:
        raise ValueError(f"rank={rank}, expected 1 to d_model={lin.d_model}")
    fisher = fisher_matrix(lin.unembedding, lin.logits)
    pairs = eigenpairs(fisher, rank)
    details = {
        "method": method,
        "n_products": rank,
        "explained_trace": (pairs.values.sum() / fisher.trace().clamp(min=1e-30)).item(),
        "score": "nats (twice the KL divergence) per squared unit of embedding norm",
    }
    words = "predicted distribution" if method == "exact" else f"predicted distribution, rank {rank} of its Fisher"
    return Explained(pairs.scaled(), words, details)


@overload
def direction_scope(lin: Linearization, v: Float[Tensor, " d_model"]) -> Attribution: ...
@overload
def direction_scope(lin: LinearizationBatch, v: Float[Tensor, " d_model"]) -> list[Attribution]: ...
def direction_scope(
    lin: Linearization | LinearizationBatch, v: Float[Tensor, " d_model"]
) -> Attribution | list[Attribution]:
    """Which tokens move the final hidden state along any direction v (eq. 1).

    Raises:
        DirectionError: v has the wrong shape or device, or isn't finite.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> len(tj.direction_scope(lin, lin.y))
    5
    """
    return _apply(lin, "direction", lambda one: _direction(one, v))


def _direction(lin: Linearization, v: Float[Tensor, " d_model"]) -> Explained:
    lin.check_direction(v)
    details = {"value": (v.to(lin.y.dtype) @ lin.y).item(), "score": "change of v.y per unit of embedding norm"}
    return Explained(v.detach().to(lin.y.dtype)[None], "v.y for the direction v given", details)


@overload
def output_scope(lin: Linearization, fn: ScalarOutput, *, name: str | None = None) -> Attribution: ...
@overload
def output_scope(lin: LinearizationBatch, fn: ScalarOutput, *, name: str | None = None) -> list[Attribution]: ...
def output_scope(
    lin: Linearization | LinearizationBatch, fn: ScalarOutput, *, name: str | None = None
) -> Attribution | list[Attribution]:
    """Which tokens drive any scalar of the final hidden state and the logits.

    v is the gradient of the scalar in y, through bias and soft-cap.

    Args:
        lin: a linearization, or a batch of them.
        fn: ``fn(y, logits) -> scalar tensor``, differentiable: a log-probability, the entropy,
            the activation of a sparse-autoencoder feature.
        name: what to call it; default: the function's name.

    Raises:
        DirectionError: fn doesn't give one finite number that depends on y or the logits.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> tj.output_scope(lin, lambda y, z: z.log_softmax(-1)[7042], name="log p(Paris)").target
    'log p(Paris)'
    """
    label = name or getattr(fn, "__name__", type(fn).__name__)
    return _apply(lin, "output", lambda one: _explain_output(one, fn, label))


def _explain_output(lin: Linearization, fn: ScalarOutput, label: str) -> Explained:
    with torch.inference_mode(False), torch.enable_grad():
        y = lin.y.clone().requires_grad_()
        value = fn(y, lin.unembedding.logits(y))
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise DirectionError(f"fn(y, logits) gave {got}, expected a tensor with one number")
        if not value.requires_grad:
            raise DirectionError(
                "fn(y, logits) gave a number without a gradient; compute it from y or logits with torch operations"
            )
        (v,) = torch.autograd.grad(value.reshape(()), y)
    lin.check_direction(v)
    return Explained(v[None], label, {"value": value.item(), "score": f"change of {label} per unit of embedding norm"})


# -- from directions to attributions ---------------------------------------------------


def _apply(
    lin: Linearization | LinearizationBatch,
    scope: str,
    explain: Callable[[Linearization], Explained],
    combine: Combine = "root_sum_squares",
) -> Any:
    """Choose directions, pull them back, aggregate: all scopes end here."""
    members = [lin] if isinstance(lin, Linearization) else list(lin)
    explained = [explain(one) for one in members]
    squares = squared_norms(members, torch.stack([e.v for e in explained], dim=1))
    made = [
        _attribution(one, scope, e, s.sqrt() if combine == "root_sum_squares" else s, combine)
        for one, e, s in zip(members, explained, squares, strict=True)
    ]
    return made[0] if isinstance(lin, Linearization) else made


def _attribution(
    lin: Linearization, scope: str, explained: Explained, scores: Float[Tensor, " pos"], combine: Combine
) -> Attribution:
    return Attribution(
        scores=scores.float(),
        scope=scope,
        tokens=tuple(lin.tokens.tolist()),
        str_tokens=lin.str_tokens,
        position=lin.position,
        target=explained.target,
        combine=combine,
        word_groups=lin.words,
        predictions=predictions(lin),
        metadata={
            "features": "token embeddings at hook_embed, positions 0 to the explained one",
            "held_fixed": "weights, positional embeddings, token ids; nothing else (attention moves freely)",
            **explained.details,
            **lin.facts,
            "seed": None,
        },
    )


def predictions(lin: Linearization, k: int = 10) -> tuple[Prediction, ...]:
    """The k most probable next tokens."""
    top = lin.probs.topk(min(k, len(lin.probs)))
    rows = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return tuple(Prediction(token, lin.decode(token), p) for token, p in rows)


