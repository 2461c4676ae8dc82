"""Unembedding: logits by the formula, directions by autograd and finite differences."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from tl_jacobian.core.unembedding import Unembedding

D, VOCAB = 6, 11


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def make(
    bias: bool = False, cap: bool = False, gain: bool = False, shift: bool = False, scale: float = 1.0
) -> Unembedding:
    return Unembedding(
        randn(D, VOCAB),
        bias=randn(VOCAB, seed=1) if bias else None,
        soft_cap=2.0 if cap else None,
        gain=1 + 0.3 * randn(D, seed=2) if gain else None,
        shift=randn(D, seed=3) if shift else None,
        scale=scale,
    )


def naive_logits(head: Unembedding, y: Tensor) -> Tensor:
    """cap(scale (((y - shift) / gain) W + b)), one sum at a time."""
    shift = torch.zeros(D) if head.shift is None else head.shift
    gain = torch.ones(D) if head.gain is None else head.gain
    out = []
    for token in range(VOCAB):
        z = sum((y[i] - shift[i]) / gain[i] * head.weight[i, token] for i in range(D))
        z = head.scale * (z if head.bias is None else z + head.bias[token])
        out.append(z if head.soft_cap is None else head.soft_cap * torch.tanh(z / head.soft_cap))
    return torch.stack(out)


settings = pytest.mark.parametrize(
    "setting",
    [
        *(dict(bias=bias, cap=cap, gain=on, shift=on) for bias, cap, on in itertools.product([False, True], repeat=3)),
        *(dict(bias=True, cap=cap, scale=0.3) for cap in (False, True)),
    ],
    ids=lambda setting: "+".join(name for name, on in setting.items() if on) or "plain",
)


def test_sizes():
    assert (make().d_model, make().d_vocab) == (D, VOCAB)


@settings
def test_logits_are_the_formula(setting: dict[str, Any]):
    head, y = make(**setting), randn(D, seed=4)
    torch.testing.assert_close(head.logits(y), naive_logits(head, y), rtol=1e-12, atol=1e-12)


@settings
def test_direction_is_the_gradient_of_the_logit(setting: dict[str, Any]):
    head, y = make(**setting), randn(D, seed=4).requires_grad_()
    logits = head.logits(y)
    for token in (0, 5, VOCAB - 1):
        (expected,) = torch.autograd.grad(naive_logits(head, y)[token], y)
        torch.testing.assert_close(head.direction(token, logits.detach()), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("part", ["gain", "shift"])
def test_gain_and_shift_count_one_without_the_other(part):
    head, y = make(cap=True, **{part: True}), randn(D, seed=4).requires_grad_()
    logits = naive_logits(head, y)
    (v,) = torch.autograd.grad(logits[3], y)
    torch.testing.assert_close(head.logits(y), logits)
    torch.testing.assert_close(head.direction(3, logits.detach()), v)


def test_direction_is_what_a_nudge_does():
    head, y, step = make(bias=True, cap=True, gain=True, shift=True), randn(D, seed=4), 1e-6
    v = head.direction(3, head.logits(y))
    for i in range(D):
        nudge = torch.zeros(D, dtype=torch.float64)
        nudge[i] = step
        change = (naive_logits(head, y + nudge) - naive_logits(head, y - nudge))[3] / (2 * step)
        assert change.item() == pytest.approx(v[i].item(), rel=1e-7, abs=1e-8)


def test_slope_is_the_derivative_of_the_cap():
    z = randn(VOCAB, seed=5).requires_grad_()
    capped = 2.0 * torch.tanh(z / 2.0)
    (expected,) = torch.autograd.grad(capped.sum(), z)
    torch.testing.assert_close(make(cap=True).slope(capped.detach()), expected)
    assert make().slope(capped.detach()).eq(1).all()


def test_logits_take_any_batch():
    head, y = make(bias=True, cap=True, gain=True, shift=True), randn(2, 3, D, seed=4)
    logits = head.logits(y)
    assert logits.shape == (2, 3, VOCAB)
    torch.testing.assert_close(logits[1, 2], head.logits(y[1, 2]))


def test_fold_takes_any_batch():
    head, v = make(gain=True, shift=True), randn(3, D, seed=4)
    torch.testing.assert_close(head.fold(v), v / head.gain)
    assert make().fold(v) is v


def test_unfolding_undoes_folding():
    """A model with gain and shift, and the same one folded, give the same logits."""
    h, gain, shift = randn(D, seed=6), 1 + 0.3 * randn(D, seed=2), randn(D, seed=3)
    original, folded_bias = randn(D, VOCAB), randn(VOCAB, seed=1)
    folded = Unembedding(gain[:, None] * original, folded_bias + shift @ original, None, gain, shift)
    torch.testing.assert_close(folded.logits(h * gain + shift), (h * gain + shift) @ original + folded_bias)


def test_a_feature_with_zero_gain_carries_nothing():
    gain = torch.tensor([1.0, 0.0], dtype=torch.float64)
    head = Unembedding(torch.tensor([[1.0, 2.0], [0.0, 0.0]], dtype=torch.float64), gain=gain, shift=torch.zeros(2))
    assert head.logits(torch.tensor([3.0, 5.0], dtype=torch.float64)).tolist() == [3.0, 6.0]
    assert head.direction(1, torch.zeros(2, dtype=torch.float64)).tolist() == [2.0, 0.0]


@pytest.mark.parametrize(
    ("weight", "y", "logits"),
    [
        (torch.bfloat16, torch.float32, torch.float32),
        (torch.float32, torch.bfloat16, torch.float32),
        (torch.bfloat16, torch.bfloat16, torch.bfloat16),
        (torch.float32, torch.float64, torch.float64),
    ],
)
def test_logits_have_the_higher_precision(weight, y, logits):
    head = Unembedding(randn(D, VOCAB, dtype=weight), randn(VOCAB, dtype=weight), 2.0)
    assert head.logits(randn(D, dtype=y)).dtype == logits


def test_direction_has_the_precision_of_the_logits():
    head = Unembedding(randn(D, VOCAB, dtype=torch.bfloat16), gain=torch.ones(D), shift=torch.zeros(D))
    assert head.direction(0, torch.zeros(VOCAB)).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_centred_weights_are_recognised(dtype):
    weight = randn(12, 5000)
    assert Unembedding((weight - weight.mean(dim=1, keepdim=True)).to(dtype)).is_centered()


@pytest.mark.parametrize("d_vocab", [300, 50_000])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_random_weights_are_not_centred(dtype, d_vocab):
    assert not Unembedding(randn(12, d_vocab, dtype=dtype)).is_centered()


def test_weights_with_a_mean_are_not_centred():
    assert not Unembedding(randn(12, 5000) + 0.01).is_centered()
