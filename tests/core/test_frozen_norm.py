"""A norm at the scale that it had."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tl_jacobian.core.host.precision import in_float32
from tl_jacobian.core.norms import NormAffine, affine_of, freeze
from tl_jacobian.errors import UnsupportedModelError

D = 24


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def norms(dtype=torch.float64):
    """LayerNorm and RMSNorm with gains of their own."""
    layer, rms = nn.LayerNorm(D, eps=1e-3, dtype=dtype), nn.RMSNorm(D, eps=1e-3, dtype=dtype)
    with torch.no_grad():
        for i, p in enumerate([*layer.parameters(), *rms.parameters()]):
            p.copy_(1 + 0.5 * randn(D, seed=10 + i))
    return [layer, rms]


@pytest.mark.parametrize("which", [0, 1], ids=["LayerNorm", "RMSNorm"])
def test_parts_go_through_one_by_one(which):
    norm, parts = norms()[which], randn(5, D) + 1
    h = parts.sum(0)
    frozen = freeze(h, norm(h).detach(), affine_of(norm, D), "it")
    assert frozen.centred == (which == 0)
    centred = h - h.mean() if which == 0 else h
    assert (
        abs(frozen.scale - (centred.square().mean() + 1e-3).sqrt().item()) < 1e-8
    )  # the gain is measured: its eps shows
    whole = frozen(parts).sum(0) + frozen.bias
    torch.testing.assert_close(whole, norm(h).detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(frozen(parts[1]), frozen(parts)[1])


@pytest.mark.parametrize("which", [0, 1], ids=["LayerNorm", "RMSNorm"])
def test_pull_is_the_transpose(which):
    norm, h, v = norms()[which], randn(D), randn(3, D, seed=1)
    frozen = freeze(h, norm(h).detach(), affine_of(norm, D), "it")
    other = randn(D, seed=2)
    torch.testing.assert_close(frozen.pull(v) @ other, v @ frozen(other), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(frozen.pull(v)[1], frozen.pull(v[1]))


def test_no_norm_changes_nothing():
    h = randn(D)
    frozen = freeze(h, h, None, "it")
    assert torch.equal(frozen(h), h)
    assert torch.equal(frozen.pull(h), h)
    assert not frozen.bias.any()


@pytest.mark.parametrize("which", [0, 1], ids=["LayerNorm", "RMSNorm"])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02)])
def test_low_precision(which, dtype, close):
    norm, h = norms(dtype)[which], (randn(D) + 1).to(dtype)
    y = norm(h).detach()
    with in_float32():
        affine = affine_of(norm, D)
    frozen = freeze(h, y, affine, "it")
    torch.testing.assert_close(frozen(h.double()) + frozen.bias, y.double(), rtol=close, atol=close)


def test_a_norm_in_float32_inside_a_float64_model():
    norm, h = norms(torch.float32)[1], randn(D)
    frozen = freeze(h, norm(h.float()).detach().double(), affine_of(norm, D), "it")
    torch.testing.assert_close(frozen(h), norm(h.float()).detach().double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "rewrite", [lambda y: y.tanh(), lambda y: y + torch.eye(D, dtype=y.dtype)[3], lambda y: y * (1 + 1e-4 * randn(D))]
)
def test_what_is_no_norm_is_refused(rewrite):
    for norm in norms():
        h = randn(D)
        with pytest.raises(UnsupportedModelError, match=r"the last norm isn't a LayerNorm or RMSNorm .* is \d.*% away"):
            freeze(h, rewrite(norm(h).detach()), affine_of(norm, D), "the last norm")


def test_any_scale_is_measured():
    """A hook that scales the norm's output is part of it."""
    norm, h = norms()[1], randn(D)
    affine = NormAffine(norm.weight.detach(), torch.zeros(D, dtype=torch.float64))
    plain, doubled = (freeze(h, factor * norm(h).detach(), affine, "it") for factor in (1, 2))
    torch.testing.assert_close(doubled(h), 2 * plain(h))
