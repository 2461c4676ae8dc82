"""From token ids to linearizations: plan the memory, run the model, check what it gave.

The contract between a host and everything above it is checked on every forward pass: unembedding y must give the
model's own logits; nothing a scope says would be true otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.core.answer import AnswerLinearization
from tl_jacobian.core.chat import cut_off
from tl_jacobian.core.graph import Graph, recording
from tl_jacobian.core.hooks import EMBED, Taps
from tl_jacobian.core.host.base import END_TO_END, Host, Trace, Watch
from tl_jacobian.core.host.conditions import Conditions
from tl_jacobian.core.host.past import PAST_FAILS, Past
from tl_jacobian.core.host.weights import Weights
from tl_jacobian.core.linearization import Linearization, LinearizationBatch
from tl_jacobian.core.memory import Footprint, at_once, plan
from tl_jacobian.core.norms import NormAffine, is_bare
from tl_jacobian.core.prompts import Read
from tl_jacobian.core.rerun import Continue, padded, run
from tl_jacobian.core.sinks import attention_sinks, residual_norms
from tl_jacobian.core.unembedding import Unembedding, precise
from tl_jacobian.errors import ArgumentError, ContractError, MemoryBudgetError, UnsupportedModelError

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
    y = trace.final.to(head.weight.device)
    theirs = trace.logits.to(y.device)
    error = head.logits(y).sub_(theirs).abs_()
    row, token = divmod(int(error.argmax()), head.d_vocab)
    if not error[row, token].isfinite():
        _check_finite("logits", theirs)
    allowed = _rounding(y[row], head.scale * head.weight[:, token], theirs[row, token])
    if not error[row, token] <= allowed:  # NaN isn't
        raise ContractError(
            f"unembedding y differs from the model's own logits by {error[row, token].item():.3g} (allowed: "
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
    summed = _precision_of_sums(y) * (float(y.norm()) * float(w.norm()))
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
        notes: more of the metadata.
    """

    watch: Watch = END_TO_END
    affine: NormAffine | None = None
    budget: int | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


# Tokens of a prompt on which going on from keys and values gains something (benchmarks/shared_prefix.py).
_SHORT = 48


@dataclass(frozen=True, eq=False)
class HostRerun:
    """A :class:`~tl_jacobian.core.rerun.Rerun` of one prompt, or of a prompt and its answer, as it was linearised.

    Attributes:
        read: its tokens, and the explained positions: one, or those of an answer.
        weights, under: the weights that the model had, and hooks and modes, to which it returns.
        held: bytes of the budget that the linearization itself keeps.
    """

    host: Host
    read: Read
    request: Request
    weights: Weights
    under: Conditions
    held: int = 0

    @property
    def tokens(self) -> list[int]:
        return self.read.tokens

    def of_answer(self, positions: Sequence[int], answer: Sequence[int], start: int) -> HostRerun:
        return replace(self, read=self.read.at(positions)._replace(answer=tuple(answer), answer_start=start))

    def at(self, hook: str) -> HostRerun:
        if self.request.watch.value is not None:
            raise ArgumentError(f"this prompt ran with input_value=, so {hook} can't be replaced; linearize without it")
        return replace(self, request=replace(self.request, watch=replace(self.request.watch, source=hook)))

    def check(self, x: Float[Tensor, "pos d_in"], logits: Float[Tensor, "*answer d_vocab"]) -> None:
        self.weights.check()
        now = self.logits(x[None])[0].to(logits)
        if not _alike(now, logits, self.host.unembedding().weight.dtype):
            off = ((now - logits).norm() / logits.norm()).item()
            raise ContractError(
                f"the model gives other logits than in linearize() ({off:.1%} off), under the same hooks and the same "
                "embeddings: a hook depends on something that has changed since, such as a counter, a cache or random "
                "numbers, or autocast was switched; make it give the same each time, or call linearize() again"
            )

    def linearized(self, values: Float[Tensor, "n pos d_in"]) -> Iterator[LinearizationBatch[Any]]:
        for part in values.split(self._at_once(len(values), record=True)):
            watch, reads = replace(self.request.watch, value=part, taps=()), [self.read] * len(part)
            request = replace(self.request, watch=watch, budget=self._left)
            with recording():
                made = build(self.host, reads, request, self.weights, self.under)
            yield LinearizationBatch(answers(self.host, made, reads) if self.read.answer else made)

    def logits(self, values: Float[Tensor, "n pos d_in"]) -> Float[Tensor, "n *answer d_vocab"]:
        source, at = self.request.watch.source, self.read.positions
        parts = values.split(self._at_once(len(values)))
        runs = [run(self.host, [self.tokens] * len(v), Watch(source, value=v), at, self.under).logits for v in parts]
        return self._by_run(runs, len(values))

    def continued(self, x: Float[Tensor, "pos d_in"], logits: Float[Tensor, "*answer d_vocab"]) -> Continue:
        n, watch = len(self.tokens), Watch(self.request.watch.source, value=x[None])
        half = min(n // 2, min(self.read.positions))
        known = None if self.under.mix or half < _SHORT // 2 else self.host.past(self.tokens, watch, self.under)
        if known is not None:  # tried on what is known: a model may see its past in a way of its own
            try:
                now = self._after(known, half, x[None])[0].to(logits)
            except (MemoryBudgetError, *PAST_FAILS):
                known = None
            else:
                known = known if _alike(now, logits, self.host.unembedding().weight.dtype) else None

        def run_on(values: Float[Tensor, "n pos d_in"], start: int) -> Float[Tensor, "n *answer d_vocab"]:
            if known is None or not n // 8 < start <= min(self.read.positions):
                return self.logits(values)
            return self._after(known, start, values)

        return run_on

    def _after(
        self, known: Past, start: int, values: Float[Tensor, "n pos d_in"]
    ) -> Float[Tensor, "n *answer d_vocab"]:
        """Logits of runs that go on from the keys and values of what comes before."""
        past, source = known.before(start), self.request.watch.source
        at = [position - start for position in self.read.positions]
        runs = [
            run(self.host, [self.tokens[start:]] * len(v), Watch(source, value=v), at, self.under, past).logits
            for v in values[:, start:].split(self._at_once(len(values), each=2 * known.bytes))  # copied twice at most
        ]
        return self._by_run(runs, len(values))

    def prompts(self, tokens: Sequence[Sequence[int]]) -> Float[Tensor, "n *answer d_vocab"]:
        if self.request.watch.value is not None:
            raise ArgumentError("this prompt ran with input_value=, which fits no other tokens; linearize without it")
        n, watch = self._at_once(len(tokens)), Watch(self.request.watch.source)
        parts = [tokens[at : at + n] for at in range(0, len(tokens), n)]
        at = [position - len(self.tokens) for position in self.read.positions]  # from the end, wherever it begins
        return self._by_run([run(self.host, part, watch, at, self.under).logits for part in parts], len(tokens))

    def _by_run(self, parts: Sequence[Tensor], n: int) -> Float[Tensor, "n *answer d_vocab"]:
        logits = precise(torch.cat(list(parts)))
        return rearrange(logits, "(n at) d_vocab -> n at d_vocab", n=n) if self.read.answer else logits

    @property
    def _left(self) -> int | None:
        """Of the caller's budget, beside what the linearization keeps."""
        return None if self.request.budget is None else max(0, self.request.budget - self.held)

    def _at_once(self, most: int, record: bool = False, each: int = 0) -> int:
        """How many runs go through the model together; hooks of the caller may mix what they see.

        Args:
            each: bytes that a run takes besides.
        """
        if self.under.mix:
            return 1

        def footprint(n: int) -> Footprint:
            found = self.host.footprint(n, len(self.tokens), n * len(self.read.positions))
            return replace(found, ends=found.ends + n * each)

        return at_once(footprint, most, self._left, self.host.available_memory(), self.held, record)


def _alike(now: Tensor, then: Tensor, dtype: torch.dtype) -> bool:
    """Whether two runs of one model agree: batches of other shapes sum in other orders.

    Float32 is the best that can be asked for: Hugging Face's norms work in it whatever the model's precision.
    """
    precisions = dtype if dtype.is_floating_point else torch.float32, torch.float32
    eps = max(*(torch.finfo(p).eps for p in precisions), _precision_of_sums(now))
    return bool((now - then).norm() <= eps**0.5 * then.norm())


def check_fits(host: Host, prompts: Sequence[Read], watch: Watch, budget: int | None) -> None:
    """Raise MemoryBudgetError if :func:`build` would, before the model runs at all."""
    footprint = partial(host.footprint, len(prompts), n_outputs=sum(len(p.positions) for p in prompts), taps=watch.taps)
    plan(footprint, len(prompts), max(len(p.tokens) for p in prompts), budget, host.available_memory())


def build(
    host: Host,
    prompts: Sequence[Read],
    request: Request,
    weights: Weights | None = None,
    under: Conditions | None = None,
) -> tuple[Linearization, ...]:
    """A linearization for each explained position of each prompt, from one forward pass.

    Args:
        weights: the model's, where they are known; default: as they are now.
        under: hooks and modes; default: as they are now.
    """
    watch, affine = request.watch, request.affine
    tokens = padded([p.tokens for p in prompts])
    places = [(row, at) for row, p in enumerate(prompts) for at in p.positions]
    head = host.unembedding()
    footprint = partial(host.footprint, len(prompts), n_outputs=len(places), taps=watch.taps)
    n_pos = tokens.shape[1]
    use = plan(footprint, len(prompts), n_pos, request.budget, host.available_memory())
    trace = host.forward(tokens, *torch.tensor(places).T, watch=watch, recompute=use.recompute, under=under)
    # After the run: TransformerBridge wires up hooks of its own in its first one.
    under, weights = under or host.conditions(), weights or host.weights()
    check_contract(trace, watch, head)
    if watch.output is None:  # a model over several devices may keep its unembedding elsewhere than its last block
        bare = trace.resid is not None and is_bare(trace.resid, trace.y)
        y, head, bare = _unfold(trace.y.to(head.weight.device), head, affine, bare)
    else:
        y, bare = trace.y, False
    direction = footprint(n_pos).direction
    held = 0 if request.budget is None else footprint(n_pos).kept(use.recompute)
    graph = Graph(trace.x, y, direction, tuple(row for row, _ in places), trace.between, use.room, use.results)
    facts = {
        **_facts(host, bare, affine is not None, use.recompute),
        **_blocks(trace),
        **_left_out(trace),
        **request.notes,
    }
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
        shown_as=host.tokens_shown_as,
        weights=weights,
        hooked=tuple(found.place for found in under.hooks),
    )
    texts = [host.token_texts(p.tokens) for p in prompts]
    norms = residual_norms(trace.between)
    points = host.hook_points() if watch.taps else ()
    return tuple(
        _member(
            host,
            partial(
                make,
                facts={**facts, **_sinks(norms, row, texts[row][: at + 1])},
                rerun=HostRerun(host, Read(prompts[row].tokens[: at + 1], [at]), request, weights, under, held),
                regions=cut_off(prompts[row].regions, at + 1),
            ),
            prompts[row].tokens[: at + 1],
            texts[row][: at + 1],
            i,
            graph,
            trace,
            points,
        )
        for i, (row, at) in enumerate(places)
    )


def answers(host: Host, members: Sequence[Linearization], prompts: Sequence[Read]) -> tuple[AnswerLinearization, ...]:
    """The members of :func:`build`, those of one prompt together as its answer."""
    rest = iter(members)
    return tuple(
        AnswerLinearization(
            tuple(islice(rest, len(one.positions))), tuple(one.answer), one.answer_start, host.decode(list(one.answer))
        )
        for one in prompts
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
        read=lambda start, stop: host.decode(prompt[start:stop]),
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


def _sinks(norms: Tensor | None, row: int, texts: Sequence[str]) -> dict[str, Any]:
    found = [] if norms is None else attention_sinks(norms[:, row, : len(texts)], texts)
    return {"attention_sinks": found} if found else {}


def _blocks(trace: Trace) -> dict[str, str]:
    """Nothing of a short prompt's."""
    return {"attention": "in blocks of queries, computed again in each backward pass"} if trace.in_blocks else {}


def _left_out(trace: Trace) -> dict[str, Any]:
    return {"not_recorded": sorted(trace.odd)} if trace.odd else {}


def _facts(host: Host, bare: bool, given: bool, recompute: bool) -> dict[str, Any]:
    norm = "given by the caller" if given else "none, or folded into the unembedding" if bare else "the model's own"
    activations = "computed again in each backward pass" if recompute else "kept from the forward pass"
    return {**host.facts(), "final_norm": norm, "activations": activations, "versions": versions()}
