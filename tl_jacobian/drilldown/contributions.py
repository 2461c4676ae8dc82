"""Per-layer residual contributions: what each component wrote at the explained position, read along v.

y is the final norm of the residual stream h, and h is a sum: the embeddings plus what every attention
and MLP layer wrote. At the scale that the norm had, y is linear in h, so v^T y splits exactly
(direct logit attribution, for any v).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.contributions import Contributions
from tl_jacobian.drilldown.heads import head_parts
from tl_jacobian.drilldown.parts import stream_of
from tl_jacobian.linearization import Linearization
from tl_jacobian.precision import exact
from tl_jacobian.scopes.apply import Explained
from tl_jacobian.scopes.choose import Direction, explain, only_direction


def residual_contributions(lin: Linearization, scope: Direction = "semantic", **options: Any) -> Contributions:
    """What each component wrote at the explained position: v^T y (or the target's logit), split exactly.

    Args:
        lin: made with ``linearize(..., record=True)``; ``record="components"`` leaves out the heads,
            ``["components", "heads"]`` their source tokens. With ``output_hook="blocks.L.hook_resid_post"``
            (or _pre, _mid) the activation there is split, and no norm comes in.
        scope: ``"semantic"``, ``"temperature"``, ``"fisher"`` (its leading eigenvector), ``"output"`` with
            ``fn=``, or a direction v in y.
        options: of the scope: ``target``, ``minus``, ...

    Returns:
        Parts ``"embed"``, ``"pos_embed"``, ``"0.attn"``, ``"0.mlp"``, ..., ``"final norm bias"``, ``"unembedding
        bias"``, ``"soft-cap"`` (what the cap takes off beyond its slope) and ``"unattributed"``: rounding, and what
        hooks of yours wrote into the residual stream. ``heads`` splits each attention layer into its heads and
        biases (rows sum to the layer's part), ``sources`` each head into the tokens it read from; layers where
        they don't add up to what was written (a hook of yours on it, gated attention) are left out of them.

    Raises:
        HookPointError: components weren't recorded; or the linearization's ends aren't the residual stream.
        ArgumentError: the scope explains several directions.
        UnsupportedModelError: the final norm isn't a LayerNorm or RMSNorm.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is", record=True)
    >>> c = tj.residual_contributions(lin, target=" Paris")
    >>> abs(c.values.sum().item() - lin.logits[7042].item()) < 1e-3, c.names[:3]
    (True, ('embed', '0.attn', '0.mlp'))
    """
    explained = explain(lin, scope, options)
    v = exact(only_direction(explained, "contributions"))
    stream = stream_of(lin)
    u = stream.norm.pull(v)  # v as the residual stream sees it
    parts = {name: (u @ part).item() for name, part in stream.parts.items()}
    total = (v @ lin.y.to(v)).item()
    if stream.norm.bias.any():
        parts["final norm bias"] = (v @ stream.norm.bias).item()
    total += sum((constants := _constants(lin, explained, v)).values())
    parts |= constants
    parts["unattributed"] = total - sum(parts.values())
    target = _named(explained, total)
    heads, sources = head_parts(lin, stream, u, target)
    return Contributions(
        names=tuple(parts),
        values=torch.tensor(list(parts.values()), dtype=torch.float64),
        total=total,
        target=target,
        heads=heads,
        sources=sources,
        metadata={"position": lin.position, "norm_scale": stream.norm.scale, **explained.details, **lin.facts},
    )


def _named(explained: Explained, total: float) -> str:
    """What was split. A quantity that isn't linear in y has a gradient v, and v.y is another number."""
    value = explained.details.get("value")
    linear = value is not None and abs(value - total) <= 1e-3 * max(abs(value), abs(total), 1e-6)
    return explained.target if linear else f"v.y along the gradient of {explained.target}"


def _constants(lin: Linearization, explained: Explained, v: Float[Tensor, " d_model"]) -> dict[str, float]:
    """What lies between v^T y and the target logit: the unembedding's bias, and what its soft-cap bends."""
    token, other = (explained.details.get(name) for name in ("target_token", "minus_token"))
    if token is None:
        return {}
    uncapped = dataclasses.replace(lin.head, soft_cap=None).logits(torch.zeros_like(lin.y))
    slope = lin.head.slope(lin.logits)
    bias = (slope[token] * uncapped[token]).item() - (0.0 if other is None else (slope[other] * uncapped[other]).item())
    found = {"unembedding bias": bias} if bias else {}
    if lin.head.soft_cap is not None:
        found["soft-cap"] = explained.details["value"] - (v @ lin.y.to(v)).item() - bias
    return found
