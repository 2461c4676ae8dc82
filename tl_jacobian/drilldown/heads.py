"""An attention layer's contribution by head, and a head's by the token it read from."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.drilldown.parts import Stream
from tl_jacobian.errors import UnsupportedModelError
from tl_jacobian.frozen_norm import FrozenNorm, freeze
from tl_jacobian.grid import Grid
from tl_jacobian.linearization import Linearization
from tl_jacobian.precision import exact

# Parts must give the whole again; gated attention, say, doesn't read values alone. bfloat16 models miss it by
# up to 1.5e-3, a fifth of its eps (tests/unit/drilldown/test_residual_contributions.py).
_TOLERANCE = 1e-3


class Layer(NamedTuple):
    """One attention layer's contributions.

    Attributes:
        heads: of each head, then of the layer's biases.
        sources: of each head by source token; None where values and patterns weren't recorded or don't tell.
    """

    heads: Float[Tensor, " heads_and_bias"]
    sources: Float[Tensor, "heads pos"] | None


def head_parts(
    lin: Linearization, stream: Stream, u: Float[Tensor, " d_model"], target: str
) -> tuple[Grid | None, Grid | None]:
    """Layers x heads, and heads x source tokens; None where hook_z, or hook_v and hook_pattern, weren't recorded.

    Layers whose heads don't give what was written are left out: a hook rewrote it, or attention is of another kind.
    """
    layers = {}
    for name, hook in stream.hooks.items():
        i = int(name.split(".")[0])
        if hook.endswith("hook_attn_out") and f"blocks.{i}.attn.hook_z" in lin.taps:
            found = _layer(lin, i, stream.parts[name], u)
            layers |= {i: found} if found is not None else {}
    if not layers:
        return None, None
    quantity = f"contribution to {target}"
    heads = torch.stack([layer.heads for layer in layers.values()])
    n_heads = heads.shape[1] - 1
    grid = Grid(
        values=heads.float(),
        rows=tuple(map(str, layers)),
        columns=(*(f"H{h}" for h in range(n_heads)), "bias"),
        title=f"what each head wrote: {target}",
        quantity=quantity,
        row_axis="layer",
        column_axis="head",
        signed=True,
    )
    by_source = {i: layer.sources for i, layer in layers.items() if layer.sources is not None}
    if not by_source:
        return grid, None
    sources = Grid(
        values=torch.cat(list(by_source.values())).float(),
        rows=tuple(f"L{i}H{h}" for i in by_source for h in range(n_heads)),
        columns=lin.str_tokens,
        title=f"which token each head read it from: {target}",
        quantity=quantity,
        row_axis="head",
        column_axis="token",
        signed=True,
        tokens=tuple(lin.tokens.tolist()),
    )
    return grid, sources


def _layer(
    lin: Linearization, layer: int, written: Float[Tensor, " d_model"], u: Float[Tensor, " d_model"]
) -> Layer | None:
    """u . written, by head: written = post-norm(sum over heads of z_h W_h + b_O), at the norm's actual scale.

    None where that isn't so.
    """
    assert lin.anatomy is not None
    weight, bias = lin.anatomy.output_projection(layer)
    z = exact(lin.taps[f"blocks.{layer}.attn.hook_z"][lin.position])
    weight = exact(weight)
    bias = torch.zeros_like(u) if bias is None else bias.to(u)
    each = torch.einsum("hi,hio->ho", z, weight)
    norm = _post_norm(lin, layer, each.sum(0) + bias, written)
    if norm is None or not _agree(lin, norm(each.sum(0) + bias) + norm.bias, written, norm(each)):
        return None
    back = norm.pull(u)
    read = torch.einsum("hio,o->hi", weight, back)  # u as each head's z sees it
    heads = (z * read).sum(-1)
    biases = back @ bias + u @ norm.bias
    return Layer(torch.cat([heads, biases[None]]), _sources(lin, layer, read, heads))


def _post_norm(lin: Linearization, layer: int, raw: Tensor, written: Tensor) -> FrozenNorm | None:
    """The norm at the scale that makes what was written of what the heads gave; None where none does."""
    assert lin.anatomy is not None
    affine = lin.anatomy.attention_post_norm(layer)
    if affine is not None:  # the tolerance is that of the model's own precision
        written = written.to(lin.graph.y.dtype)
    try:
        return freeze(raw, written, affine, f"the norm behind the attention of layer {layer}")
    except UnsupportedModelError:
        return None


def _agree(lin: Linearization, made: Tensor, whole: Tensor, parts: Tensor) -> bool:
    """Whether parts make the whole, up to the model's precision and what cancels among them."""
    allowed = max(_TOLERANCE, 4 * torch.finfo(lin.graph.y.dtype).eps)
    return bool((made - whole).norm() <= allowed * (whole.norm() + parts.norm()))


def _sources(
    lin: Linearization, layer: int, read: Float[Tensor, "heads d_head"], heads: Float[Tensor, " heads"]
) -> Tensor | None:
    """z_h = sum over tokens s of pattern[h, s] v[s, h]; several heads may share their values."""
    names = [f"blocks.{layer}.attn.hook_{name}" for name in ("v", "pattern")]
    if not all(name in lin.taps for name in names):
        return None
    values, pattern = (exact(lin.taps[name]) for name in names)
    if values.ndim != 3 or pattern.ndim != 3:
        return None
    values = values.repeat_interleave(len(read) // values.shape[1], dim=1)
    parts = pattern[:, lin.position] * torch.einsum("shi,hi->hs", values, read)
    return parts if _agree(lin, parts.sum(1), heads, parts) else None
