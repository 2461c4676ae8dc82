"""Leading eigenpairs of the Fisher matrix, and the bounds that come with them, against dense ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tl_jacobian.core.linalg import eigen as module
from tl_jacobian.core.linalg.eigen import eigenpairs, nucleus, nucleus_eigenpairs
from tl_jacobian.core.linalg.fisher import FisherFactor
from tl_jacobian.core.unembedding import Unembedding


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def zipf(d_model: int, d_vocab: int, *, cap: float | None = None, dtype: torch.dtype = torch.float64) -> FisherFactor:
    """Weights with a decaying spectrum, and a distribution with a heavy tail, as language models have."""
    decay = torch.arange(1, d_model + 1, dtype=torch.float64) ** -0.5
    weight = torch.linalg.qr(randn(d_model, d_model))[0] @ (decay[:, None] * randn(d_model, d_vocab, seed=1))
    logits = -1.3 * torch.arange(1, d_vocab + 1, dtype=torch.float64).log() + 0.1 * randn(d_vocab, seed=2)
    return FisherFactor(Unembedding(weight.to(dtype), soft_cap=cap), logits.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("rank", [1, 5, 40])
@pytest.mark.parametrize("cap", [None, 30.0])
def test_leading_eigenpairs_of_a_large_matrix(rank, dtype, cap):
    factor = zipf(300, 2000, cap=cap, dtype=dtype)
    pairs = eigenpairs(factor, rank)
    values = torch.linalg.eigvalsh(zipf(300, 2000, cap=cap).dense()).flip(0)
    assert pairs.vectors.shape == (rank, 300)
    assert pairs.bound <= 1e-5 * values[0]
    assert (pairs.bound > 0) == (rank < 40)  # for many, the dense matrix
    rounding = 1e-5 if dtype == torch.float32 else 1e-12
    assert (pairs.values.double() - values[:rank]).abs().max() <= pairs.bound + rounding * values[0]
    residual = factor.matvec(pairs.vectors) - pairs.values[:, None] * pairs.vectors
    assert residual.norm(dim=1).max() <= pairs.bound + rounding * values[0]


@pytest.mark.parametrize("rank", [1, 3, 12])
def test_small_matrices_are_exact(rank):
    factor = zipf(12, 50)
    fisher, pairs = factor.dense(), eigenpairs(factor, rank)
    torch.testing.assert_close(pairs.values, torch.linalg.svdvals(fisher)[:rank])
    torch.testing.assert_close(pairs.vectors @ fisher, pairs.values[:, None] * pairs.vectors)
    if rank == 12:
        torch.testing.assert_close(pairs.scaled().T @ pairs.scaled(), fisher)


def test_where_nothing_converges_the_dense_matrix_is_taken(monkeypatch):
    monkeypatch.setattr(module, "_ROUNDS", 1)
    factor = zipf(300, 2000)
    pairs = eigenpairs(factor, 3)
    torch.testing.assert_close(pairs.values, torch.linalg.eigvalsh(factor.dense()).flip(0)[:3])
    assert pairs.bound == 0


def test_a_certain_prediction_has_no_directions():
    logits = torch.full((2000,), -1e4, dtype=torch.float64)
    logits[3] = 0
    pairs = eigenpairs(FisherFactor(Unembedding(randn(300, 2000)), logits), 2)
    assert pairs.values.tolist() == [0, 0]
    assert pairs.scaled().isfinite().all()


@pytest.mark.parametrize("tail", [0.5, 0.1, 1e-3, 0.0])
def test_the_nucleus_leaves_out_what_it_says(tail):
    factor = zipf(20, 500)
    part = nucleus(factor, tail)
    left = factor.dense() - part.rows.T @ part.rows
    assert part.left_out == pytest.approx(left.trace().item(), abs=1e-9)
    assert part.left_out <= tail * factor.trace + 1e-9
    if tail == 0.1:
        assert len(part.rows) < 250
        fewer = part.rows[:-1]
        assert (factor.dense() - fewer.T @ fewer).trace() > tail * factor.trace


@pytest.mark.parametrize(("d_model", "most"), [(20, None), (60, 15)])
def test_eigenvalues_of_the_nucleus_are_within_its_bound(d_model, most):
    """More rows than columns, and fewer: whichever Gram matrix is smaller."""
    factor = zipf(d_model, 500)
    part = nucleus(factor, 0.2, most)
    pairs = nucleus_eigenpairs(part, 5)
    values = torch.linalg.svdvals(factor.dense())[:5]
    assert (pairs.values - values).abs().max() <= pairs.bound
    share = part.rows.T @ part.rows
    torch.testing.assert_close(pairs.vectors @ share, pairs.values[:, None] * pairs.vectors)
    torch.testing.assert_close(pairs.vectors @ pairs.vectors.T, torch.eye(5, dtype=torch.float64))
