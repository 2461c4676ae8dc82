"""Products with half-precision weights: as exact as float32, from both sides, in blocks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tl_jacobian.core.linalg import product as module
from tl_jacobian.core.linalg.product import contraction, product


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def forward_and_back(fn, x: Tensor) -> tuple[Tensor, ...]:
    """The value, gradients in several directions at once, and products from x's side: differentiated twice."""
    x = x.clone().requires_grad_()
    y = fn(x)
    (back,) = torch.autograd.grad(y, x, randn(3, *y.shape, seed=1), is_grads_batched=True, retain_graph=True)
    u = torch.zeros_like(y, requires_grad=True)
    (linear,) = torch.autograd.grad(y, x, u, create_graph=True)
    (ahead,) = torch.autograd.grad(linear, u, randn(2, *x.shape, seed=2), is_grads_batched=True)
    return y.detach(), back, ahead


SHAPES = [
    ((6,), (6, 4)),
    ((2, 5, 6), (6, 4)),
    ((3, 5, 6), (3, 6, 4)),
    ((5, 6), (3, 6, 4)),  # broadcast, so its gradient is a sum
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("block", [1 << 26, 48])
@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_products_are_those_of_a_float32_copy(monkeypatch, left, right, block, dtype):
    monkeypatch.setattr(module, "BLOCK", block)
    x, weight = randn(*left), randn(*right, seed=3).to(dtype)
    pairs = zip(
        forward_and_back(lambda x: product(x, weight), x),
        forward_and_back(lambda x: x @ weight.float(), x),
        strict=True,
    )
    for found, wanted in pairs:
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)  # sums of six, in another order


@pytest.mark.parametrize("equation", ["pd,hde->phe", "bphe,hed->bpd", "nd,d->n", "bpd,de->bpe", "bij,bjk->kib"])
def test_einsums_of_two_are_products(equation):
    sizes = dict(zip("pdhebnijk", (2, 3, 4, 5, 2, 3, 4, 2, 3), strict=True))
    left, right, _ = equation.replace("->", ",").split(",")
    x, weight = randn(*(sizes[i] for i in left)), randn(*(sizes[i] for i in right), seed=3).bfloat16()
    pairs = zip(
        forward_and_back(lambda x: contraction(equation, x, weight), x),
        forward_and_back(lambda x: torch.einsum(equation, x, weight.float()), x),
        strict=True,
    )
    for found, wanted in pairs:
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("equation", ["ii,ij->j", "...i,ij->...j", "ij,jk", "ij,k->k", "ij,jk,kl->il"])
def test_other_einsums_are_left_to_torch(equation):
    assert contraction(equation, randn(2, 2), randn(2, 2)) is None


def test_a_graph_keeps_the_weight_and_nothing_that_was_cast():
    kept: list[Tensor] = []
    weight = randn(64, 64).bfloat16()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        product(randn(2, 64).requires_grad_(), weight)
    assert [t.data_ptr() for t in kept] == [weight.data_ptr()]


def test_a_weight_that_was_changed_in_place_is_noticed():
    weight = randn(4, 4).bfloat16()
    x = randn(4).requires_grad_()
    y = product(x, weight)
    weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(y.sum(), x)
