"""A part of the Fisher information taken out exactly, so that random probes see only the rest.

For coefficients C (rows c_j) with C F C^T = I, let b_j = F c_j. Then for any G

    tr(F G) = sum_j b_j^T G b_j + tr(R G),   R = F - B^T B,

and g - B^T (C g) has covariance R wherever g has covariance F.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.linalg.fisher import FisherFactor

# Directions whose Fisher norm is below this part of the block's largest add rounding, not accuracy.
_NEGLIGIBLE = 1e-5


@dataclass(frozen=True, eq=False)
class Deflation:
    """The directions taken out of F.

    Attributes:
        factor: of F.
        coefficients: C; orthonormal in the inner product of F.
        directions: B = C F, to be pulled back exactly.
    """

    factor: FisherFactor
    coefficients: Float[Tensor, "n d_model"]
    directions: Float[Tensor, "n d_model"]

    @staticmethod
    def none(factor: FisherFactor) -> Deflation:
        empty = factor.logits.new_empty(0, factor.head.d_model)
        return Deflation(factor, empty, empty)

    def __len__(self) -> int:
        return len(self.directions)

    def extended(self, y: Float[Tensor, "k d_model"]) -> Deflation:
        """The span of ``y`` taken out as well: up to k directions more.

        Orthogonalised twice: once leaves rounding that the small directions would amplify.
        """
        fresh = y.to(self.factor.logits)
        fresh = fresh / torch.linalg.vector_norm(fresh, dim=1, keepdim=True).clamp(min=torch.finfo(fresh.dtype).tiny)
        image = fresh
        for _ in range(2):
            fresh = fresh - (fresh @ self.directions.T) @ self.coefficients
            image = self.factor.matvec(fresh)
            scale = _whitening(fresh @ image.T)
            fresh, image = scale @ fresh, scale @ image
        return Deflation(self.factor, torch.cat([self.coefficients, fresh]), torch.cat([self.directions, image]))

    def remainder(self, g: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        """Directions of covariance F as directions of covariance R."""
        return g - (g @ self.coefficients.T) @ self.directions


def _whitening(gram: Float[Tensor, "k k"]) -> Float[Tensor, "n k"]:
    """Rows that make a Gram matrix the identity, negligible directions dropped.

    Where none is, the symmetric ones, which leave the basis closest to what it was: eigenvectors of a Gram
    matrix that is the identity already are rounding's choice, and what is found next would hang on it.
    """
    values, vectors = torch.linalg.eigh(gram.double())
    kept = values > _NEGLIGIBLE * values.max().clamp(min=torch.finfo(gram.dtype).tiny) if len(values) else values > 0
    rows = (vectors[:, kept] / values[kept].sqrt()).T
    return (vectors @ rows if kept.all() else rows).to(gram.dtype)
