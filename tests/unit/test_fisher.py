"""The Fisher matrix against explicit sums over the vocabulary in float64."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from tl_jacobian.linalg import fisher as module
from tl_jacobian.linalg.fisher import eigenpairs, fisher_matrix
from tl_jacobian.unembedding import Unembedding

D, VOCAB = 5, 17


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(bias: bool = False, cap: bool = False, gain: bool = False, d_vocab: int = VOCAB) -> Unembedding:
    return Unembedding(
        randn(D, d_vocab),
        bias=randn(d_vocab, seed=1) if bias else None,
        soft_cap=1.5 if cap else None,
        gain=1 + 0.3 * randn(D, seed=2) if gain else None,
        shift=randn(D, seed=3) if gain else None,
    )


def naive(head: Unembedding, y: Tensor) -> Tensor:
    """sum_i p_i (w_i - mean)(w_i - mean)^T, w_i the gradient of logit i in y, one token at a time."""
    y = y.detach().requires_grad_()
    logits = head.logits(y)
    p = logits.detach().softmax(-1)
    w = [torch.autograd.grad(z, y, retain_graph=True)[0] for z in logits]
    mean = sum(p_i * w_i for p_i, w_i in zip(p, w, strict=True))
    return sum(p_i * torch.outer(w_i - mean, w_i - mean) for p_i, w_i in zip(p, w, strict=True))


settings = pytest.mark.parametrize(
    "setting",
    [dict(zip(("bias", "cap", "gain"), flags, strict=True)) for flags in itertools.product([0, 1], repeat=3)],
    ids=lambda setting: "+".join(name for name, on in setting.items() if on) or "plain",
)


@settings
def test_fisher_is_the_explicit_sum(setting):
    head, y = make(**setting), randn(D, seed=4)
    torch.testing.assert_close(fisher_matrix(head, head.logits(y)), naive(head, y), rtol=1e-11, atol=1e-12)


@settings
def test_fisher_is_the_curvature_of_the_kl_divergence(setting):
    head, y = make(**setting), randn(D, seed=4)
    before = head.logits(y).log_softmax(-1)

    def kl(other: Tensor) -> Tensor:
        return (before.exp() * (before - head.logits(other).log_softmax(-1))).sum()

    hessian = torch.autograd.functional.hessian(kl, y)
    torch.testing.assert_close(fisher_matrix(head, head.logits(y)), hessian, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("block", [1, 4, 17, 100])
def test_blocks_of_the_vocabulary_change_nothing(monkeypatch, block):
    monkeypatch.setattr(module, "_BLOCK", block)
    head, y = make(bias=True, cap=True, gain=True), randn(D, seed=4)
    torch.testing.assert_close(fisher_matrix(head, head.logits(y)), naive(head, y), rtol=1e-11, atol=1e-12)


def test_fisher_is_symmetric_and_not_negative():
    head, y = make(cap=True, gain=True), randn(D, seed=4)
    fisher = fisher_matrix(head, head.logits(y))
    torch.testing.assert_close(fisher, fisher.T)
    assert torch.linalg.eigvalsh(fisher).min() > -1e-14


def test_a_constant_added_to_every_logit_changes_nothing():
    """center_unembed=True subtracts the same vector from every column."""
    head, y = make(), randn(D, seed=4)
    centred = Unembedding(head.weight - head.weight.mean(dim=1, keepdim=True))
    torch.testing.assert_close(fisher_matrix(head, head.logits(y)), fisher_matrix(centred, centred.logits(y)))


def test_folding_the_norm_changes_nothing():
    """F in the unfolded y, whether the gain is in the norm or in the unembedding."""
    gain, h, weight = 1 + 0.3 * randn(D, seed=2), randn(D, seed=4), randn(D, VOCAB)
    raw = Unembedding(weight)
    folded = Unembedding(gain[:, None] * weight, None, None, gain, torch.zeros(D, dtype=torch.float64))
    torch.testing.assert_close(fisher_matrix(raw, raw.logits(gain * h)), fisher_matrix(folded, folded.logits(gain * h)))


def test_a_certain_prediction_has_no_information():
    logits = torch.full((VOCAB,), -1e4, dtype=torch.float64)
    logits[3] = 0.0
    assert fisher_matrix(make(), logits).abs().max() == 0


def test_an_almost_certain_prediction_loses_no_digits():
    """diag p - p p^T would cancel: the mean is one column up to 1e-7."""
    logits = torch.full((VOCAB,), -20.0, dtype=torch.float64)
    logits[3] = 0.0
    head = Unembedding(randn(D, VOCAB) + 100)
    w, p = head.weight, logits.softmax(-1)
    exact = sum(p[i] * torch.outer(w[:, i] - w @ p, w[:, i] - w @ p) for i in range(VOCAB))
    low = fisher_matrix(Unembedding(w.float()), logits.float())
    assert (low.double() - exact).norm() < 1e-3 * exact.norm()


@pytest.mark.parametrize(
    ("weight", "logits"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float32, torch.float64)],
)
def test_fisher_has_the_precision_of_the_logits(weight, logits):
    assert fisher_matrix(Unembedding(randn(D, VOCAB).to(weight)), randn(VOCAB).to(logits)).dtype == logits


def test_half_precision_weights_cost_only_their_own_rounding():
    weight = randn(D, VOCAB).bfloat16()
    logits = randn(VOCAB, seed=1)
    torch.testing.assert_close(
        fisher_matrix(Unembedding(weight), logits.float()).double(),
        fisher_matrix(Unembedding(weight.double()), logits),
        rtol=1e-5,
        atol=1e-5,
    )


def test_eigenpairs_rebuild_the_matrix():
    fisher = fisher_matrix(make(), randn(VOCAB, seed=1))
    pairs = eigenpairs(fisher, D)
    torch.testing.assert_close(pairs.vectors.T @ torch.diag(pairs.values) @ pairs.vectors, fisher)
    torch.testing.assert_close(pairs.scaled().T @ pairs.scaled(), fisher)


@pytest.mark.parametrize("rank", [1, 2, D])
def test_eigenpairs_are_the_leading_ones_largest_first(rank):
    fisher = fisher_matrix(make(), randn(VOCAB, seed=1))
    values, vectors = eigenpairs(fisher, rank)
    assert vectors.shape == (rank, D)
    expected = torch.linalg.svdvals(fisher)[:rank]
    torch.testing.assert_close(values, expected)
    for value, u in zip(values, vectors, strict=True):
        torch.testing.assert_close(fisher @ u, value * u)
        assert u.norm().item() == pytest.approx(1.0)


def test_rounding_below_zero_is_cut():
    pairs = eigenpairs(torch.diag(torch.tensor([1.0, -1e-9])), 2)
    assert pairs.values.tolist() == [1.0, 0.0]
    assert pairs.scaled().isfinite().all()
