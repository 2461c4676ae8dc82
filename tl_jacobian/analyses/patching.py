"""Attribution patching beside activation patching: what one linearization predicts, and what interventions measure.

Patching an activation of a corrupted prompt's run with that of a clean prompt changes a metric. To
first order by the metric's gradient at the corrupted run times the difference of the two activations:
one forward and one backward pass for all places at once, where measuring takes a forward pass each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.analyses.scopes.simple import explain_output
from tl_jacobian.core.hooks import check_reached, in_block
from tl_jacobian.core.host.base import Watch
from tl_jacobian.core.host.hosts import resolve
from tl_jacobian.core.host.patching import HOOKS
from tl_jacobian.core.host.precision import Precision
from tl_jacobian.core.linearization import LinearizationBatch, Linearized
from tl_jacobian.core.linearize import Options, linearize_read, model_first
from tl_jacobian.core.products import by_pass
from tl_jacobian.core.prompts import Answer, Target, name_of, read_answer, read_prompt, resolve_target
from tl_jacobian.core.rerun import run, together
from tl_jacobian.core.unembedding import exact, log_prob, precise
from tl_jacobian.errors import ArgumentError, PromptError
from tl_jacobian.results.arguments import checked, excerpt, whole
from tl_jacobian.results.grid import Grid
from tl_jacobian.results.patching import PatchComparison

_NONE: Mapping[str, Any] = MappingProxyType({})
At = Literal["resid_pre", "resid_mid", "attn_out", "mlp_out", "heads"]
Method = Literal["gradient", "two_point", "integrated"]
Metric = Callable[[Float[Tensor, " d_vocab"]], Tensor]


class Aim(NamedTuple):
    """The metric: a function of the last token's logits, or of those that predict an answer, and its name."""

    fn: Metric
    name: str


@dataclass(frozen=True)
class Words:
    """A :class:`~tl_jacobian.core.prompts.Vocabulary`."""

    logits: Float[Tensor, " d_vocab"]
    encode: Callable[[str], list[int]] | None
    decode: Callable[[int], str]
    shown_as: Callable[[str], list[int]] | None


def n_passes(method: Method, steps: int) -> int:
    """Cost in forward passes: both prompts' activations, then a forward and a backward pass (two) for each gradient."""
    return 2 + 3 * {"gradient": 1, "two_point": 2, "integrated": steps}[method]


def checked_kinds(at: At | Sequence[At], steps: int) -> list[At]:
    """The kinds of activation, as a list.

    Raises:
        ArgumentError: no such kind or method, or no steps.
    """
    kinds: list[Any] = [at] if isinstance(at, str) else list(at)
    if not kinds:
        raise ArgumentError("at=[], expected one kind of activation or more")
    whole("steps", steps, what="a number of runs between the prompts")
    return kinds


class PromptPair:
    """Two prompts of one length, run once each.

    Attributes:
        host: the model.
        ids: token ids of the clean and of the corrupted prompt; with an answer all but its last token.
        positions: whose logits the metric is of: the last, or those that predict the answer.
        answer: its tokens, the same after both prompts; none where there is no answer.
        logits: of both.
        texts: the corrupted prompt's tokens; where the clean one differs, both.

    Args:
        kinds: which activations to keep.

    Raises:
        PromptError: the prompts' lengths, or the answer's tokens after either, differ.
        HookPointError: the model has no such activations.
    """

    def __init__(
        self,
        model: Any,
        clean: Any,
        corrupted: Any,
        kinds: Sequence[At],
        prepend_bos: bool | None,
        precision: Precision,
        answer: Any,
    ) -> None:
        self.host = resolve(model, precision)
        self.reads = [
            read_prompt(self.host, prompt, [-1], prepend_bos)
            if answer is None
            else read_answer(self.host, prompt, answer, None, prepend_bos)
            for prompt in (clean, corrupted)
        ]
        self.ids = [read.tokens for read in self.reads]
        self._check_lengths()
        self.positions, self.answer = self.reads[0].positions, tuple(self.reads[0].answer)
        self.texts = self._labels()
        n_layers = self.host.anatomy(None).n_layers
        self.hooks = {kind: [in_block(i, HOOKS[kind]) for i in range(n_layers)] for kind in kinds}
        watch = Watch(taps=self._names())
        runs = [run(self.host, part, watch, self.positions) for part in together(self.host, self.ids)]
        check_reached(self._names(), runs[0].taps)
        logits, self._x = (torch.cat(parts) for parts in ([r.logits for r in runs], [r.x.detach() for r in runs]))
        self.logits = logits.reshape(2, len(self.answer), -1) if self.answer else logits
        self._taps = {name: torch.cat([r.taps[name] for r in runs]) for name in self._names()}

    def _names(self) -> tuple[str, ...]:
        return tuple(name for names in self.hooks.values() for name in names)

    def _check_lengths(self) -> None:
        clean, corrupted = self.ids
        if len(clean) != len(corrupted):
            pieces = [" | ".join(self.host.token_texts(ids)) for ids in self.ids]
            raise PromptError(
                f"the clean prompt has {len(clean)} tokens and the corrupted one {len(corrupted)}, but activations can "
                f"only be exchanged token by token; choose words of as many tokens: {pieces[0]} / {pieces[1]}"
            )
        first, second = self.reads
        if (list(first.answer), first.positions) != (list(second.answer), second.positions):
            raise PromptError(
                f"the answer has the tokens {list(first.answer)} after the clean prompt and {list(second.answer)} "
                "after the corrupted one, expected the same: give it as token ids"
            )

    def asked(self, logits: Float[Tensor, "pos d_vocab"]) -> Float[Tensor, "*answer d_vocab"]:
        """Those that the metric is of."""
        return logits[self.positions] if self.answer else logits[-1]

    def _labels(self) -> tuple[str, ...]:
        """Each token; where the prompts differ, what patching makes of it: " Italy→ France"."""
        clean, corrupted = (self.host.token_texts(ids) for ids in self.ids)
        return tuple(a if a == b else f"{b}→{a}" for a, b in zip(clean, corrupted, strict=True))

    # -- predictions -----------------------------------------------------------------

    def predict(self, aim: Aim, method: Method, steps: int) -> dict[str, Grid]:
        """First-order effects of patching every place."""
        grads, from_embeddings = self._gradients(self._runs(method, steps), aim)
        clean, corrupted = (float(aim.fn(logits)) for logits in self.logits)
        facts = {"method": method, "n_passes": n_passes(method, steps)}
        facts |= {"from_embeddings": from_embeddings, "whole": clean - corrupted}
        found = {}
        for kind, names in self.hooks.items():
            rows = [_summed((self._taps[n][0] - self._taps[n][1]), grads[n], by_head=kind == "heads") for n in names]
            found[kind] = self.grid(kind, torch.stack(rows), aim, "predicted", facts)
        return found

    def _runs(self, method: Method, steps: int) -> LinearizationBatch:
        """The runs whose gradients are averaged, as one batch."""
        clean, corrupted = self.reads
        if method == "integrated":
            a, b = self._x
            along = torch.stack([b + (i + 0.5) / steps * (a - b) for i in range(steps)])
            options = Options(record=self._names(), input_value=along)
            return linearize_read(self.host, [corrupted] * steps, options)
        reads = [corrupted] if method == "gradient" else [clean, corrupted]
        return linearize_read(self.host, reads, Options(record=self._names()))

    def _gradients(self, runs: LinearizationBatch, aim: Aim) -> tuple[dict[str, Tensor], float]:
        """The metric's mean gradient at each activation, and what it says of the embeddings' exchange.

        One backward pass for all runs of a forward pass.
        """
        names = self._names()
        grads = {name: torch.zeros_like(self._taps[name][0]) for name in names}  # where the metric doesn't depend on it
        of_x = torch.zeros_like(self._x[0])
        for group in by_pass(runs):
            first, v = runs[group[0]], torch.cat([_direction(runs[i], aim) for i in group])
            (found,) = first.graph.stream_to(v[None], [first.graph.x, *(first.taps.tensor(name) for name in names)])
            of_x += _total(found[0]) / len(runs)
            for name, grad in zip(names, found[1:], strict=True):
                grads[name] += _total(grad) / len(runs)
        return grads, _summed(self._x[0] - self._x[1], of_x, by_head=False).sum().item()

    @property
    def first(self) -> int:
        """The first token that differs: before it both runs are the same."""
        clean, corrupted = self.ids
        return next((i for i, (a, b) in enumerate(zip(clean, corrupted, strict=True)) if a != b), 0)

    def grid(
        self, kind: str, values: Float[Tensor, "layers places"], aim: Aim, what: str, facts: Mapping[str, Any] = _NONE
    ) -> Grid:
        """Effects of every place under names."""
        heads = kind == "heads"
        return Grid(
            values=values.float(),
            rows=tuple(map(str, range(len(values)))),
            columns=tuple(f"H{i}" for i in range(values.shape[1])) if heads else self.texts,
            title=f"{what} effect of patching {HOOKS[kind]} on {aim.name}",
            quantity=f"change of {aim.name}",
            row_axis="layer",
            column_axis="head" if heads else "token",
            signed=True,
            tokens=() if heads else tuple(self.ids[1]),
            metadata={"at": kind, "clean": self.ids[0], "corrupted": self.ids[1], **facts, **self.host.facts()},
        )


def _direction(run: Linearized, aim: Aim) -> Float[Tensor, "rows d_model"]:
    """In each of the run's rows of y."""
    v = explain_output(run, lambda _, logits: aim.fn(logits), aim.name, "metric(logits)").v
    return v.reshape(-1, run.d_model)


def _total(grad: Float[Tensor, "1 runs *activation"] | None) -> Float[Tensor, "*activation"] | float:
    return 0.0 if grad is None else reduce(grad, "1 runs ... -> ...", "sum")


def _summed(difference: Tensor, grad: Tensor, by_head: bool) -> Float[Tensor, " places"]:
    """Gradient times difference, summed over everything but the places."""
    product = exact(precise(difference) * precise(grad))
    return reduce(product, "pos head d -> head" if by_head else "pos ... -> pos", "sum")


def aim_of(pair: PromptPair, target: Target | None, minus: Target | None, metric: Metric | None) -> Aim:
    """The metric that is meant.

    Raises:
        ArgumentError: a metric and a target, or either and an answer; or both prompts predict the same token and no
            target is given.
        TargetError: a target isn't one token.
    """
    if pair.answer:
        if (target, minus, metric) != (None, None, None):
            raise ArgumentError(
                f"answer= and target={target!r}, minus={minus!r}, metric={excerpt(metric)}: the metric is the answer's "
                "log-probability; give one or the other"
            )
        words = excerpt(pair.host.decode(list(pair.answer)))
        return Aim(lambda logits: log_prob(logits, pair.answer), f"log-probability of the answer {words}")
    if metric is not None:
        if (target, minus) != (None, None):
            raise ArgumentError(f"metric= and target={target!r}, minus={minus!r}: give one or the other")
        if not callable(metric):
            raise ArgumentError(f"metric={metric!r}, expected a function of the last token's logits")
        return Aim(_of_last_logits(metric, pair.logits[0]), getattr(metric, "__name__", "metric"))
    host = pair.host
    vocabulary = Words(pair.logits[0], host.encode, lambda token: host.token_texts([token])[0], host.tokens_shown_as)
    clean, corrupted = (int(logits.argmax()) for logits in pair.logits)
    token = clean if target is None else resolve_target(vocabulary, target)
    other = corrupted if minus is None else resolve_target(vocabulary, minus)
    if token == other:
        raise ArgumentError(
            f"target and minus are the same token, {name_of(vocabulary, token)}: the prompts predict the same, so say "
            "what to compare, target=... and minus=..., or give a metric"
        )
    name = f"logit of {name_of(vocabulary, token)} minus logit of {name_of(vocabulary, other)}"
    return Aim(lambda logits: logits[token] - logits[other], name)


def _of_last_logits(metric: Metric, logits: Float[Tensor, " d_vocab"]) -> Metric:
    """A metric of the last token's logits, also of one that reads them as TransformerLens hands them out.

    >>> _of_last_logits(lambda logits: logits[0, -1, 2], torch.arange(3.0))(torch.arange(3.0))
    tensor(2.)
    """

    def of_batch(one: Tensor) -> Tensor:
        return metric(one[None, None])

    try:
        metric(logits)
    except Exception as error:
        try:
            of_batch(logits)
        except Exception:
            raise ArgumentError(
                f"metric(logits) failed: {type(error).__name__}: {error}; logits are the last token's, of shape "
                f"({len(logits)},), or (1, 1, {len(logits)}) as TransformerLens has them: logits[0, -1, token]"
            ) from error
        return of_batch
    return metric


@model_first
@checked
def predict_patching(
    model: Any,
    clean: Any,
    corrupted: Any,
    at: At | Sequence[At] = "resid_pre",
    *,
    target: Target | None = None,
    minus: Target | None = None,
    metric: Metric | None = None,
    method: Method = "gradient",
    steps: int = 8,
    prepend_bos: bool | None = None,
    precision: Precision = None,
    answer: Answer | None = None,
) -> dict[str, Grid]:
    """First-order effects of patching clean activations into the corrupted run, for all places at once.

    Args:
        model: a HookedTransformer or a TransformerBridge.
        clean, corrupted: prompts of the same length, text or token ids.
        at: which activations: ``"resid_pre"``, ``"resid_mid"``, ``"attn_out"``, ``"mlp_out"`` (layers x tokens),
            ``"heads"`` (layers x heads, all tokens together); one or several, from the same passes.
        target, minus: the metric is the logit of ``target`` minus that of ``minus``, at the last token;
            default what the clean and what the corrupted prompt predict.
        metric: or any function of the last token's logits, ``(d_vocab,)``; one written for TransformerLens's
            ``(batch, pos, d_vocab)`` is given that position alone, as ``(1, 1, d_vocab)``.
        method: whose gradient: ``"gradient"`` the corrupted run's; ``"two_point"`` the mean of both runs';
            ``"integrated"`` the mean over ``steps`` runs whose embeddings lie between the two prompts'. That
            finds large effects that a single gradient misses, and ranks small ones worse: they are linear
            at the corrupted run already (benchmarks/results/patching.md). ``metadata["from_embeddings"]`` says
            what it predicts for the embeddings altogether, ``metadata["whole"]`` what it should.
        steps: of ``"integrated"``.
        prepend_bos, precision: as for :func:`linearize`.
        answer: text or token ids that follow both prompts: the metric is its log-probability then, and its own tokens
            are places too (all but the last, which nothing reads).

    Returns:
        For each of ``at`` a grid in units of the metric.

    Raises:
        PromptError: the prompts have different lengths.
        ArgumentError: no such kind of activation or method; a metric and a target.
        HookPointError: the model has no such activations (parallel blocks have no resid_mid).

    >>> import tl_jacobian as tj
    >>> g = tj.predict_patching(tj.load_demo_model(), "The capital of France is", "The capital of Italy is")
    >>> g["resid_pre"].values.shape, g["resid_pre"].top(1)[0].column_name
    (torch.Size([30, 5]), ' Italy→ France')
    """
    kinds = checked_kinds(at, steps)
    pair = PromptPair(model, clean, corrupted, kinds, prepend_bos, precision, answer)
    return pair.predict(aim_of(pair, target, minus, metric), method, steps)


@model_first
@checked
def compare_patching(
    model: Any,
    clean: Any,
    corrupted: Any,
    at: At = "resid_pre",
    *,
    target: Target | None = None,
    minus: Target | None = None,
    metric: Metric | None = None,
    method: Method = "gradient",
    steps: int = 8,
    prepend_bos: bool | None = None,
    precision: Precision = None,
    answer: Answer | None = None,
) -> PatchComparison:
    """:func:`predict_patching` beside what ``transformer_lens.patching`` measures, place by place.

    Measuring runs the model once for each place: layers x tokens (or layers x heads) forward passes.

    >>> import tl_jacobian as tj
    >>> pair = "In France", "In Italy"
    >>> c = tj.compare_patching(tj.load_demo_model(), *pair, "attn_out", target=" Paris", minus=" Rome")
    >>> c.measured.values.shape, c.spearman > 0.5
    (torch.Size([30, 2]), True)
    """
    (kind,) = checked_kinds(at, steps)
    pair = PromptPair(model, clean, corrupted, [kind], prepend_bos, precision, answer)
    aim = aim_of(pair, target, minus, metric)
    after, before = (float(aim.fn(logits)) for logits in pair.logits)
    patched = pair.host.patched(pair.ids[0], pair.ids[1], kind, lambda logits: aim.fn(pair.asked(logits)))
    return PatchComparison(
        predicted=pair.predict(aim, method, steps)[kind],
        measured=pair.grid(kind, effects(before, patched), aim, "measured"),
        clean=after,
        corrupted=before,
        first=pair.first if kind != "heads" else 0,
    )


def effects(before: float, patched: Float[Tensor, "layers places"]) -> Float[Tensor, "layers places"]:
    """Metrics after patching as effects: minus the metric before."""
    return exact(patched) - torch.tensor(before, dtype=torch.float64)
