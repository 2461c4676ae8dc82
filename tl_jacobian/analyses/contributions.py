"""Per-layer residual contributions: what each component wrote at the explained position, read along v.

y is the final norm of the residual stream h, and h is a sum: the embeddings plus what every attention
and MLP layer wrote. At the scale that the norm had, y is linear in h, so v^T y splits exactly
(direct logit attribution, for any v): into components, an attention layer's part into heads, and a
head's by the token that it read from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.analyses.scopes.apply import Explained
from tl_jacobian.analyses.scopes.choose import Scope, choose_direction, only_direction
from tl_jacobian.analyses.scopes.simple import ScalarOutput
from tl_jacobian.core.hooks import (
    ATTN_OUT,
    EMBED,
    PATTERN,
    POS_EMBED,
    RESID_MID,
    RESID_POST,
    RESID_PRE,
    WRITERS,
    V,
    Z,
    in_block,
    parsed,
)
from tl_jacobian.core.linearization import Linearization
from tl_jacobian.core.norms import FrozenNorm, NormAffine, freeze
from tl_jacobian.core.prompts import Target
from tl_jacobian.core.unembedding import exact
from tl_jacobian.errors import HookPointError, UnsupportedModelError
from tl_jacobian.results.arguments import checked
from tl_jacobian.results.contributions import Contributions
from tl_jacobian.results.grid import Grid
from tl_jacobian.results.scopes import Confidence

# Within a block: where the stream is cut, and who writes after that.
_CUTS = {RESID_PRE: 0, RESID_MID: 1, RESID_POST: 2}


@dataclass(frozen=True, eq=False)
class Stream:
    """What the explained activation is made of.

    Attributes:
        parts: by name, what each component added to the stream at the explained position, as it stands there now;
            float64.
        hooks: of those that have one, their hook point.
        scales: of those, what the model multiplies by on the way from there (1 in most models).
        total: the residual stream there.
        norm: from there to y, at the scale it had.
    """

    parts: dict[str, Float[Tensor, " d_model"]]
    hooks: dict[str, str]
    scales: dict[str, float]
    total: Float[Tensor, " d_model"]
    norm: FrozenNorm


class Segment(NamedTuple):
    """A block, or the part of it that lies between the two ends.

    Attributes:
        layer: which.
        writers: hook points of what it writes.
        before, after: the residual stream where it begins and ends; None where that wasn't seen.
    """

    layer: int
    writers: list[str]
    before: Tensor | None
    after: Tensor | None


def stream_of(lin: Linearization) -> Stream:
    """Take the residual stream at y apart.

    Raises:
        HookPointError: components weren't recorded, or the input or output isn't the residual stream.
        UnsupportedModelError: the final norm isn't one, or a block does more than add its components to the stream.
    """
    start, stop = _edge(lin.input_hook, first=True), _edge(lin.output_hook, first=False)
    y = lin.graph.y.detach()[lin.row]
    total = exact(lin.resid if lin.output_hook is None and lin.resid is not None else y)
    between = _between(lin, start, stop)
    parts = _start(lin, between)
    if any(part.shape != total.shape for part in parts.values()):
        raise UnsupportedModelError(
            f"the residual stream has {len(next(iter(parts.values())))} features where it begins and {len(total)} at "
            "the end: a projection stands between, so y isn't a sum of what components wrote; take layer_influence"
        )
    affine = None if lin.output_hook or lin.anatomy is None else lin.anatomy.final_norm()
    norm = freeze(total, y, affine, "the final norm")
    hooks: dict[str, str] = {}
    scales: dict[str, float] = {}
    for segment in _segments(lin, start, stop, sum(parts.values()), between, total):
        recorded = [tap for tap in segment.writers if tap in lin.taps]
        values = {_name(tap): exact(lin.taps[tap][lin.position]) for tap in recorded}
        kept, factors = _coefficients(lin, segment, list(values.values()))
        parts = {name: kept * part for name, part in parts.items()} if kept != 1 else parts
        scales = {name: kept * scale for name, scale in scales.items()}
        for (name, value), tap, factor in zip(values.items(), recorded, factors, strict=True):
            parts[name] = value if factor == 1 else factor * value
            hooks[name], scales[name] = tap, factor
    return Stream(parts, hooks, scales, total, norm)


def _edge(hook: str | None, *, first: bool) -> tuple[int, int]:
    """Where the stream is cut, as (layer, how many of its writers come before)."""
    if hook == (EMBED if first else None):
        return (-1, 0) if first else (10**9, 0)
    layer, path = parsed(str(hook))
    if layer is not None and path in _CUTS:
        return layer, _CUTS[path]
    raise HookPointError(
        f"{hook} isn't the residual stream, so it isn't a sum of what components wrote: expected "
        f"{'hook_embed or ' if first else ''}blocks.L.hook_resid_pre, _mid or _post"
    )


def _between(lin: Linearization, start: tuple[int, int], stop: tuple[int, int]) -> dict[int, Tensor]:
    """The residual stream before each block, at the explained position; none where not every block was seen once."""
    n_layers = lin.anatomy.n_layers if lin.anatomy is not None else 0
    layers = range(start[0] + 1, min(stop[0] + 1, n_layers))
    if len(lin.graph.between) != len(layers) or any(h.ndim != 3 for h in lin.graph.between):
        return {}
    seen = (exact(h[lin.prompt_row, lin.position]) for h in lin.graph.between)
    return dict(zip(layers, seen, strict=True))


def _start(lin: Linearization, between: dict[int, Tensor]) -> dict[str, Tensor]:
    """What the stream is before anything is written: x, and positional embeddings that are added to it.

    A model may also scale, normalise or project its embeddings on their way to the first block. "embed" is then what
    arrives there, less the positional embeddings.
    """
    x = exact(lin.graph.x.detach()[lin.prompt_row, lin.position])
    if lin.input_hook != EMBED:
        return {lin.input_hook: x}
    first = between.get(0)
    positions = {}
    if POS_EMBED in lin.taps and lin.taps[POS_EMBED].ndim == 2:
        value = exact(lin.taps[POS_EMBED][lin.position])
        if first is None or value.shape == first.shape:
            positions["pos_embed"] = value
    if first is not None:
        arrived = first - sum(positions.values())
        x = x if x.shape == arrived.shape and _is_rounding(lin, arrived - x, [first, x]) else arrived
    return {"embed": x, **positions}


def _segments(
    lin: Linearization,
    start: tuple[int, int],
    stop: tuple[int, int],
    first: Tensor | float,
    between: dict[int, Tensor],
    total: Tensor,
) -> Iterator[Segment]:
    """The blocks from one end to the other."""
    n_layers = lin.anatomy.n_layers if lin.anatomy is not None else 0
    layers = range(max(start[0], 0), min(stop[0] + 1, n_layers))
    for layer in layers:
        assert lin.anatomy is not None
        names = [n for n in lin.anatomy.writers(layer) if start <= (layer, WRITERS[parsed(n).path]) < stop]
        if not names and (layer == start[0] or layer == stop[0]):
            continue  # nothing of it lies between the ends
        begins = layer == layers[0] and isinstance(first, Tensor) and (start[0] >= 0 or 0 in between)
        after = between.get(layer + 1)
        if after is None and bool(between or n_layers == 1) and _is_last(layer, stop, n_layers):
            after = total
        yield Segment(layer, names, first if begins else between.get(layer), after)  # type: ignore[arg-type]


def _is_last(layer: int, stop: tuple[int, int], n_layers: int) -> bool:
    """Whether nothing is written after that block's part."""
    return layer == min(stop[0], n_layers - 1) or (layer == stop[0] - 1 and stop[1] == 0)


def _coefficients(lin: Linearization, segment: Segment, values: list[Tensor]) -> tuple[float, list[float]]:
    """What a block multiplies the stream by, and each of the things that it adds: ``after = c before + sum k_i w_i``.

    In most models all of them are one, which is tried first. Others are measured (Granite's residual_multiplier,
    Gemma's layer_scalar, Falcon-H1's out_multipliers).
    """
    plain = 1.0, [1.0] * len(values)
    before, after = segment.before, segment.after
    off = None
    if before is not None and after is not None:
        rest = after - before - sum(values)
        if _is_rounding(lin, rest, [after, before, *values]):
            return plain
        off = (rest.norm() / (after - before).norm()).item()
        terms = torch.stack([before, *values], dim=1)
        found = torch.linalg.lstsq(terms, after[:, None], driver="gelsd").solution[:, 0]
        if values and _is_rounding(lin, after - terms @ found, [after, *(found * terms).T]):
            kept, *factors = (1.0 if abs(k - 1) < 1e-6 else k for k in found.tolist())
            return kept, factors
    if missing := [tap for tap in segment.writers if tap not in lin.taps]:
        raise HookPointError(
            f"{missing[0]} wasn't recorded, so the parts wouldn't add up: call linearize(model, prompt, "
            'record=["components"]), or record=True'
        )
    if off is not None and not lin.hooked:
        names = ", ".join(segment.writers) or "no component that has a hook point"
        raise UnsupportedModelError(
            f"block {segment.layer} does something else to the residual stream than to add what its components write "
            f"({names}): {off:.0%} of what it changes isn't that. It may normalise the stream (post-norm models) or "
            "write into it without a hook point, so parts wouldn't add up; take layer_influence, which needs no sum"
        )
    return plain


# Each number of the stream is rounded to the model's precision, a few times on its way through a block; norms and some
# attention work in float32 whatever the precision.
_ROUNDINGS = 8


def _is_rounding(lin: Linearization, difference: Tensor, terms: Sequence[Tensor]) -> bool:
    """Whether a difference of such terms is what the model's precision leaves."""
    eps = max(torch.finfo(lin.graph.y.dtype).eps, torch.finfo(torch.float32).eps)
    return bool(difference.norm() <= _ROUNDINGS * eps * sum(term.norm() for term in terms))


def _name(tap: str) -> str:
    """``"blocks.3.hook_attn_out"`` as ``"3.attn"``, ``"blocks.3.mamba.hook_out"`` as ``"3.mamba"``."""
    layer, path = parsed(tap)
    return f"{layer}.{path.removeprefix('hook_').removesuffix('.hook_out').removesuffix('_out')}"


# Parts must give the whole again; gated attention, say, doesn't read values alone. bfloat16 models miss it by
# up to 1.5e-3, a fifth of its eps (tests/analyses/test_residual_contributions.py).
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
        i, path = parsed(hook)
        if i is not None and path == ATTN_OUT and in_block(i, Z) in lin.taps:
            found = _layer(lin, i, exact(lin.taps[hook][lin.position]), stream.scales[name] * u)
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
        combine="sum",
        regions=lin.regions,
    )
    return grid, sources


def _layer(
    lin: Linearization, layer: int, written: Float[Tensor, " d_model"], u: Float[Tensor, " d_model"]
) -> Layer | None:
    """u . written, by head: written = post-norm(sum over heads of z_h W_h + b_O), at the norm's actual scale.

    None where that isn't so.
    """
    assert lin.anatomy is not None
    projection = lin.anatomy.output_projection(layer)
    z = exact(lin.taps[in_block(layer, Z)][lin.position])
    if projection is None or projection.weight.shape[:2] != z.shape:
        return None
    weight, bias = exact(projection.weight), projection.bias
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
    if affine is None:
        if _is_rounding(lin, raw - written, [raw, written]):
            return freeze(raw, raw, None, "no norm")
        one = torch.ones_like(raw)  # a multiple of what the heads gave (Granite), whose size is measured
        affine = NormAffine(one, 0 * one)
    written = written.to(lin.graph.y.dtype)  # the tolerance is that of the model's own precision
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
    names = [in_block(layer, path) for path in (V, PATTERN)]
    if not all(name in lin.taps for name in names):
        return None
    values, pattern = (exact(lin.taps[name]) for name in names)
    if values.ndim != 3 or pattern.ndim != 3:
        return None
    values = values.repeat_interleave(len(read) // values.shape[1], dim=1)
    parts = pattern[:, lin.position] * torch.einsum("shi,hi->hs", values, read)
    return parts if _agree(lin, parts.sum(1), heads, parts) else None


@checked
def residual_contributions(
    lin: Linearization,
    scope: Scope = "semantic",
    *,
    target: Target | None = None,
    minus: Target | None = None,
    confidence: Confidence | None = None,
    rank: int | None = None,
    fn: ScalarOutput | None = None,
    v: Tensor | None = None,
    name: str | None = None,
) -> Contributions:
    """What each component wrote at the explained position: v^T y (or the target's logit), split exactly.

    Args:
        lin: made with ``linearize(..., record=True)``; ``record="components"`` leaves out the heads,
            ``["components", "heads"]`` their source tokens. With ``output_hook="blocks.L.hook_resid_post"``
            (or _pre, _mid) the activation there is split, and no norm comes in.
        scope: a scope's name (``"semantic"``, ``"temperature"``, ``"fisher"``, ``"output"`` with ``fn=``), a direction
            v in y, or a function ``fn(y, logits) -> scalar tensor``.
        target, minus: of Semantic Scope: a token, as text or id, and one to contrast it with.
        confidence: of Temperature Scope.
        rank: of Fisher Scope: 1, its leading eigenvector.
        fn, v, name: of ``"output"`` and ``"direction"``, and what to call the result.

    Returns:
        Parts ``"embed"``, ``"pos_embed"``, ``"0.attn"``, ``"0.mlp"``, ..., ``"final norm bias"``, ``"unembedding
        bias"``, ``"soft-cap"`` (what the cap takes off beyond its slope) and ``"unattributed"``: rounding, and what
        hooks of yours wrote into the residual stream. ``"embed"`` is what reaches the first block, less positional
        embeddings: scaled, normalised or projected where the model does that. Other mixers have parts too
        (``"0.mamba"``, ``"0.mixer"``), and each part is what arrives: where a model scales what it writes, or the
        stream itself, the factor is measured. ``heads`` splits each attention layer into its heads and
        biases (rows sum to the layer's part), ``sources`` each head into the tokens it read from; layers where
        they don't add up to what was written (a hook of yours on it, gated attention) are left out of them.

    Raises:
        HookPointError: components weren't recorded; or the linearization's ends aren't the residual stream.
        ArgumentError: the scope explains several directions.
        UnsupportedModelError: the final norm isn't a LayerNorm or RMSNorm; or the model does more than add to its
            residual stream (post-norm models), or writes into it where there is no hook point.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is", record=True)
    >>> c = tj.residual_contributions(lin, target=" Paris")
    >>> abs(c.values.sum().item() - lin.logits[7042].item()) < 1e-3, c.names[:3]
    (True, ('embed', '0.attn', '0.mlp'))
    """
    chosen = choose_direction(
        scope, target=target, minus=minus, confidence=confidence, rank=rank, fn=fn, v=v, name=name
    )
    explained = chosen.explain(lin)
    v = exact(only_direction(explained, "contributions"))
    stream = stream_of(lin)
    u = stream.norm.pull(v)  # v as the residual stream sees it
    parts = {name: (u @ part).item() for name, part in stream.parts.items()}
    total = (v @ lin.y.to(v)).item()
    if stream.norm.bias.any():
        parts["final norm bias"] = (v @ stream.norm.bias).item()
    total += sum((constants := _constants(lin, explained, v)).values())
    parts |= constants
    parts["unattributed"] = _unattributed(lin, stream, u, total - sum(parts.values()))
    target = _named(explained, total)
    heads, sources = head_parts(lin, stream, u, target)
    return Contributions(
        names=tuple(parts),
        values=torch.tensor(list(parts.values()), dtype=torch.float64),
        total=total,
        target=target,
        heads=heads,
        sources=sources,
        metadata={
            "position": lin.position,
            "norm_scale": stream.norm.scale,
            **explained.details,
            **lin.facts_without_rule,
        },
    )


def _unattributed(lin: Linearization, stream: Stream, u: Float[Tensor, " d_model"], rest: float) -> float:
    """What no part explains, if it is rounding or a hook of the caller may have written it.

    Raises:
        UnsupportedModelError: neither.
    """
    terms = [stream.total, *stream.parts.values()]
    if not lin.hooked and not _is_rounding(lin, torch.tensor(rest), [u.norm() * term.norm() for term in terms]):
        raise UnsupportedModelError(
            f"{rest:.3g} of what is explained belongs to no component that has a hook point: the model writes into its "
            "residual stream outside of its blocks, so parts wouldn't add up; take layer_influence, which needs no sum"
        )
    return rest


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
    uncapped = dataclasses.replace(lin.head, soft_cap=None, scale=1.0).logits(torch.zeros_like(lin.y))
    slope = lin.head.slope(lin.logits)
    bias = (slope[token] * uncapped[token]).item() - (0.0 if other is None else (slope[other] * uncapped[other]).item())
    found = {"unembedding bias": bias} if bias else {}
    if lin.head.soft_cap is not None:
        found["soft-cap"] = explained.details["value"] - (v @ lin.y.to(v)).item() - bias
    return found
