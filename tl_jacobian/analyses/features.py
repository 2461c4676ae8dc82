"""SAE features, both ways: which tokens drive a feature, and which features drive a prediction.

The stream itself goes on in every case, not what an SAE makes of it: a feature reads the stream through its encoder,
and what it writes is a part of the stream, beside the decoder's bias and the reconstruction error,
``h = sum_f a_f d_f + b + e``. With g = v^T dy/dh, one backward pass, feature f does ``a_f d_f.g`` at each token:
features, bias and error together are exactly ``g.h`` (as the error nodes of arXiv 2403.19647 have it). What g.h lacks
of the number itself is the rest of the model: what is added after this layer or beside it, and what isn't linear.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.analyses.scopes.apply import Explained, apply, one_of
from tl_jacobian.analyses.scopes.choose import Chosen, Scope, choose_direction, only_direction
from tl_jacobian.analyses.scopes.simple import ScalarOutput, explain_output
from tl_jacobian.core.hooks import full_name
from tl_jacobian.core.linearization import LinearizationBatch, Linearized
from tl_jacobian.core.prompts import Target
from tl_jacobian.core.sae import Decoded, Dictionary, read_sae
from tl_jacobian.core.unembedding import exact
from tl_jacobian.errors import ArgumentError, DirectionError, HookPointError
from tl_jacobian.results.arguments import checked, whole
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.contributions import Contributions
from tl_jacobian.results.features import Features
from tl_jacobian.results.grid import Grid
from tl_jacobian.results.scopes import Confidence

Of = Literal["activation", "pre_activation"]


@overload
def feature_scope(
    lin: Linearized, sae: Any, feature: int, *, of: Of = "activation", at: str | None = None
) -> Attribution: ...
@overload
def feature_scope(
    lin: LinearizationBatch[Any], sae: Any, feature: int, *, of: Of = "activation", at: str | None = None
) -> list[Attribution]: ...
@overload
def feature_scope(
    lin: Linearized,
    sae: Any,
    feature: None = None,
    *,
    at: str | None = None,
    into: str | Sequence[str] | None = None,
    top: int = 16,
    scope: Scope = "semantic",
    target: Target | None = None,
    minus: Target | None = None,
    confidence: Confidence | None = None,
    rank: int | None = None,
    fn: ScalarOutput | None = None,
    v: Tensor | None = None,
    name: str | None = None,
) -> Features: ...
@checked
def feature_scope(
    lin: Linearized | LinearizationBatch[Any],
    sae: Any,
    feature: int | None = None,
    *,
    of: Of = "activation",
    at: str | None = None,
    into: str | Sequence[str] | None = None,
    top: int = 16,
    scope: Scope | None = None,
    target: Target | None = None,
    minus: Target | None = None,
    confidence: Confidence | None = None,
    rank: int | None = None,
    fn: ScalarOutput | None = None,
    v: Tensor | None = None,
    name: str | None = None,
) -> Attribution | list[Attribution] | Features:
    """Which input tokens drive an SAE feature; without ``feature``, which features drive what a scope explains.

    **Tokens of a feature.** ``lin`` ends at the SAE's hook point, ``linearize(model, prompt, output_hook=hook,
    position=...)``, and the feature's activation there is pulled back through the encoder (its nonlinearity, norm and
    biases) and the model: scores are norms of its gradient, as of any scope. A feature that is off has no gradient, and
    is refused, or ``of="pre_activation"`` says what holds it down.

    **Features of a prediction.** ``lin`` recorded the SAE's hook point, ``linearize(model, prompt, record=[hook])``,
    and one backward pass gives the effect of every feature at every token (see the module): signed, first-order, with
    the exact sum. The original stream goes on; the error is a part of its own. Of ``scope="fisher"`` effects are twice
    the KL divergence that removing the feature causes, to second order, along so many leading directions as ``rank``
    says: not signed, and without a sum.

    Args:
        lin: a linearization (or, for a feature, a batch of them).
        sae: an object with ``W_enc``, ``W_dec``, ``encode`` and ``decode``, as SAELens has them (ReLU, JumpReLU, TopK,
            gated, normalised; transcoders); or a mapping of weights: ``W_enc`` (d_in, features), of which a *column* is
            a feature, ``W_dec`` (features, d_out) and, where there are, ``b_enc``, ``b_dec``, ``threshold`` (JumpReLU),
            ``k`` (TopK); or a cross-layer transcoder as circuit-tracer has them, of which ``at`` says the layer (as
            weights: ``W_dec`` (features, outputs, d_out), ``b_dec`` (outputs, d_out)); or directions (features, d_in),
            such as probes and steering vectors d, whose activation is how many times they are in the stream,
            ``h.d / ||d||^2``, and whose effect over activation is what adding one does.
        feature: its number.
        of: whose gradient: the activation's, or that of the sum before the nonlinearity.
        at: hook point that the SAE reads; default its own ``cfg.metadata.hook_name``, or where ``lin`` ends.
        into: hook point that a transcoder writes; default its ``hook_name_out``, or ``at``. Those of a cross-layer one:
            effects are of all that a feature writes, and features of other layers are in the reconstruction error.
        top: how many features to name, those with the largest effect at a token that isn't the first.
        scope, target, minus, confidence, rank, fn, v, name: what is explained, as for :func:`layer_influence`.

    Returns:
        An :class:`Attribution` for a feature (units of its activation per unit of embedding norm), else
        :class:`Features`.

    Raises:
        ArgumentError: the SAE's width isn't the activation's, there is no such feature, or options of the other way.
        HookPointError: the SAE's hook point wasn't recorded, or nothing is explained by it.
        DirectionError: the feature is off.

    >>> import tl_jacobian as tj
    >>> model, hook = tj.load_demo_model(), "blocks.12.hook_resid_post"
    >>> lin = tj.linearize(model, "The capital of France is", record=[hook])
    >>> names = model.W_U[:, [7042, 8500]].detach().T  # two directions
    >>> f = tj.feature_scope(lin, names, at=hook, target=" Paris")
    >>> f.effects.values.shape, round(f.parts.values.sum().item() - f.parts.total, 3)
    (torch.Size([2, 5]), 0.0)
    >>> inside = tj.linearize(model, "The capital of France is", output_hook=hook)
    >>> tj.feature_scope(inside, names, 0).target
    'feature 0 of the stream at blocks.12.hook_resid_post'
    """
    ends = lin.output_hook if isinstance(lin, Linearized) else next((one.output_hook for one in lin), None)
    dictionary = read_sae(sae, at or ends)
    given = dict(
        scope=scope, target=target, minus=minus, confidence=confidence, rank=rank, fn=fn, v=v, name=name, into=into
    )
    if feature is None:
        if of != "activation":
            raise ArgumentError(f"of={of!r} is for a feature: feature_scope(lin, sae, feature, of={of!r})")
        del given["scope"], given["into"]
        one = one_of(lin)  # type: ignore[type-var]
        return _effects(
            one, dictionary, at, into, top, choose_direction("semantic" if scope is None else scope, **given)
        )
    for option, value in given.items():
        if value is not None:
            raise ArgumentError(f"{option}= is for features of a prediction: leave out feature={feature}, or {option}=")
    whole("feature", feature, 0, dictionary.n_features - 1)
    if of == "pre_activation" and dictionary.pre is None:
        raise ArgumentError(f"of={of!r}: {dictionary.name} doesn't say what stands before its nonlinearity")
    return apply(lin, "output", lambda one: _explain_feature(one, dictionary, feature, of, at))


# -- from tokens to a feature ----------------------------------------------------------------


def _explain_feature(lin: Linearized, sae: Dictionary, feature: int, of: Of, at: str | None) -> Explained:
    """The gradient of one feature in y."""
    hook, pre = at or sae.at, of == "pre_activation"
    if lin.output_hook is None or (hook is not None and not _same(hook, lin.output_hook)):
        where = hook or "blocks.L.hook_resid_post"
        ends = "y, which is unembedded" if lin.output_hook is None else lin.output_hook
        raise HookPointError(
            f"this linearization ends at {ends}, and the feature is of {hook or 'another activation'}: "
            f"linearize(model, prompt, output_hook={where!r}, position=...)"
        )
    sae.check_width(lin.output_hook, lin.y.shape[-1], sae.d_in, "reads")

    def read(y: Tensor) -> Tensor:
        return sae.activations(y.reshape(-1, y.shape[-1]), pre=pre)[:, feature].sum()

    if not pre:
        active = sae.activations(lin.y.detach().reshape(-1, lin.y.shape[-1])).detach().sum(0)
        if active[feature] == 0:
            on = [i for i in active.abs().argsort(descending=True)[:5].tolist() if active[i] != 0]
            raise DirectionError(
                f"feature {feature} is off at token {lin.position} ({lin.str_tokens[-1]!r}), so it has no gradient; "
                f'the strongest that are on: {on or "none"}; of="pre_activation" explains what holds it down'
            )
    words = f"{'pre-activation of ' if pre else ''}feature {feature} of the stream at {lin.output_hook}"
    v, label, details = explain_output(lin, lambda y, _: read(y), words)
    return Explained(v, label, {**details, "feature": feature, "sae": sae.name})


def _same(a: str, b: str) -> bool:
    return full_name([b], a) == b


# -- from features to a prediction -----------------------------------------------------------


def _effects(
    lin: Linearized, sae: Dictionary, at: str | None, into: str | Sequence[str] | None, top: int, chosen: Chosen
) -> Features:
    at = at or sae.at
    if at is None:
        raise ArgumentError(f"{sae.name} doesn't say which activation it reads: at='blocks.12.hook_resid_post', say")
    writes = ((into,) if isinstance(into, str) else tuple(into or ())) or sae.into or (at,)
    if len(set(writes)) != sae.n_out:
        raise ArgumentError(
            f"into={list(writes)}, expected the {sae.n_out} different hook points that {sae.name} writes, in order"
        )
    whole("top", top)
    needed = list(dict.fromkeys((at, *writes)))
    h_in, written = _rows(lin, at, "at", needed), [_rows(lin, hook, "into", needed) for hook in writes]
    sae.check_width(at, h_in.shape[-1], sae.d_in, "reads")
    for hook, one in zip(writes, written, strict=True):
        sae.check_width(hook, one.shape[-1], sae.d_out, "writes")
    h_out = torch.cat([one.to(h_in.device) for one in written], dim=1)
    into = writes[0] if len(writes) == 1 else f"{writes[0]} to {writes[-1]}"
    explained, signed = chosen.explain(lin), chosen.combine == "root_sum_squares"
    if signed:
        only_direction(explained, "signed effects")
    found = sae.decoded(h_in)
    a = exact(found.activations)
    effects, g = torch.zeros_like(a), torch.zeros_like(exact(h_out))
    for grads in lin.stream_at(explained.v, writes):
        for parts in zip(*(grads[hook] for hook in writes), strict=True):
            g = torch.cat([one.reshape(len(one), -1).to(h_out.device) for one in parts], dim=1)
            each = a * exact(found.pull(g))
            effects += each if signed else each.square()
    best = _strongest(effects, top)
    facts = {
        "at": at,
        "into": into,
        "sae": sae.name,
        **({} if sae.page is None else {"neuronpedia": sae.page}),
        "position": lin.position,
        "goes_on": "the original stream: features + decoder bias + reconstruction error"
        + (", which has features of other layers in it" if len(writes) > 1 else ""),
        **explained.details,
        **lin.facts,
    }
    make = _Grids(lin, explained.target, into, facts)
    if not signed:
        return Features(
            effects=make.effects(effects[:, best], best, signed=False),
            activations=make.activations(a, best),
            features=best,
        )
    rest = _remainder(effects, best, found, exact(g), exact(h_out))
    return Features(
        effects=make.effects(effects[:, best], best, signed=True),
        activations=make.activations(a, best),
        features=best,
        remainder=make.remainder(rest),
        parts=_parts(effects[:, best], best, rest, exact(g), exact(h_out), explained, into, facts),
    )


def _rows(lin: Linearized, hook: str, option: str, needed: Sequence[str]) -> Float[Tensor, "pos d"]:
    """Recorded activations, one row a token."""
    if hook not in lin.taps:
        raise HookPointError(
            f"{option}={hook!r} wasn't recorded, and the SAE's features are of it: linearize(model, prompt, "
            f"record={list(needed)})"
        )
    h = lin.taps[hook]
    if h.ndim < 2 or len(h) != len(lin.tokens):
        raise HookPointError(f"activations at {hook} have shape {tuple(h.shape)}, expected one row for each token")
    return h.reshape(len(h), -1)


def _strongest(effects: Float[Tensor, "pos features"], k: int) -> tuple[int, ...]:
    """Features with the largest effect at one token, the first aside where there are others; without any, one."""
    sizes = (effects[1:] if len(effects) > 1 else effects).abs().amax(0)
    order = sizes.argsort(descending=True, stable=True)[:k].tolist()
    return tuple(i for i in order if sizes[i] > 0) or (order[0],)


def _remainder(
    effects: Float[Tensor, "pos features"],
    best: tuple[int, ...],
    found: Decoded,
    g: Float[Tensor, "pos d"],
    h: Float[Tensor, "pos d"],
) -> Float[Tensor, "3 pos"]:
    """What other features, the decoder's bias and the reconstruction error do, by token."""
    made = exact(found.reconstruction)
    everything = effects.sum(1)
    return torch.stack([everything - effects[:, best].sum(1), (g * made).sum(1) - everything, (g * (h - made)).sum(1)])


_REST = ("other features", "decoder bias", "reconstruction error")


def _parts(
    effects: Float[Tensor, "pos top"],
    best: tuple[int, ...],
    rest: Float[Tensor, "3 pos"],
    g: Float[Tensor, "pos d"],
    h: Float[Tensor, "pos d"],
    explained: Explained,
    into: str,
    facts: dict[str, Any],
) -> Contributions:
    """The number as a sum: over tokens but the first, the first token, and what isn't this activation's."""
    start = 1 if len(h) > 1 else 0
    named = effects[start:].sum(0).tolist()
    along = (g * h).sum(1)
    total = float(explained.details["value"])
    names = [*(f"feature {i}" for i in best), *_REST, "first token" if start else "", "rest of the model"]
    values = [*named, *rest[:, start:].sum(1).tolist(), along[:start].sum().item(), total - along.sum().item()]
    return Contributions(
        names=tuple(name for name in names if name),
        values=torch.tensor([v for v, name in zip(values, names, strict=True) if name], dtype=torch.float64),
        total=total,
        target=explained.target,
        metadata={
            **facts,
            "split": f"gradient x activation at {into}, by feature; the rest is what that lacks of the whole",
        },
    )


class _Grids:
    """Numbers of one linearization's tokens under names."""

    def __init__(self, lin: Linearized, target: str, into: str, facts: dict[str, Any]) -> None:
        self.lin, self.target, self.into, self.facts = lin, target, into, facts

    def effects(self, values: Float[Tensor, "pos top"], best: tuple[int, ...], *, signed: bool) -> Grid:
        first = "gradient x activation: first-order change of {}"
        second = "twice the KL divergence when it is removed, to second order: {}"
        quantity = (first if signed else second).format(self.target)
        title = f"features at {self.into}: effect on {self.target}"
        return self._grid(values.T, tuple(map(str, best)), title, quantity, signed, "feature")

    def activations(self, a: Float[Tensor, "pos features"], best: tuple[int, ...]) -> Grid:
        values = a[:, best].T
        title = f"activations of the same features at {self.into}"
        return self._grid(values, tuple(map(str, best)), title, "activation", bool((values < 0).any()), "feature")

    def remainder(self, values: Float[Tensor, "3 pos"]) -> Grid:
        title = f"what is left of the stream at {self.into}: effect on {self.target}"
        return self._grid(values, _REST, title, f"first-order change of {self.target}", True, "part")

    def _grid(self, values: Tensor, rows: tuple[str, ...], title: str, quantity: str, signed: bool, axis: str) -> Grid:
        return Grid(
            values=values.float(),
            rows=rows,
            columns=self.lin.str_tokens,
            title=title,
            quantity=quantity,
            row_axis=axis,
            column_axis="token",
            signed=signed,
            tokens=tuple(self.lin.tokens.tolist()),
            combine="sum",
            metadata=self.facts,
        )
