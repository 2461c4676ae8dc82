"""From token ids to linearizations: plan the memory, run the model, check what it gave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.contract import check_contract
from tl_jacobian.errors import ArgumentError, UnsupportedModelError
from tl_jacobian.final_norm import NormAffine, is_bare
from tl_jacobian.graph import Graph
from tl_jacobian.host.base import Host, Trace, Watch
from tl_jacobian.linearization import Linearization
from tl_jacobian.linearization_batch import LinearizationBatch
from tl_jacobian.memory import plan
from tl_jacobian.modes import forgetting, recording
from tl_jacobian.precision import precise
from tl_jacobian.prompts import Read
from tl_jacobian.taps import Taps
from tl_jacobian.tokens import group_words
from tl_jacobian.unembedding import Unembedding
from tl_jacobian.versions import versions


@dataclass(frozen=True, eq=False)
class HostRerun:
    """A :class:`~tl_jacobian.rerun.Rerun` of one prompt, as it was linearised."""

    host: Host
    tokens: list[int]
    watch: Watch
    affine: NormAffine | None
    budget: int | None

    def linearized(self, values: Float[Tensor, "n pos d_in"]) -> LinearizationBatch:
        watch = replace(self.watch, value=values, taps=())
        reads = [Read(self.tokens, [len(self.tokens) - 1])] * len(values)
        with recording():
            return LinearizationBatch(build(self.host, reads, watch, self.affine, self.budget))

    def logits(self, values: Float[Tensor, "n pos d_in"]) -> Float[Tensor, "n d_vocab"]:
        n, last = len(values), len(self.tokens) - 1
        with forgetting():
            tokens, rows = torch.tensor([self.tokens] * n), torch.arange(n)
            watch = replace(self._bare, value=values)
            return precise(self.host.forward(tokens, rows, torch.full((n,), last), watch).logits)

    def prompts(self, tokens: Sequence[Sequence[int]]) -> Float[Tensor, "n d_vocab"]:
        if self.watch.value is not None:
            raise ArgumentError("this prompt ran with input_value=, which fits no other tokens; linearize without it")
        padded, lasts = _padded(tokens), torch.tensor([len(ids) - 1 for ids in tokens])
        with forgetting():
            return precise(self.host.forward(padded, torch.arange(len(tokens)), lasts, self._bare).logits)

    @property
    def _bare(self) -> Watch:
        return Watch(self.watch.source)


def build(
    host: Host, prompts: Sequence[Read], watch: Watch, affine: NormAffine | None, budget: int | None
) -> tuple[Linearization, ...]:
    """One right-padded forward pass; a causal model never sees the padding, so it needs no mask."""
    padded = _padded([p.tokens for p in prompts])
    places = [(row, at) for row, p in enumerate(prompts) for at in p.positions]
    head = host.unembedding()
    footprint = partial(host.footprint, len(prompts), n_outputs=len(places), taps=watch.taps)
    n_pos = padded.shape[1]
    use = plan(footprint, len(prompts), n_pos, budget, host.available_memory())
    trace = host.forward(padded, *torch.tensor(places).T, watch=watch, recompute=use.recompute)
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
        facts=_facts(host, bare, affine is not None, use.recompute),
        weights_version=head.version,
    )
    texts = [host.token_texts(p.tokens) for p in prompts]
    return tuple(
        _member(
            host,
            partial(make, rerun=HostRerun(host, prompts[row].tokens[: at + 1], watch, affine, budget)),
            prompts[row].tokens[: at + 1],
            texts[row][: at + 1],
            i,
            graph,
            trace,
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
        taps=Taps(trace.taps, graph.rows[row], len(prompt)),
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
    head = Unembedding(head.weight, head.bias, head.soft_cap, gain.detach(), shift.detach())
    y = y * gain + shift
    still_bare = bool((affine.gain == affine.gain[0]).all() and (affine.bias == 0).all())
    return y, head, still_bare


def _facts(host: Host, bare: bool, given: bool, recompute: bool) -> dict[str, Any]:
    norm = "given by the caller" if given else "none, or folded into the unembedding" if bare else "the model's own"
    activations = "computed again in each backward pass" if recompute else "kept from the forward pass"
    return {**host.facts(), "final_norm": norm, "activations": activations, "versions": versions()}


def _padded(prompts: Sequence[Sequence[int]]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in prompts], batch_first=True)
