"""The effective rank from what a basis knows and probes guess, for a basis that isn't one of singular vectors."""

from __future__ import annotations

import pytest
import torch

from tl_jacobian.core.linalg.singular import Decomposition, Triples, dense, moments, participation


def randn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def j() -> torch.Tensor:
    return randn(40, 30, seed=0) * torch.arange(1, 31) ** -0.5


def known_by(basis: torch.Tensor, j: torch.Tensor) -> Decomposition:
    nothing = torch.empty(0)
    return Decomposition(basis, basis @ j, Triples(nothing, nothing[None], nothing[None], nothing))


def test_both_sums_are_unbiased(j):
    """tr M and tr M^2, known part, cross part and rest, averaged over many seeds."""
    basis = torch.linalg.qr(randn(40, 8, seed=1))[0].T
    found = [moments(known_by(basis, j), lambda u: u @ j, torch.Generator().manual_seed(s)) for s in range(400)]
    squares = torch.tensor([m.squares for m in found])
    fourth = torch.tensor([m.squares**2 / m.effective_rank for m in found])
    true = torch.linalg.svdvals(j).square()
    for estimates, value in ((squares, true.sum()), (fourth, true.square().sum())):
        error = estimates.std() / 20
        assert error < 0.02 * value
        assert abs(estimates.mean() - value) < 3.5 * error


def test_a_complete_decomposition_is_exact(j):
    found = dense(lambda u: u @ j, 40, 3)
    true = torch.linalg.svdvals(j).square()
    exact = moments(found, lambda u: u @ j, torch.Generator())
    assert found.complete
    assert exact.squares == pytest.approx(true.sum().item())
    assert exact.effective_rank == pytest.approx(participation(true.sum().item(), true.square().sum().item()))
    assert (exact.squares_stderr, exact.effective_rank_stderr) == (0, 0)
    torch.testing.assert_close(found.triples.values, true[:3].sqrt())
