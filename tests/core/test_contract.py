"""The contract catches a head that isn't the model's, in every precision."""

from __future__ import annotations

import pytest
import torch

from tl_jacobian.core.build import check_contract
from tl_jacobian.core.host.base import Trace, Watch
from tl_jacobian.core.unembedding import Unembedding
from tl_jacobian.errors import ContractError

D_MODEL, D_VOCAB = 64, 1000
precisions = pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])


def model(dtype, cap=None, bias=0.0):
    """y, the model's logits computed in another order of summation, and the right head."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(D_MODEL, D_VOCAB, generator=generator, dtype=torch.float64).to(dtype)
    y = 3 * torch.randn(2, D_MODEL, generator=generator, dtype=torch.float64).to(dtype)
    head = Unembedding(weight, torch.full((D_VOCAB,), bias).to(dtype), cap)
    backwards = Unembedding(weight.flip(0), head.bias, cap)
    return y, backwards.logits(y.flip(-1)), head


def trace(y, logits):
    return Trace(torch.zeros(2, 1, D_MODEL), None, y.requires_grad_(), logits, (), y.detach(), {})


@precisions
@pytest.mark.parametrize("cap", [None, 30.0])
def test_rounding_passes(dtype, cap):
    y, logits, head = model(dtype, cap, bias=1.5)
    check_contract(trace(y, logits), Watch(), head)


@precisions
@pytest.mark.parametrize(
    "wrong",
    [
        lambda head: Unembedding(head.weight, None, head.soft_cap),  # no bias
        lambda head: Unembedding(head.weight, head.bias, None),  # no soft-cap
        lambda head: Unembedding(1.05 * head.weight, head.bias, head.soft_cap),  # scaled
        lambda head: Unembedding(head.weight.roll(1, dims=1), head.bias, head.soft_cap),  # other tokens
    ],
)
def test_a_wrong_head_is_refused(dtype, wrong):
    y, logits, head = model(dtype, cap=30.0, bias=1.5)
    with pytest.raises(ContractError, match=r"differs from the model's own logits by .* at token id \d+"):
        check_contract(trace(y, logits), Watch(), wrong(head))


@precisions
def test_one_changed_logit_is_refused(dtype):
    y, logits, head = model(dtype)
    logits[1, 77] += 0.1 * logits.abs().max()
    with pytest.raises(ContractError, match="at token id 77"):
        check_contract(trace(y, logits), Watch(), head)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(bad):
    y, logits, head = model(torch.float32)
    with pytest.raises(ContractError, match="1 of 2000 values of the logits are not finite"):
        check_contract(trace(y, logits.index_put((torch.tensor(0), torch.tensor(3)), torch.tensor(bad))), Watch(), head)
    y = y.detach().index_put((torch.tensor(0), torch.tensor(0)), torch.tensor(bad))
    with pytest.raises(ContractError, match="1 of 128 values of the final hidden state are not finite"):
        check_contract(trace(y, logits), Watch(), head)


def test_a_residual_stream_without_a_gradient_is_refused():
    y, logits, head = model(torch.float32)
    with pytest.raises(ContractError, match="detaches the residual stream"):
        check_contract(Trace(torch.zeros(2, 1, D_MODEL), None, y, logits, (), y, {}), Watch(), head)
