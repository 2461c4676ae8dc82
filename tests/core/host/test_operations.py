"""The seam: rules see every call, compose, and hold where a backward pass runs a block again."""

from __future__ import annotations

import torch
from torch import nn

from tl_jacobian.core.host.loan import Loan
from tl_jacobian.core.host.operations import rewriting
from tl_jacobian.core.host.recompute import recompute


class Times:
    """Multiplies what a function gives."""

    def __init__(self, function, factor):
        self.function, self.factor = function, factor

    def rewrites(self, function):
        return function is self.function

    def __call__(self, go_on, function, args, kwargs):
        return self.factor * go_on(function, args, kwargs)


class Instead:
    """Calls another function."""

    def __init__(self, function, other):
        self.function, self.other = function, other

    def rewrites(self, function):
        return function is self.function

    def __call__(self, go_on, function, args, kwargs):
        return go_on(self.other, args, kwargs)


def test_rules_act_one_after_another():
    x = torch.tensor([0.5])
    with rewriting((Times(torch.sin, 2), Instead(torch.sin, torch.cos), Times(torch.cos, 3), Times(torch.exp, 5))):
        assert torch.equal(torch.sin(x), 6 * x.cos())
        assert torch.equal(torch.tanh(x), x.tanh())
    assert torch.equal(torch.sin(x), x.sin())


def test_nothing_is_intercepted_without_rules():
    with rewriting(()):
        assert not torch.overrides._get_current_function_mode_stack()


class Block(nn.Module):
    def forward(self, x):
        return torch.sin(x)


def test_a_block_that_is_run_again_is_rewritten_again():
    block, rules = Block(), (Times(torch.sin, 2),)
    x = torch.tensor([[[0.5]]], requires_grad=True)
    with Loan() as loan, loan, rewriting(rules):
        recompute(loan, block, [block], rules)
        y = block(x)
    assert torch.equal(y, 2 * x.sin())
    assert torch.equal(torch.autograd.grad(y, x)[0], 2 * x.cos())
