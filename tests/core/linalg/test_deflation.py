"""A deflated Fisher matrix: the two parts add up, whatever was taken out."""

from __future__ import annotations

import itertools

import pytest
import torch
from test_spectrum import randn, zipf

from tl_jacobian.core.linalg.fisher import Deflation

D = 8


def parts(deflation: Deflation) -> tuple[torch.Tensor, torch.Tensor]:
    """B^T B, and the exact covariance of the remainder's probes (over all signs of the vocabulary)."""
    b = deflation.directions
    patterns = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=10)), dtype=torch.float64)
    g = deflation.remainder(deflation.factor.pull(patterns))
    return b.T @ b, g.T @ g / len(g)


@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("blocks", [1, 2])
def test_the_parts_add_up(k, blocks):
    deflation = Deflation.none(zipf(D, 10))
    for i in range(blocks):
        deflation = deflation.extended(randn(k, D, seed=3 + i))
    taken, rest = parts(deflation)
    fisher = deflation.factor.dense()
    torch.testing.assert_close(taken + rest, fisher, rtol=1e-9, atol=1e-11)
    assert len(deflation) == min(k * blocks, D)
    c = deflation.coefficients
    torch.testing.assert_close(c @ fisher @ c.T, torch.eye(len(c), dtype=torch.float64), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(rest @ c.T, torch.zeros_like(c.T), rtol=0, atol=1e-11)


def test_nothing_taken_out():
    deflation = Deflation.none(zipf(D, 10))
    g = randn(3, D, seed=4)
    assert len(deflation) == 0
    assert torch.equal(deflation.remainder(g), g)


def test_directions_that_are_there_already_are_dropped():
    y = randn(2, D, seed=3)
    deflation = Deflation.none(zipf(D, 10)).extended(torch.stack([y[0], y[1], y[0] + y[1], 3 * y[0]]))
    assert len(deflation) == 2
    again = deflation.extended(y)
    taken, rest = parts(again)
    torch.testing.assert_close(taken + rest, again.factor.dense(), rtol=1e-6, atol=1e-8)


def test_zero_directions_add_nothing():
    assert len(Deflation.none(zipf(D, 10)).extended(torch.zeros(2, D, dtype=torch.float64))) == 0


def test_float32_keeps_the_identity_to_its_rounding():
    """Nearly dependent directions, as a power step gives them."""
    factor = zipf(60, 500, dtype=torch.float32)
    y = randn(1, 60, seed=3) + 1e-3 * randn(12, 60, seed=4)
    deflation = Deflation.none(factor).extended(y.float())
    c, fisher = deflation.coefficients.double(), zipf(60, 500).dense()
    assert (c @ fisher @ c.T - torch.eye(len(c))).abs().max() < 1e-3
    torch.testing.assert_close(deflation.directions.double(), c @ fisher, rtol=1e-3, atol=1e-4)
