"""J_t = dy/dx_t of one token, as the products that are all that can be had of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.errors import ContractError
from tl_jacobian.linalg.singular import SPARE, Decomposition, dense, krylov
from tl_jacobian.linearization import Linearization
from tl_jacobian.precision import exact
from tl_jacobian.progress import progress

# Up to here all of J_t is no dearer. Beyond, its leading part takes some 10 (k + SPARE) products
# instead of d_model: for d_model 576 and k 16 0.4 of the time (benchmarks/jacobian_spectrum.py).
_DENSE = 256
_PRODUCTS = 10


@dataclass(eq=False)
class JacobianBlock:
    """Products with J_t from either side, in float64 on the CPU, and how many there were.

    Attributes:
        position: t.
        n_products: directions pulled back or pushed forward so far.
    """

    lin: Linearization
    position: int
    n_products: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """(d_model, d_in)."""
        return self.lin.d_model, self.lin.graph.x.shape[-1]

    def pull(self, u: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_in"]:
        """u J_t, a memory-bounded chunk of directions at a time."""
        parts = []
        with progress(len(u), "rows of the Jacobian") as bar:
            for part in u.to(self.lin.y).split(self.lin.graph.chunk):
                parts.append(self.lin.vjp(part)[:, self.position])
                bar.update(len(part))
        return self._counted(torch.cat(parts))

    def push(self, v: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_model"]:
        """J_t v."""
        x = self.lin.graph.x
        dx = x.new_zeros(len(v), len(self.lin.tokens), x.shape[-1])
        dx[:, self.position] = v.to(x)
        return self._counted(self.lin.jvp(dx))

    def _counted(self, products: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        self.n_products += len(products)
        if not products.isfinite().all():
            raise ContractError(
                f"the Jacobian of token {self.position} isn't finite in {products.dtype}; load the model in float32"
            )
        return exact(products)

    def decompose(self, k: int, rtol: float, generator: torch.Generator) -> Decomposition:
        """The k leading singular triples, by the method that takes fewer products."""
        few = min(self.shape) > _DENSE and _PRODUCTS * (k + SPARE) <= min(self.shape)
        try:
            if few:
                return krylov(self.pull, self.push, self.shape, k, rtol, generator)
        except RuntimeError as error:
            if "not implemented" not in str(error):  # fused attention kernels have no second derivative
                raise
        return dense(self.pull, self.shape[0], k)
