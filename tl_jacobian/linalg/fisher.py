"""The Fisher information of the predicted distribution, in the final hidden state.

F = W^T (diag p - p p^T) W (paper, sec. 3.2), with W the derivative of the logits in y:
the unembedding, times the slope of a soft-cap. Written as A^T A with
A = diag(sqrt p) (W - 1 mu^T), mu = W^T p, so it is formed without cancellation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.unembedding import Unembedding

# Rows of W that are centred at once: bounds the copy, whatever the vocabulary.
_BLOCK = 16_384


class Eigenpairs(NamedTuple):
    """Leading eigenvalues (descending) and unit eigenvectors (one a row) of F."""

    values: Float[Tensor, " k"]
    vectors: Float[Tensor, "k d_model"]

    def scaled(self) -> Float[Tensor, "k d_model"]:
        """sqrt(lambda_i) u_i: directions whose squared influences add up to the trace."""
        return self.values.sqrt()[:, None] * self.vectors


def fisher_matrix(head: Unembedding, logits: Float[Tensor, " d_vocab"]) -> Float[Tensor, "d_model d_model"]:
    """F at the given logits, in the logits' precision.

    Args:
        head: the unembedding.
        logits: the model's logits, soft-cap applied; float32 or better.

    >>> head = Unembedding(torch.eye(2))
    >>> fisher_matrix(head, torch.zeros(2))
    tensor([[ 0.2500, -0.2500],
            [-0.2500,  0.2500]])
    """
    p, slope = logits.softmax(dim=-1), head.slope(logits)
    mean = head.weight.to(logits.dtype) @ (p * slope)
    fisher = logits.new_zeros(head.d_model, head.d_model)
    for rows in torch.arange(head.d_vocab, device=logits.device).split(_BLOCK):
        w = head.weight[:, rows].to(logits.dtype) * slope[rows] - mean[:, None]
        w *= p[rows].sqrt()
        fisher += w @ w.T
    return head.fold(head.fold(fisher).T)


def eigenpairs(fisher: Float[Tensor, "d_model d_model"], rank: int) -> Eigenpairs:
    """The ``rank`` leading eigenpairs; rounding below zero is cut to zero."""
    values, vectors = torch.linalg.eigh(fisher)
    return Eigenpairs(values.flip(0)[:rank].clamp(min=0), vectors.T.flip(0)[:rank])
