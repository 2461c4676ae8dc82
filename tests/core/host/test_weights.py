"""What tells that a model's weights are still those of an earlier moment."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

from tl_jacobian.core.host.weights import Weights
from tl_jacobian.errors import ContractError


@pytest.mark.parametrize("inside", ["a", "b"])
def test_numbers_of_a_weight_that_wraps_others_are_watched(inside):
    """As quantised weights do: integers and their scales, and no memory of their own."""
    layer = nn.Linear(3, 3, device="meta", bias=False)
    layer.weight = nn.Parameter(TwoTensor(torch.ones(3, 3), torch.ones(3, 3)))
    weights = Weights([layer])
    weights.check()
    getattr(layer.weight, inside).data.mul_(2)
    with pytest.raises(ContractError, match=r"\(weight has other values\)"):
        weights.check()
