"""The paper's reading of ||y|| as an inverse variance, on a head where it holds exactly, and what it takes to hold.

Logits of the number n are y . (n, -n^2 / 2): a y of beta (mu, 1) predicts a Gaussian of mean mu and variance 1 / beta.
"""

from __future__ import annotations

import pytest
import torch

from tl_jacobian.core.unembedding import Unembedding

NUMBERS = torch.arange(-400, 401, dtype=torch.float64) / 4  # so fine and wide that sums are integrals, to 1e-9
HEAD = Unembedding(torch.stack([NUMBERS, -(NUMBERS**2) / 2]))


def y_of(mean, beta):
    return beta * torch.tensor([mean, 1.0], dtype=torch.float64)


def moments(y):
    p = HEAD.logits(y).softmax(-1)
    mean = (p * NUMBERS).sum()
    return mean, (p * (NUMBERS - mean) ** 2).sum()


@pytest.mark.parametrize("mean", [0.0, 3.0, -10.0])
def test_in_one_direction_the_variance_is_inverse_to_the_norm(mean):
    for beta in (0.1, 0.5, 2.0):
        y = y_of(mean, beta)
        found, variance = moments(y)
        assert found.item() == pytest.approx(mean, abs=1e-6)
        assert variance.item() == pytest.approx(1 / beta, rel=1e-6)
        assert (variance * y.norm()).item() == pytest.approx((1 + mean**2) ** 0.5, rel=1e-6)


def test_along_another_direction_the_same_norm_is_another_variance():
    """What is sure is a matter of direction too: a longer y can be a wider forecast."""
    narrow, wide = y_of(0.0, 1.0), y_of(20.0, 0.2)
    assert wide.norm() > 4 * narrow.norm()
    assert moments(wide)[1] > 4 * moments(narrow)[1]


def test_the_norms_gradient_is_the_variances_only_along_y():
    y = y_of(3.0, 0.5).requires_grad_()
    (of_norm,) = torch.autograd.grad(y.norm(), y)
    (of_variance,) = torch.autograd.grad(-moments(y)[1].log(), y)
    along = y.detach() / y.detach().norm()
    # d log(1 / variance) / d log ||y|| = 1 along y; across it the norm doesn't move, and the variance does.
    assert (of_variance @ y.detach()).item() == pytest.approx(1.0, rel=1e-6)
    across = torch.stack([-along[1], along[0]])
    assert (of_norm @ across).abs() < 1e-12
    assert (of_variance @ across).abs() > 0.1
