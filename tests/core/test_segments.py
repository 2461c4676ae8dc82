"""Chains: tensors that all paths lead through."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tl_jacobian.core.graph import chain


def start() -> Tensor:
    return torch.ones(3, requires_grad=True)


def test_a_plain_chain():
    x = start()
    a = x.sin()
    b = a.exp()
    y = b * 2
    found = chain(x, y, [x, a, b])
    assert [id(t) for t in found] == [id(t) for t in (x, a, b, y)]


def test_a_path_around_one_tensor():
    x = start()
    a = x.sin()
    b = a.exp()
    c = b + a  # around b
    y = c.cos()
    found = chain(x, y, [a, b, c])
    assert [id(t) for t in found] == [id(t) for t in (x, a, c, y)]


def test_a_path_around_everything():
    x = start()
    a = x.sin()
    assert len(chain(x, a.exp() + x, [a])) == 2


def test_other_outputs_of_the_same_operation():
    x = start()
    a, b = (x * 2).split([1, 2])
    y = a.sum() + b.sum()
    assert len(chain(x, y, [a])) == 2


@pytest.mark.parametrize("aside", [lambda x: x.sin(), lambda x: x.detach() * 1])
def test_tensors_that_lead_nowhere(aside):
    x = start()
    assert len(chain(x, x.exp(), [aside(x)])) == 2


def test_a_tensor_that_was_changed_in_place():
    x = start()
    a = x.sin()
    a += 1
    y = a.exp()
    assert len(chain(x, y, [a])) == 3
