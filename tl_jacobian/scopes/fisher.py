"""Fisher Scope: the whole predicted distribution."""

from __future__ import annotations

from typing import Literal, overload

from tl_jacobian.attribution import Attribution
from tl_jacobian.errors import ArgumentError
from tl_jacobian.linalg.fisher import eigenpairs, fisher_matrix
from tl_jacobian.linearization import Linearization, LinearizationBatch
from tl_jacobian.scopes.apply import Explained, apply

Method = Literal["auto", "exact", "low_rank"]


@overload
def fisher_scope(lin: Linearization, *, method: Method = "auto", rank: int | None = None) -> Attribution: ...
@overload
def fisher_scope(lin: LinearizationBatch, *, method: Method = "auto", rank: int | None = None) -> list[Attribution]: ...
def fisher_scope(
    lin: Linearization | LinearizationBatch,
    *,
    method: Method = "auto",
    rank: int | None = None,
) -> Attribution | list[Attribution]:
    """Fisher Scope: which tokens drive the whole predicted distribution (eq. 4 to 6).

    The score is tr(J_t^T F J_t), twice the KL divergence that a unit perturbation of the
    token's embedding causes, summed over all directions. With F = sum of lambda_i u_i u_i^T
    that is the sum of lambda_i ||u_i^T J_t||^2: one vector-Jacobian product an eigenvector.

    Args:
        lin: a linearization, or a batch of them.
        method: ``"exact"`` takes all d_model eigenvectors; ``"low_rank"`` the ``rank`` leading
            ones, a lower bound; ``"auto"`` is exact. The full trace doesn't change when LayerNorm
            is folded, but its leading directions do: give ``linearize`` the ``final_norm`` then.
        rank: for ``"low_rank"``; default 1, the direction u_1 of the paper's later version
            (scores there are ||u_1^T J_t||, here their square times lambda_1).

    Returns:
        Scores in nats per squared unit of embedding norm (times two).

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> a = tj.fisher_scope(lin, method="low_rank", rank=4)
    >>> a.metadata["n_products"]
    4
    """
    if method not in ("auto", "exact", "low_rank"):
        raise ArgumentError(f'method={method!r}, expected "auto", "exact" or "low_rank"')
    if method != "low_rank":
        if rank is not None:
            raise ArgumentError(f'rank={rank} is for method="low_rank", not for method={method!r}')
        return apply(lin, "fisher", lambda one: _fisher(one, "exact", one.d_model), combine="sum")
    return apply(lin, "fisher", lambda one: _fisher(one, "low_rank", 1 if rank is None else rank), combine="sum")


def _fisher(lin: Linearization, method: str, rank: int) -> Explained:
    if not 1 <= rank <= lin.d_model:
        raise ArgumentError(f"rank={rank}, expected 1 to d_model={lin.d_model}")
    fisher = fisher_matrix(lin.unembedding, lin.logits)
    pairs = eigenpairs(fisher, rank)
    details = {
        "method": method,
        "n_products": rank,
        "explained_trace": (pairs.values.sum() / fisher.trace().clamp(min=1e-30)).item(),
        "score": "nats (twice the KL divergence) per squared unit of embedding norm",
    }
    words = "predicted distribution" if method == "exact" else f"predicted distribution, rank {rank} of its Fisher"
    return Explained(pairs.scaled(), words, details)
