"""The factor of the Fisher matrix against explicit sums over the vocabulary in float64."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from tl_jacobian.core.linalg import fisher as module
from tl_jacobian.core.linalg.fisher import FisherFactor, signs
from tl_jacobian.core.unembedding import Unembedding

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


def fisher_matrix(head: Unembedding, logits: Tensor) -> Tensor:
    return FisherFactor(head, logits).dense()


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
    monkeypatch.setattr(module, "BLOCK", block)
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
    assert (low.double() - exact).norm() < 1e-3 * exact.norm()  # the weights themselves are rounded at 100 * 6e-8


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


@settings
def test_products_with_the_factor(setting):
    head, y = make(**setting), randn(D, seed=4)
    factor, fisher = FisherFactor(head, head.logits(y)), naive(head, y)
    v, q = randn(3, D, seed=5), randn(3, VOCAB, seed=6)
    torch.testing.assert_close(factor.matvec(v), v @ fisher, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(factor.push(v).square().sum(1), ((v @ fisher) * v).sum(1), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close((factor.pull(q) * v).sum(1), (factor.push(v) * q).sum(1), rtol=1e-10, atol=1e-12)


@settings
def test_rows_and_their_weights(setting):
    head, y = make(**setting), randn(D, seed=4)
    factor, fisher = FisherFactor(head, head.logits(y)), naive(head, y)
    rows = factor.rows(torch.arange(VOCAB))
    torch.testing.assert_close(rows.T @ rows, fisher, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(factor.row_weights, rows.square().sum(1), rtol=1e-9, atol=1e-13)
    assert factor.trace == pytest.approx(fisher.trace().item(), rel=1e-10)


@pytest.mark.parametrize("contiguous", [True, False])
def test_row_weights_of_weights_in_either_order_of_memory(contiguous):
    weight = randn(D, VOCAB) if contiguous else randn(VOCAB, D).T
    factor = FisherFactor(Unembedding(weight), randn(VOCAB, seed=1))
    torch.testing.assert_close(factor.row_weights, factor.rows(torch.arange(VOCAB)).square().sum(1))


@pytest.mark.parametrize("block", [1, 4, 17, 100])
def test_blocks_of_half_precision_weights_change_nothing(monkeypatch, block):
    weight = randn(D, VOCAB).bfloat16()
    logits, v = randn(VOCAB, seed=1), randn(2, D, seed=2)
    whole = FisherFactor(Unembedding(weight.double()), logits)
    monkeypatch.setattr(module, "BLOCK", block)
    factor = FisherFactor(Unembedding(weight), logits)
    torch.testing.assert_close(factor.matvec(v), whole.matvec(v))
    torch.testing.assert_close(factor.row_weights, whole.row_weights)


def test_samples_have_the_fishers_covariance():
    """Exactly: over all sign patterns of a small vocabulary, the mean of g g^T is F."""
    weight, logits = randn(D, 10), randn(10, seed=1)
    factor = FisherFactor(Unembedding(weight), logits)
    patterns = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=10)), dtype=torch.float64)
    g = factor.pull(patterns)
    torch.testing.assert_close(g.T @ g / len(g), factor.dense())
    torch.testing.assert_close(g.mean(0), torch.zeros(D, dtype=torch.float64))


def test_signs_are_signs_and_repeat_with_the_generator():
    a, b = (signs((4, 1000), torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(a, b)
    assert a.abs().eq(1).all()
    assert abs(a.mean().item()) < 0.1
    factor = FisherFactor(make(), randn(VOCAB, seed=1))
    drawn = [factor.sample(3, torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(*drawn)


def test_products_at_an_almost_certain_prediction_lose_no_digits():
    logits = torch.full((VOCAB,), -20.0, dtype=torch.float64)
    logits[3] = 0.0
    weight, v = randn(D, VOCAB).float().double(), randn(1, D, seed=2)
    exact = FisherFactor(Unembedding(weight), logits)
    low = FisherFactor(Unembedding(weight.float()), logits.float())
    torch.testing.assert_close(low.matvec(v.float()).double(), exact.matvec(v), rtol=1e-4, atol=0)
    assert low.trace == pytest.approx(exact.trace, rel=1e-5)
