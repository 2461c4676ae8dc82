"""The contract between a host and everything above it, checked on every forward pass.

Unembedding y must give the model's own logits; nothing a scope says would be true otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tl_jacobian.errors import ContractError
from tl_jacobian.host.base import Trace, Watch
from tl_jacobian.unembedding import Unembedding


def check_contract(trace: Trace, watch: Watch, head: Unembedding) -> None:
    """Raise ContractError unless y depends on x, everything is finite and ``head`` gives the model's logits."""
    if not trace.y.requires_grad:
        raise ContractError(_independent(watch))
    _check_finite(watch.output or "final hidden state", trace.y)
    _check_finite("logits", trace.logits)
    y = trace.final.to(head.weight.device)
    theirs = trace.logits.to(y.device)
    error = (head.logits(y) - theirs).abs()
    row, token = divmod(int(error.argmax()), head.d_vocab)
    allowed = _rounding(y[row], head.weight[:, token], theirs[row, token])
    if error.max() > allowed:
        raise ContractError(
            f"unembedding y differs from the model's own logits by {error.max().item():.3g} (allowed: "
            f"{allowed:.3g}, at token id {token}); the model scales or rewrites its logits in a way "
            "tl_jacobian doesn't know, or a hook does: remove hooks on the unembedding, or report the architecture"
        )


def _independent(watch: Watch) -> str:
    if watch.source == "hook_embed" and watch.output is None:
        return (
            "the final hidden state doesn't depend on the token embeddings: a hook (or the model) detaches the "
            "residual stream; remove it, see model.list_hooks()"
        )
    return (
        f"{watch.output or 'the final hidden state'} doesn't depend on {watch.source}: the output must come after the "
        "input, and no hook may detach the residual stream between them (see model.list_hooks())"
    )


def _check_finite(name: str, tensor: Tensor) -> None:
    if not tensor.isfinite().all():
        bad = int((~tensor.isfinite()).sum())
        raise ContractError(
            f"{bad} of {tensor.numel()} values of the {name} are not finite, so no gradient means anything; "
            "run the model in float32 or bfloat16, and look at its activations with run_with_cache"
        )


def _rounding(y: Tensor, w: Tensor, logit: Tensor) -> float:
    """How far two ways of computing one logit may lie apart.

    Each sums d_model products in an order of its own, in float32 or better, and rounds the
    result to the model's precision.
    """
    summed = _precision_of_sums(y) * float(y.norm().double() * w.norm().double())
    stored = torch.finfo(logit.dtype).eps * abs(float(logit))
    return 16 * summed + 4 * stored


def _precision_of_sums(y: Tensor) -> float:
    tf32 = y.is_cuda and torch.get_float32_matmul_precision() != "highest"  # the caller's choice
    if y.dtype != torch.float64 and tf32:
        return 2.0**-11
    return torch.finfo(torch.promote_types(y.dtype, torch.float32)).eps
