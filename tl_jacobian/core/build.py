"""From token ids to linearizations: plan the memory, run the model, check what it gave.

The contract between a host and everything above it is checked on every forward pass: unembedding y must give the
model's own logits; nothing a scope says would be true otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.core.graph import Graph, recording
from tl_jacobian.core.hooks import EMBED, Taps
from tl_jacobian.core.host.base import END_TO_END, Host, Trace, Watch
from tl_jacobian.core.linearization import Linearization, LinearizationBatch
from tl_jacobian.core.memory import plan
from tl_jacobian.core.norms import NormAffine, is_bare
from tl_jacobian.core.prompts import Read
from tl_jacobian.core.rerun import padded, run
from tl_jacobian.core.unembedding import Unembedding, precise
from tl_jacobian.errors import ArgumentError, ContractError, UnsupportedModelError
from tl_jacobian.results.tokens import group_words

_PACKAGES = ("tl_jacobian", "transformer-lens", "transformers", "torch")


def versions() -> dict[str, str]:
    """Installed versions, for an attribution's metadata.

    >>> sorted(versions())
    ['tl_jacobian', 'torch', 'transformer-lens', 'transformers']
    """
    return {name: _version(name) for name in _PACKAGES}


@cache  # reading a package's metadata takes longer than all the rest of an attribution's
def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


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
    allowed = _rounding(y[row], head.scale * head.weight[:, token], theirs[row, token])
    if error.max() > allowed:
        raise ContractError(
            f"unembedding y differs from the model's own logits by {error.max().item():.3g} (allowed: "
            f"{allowed:.3g}, at token id {token}); the model scales or rewrites its logits in a way "
            "tl_jacobian doesn't know, or a hook does: remove hooks on the unembedding, or report the architecture"
        )


def _independent(watch: Watch) -> str:
    if watch.source == EMBED and watch.output is None:
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


@dataclass(frozen=True, eq=False)
class Request:
    """What is wanted of a forward pass, whatever its prompts.

    Attributes:
        watch: the activations to record.
        affine: gain and bias of the final norm, where the caller knows better than the model.
        budget: bytes that it and the scopes of its results may take; None: most of what is available.
    """

    watch: Watch = END_TO_END
    affine: NormAffine | None = None
    budget: int | None = None


@dataclass(frozen=True, eq=False)
class HostRerun:
    """A :class:`~tl_jacobian.core.rerun.Rerun` of one prompt, as it was linearised."""

    host: Host
    tokens: list[int]
    request: Request

    def linearized(self, values: Float[Tensor, "n pos d_in"]) -> LinearizationBatch:
        watch = replace(self.request.watch, value=values, taps=())
        reads = [Read(self.tokens, [len(self.tokens) - 1])] * len(values)
        with recording():
            return LinearizationBatch(build(self.host, reads, replace(self.request, watch=watch)))

    def logits(self, values: Float[Tensor, "n pos d_in"]) -> Float[Tensor, "n d_vocab"]:
        watch = Watch(self.request.watch.source, value=values)
        return precise(run(self.host, [self.tokens] * len(values), watch).logits)

    def prompts(self, tokens: Sequence[Sequence[int]]) -> Float[Tensor, "n d_vocab"]:
        if self.request.watch.value is not None:
            raise ArgumentError("this prompt ran with input_value=, which fits no other tokens; linearize without it")
        return precise(run(self.host, tokens, Watch(self.request.watch.source)).logits)


def build(host: Host, prompts: Sequence[Read], request: Request) -> tuple[Linearization, ...]:
    """A linearization for each explained position of each prompt, from one forward pass."""
    watch, affine = request.watch, request.affine
    tokens = padded([p.tokens for p in prompts])
    places = [(row, at) for row, p in enumerate(prompts) for at in p.positions]
    head = host.unembedding()
    footprint = partial(host.footprint, len(prompts), n_outputs=len(places), taps=watch.taps)
    n_pos = tokens.shape[1]
    use = plan(footprint, len(prompts), n_pos, request.budget, host.available_memory())
    hooked = host.hooked()
    trace = host.forward(tokens, *torch.tensor(places).T, watch=watch, recompute=use.recompute)
    check_contract(trace, watch, head)
    if watch.output is None:  # a model over several devices may keep its unembedding elsewhere than its last block
        bare = trace.resid is not None and is_bare(trace.resid, trace.y)
        y, head, bare = _unfold(trace.y.to(head.weight.device), head, affine, bare)
    else:
        y, bare = trace.y, False
    direction = footprint(n_pos).direction
    graph = Graph(trace.x, y, direction, tuple(row for row, _ in places), trace.between, use.room, use.results)
    make = partial(
        Linearization,
        head=head,
        graph=graph,
        bare_norm=bare,
        input_hook=watch.source,
        output_hook=watch.output,
        anatomy=host.anatomy(affine),
        encode=host.encode,
        decode=lambda token: host.token_texts([token])[0],
        facts=_facts(host, bare, affine is not None, use.recompute) | _left_out(trace),
        weights_version=head.version,
        hooked=hooked,
    )
    texts = [host.token_texts(p.tokens) for p in prompts]
    points = host.hook_points() if watch.taps else ()
    return tuple(
        _member(
            host,
            partial(make, rerun=HostRerun(host, prompts[row].tokens[: at + 1], request)),
            prompts[row].tokens[: at + 1],
            texts[row][: at + 1],
            i,
            graph,
            trace,
            points,
        )
        for i, (row, at) in enumerate(places)
    )


def _member(
    host: Host,
    make: Callable[..., Linearization],
    prompt: list[int],
    texts: tuple[str, ...],
    row: int,
    graph: Graph,
    trace: Trace,
    points: tuple[str, ...],
) -> Linearization:
    """What belongs to one explained position of the forward pass."""
    return make(
        y=precise(graph.y[row].detach()),
        logits=precise(trace.logits[row]),
        tokens=torch.tensor(prompt),
        str_tokens=texts,
        words=group_words(texts, lambda a, b: host.decode(prompt[a:b])),
        row=row,
        resid=None if trace.resid is None else trace.resid[row],
        taps=Taps(trace.taps, graph.rows[row], len(prompt), trace.odd, points),
    )


def _unfold(y: Tensor, head: Unembedding, affine: NormAffine | None, bare: bool) -> tuple[Tensor, Unembedding, bool]:
    """y, its unembedding and whether ||y|| is constant, before the norm's gain and bias were folded away."""
    if affine is None:
        return y, head, bare
    if not bare:
        raise UnsupportedModelError(
            "final_norm is given, but this model still applies a final norm with a gain of its own: "
            "leave final_norm out, y is the paper's already"
        )
    gain, shift = affine.gain.to(y), affine.bias.to(y)
    head = replace(head, gain=gain.detach(), shift=shift.detach())
    y = y * gain + shift
    still_bare = bool((affine.gain == affine.gain[0]).all() and (affine.bias == 0).all())
    return y, head, still_bare


def _left_out(trace: Trace) -> dict[str, Any]:
    return {"not_recorded": sorted(trace.odd)} if trace.odd else {}


def _facts(host: Host, bare: bool, given: bool, recompute: bool) -> dict[str, Any]:
    norm = "given by the caller" if given else "none, or folded into the unembedding" if bare else "the model's own"
    activations = "computed again in each backward pass" if recompute else "kept from the forward pass"
    return {**host.facts(), "final_norm": norm, "activations": activations, "versions": versions()}
