"""Fisher traces at a fraction of their cost: what matters exactly, the rest by random probes.

tr(J_t^T F J_t) is wanted for every token t, and one backward pass gives v^T J_t for all of
them. F's leading eigenvectors alone are a poor choice of v: its spectrum has a heavy tail, and
how far a direction reaches back is up to J. What the tokens' matrices F^1/2 J_t J_t^T F^1/2
have in common is found by block subspace iteration on their weighted sum:

1. pull back a few leading eigenvectors of F;
2. push what came back forward again (a Jacobian-vector product): y = sum_t w_t J_t J_t^T v,
   with w_t = 1 / score_t, so that no token dominates;
3. pull back the span of those y, exactly too;
4. probe the remainder of F (:mod:`tl_jacobian.linalg.deflation`) with random signs.

Whatever the first three steps find, the estimate is unbiased; they only make it precise.
``benchmarks/fisher_estimators.py`` compares this with the alternatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tl_jacobian.linearization import Linearization
from tl_jacobian.scopes.deflated import Estimate, Push, Traces, begin, deepen, finish, run

# Directions of one step of subspace iteration, and probes; measured by benchmarks/fisher_estimators.py.
_BLOCK = 12
_FIRST_PROBES = 16  # fewer say too little about their own spread
_MORE_PROBES = 8
_MAX_STEPS = 6
# Where F's leading eigenvectors are all there is (no second derivatives), more of them.
_LEADING = 32


class Budget(NamedTuple):
    """How many products may be spent, or (None) how precise the scores must get."""

    n_products: int | None
    rtol: float


def estimate(lins: Sequence[Linearization], budget: Budget, seeds: Sequence[int]) -> list[Estimate]:
    """Fisher traces of linearizations of one forward pass, each as it would come out alone.

    Args:
        lins: members of one batch, or one linearization.
        budget: products, or accuracy.
        seeds: of the random signs of each.
    """
    traces = [Traces.of(lin, seed) for lin, seed in zip(lins, seeds, strict=True)]
    push = _pusher(lins)
    if budget.n_products is None:
        _reach(traces, budget.rtol, push)
    else:
        _spend(traces, budget.n_products, push)
    return [t.estimate() for t in traces]


def _pusher(lins: Sequence[Linearization]) -> Push | None:
    """Jacobian-vector products, or None for a model whose backward pass can't be differentiated."""
    try:
        return lins[0].graph.pusher()
    except RuntimeError as error:
        if "not implemented" in str(error):  # fused attention kernels have no second derivative
            return None
        raise


def _spend(traces: list[Traces], n_products: int, push: Push | None) -> None:
    """About half of a fixed budget for exact directions, the rest for probes."""
    if n_products >= traces[0].lin.d_model:
        return finish(traces)
    block = min(_BLOCK, n_products // 5, (n_products - _MORE_PROBES) // 3)
    if push is None:
        begin(traces, min(_LEADING, n_products - _MORE_PROBES), None)
    elif block:
        begin(traces, block, push)
        most = min(n_products // 2, n_products - _MORE_PROBES)
        for _ in range((most - block) // (2 * block) - 1):
            deepen(traces, push)
            run(traces, push)
        deepen(traces, push)
    for t in traces:
        t.draw(n_products - t.n_products - t.n_taken)
    run(traces)


def _reach(traces: list[Traces], rtol: float, push: Push | None) -> None:
    """Until the error is small enough: deeper while that is cheaper than probes, exact where all else is dearer."""
    begin(traces, _LEADING if push is None else _BLOCK, push)
    if push is not None:
        deepen(traces, push)
    active = traces
    while active:
        for t in active:
            t.draw(_MORE_PROBES if t.probes else _FIRST_PROBES)
        run(active)
        active = [t for t in active if t.missing(rtol) > 0]
        deeper = [t for t in active if push and t.missing(rtol) > 4 * _BLOCK and t.n_steps < _MAX_STEPS]
        hopeless = [t for t in active if t not in deeper and t.n_products + t.missing(rtol) > t.lin.d_model]
        if deeper and push:
            deepen(deeper, push)
        if hopeless:
            finish(hopeless)
        active = [t for t in active if t not in hopeless]
