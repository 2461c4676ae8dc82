"""Products with half-precision weights that are as exact as float32, without a float32 copy of the weights.

A weight is cast up for the product alone, a block of it at a time, forward and again in every backward pass: a graph
keeps the half-precision weight, which is the model's own, and nothing that was cast.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@contextmanager
def unrounded() -> Iterator[None]:
    """The caller's ``torch.autocast`` rounds nothing inside."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    devices = ("cpu",) if accelerator is None else ("cpu", accelerator.type)
    with ExitStack() as stack:
        for device in devices:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


# Bytes of a weight, cast up, that are in memory at once.
BLOCK = 1 << 26


def product(
    x: Float[Tensor, "*batch d_in"], weight: Float[Tensor, "*of_weight d_in d_out"]
) -> Float[Tensor, "*both d_out"]:
    """``x @ weight`` in x's precision, the weight a constant.

    Args:
        x: float32 or better; a vector, or a (stack of) matrices.
        weight: of any floating-point precision; a matrix, or a stack of them.

    >>> product(torch.ones(3), torch.eye(3, dtype=torch.bfloat16))
    tensor([1., 1., 1.])
    """
    return _Product.apply(x, weight)  # type: ignore[no-any-return,no-untyped-call]  # torch's own type is Any


class _Product(torch.autograd.Function):
    """Linear in x; its gradient is a product with the same weight, so it can be differentiated any number of times."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        n = math.ceil(weight.numel() * x.element_size() / BLOCK) if weight.dtype != x.dtype else 1
        if n <= 1:
            return x @ weight.to(x.dtype)
        blocks = weight.split(math.ceil(weight.shape[-1] / n), dim=-1)
        return torch.cat([x @ block.to(x.dtype) for block in blocks], dim=-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        x, weight = inputs
        ctx.shape = x.shape
        ctx.save_for_backward(weight)  # which notices changes in place

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (grad,) = grad_outputs
        (weight,) = ctx.saved_tensors
        back = product(grad, weight.mT)
        return (back if back.shape == ctx.shape else back.sum_to_size(ctx.shape)), None  # x was broadcast


def contraction(equation: str, x: Float[Tensor, "..."], weight: Float[Tensor, "..."]) -> Tensor | None:
    """``torch.einsum(equation, x, weight)`` as a :func:`product`; None where it isn't one.

    >>> w = torch.ones(2, 3, 4, dtype=torch.float16)
    >>> contraction("pd,hde->phe", torch.ones(5, 3), w).shape
    torch.Size([5, 2, 4])
    """
    operands, arrow, out = equation.replace(" ", "").partition("->")
    left, _, right = operands.partition(",")
    indices = (left, right, out)
    if not arrow or any("." in i or len(set(i)) < len(i) for i in indices) or "," in right:
        return None
    if not (set(left) <= set(right + out) and set(right) <= set(left + out) and set(out) <= set(left + right)):
        return None  # an index that is summed within one operand
    batch = [i for i in left if i in right and i in out]
    summed = [i for i in left if i in right and i not in out]
    mine, its = [i for i in left if i not in right], [i for i in right if i not in left]
    size = dict(zip(right, weight.shape, strict=True)) | dict(zip(left, x.shape, strict=True))
    a = _grouped(x, left, (batch, mine, summed), size)
    b = _grouped(weight, right, (batch, summed, its), size)
    made, order = product(a, b), batch + mine + its
    return made.reshape([size[i] for i in order]).permute([order.index(i) for i in out])


def _grouped(tensor: Tensor, indices: str, groups: tuple[list[str], ...], size: dict[str, int]) -> Tensor:
    """The indices in the groups' order, each group one dimension."""
    shape = [math.prod(size[i] for i in group) for group in groups]
    return tensor.permute([indices.index(i) for group in groups for i in group]).reshape(shape)
