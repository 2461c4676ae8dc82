"""Routes: where a token's influence travels, layer by layer and position by position.

A score is a derivative along one direction: move the token's embedding by u = (v^T J_t) / ||v^T J_t|| and what is
explained moves by the score. That movement passes every layer's residual stream, at the token's own position first, and
at others as attention heads carry it on. What passes at layer l and position p is ``(v^T dy/da_lp) . (da_lp/dx_t u)``:
one backward pass and one forward-mode product give it for all l and p at once, and each layer's positions add up to the
score.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from tl_jacobian.analyses.scopes.choose import Scope, choose_direction, only_direction
from tl_jacobian.analyses.scopes.simple import ScalarOutput
from tl_jacobian.core.linearization import Linearized
from tl_jacobian.core.prompts import Target
from tl_jacobian.core.unembedding import exact
from tl_jacobian.errors import HookPointError
from tl_jacobian.results.arguments import checked, excerpt
from tl_jacobian.results.arguments import positions as places
from tl_jacobian.results.grid import Grid
from tl_jacobian.results.scopes import Confidence


@checked
def token_route(
    lin: Linearized,
    positions: Sequence[int],
    scope: Scope = "semantic",
    *,
    target: Target | None = None,
    minus: Target | None = None,
    confidence: Confidence | None = None,
    rank: int | None = None,
    fn: ScalarOutput | None = None,
    v: Tensor | None = None,
    name: str | None = None,
) -> Grid:
    """Where the influence of a token (or of several, jointly) travels: layers x positions.

    Args:
        lin: a linearization of one position or an answer; nothing need be recorded.
        positions: of the source's tokens; negative ones count from the end.
        scope: a scope's name, a direction v in y, or a function ``fn(y, logits) -> scalar tensor``; with its options as
            for :func:`layer_influence`. One direction.

    Returns:
        Rows are the residual stream before each block, columns tokens; each row adds up to the source's score, and a
        negative number is influence that works against the rest. In units of the score.

    Raises:
        PromptError: a position is outside the prompt.
        ArgumentError: no such scope or option, or several directions.
        HookPointError: the residual stream isn't all there is between x and y.
        RuntimeError: a part of the backward pass can't be differentiated (fused attention kernels).

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> g = token_route(lin, [3], target=" Paris")
    >>> g.values.shape
    torch.Size([30, 5])
    >>> bool((g.values.sum(1) / tj.semantic_scope(lin, " Paris").scores[3] - 1).abs().max() < 1e-3)
    True
    """
    chosen = choose_direction(
        scope, target=target, minus=minus, confidence=confidence, rank=rank, fn=fn, v=v, name=name
    )
    explained = chosen.explain(lin)
    direction = only_direction(explained, "routes")
    at, graph = places(positions, len(lin.tokens)), lin.graph
    chain = list(graph.chain[1:-1])
    if not chain:
        raise HookPointError("no layer's residual stream is all there is between x and y, so there is no route to show")
    spread = lin.spread(direction[None])
    (grads,) = graph.stream_to(spread, [graph.x, *chain])
    source = torch.zeros_like(graph.x)
    source[lin.prompt_row, at] = grads[0][0, lin.prompt_row, at].to(source)  # type: ignore[index]
    size = exact(source).norm()
    moved = (source / size.to(source))[None]
    rows = []
    for (start, end), grad in zip(pairwise(graph.chain[:-1]), grads[1:], strict=True):
        moved = graph.pushed(start, end, moved)
        product = exact(moved[0, lin.prompt_row]) * exact(grad[0, lin.prompt_row])  # type: ignore[index]
        rows.append(product.sum(-1)[: len(lin.tokens)])
    layers = [next(i for i, one in enumerate(graph.between) if one is place) for place in chain]
    first = at[0]
    more = f" and {len(at) - 1} more" if len(at) > 1 else ""
    return Grid(
        values=torch.stack(rows).float(),
        rows=tuple(map(str, layers)),
        columns=lin.str_tokens,
        title=f"where the influence of token {first} {excerpt(lin.str_tokens[first], 30)}{more} travels",
        quantity=f"part of its score: {explained.details.get('score', 'score')}",
        row_axis="layer",
        column_axis="token",
        signed=True,
        tokens=tuple(lin.tokens.tolist()),
        metadata={"sources": list(at), "position": lin.position, **explained.details, **lin.facts},
    )
