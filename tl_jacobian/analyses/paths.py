"""Paths: how much of a token's influence flows through a chosen layer, head or position.

Influence is a derivative, and derivatives add up over paths: v^T J = (what flows through a place) +
(what flows around it). The first is the product pulled back to the place, masked there, and pulled
on to x; the second is what is left when the place is detached from the graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.analyses.scopes.apply import attribution
from tl_jacobian.analyses.scopes.choose import Scope, choose_direction, only_direction
from tl_jacobian.analyses.scopes.simple import ScalarOutput
from tl_jacobian.core.hooks import is_square, label_of
from tl_jacobian.core.hooks import place as place_of
from tl_jacobian.core.linearization import Linearized
from tl_jacobian.core.prompts import Target
from tl_jacobian.core.unembedding import precise
from tl_jacobian.errors import ArgumentError, HookPointError
from tl_jacobian.results.arguments import checked, is_id
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.paths import PathSplit
from tl_jacobian.results.scopes import Confidence


@dataclass(frozen=True)
class Place:
    """A place that influence may flow through.

    Attributes:
        hook: a recorded hook point: ``"blocks.5.hook_attn_out"``, or ``"5.attn_out"``, as grids label it.
        positions: of these tokens only (negative ones count from the end); None: all.
        heads: of these heads only, at hook points that have heads; None: all.
    """

    hook: str
    positions: int | Sequence[int] | None = None
    heads: int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.hook, str):
            raise ArgumentError(f"hook={self.hook!r}, expected the name of a hook point")
        chosen("positions", self.positions)
        chosen("heads", self.heads)

    def __str__(self) -> str:
        parts = (("heads", self.heads), ("at tokens", self.positions))
        named = [f" {name} {', '.join(map(str, at))}" for name, part in parts if (at := chosen(name, part)) is not None]
        return label_of(self.hook) + "".join(named)


def chosen(name: str, part: int | Sequence[int] | None) -> tuple[int, ...] | None:
    """Positions or heads as a tuple; None: all."""
    if part is None:
        return None
    if isinstance(part, SupportsIndex) and is_id(part):
        return (index(part),)
    if isinstance(part, str) or not isinstance(part, Sequence):
        raise ArgumentError(f"{name}={part!r}, expected an integer, a list of them, or None for all")
    if not len(part):
        raise ArgumentError(f"{name}={part!r} is no place at all; expected at least one, or None for all")
    return tuple(part)


@checked
def path_scope(
    lin: Linearized,
    through: str | Place | Sequence[str | Place],
    scope: Scope = "semantic",
    *,
    positions: int | Sequence[int] | None = None,
    heads: int | Sequence[int] | None = None,
    target: Target | None = None,
    minus: Target | None = None,
    confidence: Confidence | None = None,
    rank: int | None = None,
    fn: ScalarOutput | None = None,
    v: Tensor | None = None,
    name: str | None = None,
) -> PathSplit:
    """How much of each token's influence flows through a layer, component, head or position.

    Args:
        lin: made with ``linearize(..., record=True)``, or with the hook points of the route.
        through: a hook point; or a :class:`Place`; or a route of several places in the model's order, all of
            which a path must pass.
        scope: a scope's name (``"semantic"``, ``"temperature"``, ``"fisher"``, ``"output"`` with ``fn=``), a direction
            v in y, or a function ``fn(y, logits) -> scalar tensor``.
            One direction: paths are linear in it.
        positions, heads: of a single hook point: only these tokens, only these heads.
        target, minus: of Semantic Scope: a token, as text or id, and one to contrast it with.
        confidence: of Temperature Scope.
        rank: of Fisher Scope: 1, its leading eigenvector.
        fn, v, name: of ``"output"`` and ``"direction"``, and what to call the result.

    Raises:
        HookPointError: a hook point wasn't recorded, or doesn't lie between x and y.
        ArgumentError: positions or heads that don't exist; places out of order; several directions.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is", record=True)
    >>> split = tj.path_scope(lin, "blocks.20.hook_attn_out", target=" Paris")
    >>> split.share.top(1, skip_first=True)[0].text
    ' capital'
    """
    chosen = choose_direction(
        scope, target=target, minus=minus, confidence=confidence, rank=rank, fn=fn, v=v, name=name
    )
    explained = chosen.explain(lin)
    v, route = only_direction(explained, "paths"), _route(lin, through, positions, heads)
    full, part = precise(lin.vjp(v)), precise(_along(lin, v, route))
    through_all = " then ".join(map(str, route))
    norms = full.norm(dim=-1)
    shares = (full * part).sum(-1) / torch.where(norms > 0, norms, 1)

    def made(scores: Tensor, what: str) -> Attribution:
        kind = chosen.label
        details = {**explained.details, "route": through_all, "path": what}
        if what == "full":
            return attribution(lin, kind, explained.target, scores, "root_sum_squares", details)
        details = {**details, "explained": explained.target, "value": None}  # the value is that of the whole
        return attribution(lin, kind, f"{what} {through_all}", scores, "root_sum_squares", details)

    share = made(shares, "share through")
    return PathSplit(
        full=made(norms, "full"),
        through=made(part.norm(dim=-1), "through"),
        around=made((full - part).norm(dim=-1), "around"),
        share=dataclasses.replace(share, combine="sum"),
    )


def _route(
    lin: Linearized,
    through: str | Place | Sequence[str | Place],
    positions: int | Sequence[int] | None,
    heads: int | Sequence[int] | None,
) -> list[Place]:
    """The places in full names."""
    if isinstance(through, str):
        through = Place(through, positions, heads)
    elif (positions, heads) != (None, None):
        raise ArgumentError("positions= and heads= go with a hook point's name; a Place has its own")
    route = list(through) if isinstance(through, Sequence) else [through]
    route = [Place(place) if isinstance(place, str) else place for place in route]
    if not route or not all(isinstance(place, Place) for place in route):
        raise ArgumentError(f"through={through!r}, expected a hook point, a Place or a list of places")
    route = [dataclasses.replace(place, hook=lin.taps.full_name(place.hook)) for place in route]
    order = [place_of(place.hook) for place in route]
    if sorted(order) != order:
        names = ", ".join(place.hook for place in route)
        raise ArgumentError(f"the places {names} aren't in the model's order, expected the one nearest to x first")
    return route


def _along(lin: Linearized, v: Float[Tensor, "*own d_model"], route: Sequence[Place]) -> Float[Tensor, "pos d_in"]:
    """v^T J over the paths that pass every place of the route."""
    end, grad = lin.graph.y, lin.spread(v[None])[0]
    for place in reversed(route):
        tap = lin.taps.tensor(place.hook)
        found = lin.graph.between_tensors(end, tap, grad)
        if found is None:
            raise HookPointError(
                f"no path leads through {place.hook} there: it comes after what it should lead to, or before "
                f"{lin.input_hook}"
            )
        end, grad = tap, found * _mask(lin, place, tap)
    found = lin.graph.between_tensors(end, lin.graph.x, grad)
    if found is None:
        raise HookPointError(f"no path leads from {lin.input_hook} through {route[0].hook}")
    return found[lin.prompt_row, : len(lin.tokens)]


def _mask(lin: Linearized, place: Place, tap: Tensor) -> Tensor:
    """One where the place is, zero elsewhere."""
    square = tap.ndim == 4 and is_square(place.hook)
    positions, heads = chosen("positions", place.positions), chosen("heads", place.heads)
    mask = torch.ones_like(tap)
    if positions is not None:
        mask = mask * _kept(place, "position", positions, tap, 2 if square else 1, len(lin.tokens))
    if heads is None:
        return mask
    if tap.ndim != 4:
        raise ArgumentError(f"heads={heads} of {place.hook}, whose activations have no heads: use attn.hook_z")
    axis = 1 if square else 2
    return mask * _kept(place, "head", heads, tap, axis, tap.shape[axis])


def _kept(place: Place, what: str, at: tuple[int, ...], tap: Tensor, axis: int, n: int) -> Tensor:
    """One at these indices of an axis, zero at the others; n of them exist."""
    for i in at:
        if not is_id(i) or not -n <= i < n:
            raise ArgumentError(f"{what} {i!r} of {place.hook} is out of range, expected {-n} to {n - 1}")
    kept = torch.zeros(tap.shape[axis], device=tap.device, dtype=torch.bool)
    kept[[i % n for i in at]] = True
    return kept.view([-1 if axis == i else 1 for i in range(tap.ndim)])
