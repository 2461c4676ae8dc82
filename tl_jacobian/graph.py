"""Graph: one recorded forward pass, and products with its Jacobian from either side.

Torch only: x and y may come from a transformer or from two lines in a test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.modes import recording

# Past 32 directions a batched VJP gains nothing more per direction (benchmarks/fisher_cost.py).
MAX_CHUNK = 32
# Memory that one batch of directions may take while it flows back through a block.
CHUNK_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Graph:
    """The linearised map from token embeddings x to final hidden states y.

    Attributes:
        x: embeddings, a leaf of the graph; shape ``(batch, pos, d_model)``.
        y: final hidden states at the explained positions; shape ``(outputs, d_model)``.
        rows: the row of x that each output belongs to; default: output i to row i.
        floats_per_direction: numbers that one direction occupies at the widest point of its
            way back; sets how many directions travel together.
    """

    x: Float[Tensor, "batch pos d_in"]
    y: Float[Tensor, "outputs d_out"]
    floats_per_direction: int
    rows: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", self.rows or tuple(range(len(self.y))))

    @property
    def chunk(self) -> int:
        """How many directions one batched VJP takes."""
        bytes_each = self.floats_per_direction * self.y.element_size()
        return max(1, min(MAX_CHUNK, CHUNK_BYTES // max(1, bytes_each)))

    def pull(self, v: Float[Tensor, "k outputs d_out"]) -> Float[Tensor, "k batch pos d_in"]:
        """v^T dy/dx for k directions, all k at once (see :meth:`stream`); outputs of one row add up."""
        return torch.cat(list(self.stream(v)))

    def stream(self, v: Float[Tensor, "k outputs d_out"]) -> Iterator[Float[Tensor, "chunk batch pos d_in"]]:
        """The products of :meth:`pull`, a memory-bounded chunk of directions at a time."""
        for part in v.to(self.y.device, self.y.dtype).split(self.chunk):
            yield self._products(part)

    def _products(self, v: Float[Tensor, "k outputs d_out"]) -> Float[Tensor, "k batch pos d_in"]:
        one = len(v) == 1  # vmap costs a little, and one direction doesn't need it
        with recording():
            v = v.clone() if v.is_inference() else v
            (grad,) = torch.autograd.grad(
                self.y, self.x, v[0] if one else v, retain_graph=True, is_grads_batched=not one
            )
        return grad[None] if one else grad

    def pusher(self) -> Callable[[Float[Tensor, "k batch pos d_in"]], Float[Tensor, "k outputs d_out"]]:
        """Jacobian-vector products: a function from changes of x to first-order changes of y.

        The product v^T dy/dx is linear in v, so its own derivative in v is dy/dx, and pulling dx back
        through *it* gives (dy/dx) dx: forward mode out of two backward ones. Recording the first
        pass costs about as much memory as the forward pass did; it is freed with the function.
        """
        with recording():
            v = torch.zeros_like(self.y, requires_grad=True)
            (back,) = torch.autograd.grad(self.y, self.x, v, create_graph=True)

        def push(dx: Float[Tensor, "k batch pos d_in"]) -> Float[Tensor, "k outputs d_out"]:
            parts = dx.to(back.device, back.dtype).split(self.chunk)
            with recording():
                made = [torch.autograd.grad(back, v, p, retain_graph=True, is_grads_batched=True)[0] for p in parts]
            return torch.cat(made)

        return push
