"""Leading eigenpairs of the Fisher information, without the d_model x d_model x d_vocab product."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.core.linalg.fisher import AnswerFactor, Factor, FisherFactor, signs

# Up to here, or for a quarter of all eigenvectors and more, the dense matrix is as quick.
_DENSE = 256
_ROUNDS = 20


class Eigenpairs(NamedTuple):
    """Leading eigenpairs of F, largest first.

    Attributes:
        values: eigenvalues.
        vectors: unit eigenvectors, one a row.
        bound: each value lies within this of an eigenvalue of F (up to rounding): the largest
            residual norm ||F u - lambda u||, or the trace of what was left out.
    """

    values: Float[Tensor, " k"]
    vectors: Float[Tensor, "k d_model"]
    bound: float

    def scaled(self) -> Float[Tensor, "k d_model"]:
        """sqrt(lambda_i) u_i: directions whose squared influences add up to the trace."""
        return self.values.sqrt()[:, None] * self.vectors


class Nucleus(NamedTuple):
    """The rows of A that matter.

    Attributes:
        rows: those of the tokens that carry most of the trace.
        left_out: the trace of all others, which bounds the error of every eigenvalue (Weyl).
    """

    rows: Float[Tensor, "n d_model"]
    left_out: float


def eigenpairs(factor: FisherFactor, rank: int, rtol: float = 1e-5) -> Eigenpairs:
    """The ``rank`` leading eigenpairs of F.

    Starts from the most probable tokens and expands by residuals (block Davidson) until each
    residual is below ``rtol`` of the largest eigenvalue; dense where that is as quick.
    """
    d_model = factor.head.d_model
    if d_model > _DENSE and 4 * rank < d_model:
        found = _davidson(factor, rank, rtol)
        if found is not None:
            return found
    values, vectors = _descending(factor.dense())
    return Eigenpairs(values[:rank], vectors[:rank], 0.0)


def nucleus(factor: FisherFactor, tail: float, most: int | None = None) -> Nucleus:
    """The fewest rows of A that leave out at most ``tail`` of the trace (and at most ``most`` rows)."""
    weights, order = factor.row_weights.sort(descending=True)
    kept = weights.cpu().double().cumsum(0)
    n = int((kept < (1 - tail) * kept[-1]).sum()) + 1
    n = min(n, most or n, len(order))
    return Nucleus(factor.rows(order[:n]), max(0.0, (kept[-1] - kept[n - 1]).item()))


def rough_eigenvectors(factor: Factor, rank: int, rows: int) -> Float[Tensor, "k d_model"]:
    """Leading eigenvectors of the share of F that the most probable tokens have: a start, with no bound.

    Of several positions, the first ones of all stacked with random signs, the second ones, and so on.
    """
    if isinstance(factor, AnswerFactor):
        found = [rough_eigenvectors(one, rank, rows) for one in factor.factors]
        mixed = signs((len(found), rank, 1), torch.Generator().manual_seed(0)).to(found[0])
        return torch.cat([s[: len(v)] * v for s, v in zip(mixed, found, strict=True)], dim=1)
    probable = factor.logits.topk(min(rows, factor.head.d_vocab)).indices
    return nucleus_eigenpairs(Nucleus(factor.rows(probable), math.inf), rank).vectors


def nucleus_eigenpairs(part: Nucleus, rank: int) -> Eigenpairs:
    """Leading eigenpairs of the nucleus' share of F, from the smaller of its two Gram matrices."""
    rows = part.rows
    if len(rows) >= rows.shape[1]:
        values, vectors = _descending(rows.T @ rows)
        return Eigenpairs(values[:rank], vectors[:rank], part.left_out)
    values, left = _descending(rows @ rows.T)
    values, left = values[:rank], left[:rank]
    vectors = (left @ rows) / values.sqrt().clamp(min=torch.finfo(values.dtype).tiny)[:, None]
    return Eigenpairs(values, vectors, part.left_out)


def _descending(matrix: Float[Tensor, "n n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]:
    """Eigenvalues, largest first and rounding below zero cut off, and eigenvectors as rows."""
    values, vectors = torch.linalg.eigh(matrix)
    return values.flip(0).clamp(min=0), vectors.T.flip(0)


def _davidson(factor: FisherFactor, rank: int, rtol: float) -> Eigenpairs | None:
    """Rayleigh-Ritz on a growing basis; None where it doesn't converge (near-equal eigenvalues)."""
    block = rank + 4  # a few more: the last of them converges at the pace of those after it
    basis = orthonormal(rough_eigenvectors(factor, block, rows=max(factor.head.d_model // 2, 8 * rank)))
    image = factor.push(basis)
    for _ in range(_ROUNDS):
        values, rotation = (part[:block] for part in _descending(image @ image.T))
        vectors = rotation @ basis
        residual = factor.pull(rotation @ image) - values[:, None] * vectors
        bound = torch.linalg.vector_norm(residual[:rank], dim=1).max().item()
        if bound <= rtol * values[0].item():
            return Eigenpairs(values[:rank], vectors[:rank], bound)
        if len(basis) + block > factor.head.d_model // 2:
            return None
        fresh = orthonormal(residual, basis)
        basis, image = torch.cat([basis, fresh]), torch.cat([image, factor.push(fresh)])
    return None


def orthonormal(
    rows: Float[Tensor, "k d_model"], basis: Float[Tensor, "n d_model"] | None = None
) -> Float[Tensor, "k d_model"]:
    """Orthonormal rows, orthogonal to ``basis`` too; projected twice, as once leaves rounding behind."""
    rows = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
    for _ in range(2):
        rows = rows if basis is None else rows - (rows @ basis.T) @ basis
        rows = torch.linalg.qr(rows.T)[0].T
    return rows
