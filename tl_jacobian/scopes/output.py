"""Direction and Output Scope: any direction, any scalar of the output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.attribution import Attribution
from tl_jacobian.errors import ArgumentError, DirectionError
from tl_jacobian.linearization import Linearization
from tl_jacobian.linearization_batch import LinearizationBatch
from tl_jacobian.modes import recording
from tl_jacobian.scopes.apply import Explained, apply

ScalarOutput = Callable[[Float[Tensor, " d_model"], Any], Tensor]


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
    return apply(lin, "direction", lambda one: explain_direction(one, v))


def explain_direction(lin: Linearization, v: Float[Tensor, " d_model"]) -> Explained:
    lin.check_direction(v)
    details = {"value": (v.to(lin.y.dtype) @ lin.y).item(), "score": f"change of v.y per unit of {lin.per}"}
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
            the activation of a sparse-autoencoder feature. Where y is the activation at another
            ``output_hook``, logits is None.
        name: what to call it; default: the function's name.

    Raises:
        DirectionError: fn doesn't give one finite number that depends on y or the logits.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> tj.output_scope(lin, lambda y, z: z.log_softmax(-1)[7042], name="log p(Paris)").target
    'log p(Paris)'
    """
    label = name or getattr(fn, "__name__", type(fn).__name__)
    return apply(lin, "output", lambda one: explain_output(one, fn, label))


def explain_output(lin: Linearization, fn: ScalarOutput, label: str, call: str = "fn(y, logits)") -> Explained:
    """The gradient of ``fn`` in y; ``call`` is what the caller knows it as."""
    if not callable(fn):
        raise ArgumentError(f"fn={fn!r} can't be called, expected a function fn(y, logits) -> scalar tensor")
    with recording():
        y = lin.y.clone().requires_grad_()
        value = _called(lin, fn, y, call)
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            hint = "; leave out .item()" if isinstance(value, (int, float)) else ""
            raise DirectionError(f"{call} gave {got}, expected a tensor with one number{hint}")
        if not value.requires_grad:
            raise DirectionError(
                f"{call} gave a number without a gradient; compute it from its arguments with torch operations"
            )
        (v,) = torch.autograd.grad(value.reshape(()), y)
    lin.check_direction(v)
    return Explained(v[None], label, {"value": value.item(), "score": f"change of {label} per unit of {lin.per}"})


def _called(lin: Linearization, fn: ScalarOutput, y: Tensor, call: str) -> Any:
    """What ``fn`` makes of y and the logits; of y alone where y isn't unembedded."""
    if lin.output_hook is None:
        return fn(y, lin.unembedding.logits(y))
    try:
        return fn(y, None)
    except (TypeError, AttributeError) as error:
        raise ArgumentError(
            f"{call} failed with logits=None ({error}): {lin.output_hook} isn't unembedded, so make it of y alone"
        ) from error
