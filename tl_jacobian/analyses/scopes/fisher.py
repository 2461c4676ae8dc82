"""Fisher Scope: the whole predicted distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import torch

from tl_jacobian.analyses.scopes.apply import Explained, along, apply, attribution, members_of
from tl_jacobian.analyses.scopes.estimate import Budget, Estimate, estimate
from tl_jacobian.core.answer import AnswerLinearization
from tl_jacobian.core.linalg.eigen import eigenpairs
from tl_jacobian.core.linalg.fisher import FisherFactor
from tl_jacobian.core.linalg.gram import GramSums
from tl_jacobian.core.linalg.product import unrounded
from tl_jacobian.core.linearization import Linearization, LinearizationBatch, Linearized
from tl_jacobian.core.products import squares
from tl_jacobian.core.unembedding import exact
from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import checked, is_id
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.scopes import SCOPES, FisherMethod

# The methods that may draw random signs.
DRAWING = ("auto", "estimate")
# An estimate takes some sixty products whatever d_model: below twice that, exact is no dearer.
_CHEAP = 128
_RTOL = 0.01
# At least eight random probes: the spread of fewer says too little about their error.
_LEAST = 10


@overload
def fisher_scope(
    lin: Linearized,
    *,
    method: FisherMethod = "auto",
    rank: int | None = None,
    n_products: int | None = None,
    rtol: float | None = None,
    generator: torch.Generator | None = None,
) -> Attribution: ...
@overload
def fisher_scope(
    lin: LinearizationBatch[Any],
    *,
    method: FisherMethod = "auto",
    rank: int | None = None,
    n_products: int | None = None,
    rtol: float | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> list[Attribution]: ...
@checked
def fisher_scope(
    lin: Linearized | LinearizationBatch[Any],
    *,
    method: FisherMethod = "auto",
    rank: int | None = None,
    n_products: int | None = None,
    rtol: float | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> Attribution | list[Attribution]:
    """Fisher Scope: which tokens drive the whole predicted distribution (eq. 4 to 6).

    The score is tr(J_t^T F J_t), twice the KL divergence that a unit perturbation of the
    token's embedding causes, summed over all directions. With F = sum of lambda_i u_i u_i^T
    that is the sum of lambda_i ||u_i^T J_t||^2.

    Of an answer the traces are summed over its positions: the sum of the divergences of the next-token distributions
    along this answer. An estimate's probe draws signs at each position and takes one product for all of them.

    Args:
        lin: a linearization, or a batch of them.
        method: ``"exact"`` takes a product with every direction of the final hidden state.
            ``"estimate"`` takes the directions that matter exactly and samples the rest: unbiased,
            with a standard error for each token (see :mod:`tl_jacobian.analyses.scopes.estimate`).
            ``"low_rank"`` takes the ``rank`` leading eigenvectors alone, a lower bound.
            ``"auto"`` is exact for small models and the estimate at 1% otherwise.
            The full trace doesn't change when LayerNorm is folded, but its leading directions
            do: give ``linearize`` the ``final_norm`` for ``"low_rank"``.
        rank: for ``"low_rank"``; default 1, the direction u_1 of the paper's later version
            (scores there are ||u_1^T J_t||, here their square times lambda_1).
        n_products: budget of an estimate in products with the Jacobian, at least 10.
        rtol: or its accuracy: expected error over score, averaged over the tokens (default 0.01). An
            estimate begins with 52 products, so a larger rtol saves nothing; where a smaller one
            would take more products than exact does, the result is exact.
        generator: of the estimate's random signs (on the CPU); default one of its own, seeded with 0.
            ``metadata["seed"]`` was drawn from it; the same generator in the same state gives the same scores.
            For a batch, one for all, whose prompts then share their signs, or one each.

    Returns:
        Scores in nats per squared unit of embedding norm (times two), with ``stderr`` where they are
        estimates (None where exact): the score lies within one in 0.64 to 0.74 of all cases and within two in 0.91 to
        0.96, for a budget as for an accuracy (a normal error: 0.68 and 0.95). ``metadata["method"]``,
        ``["n_products"]`` (vector-Jacobian and Jacobian-vector) and ``["relative_error"]`` say what was done.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> a = tj.fisher_scope(lin)
    >>> a.metadata["method"], a.metadata["n_products"] < 100, bool((a.stderr < 0.05 * a.scores).all())
    ('estimate', True, True)
    """
    return fisher_traces(lin, method, rank, n_products, rtol, generator)


@unrounded()
def fisher_traces(
    lin: Any,
    method: FisherMethod = "auto",
    rank: int | None = None,
    n_products: int | None = None,
    rtol: float | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    pairs: GramSums | None = None,
) -> Any:
    """:func:`fisher_scope`; the products of a single linearization for every two tokens are added to ``pairs``."""
    _check(method, rank, n_products, rtol)
    members = members_of(lin)
    _check_generators(generator, method, len(members))
    if method == "low_rank":
        return apply(lin, "fisher", lambda one: explain_fisher(one, 1 if rank is None else rank), pairs)
    if method == "exact" or (method == "auto" and members and members[0].y.numel() <= _CHEAP):
        return _exactly(lin, pairs)
    seeds = _seeds(generator, len(members))
    found = estimate(members, Budget(n_products, rtol or _RTOL), seeds, None if pairs is None else [pairs])
    made = [_estimated(one, e, seed) for one, e, seed in zip(members, found, seeds, strict=True)]
    return made[0] if isinstance(lin, Linearized) else made


def _exactly(lin: Linearized | LinearizationBatch[Any], pairs: GramSums | None = None) -> Any:
    """Every direction of every position; an answer's positions one after the other, whose traces add up."""
    if isinstance(lin, LinearizationBatch) and any(isinstance(one, AnswerLinearization) for one in lin):
        return [_exactly(one) for one in lin]
    if not isinstance(lin, AnswerLinearization):
        return apply(lin, "fisher", _exact, pairs)
    scores = torch.zeros(len(lin.tokens), dtype=torch.float64)
    for one in lin:
        (found,) = squares([one], [_exact(one).v], None if pairs is None else [pairs.of_first(len(one.tokens))])
        scores[: found.shape[1]] += found.sum(0)
    details = {"method": "exact", "n_products": lin.y.numel(), "score": _unit(lin)}
    return attribution(lin, "fisher", _what(lin), scores, SCOPES["fisher"].combine, details)


def _check(method: str, rank: int | None, n_products: int | None, rtol: float | None) -> None:
    if rank is not None and method != "low_rank":
        raise ArgumentError(f'rank={rank} is for method="low_rank", not for method={method!r}')
    if (n_products, rtol) != (None, None) and method not in DRAWING:
        raise ArgumentError(f'n_products and rtol are for method="estimate", not for method={method!r}')
    if n_products is not None and rtol is not None:
        raise ArgumentError(f"n_products={n_products} and rtol={rtol}: give the budget or the accuracy, not both")
    if n_products is not None and not (is_id(n_products) and n_products >= _LEAST):
        raise ArgumentError(
            f"n_products={n_products!r}, expected an int, at least {_LEAST}: fewer have no error to speak of"
        )
    if rtol is not None and not (isinstance(rtol, (int, float)) and 0 < rtol < 1):
        raise ArgumentError(f"rtol={rtol!r}, expected a relative error between 0 and 1, such as 0.01")


def _check_generators(generator: Any, method: str, n: int) -> None:
    several = isinstance(generator, Sequence)
    if several and len(generator) != n:
        raise ArgumentError(f"{len(generator)} generators for {n} prompts, expected one for all, or one each")
    if generator is not None and method not in DRAWING:
        raise ArgumentError(f"a generator is given, but method={method!r} draws nothing; leave it out")


def _seeds(generator: torch.Generator | Sequence[torch.Generator] | None, n: int) -> list[int]:
    """One for each of n prompts."""
    if generator is None:
        return [0] * n
    if isinstance(generator, torch.Generator):
        return [_seed(generator)] * n
    return [_seed(one) for one in generator]


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator))


def _what(lin: Linearized) -> str:
    return f"predicted distribution{along(lin)}"


def _unit(lin: Linearized) -> str:
    return f"nats (twice the KL divergence) per squared unit of {lin.per}"


def _exact(lin: Linearization) -> Explained:
    factor = FisherFactor(lin.unembedding, lin.logits)
    pairs = eigenpairs(factor, lin.d_model)
    details = {"method": "exact", "n_products": lin.d_model, "score": _unit(lin)}
    return Explained(pairs.scaled(), "predicted distribution", details)


def explain_fisher(lin: Linearized, rank: int = 1) -> Explained:
    """The leading directions of the Fisher matrix of each position, scaled by the roots of their eigenvalues."""
    if not is_id(rank) or not 1 <= rank <= lin.d_model:
        raise ArgumentError(f"rank={rank!r}, expected 1 to d_model={lin.d_model}")
    positions = lin.logits.reshape(-1, lin.logits.shape[-1])
    v = lin.y.new_zeros(len(positions), rank, len(positions), lin.d_model)
    traces = []
    for i, logits in enumerate(positions):
        factor = FisherFactor(lin.unembedding, logits)
        pairs = eigenpairs(factor, rank)
        v[i, : len(pairs.values), i] = pairs.scaled()
        traces.append((exact(pairs.values).sum().item(), max(factor.trace, 1e-30)))
    explained = sum(found for found, _ in traces) / sum(trace for _, trace in traces)
    n = len(positions) * rank
    details = {"method": "low_rank", "n_products": n, "explained_trace": explained, "score": _unit(lin)}
    words = f"predicted distribution, rank {rank} of its Fisher{along(lin)}"
    return Explained(v.reshape(n, *lin.y.shape), words, details)


def _estimated(lin: Linearized, found: Estimate, seed: int) -> Attribution:
    exact = found.n_probes == 0
    details = {
        "method": "exact" if exact else "estimate",
        "n_products": found.n_products,
        "n_exact_directions": found.n_exact,
        "n_probes": found.n_probes,
        "relative_error": found.relative_error,
        "seed": seed,
        "score": _unit(lin),
    }
    stderr, combine = None if exact else found.stderr, SCOPES["fisher"].combine
    return attribution(lin, "fisher", _what(lin), found.scores, combine, details, stderr)
