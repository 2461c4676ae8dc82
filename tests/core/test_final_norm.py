"""The gain and bias of a final norm, and whether a norm has any."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tl_jacobian.core.norms import affine_of, is_bare
from tl_jacobian.errors import UnsupportedModelError

DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class Norm(nn.Module):
    """RMSNorm or LayerNorm as models write them: in float32 inside, Gemma's ``1 + weight`` if asked."""

    def __init__(self, gain: Tensor, bias: Tensor | None = None, *, center: bool = False, plus_one: bool = False):
        super().__init__()
        self.weight = nn.Parameter(gain - 1 if plus_one else gain)
        self.bias = None if bias is None else nn.Parameter(bias)
        self.center, self.plus_one = center, plus_one

    def forward(self, x: Tensor) -> Tensor:
        h = x.to(torch.promote_types(x.dtype, torch.float32))
        h = h - h.mean(-1, keepdim=True) if self.center else h
        h = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-6)
        h = h * (1 + self.weight if self.plus_one else self.weight)
        return (h if self.bias is None else h + self.bias).to(x.dtype)


def gains(d: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return 1 + 0.5 * randn(d, dtype=dtype)


# Centring one number leaves nothing, so a LayerNorm starts at width two.
@pytest.mark.parametrize(
    ("d_model", "center"), [(1, False), *((d, center) for d in (2, 3, 8, 9, 576) for center in (False, True))]
)
@pytest.mark.parametrize("plus_one", [False, True], ids=["weight", "1+weight"])
def test_a_module_is_measured(d_model, plus_one, center):
    gain, bias = gains(d_model), randn(d_model, seed=1)
    affine = affine_of(Norm(gain, bias, center=center, plus_one=plus_one), d_model)
    torch.testing.assert_close(affine.gain, gain, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(affine.bias, bias, rtol=1e-9, atol=1e-9)
    assert not affine.gain.requires_grad


@pytest.mark.parametrize("d_model", [8, 9])
def test_torchs_own_norms_are_measured(d_model):
    layer, rms = nn.LayerNorm(d_model, dtype=torch.float64), nn.RMSNorm(d_model, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(gains(d_model))
        layer.bias.copy_(randn(d_model, seed=1))
        rms.weight.copy_(gains(d_model))
    torch.testing.assert_close(affine_of(layer, d_model).gain, layer.weight.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(affine_of(layer, d_model).bias, layer.bias.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(affine_of(rms, d_model).gain, rms.weight.detach(), rtol=1e-9, atol=1e-9)
    assert affine_of(rms, d_model).bias.abs().max() < 1e-9


@pytest.mark.parametrize("d_model", [64, 65])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_module_is_measured_in_float32_at_least(dtype, d_model):
    gain, bias = gains(d_model, dtype), randn(d_model, seed=1, dtype=dtype)
    affine = affine_of(Norm(gain, bias, center=True), d_model)
    tolerance = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(affine.gain, gain.float(), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(affine.bias, bias.float(), rtol=tolerance, atol=tolerance)


def test_a_module_without_parameters_has_unit_gain():
    affine = affine_of(nn.LayerNorm(8, elementwise_affine=False), 8)
    torch.testing.assert_close(affine.gain, torch.ones(8))
    assert affine.bias.abs().max() < 1e-6


def test_measuring_leaves_the_module_alone():
    norm = Norm(gains(8), randn(8, seed=1))
    before = {name: p.detach().clone() for name, p in norm.named_parameters()}
    affine_of(norm, 8)
    for name, p in norm.named_parameters():
        assert p.requires_grad
        assert p.grad is None
        assert torch.equal(p.detach(), before[name])


def test_a_weight_is_the_gain():
    weight = nn.Parameter(gains(8))
    gain, bias = affine_of(weight, 8)
    assert torch.equal(gain, weight.detach())
    assert torch.equal(bias, torch.zeros(8, dtype=torch.float64))
    assert not gain.requires_grad


def test_a_pair_is_gain_and_bias():
    weight, shift = nn.Parameter(gains(8)), nn.Parameter(randn(8, seed=1))
    gain, bias = affine_of((weight, shift), 8)
    assert torch.equal(gain, weight.detach())
    assert torch.equal(bias, shift.detach())
    assert not bias.requires_grad
    assert torch.equal(affine_of((weight, None), 8).bias, torch.zeros(8, dtype=torch.float64))


@pytest.mark.parametrize(
    "norm",
    [
        torch.ones(7),
        (torch.ones(8), torch.ones(7)),
        (torch.ones(7), torch.ones(7)),
        (torch.ones(7), None),
        torch.ones(8, 8),
        torch.ones(()),
    ],
    ids=str,
)
@pytest.mark.usefixtures("unchecked")
def test_a_weight_of_another_width_is_refused(norm):
    with pytest.raises(UnsupportedModelError, match=r"final_norm has gain of shape .*d_model is 8; pass the norm"):
        affine_of(norm, 8)


def test_a_module_of_another_width_is_refused():
    with pytest.raises(UnsupportedModelError, match="final_norm=LayerNorm can't be applied to a vector of d_model=8"):
        affine_of(nn.LayerNorm(7), 8)


class Map(nn.Module):
    """Not a norm: a linear map."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


@pytest.mark.parametrize("norm", [nn.Identity(), Map(randn(8, 8)), Map(randn(8, 13))], ids=["id", "square", "wide"])
@pytest.mark.usefixtures("unchecked")
def test_a_module_that_does_not_normalise_is_refused(norm):
    with pytest.raises(UnsupportedModelError, match="final_norm"):
        affine_of(norm, 8)


# -- is_bare ---------------------------------------------------------------------------


def residuals(batch: int, d: int, dtype: torch.dtype) -> Tensor:
    """Of very different lengths, with a mean and one outlying feature, as in trained models."""
    resid = randn(batch, d) * torch.logspace(-1, 2, batch, dtype=torch.float64)[:, None] + 0.7
    resid[:, 3] *= 30
    return resid.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d_model", [32, 576])
@pytest.mark.parametrize("center", [False, True], ids=["rms", "layer"])
def test_a_folded_norm_is_bare(dtype, d_model, center):
    resid = residuals(4, d_model, dtype)
    assert is_bare(resid, Norm(torch.ones(d_model, dtype=dtype), center=center)(resid))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d_model", [32, 576])
@pytest.mark.parametrize("center", [False, True], ids=["rms", "layer"])
def test_a_norm_with_a_realistic_gain_is_not(dtype, d_model, center):
    resid, gain = residuals(4, d_model, dtype), (1 + 0.1 * randn(d_model, seed=5)).to(dtype)
    assert not is_bare(resid, Norm(gain, center=center)(resid))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_norm_with_a_bias_only_is_not(dtype):
    resid, ones, bias = residuals(4, 576, dtype), torch.ones(576, dtype=dtype), randn(576, seed=5, dtype=dtype)
    assert not is_bare(resid, Norm(ones, 0.1 * bias, center=True)(resid))


def test_a_constant_gain_is_bare_too():
    resid = residuals(2, 32, torch.float32)
    assert is_bare(resid, Norm(torch.full((32,), 3.0))(resid))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gain_that_only_one_row_shows_counts(dtype):
    """A row along the gain's own eigenvector turns by nothing; the other row tells."""
    gain = torch.ones(32, dtype=dtype)
    gain[0] = 2.0
    resid = torch.zeros(2, 32, dtype=dtype)
    resid[:, 0] = 1.0
    resid[1, 1] = 1.0
    assert is_bare(resid[:1], Norm(gain)(resid[:1]))
    assert not is_bare(resid, Norm(gain)(resid))


def test_bare_is_exactly_when_the_length_never_changes():
    resid = residuals(4, 32, torch.float64)
    for gain in (torch.ones(32, dtype=torch.float64), 1 + 0.1 * randn(32, seed=5)):
        y = Norm(gain)(resid)
        lengths = y.norm(dim=-1)
        assert is_bare(resid, y) == bool((lengths.max() - lengths.min()) < 1e-4)
