"""Functions of rows, a block at a time: every derivative is that of the whole function."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tl_jacobian.core.linalg.blockwise import Block, Cut, Like, blocks_of, blockwise

N, HEADS, D = 7, 2, 2
ROWS, COLUMNS = Cut(rows=-2), Cut(columns=-2)
MASK = torch.full((N, N), -torch.inf, dtype=torch.float64).triu(1)


def whole(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT + MASK).softmax(-1) @ v


def in_blocks(q: Tensor, k: Tensor, v: Tensor, rows: int = 3, causal: bool = True, seen: list[Block] | None = None):
    def body(block: Block, q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
        if seen is not None:
            seen.append(block)
        return [(q @ k.mT + MASK[block.start : block.stop, : block.columns]).softmax(-1) @ v]

    like = Like.this(q, ROWS)
    return blockwise(body, blocks_of(N, rows, causal), (q, k, v), (ROWS, COLUMNS, COLUMNS), [like])[0]


@pytest.fixture
def inputs():
    g = torch.Generator().manual_seed(0)
    return [torch.randn(HEADS, N, D, dtype=torch.float64, generator=g, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize(("rows", "causal"), [(1, True), (3, True), (3, False), (N, True)])
def test_first_and_second_derivatives(inputs, rows, causal):
    torch.testing.assert_close(in_blocks(*inputs, rows, causal), whole(*inputs))
    with torch.random.fork_rng():
        assert torch.autograd.gradcheck(lambda *x: in_blocks(*x, rows, causal), inputs, fast_mode=True)
        assert torch.autograd.gradgradcheck(lambda *x: in_blocks(*x, rows, causal), inputs, fast_mode=True)


def test_third_derivatives(inputs):
    found = []
    for fn in (whole, in_blocks):
        y, g = fn(*inputs), torch.linspace(-1, 1, N * D, dtype=torch.float64).view(N, D)
        (first,) = torch.autograd.grad((y * g).sum(), inputs[0], create_graph=True)
        (second,) = torch.autograd.grad((first * g).sum(), inputs[1], create_graph=True)
        found.append(torch.autograd.grad((second * g).sum(), inputs))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_several_directions_share_the_function_itself(inputs):
    seen: list[Block] = []
    y, v = (
        in_blocks(*inputs, seen=seen),
        torch.linspace(-1, 2, 4 * HEADS * N * D, dtype=torch.float64).view(4, HEADS, N, D),
    )
    seen.clear()
    back = torch.vmap(lambda one: torch.autograd.grad(y, inputs, one, retain_graph=True))(v)
    assert len(seen) == 3  # blocks, and not for each direction
    for i, one in enumerate(v):
        for a, b in zip(back, torch.autograd.grad(whole(*inputs), inputs, one), strict=True):
            torch.testing.assert_close(a[i], b)


def test_products_from_the_other_side(inputs):
    """The derivative of a gradient in the direction itself, several at once; nothing else is worked out then."""
    found, dx, seen = [], torch.linspace(-1, 2, 4 * HEADS * N * D, dtype=torch.float64).view(4, HEADS, N, D), []
    for fn in (whole, lambda *x: in_blocks(*x, seen=seen)):
        y = fn(*(x * 1 for x in inputs))
        u = torch.ones_like(y, requires_grad=True)
        (back,) = torch.autograd.grad(y, inputs[0], u, create_graph=True)
        found.append(
            torch.vmap(lambda one, back=back, u=u: torch.autograd.grad(back, u, one, retain_graph=True))(dx)[0]
        )
    torch.testing.assert_close(*found)


def test_the_same_tensor_twice(inputs):
    x = inputs[0]
    torch.testing.assert_close(
        torch.autograd.grad(in_blocks(x, x, x).sum(), x), torch.autograd.grad(whole(x, x, x).sum(), x)
    )
