"""Layer x token influence: a scope's score at every activation on the way, from the same backward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.analyses.scopes.apply import Explained, start_of_answer
from tl_jacobian.analyses.scopes.choose import Scope, choose_direction, only_direction
from tl_jacobian.analyses.scopes.simple import ScalarOutput
from tl_jacobian.core.hooks import GROUPS, Record, is_square, label_of, parsed, wanted
from tl_jacobian.core.linearization import Linearized
from tl_jacobian.core.products import squared_norms
from tl_jacobian.core.prompts import Target
from tl_jacobian.core.unembedding import exact, precise
from tl_jacobian.errors import HookPointError
from tl_jacobian.results.arguments import checked
from tl_jacobian.results.attribution import COMBINE, of_squares
from tl_jacobian.results.grid import Grid
from tl_jacobian.results.scopes import Combine, Confidence

Kind = Literal["norm", "relative", "gradient_x_activation"]
# One row a hook point, or one row a head: those whose activations are (pos, head, d_head).
_HEADS = ("z", "q", "k", "v", "result")


@checked
def layer_influence(
    lin: Linearized,
    scope: Scope = "semantic",
    *,
    at: Record = "resid",
    kind: Kind = "norm",
    target: Target | None = None,
    minus: Target | None = None,
    confidence: Confidence | None = None,
    rank: int | None = None,
    fn: ScalarOutput | None = None,
    v: Tensor | None = None,
    name: str | None = None,
) -> Grid:
    """Which layer's residual stream, at which token, drives what a scope explains.

    For the activation a at a hook point and token t, ``"norm"`` is ||v^T dy/da_t||, which at the token
    embeddings is the scope's score. Activations grow from layer to layer and their gradients shrink, so
    to compare layers take ``"relative"``, ||v^T dy/da_t|| ||a_t||: the most that a change of a_t by its own
    size would do. ``"gradient_x_activation"`` is v^T dy/da_t . a_t, signed: the first-order
    change when a_t is scaled (up to its sign, when it is removed).

    All hook points share one backward pass (one for each of k directions, batched).

    Args:
        lin: made with ``linearize(..., record=True)``, or with the hook points that are asked for.
        scope: a scope's name (``"semantic"``, ``"temperature"``, ``"fisher"``, ``"output"`` with ``fn=``), a direction
            v in y, or a function ``fn(y, logits) -> scalar tensor``.
        at: ``"resid"``, ``"components"``, ``"heads"`` (hook_z, a row for each head), ``"sources"`` (hook_v, a row
            for each head), or recorded hook points. Of a group, what is explained need not depend on all (it
            never does on positional embeddings through the input): the rest is left out.
        kind: what to measure.
        target, minus: of Semantic Scope: a token, as text or id, and one to contrast it with.
        confidence: of Temperature Scope.
        rank: of Fisher Scope: its so many leading eigenvectors, by default one.
        fn, v, name: of ``"output"`` and ``"direction"``, and what to call the result.

    Returns:
        Rows are hook points in the model's order, columns tokens.

    Raises:
        HookPointError: a hook point wasn't recorded, or what is explained doesn't depend on it.
        ArgumentError: no such scope, kind or option; several directions for a signed measure.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is", record="resid")
    >>> g = tj.layer_influence(lin, target=" Paris")
    >>> g.rows[:2], g.values.shape
    (('0.resid_pre', '0.resid_mid'), torch.Size([90, 5]))
    >>> bool((g.values[0] == tj.semantic_scope(lin, " Paris").scores).all())
    True
    """
    chosen = choose_direction(
        scope, target=target, minus=minus, confidence=confidence, rank=rank, fn=fn, v=v, name=name
    )
    explained = chosen.explain(lin)
    found = _measure(lin, explained, at, kind, chosen.combine)
    rows = [_rows(lin, name, values) for name, values in found.items()]
    return _grid(
        lin,
        explained,
        kind,
        _over_tokens(kind, chosen.combine),
        torch.cat([values for _, values in rows]),
        [label for labels, _ in rows for label in labels],
    )


@checked
def head_influence(
    lin: Linearized,
    scope: Scope = "semantic",
    *,
    kind: Kind = "norm",
    target: Target | None = None,
    minus: Target | None = None,
    confidence: Confidence | None = None,
    rank: int | None = None,
    fn: ScalarOutput | None = None,
    v: Tensor | None = None,
    name: str | None = None,
) -> Grid:
    """:func:`layer_influence` of every head's output (hook_z), all tokens together: layers x heads.

    All arguments are those of :func:`layer_influence`. Norms combine as the scope's do over tokens (Euclidean, or the
    sum for Fisher's trace), signed values add up.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is", record="heads")
    >>> tj.head_influence(lin, kind="gradient_x_activation").values.shape
    torch.Size([30, 9])
    """
    chosen = choose_direction(
        scope, target=target, minus=minus, confidence=confidence, rank=rank, fn=fn, v=v, name=name
    )
    explained, combine = chosen.explain(lin), chosen.combine
    found = _measure(lin, explained, "heads", kind, combine)
    over_tokens = _over_tokens(kind, combine)
    values = torch.stack([torch.stack([COMBINE[over_tokens](head) for head in values.T]) for values in found.values()])
    layers = [str(parsed(name).layer) for name in found]
    columns = tuple(f"H{head}" for head in range(values.shape[1]))
    return _grid(
        lin, explained, kind, over_tokens, values, layers, row_axis="layer", columns=columns, column_axis="head"
    )


def _names(lin: Linearized, at: Record) -> tuple[list[str], list[str]]:
    """Hook points, and which of them come with a group and may be left out."""
    names, by_name = wanted(at, lin.taps, "at")
    names = [name for name in names if name in by_name or not is_square(name)]  # no vectors
    if not names:
        if at and lin.taps.points and not wanted(at, lin.taps.points, "at")[0]:
            raise HookPointError(
                f"this model has no hook points of at={at!r}: TransformerLens shows none of that kind on it "
                "(state-space and other attention-free layers have no heads); choose among model.hook_dict"
            )
        groups = ", ".join(f"record={name!r}" for name in GROUPS)
        raise HookPointError(
            f"nothing of at={at!r} was recorded: call linearize(model, prompt, record=True), or name what is needed "
            f"({groups}, or hook points)"
        )
    return names, [name for name in names if name not in by_name]


def _measure(
    lin: Linearized, explained: Explained, at: Record, kind: Kind, combine: Combine
) -> Mapping[str, Float[Tensor, " pos *heads"]]:
    """One number for each token (and head) at each hook point; float64."""
    if kind == "gradient_x_activation":
        only_direction(explained, "signed measures")
    sums: dict[str, Tensor] = {}
    for grads in lin.stream_at(explained.v, *_names(lin, at)):
        for name, grad in grads.items():
            part = _along(grad[0], lin.taps[name]) if kind == "gradient_x_activation" else squared_norms(grad).sum(0)
            sums[name] = sums[name] + part if name in sums else part
    if not sums:
        raise HookPointError(
            f"nothing of at={at!r} lies between {lin.input_hook} and {lin.output_hook or 'y'}; choose another"
        )
    if kind == "relative":
        sums = {name: s * squared_norms(lin.taps[name]) for name, s in sums.items()}
    signed = kind == "gradient_x_activation"
    return {name: s if signed else of_squares(s, combine) for name, s in sums.items()}


def _along(grad: Float[Tensor, "*activation d"], activation: Float[Tensor, "*activation d"]) -> Tensor:
    """The gradient's product with the activation."""
    return exact((precise(grad) * precise(activation)).sum(-1))


def _rows(lin: Linearized, name: str, values: Float[Tensor, " pos *heads"]) -> tuple[list[str], Tensor]:
    """Labels and rows of one hook point."""
    if values.ndim == 1:
        return [label_of(name)], values[None]
    if parsed(name).kind not in _HEADS or values.ndim != 2:
        raise HookPointError(
            f"activations at {name} have one number for each of {tuple(values.shape)}, which aren't (token,) or "
            "(token, head); look at lin.vjp_at(v, [name]) itself"
        )
    kind = "" if parsed(name).kind == "z" else f".{parsed(name).kind}"
    return [f"L{parsed(name).layer}H{head}{kind}" for head in range(values.shape[1])], values.T


_TITLES: dict[str, str] = {
    "norm": "influence on",
    "relative": "relative influence on",
    "gradient_x_activation": "gradient x activation:",
}
_QUANTITIES: dict[str, str] = {
    "norm": "change of {what} per unit of activation norm",
    "relative": "change of {what} per change of the activation by its own norm",
    "gradient_x_activation": "gradient x activation: first-order change of {what}",
}


def _over_tokens(kind: Kind, combine: Combine) -> Combine:
    """How tokens' numbers make one: signed ones add up, the others as their scope has it."""
    return "sum" if kind == "gradient_x_activation" else combine


def _grid(
    lin: Linearized,
    explained: Explained,
    kind: Kind,
    combine: Combine,
    values: Tensor,
    rows: Sequence[str],
    row_axis: str = "hook point",
    columns: tuple[str, ...] | None = None,
    column_axis: str = "token",
) -> Grid:
    quantity = _QUANTITIES[kind].format(what=explained.target)
    return Grid(
        values=values.float(),
        rows=tuple(rows),
        columns=columns or lin.str_tokens,
        title=f"{_TITLES[kind]} {explained.target}",
        quantity=quantity,
        row_axis=row_axis,
        column_axis=column_axis,
        signed=kind == "gradient_x_activation",
        tokens=tuple(lin.tokens.tolist()),
        combine=combine,
        regions=lin.regions if column_axis == "token" else {},
        answer_start=start_of_answer(lin),
        metadata={"kind": kind, "position": lin.position, **explained.details, "score": quantity, **lin.facts},
    )
