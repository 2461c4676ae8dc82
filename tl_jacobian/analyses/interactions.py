"""Interactions between tokens: what every two of them have in common, from the products that score each alone.

A scope pulls directions v back to g_t = v^T J_t, and scores token t by ||g_t||. The inner product of g_s and g_t
says whether the same small change of both embeddings moves what is explained the same way or against each other; for
Fisher, summed over the directions, it is tr(J_s^T F J_t). No further backward pass is needed for any pair.

It is a first-order statement, of two effects at one point: not a second derivative, and no game value.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tl_jacobian.analyses.scopes.apply import apply, one_of
from tl_jacobian.analyses.scopes.choose import COMPUTATIONS, Scope, choose_direction
from tl_jacobian.analyses.scopes.fisher import fisher_traces
from tl_jacobian.analyses.scopes.simple import ScalarOutput
from tl_jacobian.core.linalg.gram import GramSums
from tl_jacobian.core.linearization import Linearized
from tl_jacobian.core.prompts import Target
from tl_jacobian.results.arguments import checked
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.interactions import TokenInteractions
from tl_jacobian.results.scopes import Confidence, FisherMethod


@checked
def token_interactions(
    lin: Linearized,
    scope: Scope = "fisher",
    *,
    normalise: bool = False,
    target: Target | None = None,
    minus: Target | None = None,
    confidence: Confidence | None = None,
    method: FisherMethod | None = None,
    rank: int | None = None,
    n_products: int | None = None,
    rtol: float | None = None,
    generator: torch.Generator | None = None,
    fn: ScalarOutput | None = None,
    v: Tensor | None = None,
    name: str | None = None,
) -> TokenInteractions:
    """What every two tokens have in common in what they do to a prediction, or to an answer: tokens x tokens, signed.

    For Fisher Scope tr(J_s^T F J_t): if both embeddings move by the same small random change, the KL divergence is
    that of each alone plus this, once more. For a direction v the inner product of v^T J_s and v^T J_t, the two
    tokens' gradients. Positive: they move what is explained the same way; negative: against each other.
    The diagonal has Fisher's scores, or the squares of a direction's. All of it comes from the products that give the
    diagonal, so it costs what the scope itself does (benchmarks/interactions.py).

    Args:
        lin: one linearization, of a position or of an answer.
        scope: a scope's name (``"semantic"``, ``"temperature"``, ``"fisher"``, ``"output"`` with ``fn=``), a direction
            v in y, or a function ``fn(y, logits) -> scalar tensor``.
        normalise: correlations instead, from -1 to 1: how alike two tokens' effects are, however large.
        target, minus: of Semantic Scope.
        confidence: of Temperature Scope.
        method, rank, n_products, rtol, generator: of Fisher Scope: see :func:`fisher_scope`. An estimate has standard
            errors, for pairs as for single tokens; ``rtol`` is that of the diagonal, and pairs far from zero are as
            precise, relative to the root of the product of both tokens' scores.
        fn, v, name: of ``"output"`` and ``"direction"``, and what to call the result.

    Returns:
        Its :meth:`~tl_jacobian.results.interactions.TokenInteractions.top` pairs, ``words()``, ``segments(...)``: sums
        over the pairs of their tokens, which is what the same change of all tokens of a segment does.

    Raises:
        ArgumentError: no such scope or option, or lin isn't a single linearization.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> pairs = tj.token_interactions(lin, "semantic", target=" Paris")
    >>> scores = tj.semantic_scope(lin, " Paris").scores
    >>> bool(torch.allclose(pairs.values.diagonal(), scores.square()))
    True
    """
    chosen = choose_direction(
        scope,
        target=target,
        minus=minus,
        confidence=confidence,
        method=method,
        rank=rank,
        n_products=n_products,
        rtol=rtol,
        generator=generator,
        fn=fn,
        v=v,
        name=name,
    )
    pairs, options = GramSums(len(one_of(lin).tokens)), dict(chosen.options)
    assert chosen.spec is not None  # a direction is asked for
    if chosen.method is not None:
        a: Attribution = fisher_traces(lin, **{**options, "method": chosen.method}, pairs=pairs)
    else:
        explain = COMPUTATIONS[chosen.spec.name].explain
        a = apply(lin, chosen.spec.name, lambda one: explain(one, **options), pairs)
    made = _of(a, pairs)
    return made.correlation() if normalise else made


def _of(a: Attribution, pairs: GramSums) -> TokenInteractions:
    """The products of every two tokens, those of each with itself as the scope gives them."""
    values, scores, unit = pairs.mean, a.scores.double(), a.metadata["score"]
    values = (values + values.T) / 2
    values.diagonal().copy_(scores if a.combine == "sum" else scores.square())
    errors = None
    if (own := a.stderr) is not None:
        errors = pairs.stderr
        errors.diagonal().copy_(own)
    metadata: dict[str, Any] = {**a.metadata, "score": unit if a.combine == "sum" else f"square of: {unit}"}
    return TokenInteractions(
        values=values.float(),
        stderr=errors,
        scope=a.scope,
        target=a.target,
        tokens=a.tokens,
        str_tokens=a.str_tokens,
        position=a.position,
        word_groups=a.word_groups,
        answer_start=a.answer_start,
        regions=a.regions,
        metadata=metadata,
    )
