"""Ctrl-C at any moment, and threads that share a model; benchmarks/fuzz_interrupts.py is the long version."""

from __future__ import annotations

import pytest
import torch
from cases import cases, make, slow

from benchmarks.fuzz_interrupts import PROMPT, calls_of, fuzz, interrupted, lines_of, state, threads
from tl_jacobian.core.host.loan import Loan

pytestmark = pytest.mark.usefixtures("unchecked")
_CASES = cases("hooked", "bridge", of=("gpt2", "gemma3"))
a_few = pytest.mark.parametrize(("architecture", "state_"), [_CASES[0], *slow(*_CASES[1:])])


@a_few
def test_interrupts_leave_nothing_behind(architecture, state_):
    model = make(architecture, state_)
    model(torch.tensor([PROMPT]))
    for call in calls_of(model).values():
        found = fuzz(model, call, 3, offset=7)
        assert set(found) == {"interrupted"}, found


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_every_line_of_a_loan(step):
    """A change said after it is made, or put back once alone, would be left behind at some of these lines."""
    with torch.random.fork_rng([]):  # of its weights
        layer = torch.nn.Sequential(torch.nn.Linear(2, 2))

    def call():
        with Loan() as loan, loan:
            loan.freeze(layer.parameters())
            loan.hook(layer[0], lambda module, args, output: 2 * output, "after")
            loan.hook(layer[0], lambda module, args, kwargs: None, "before, with keywords")
            loan.put(layer[0], "forward", layer[0].forward)
            loan.enter([(layer, {"training": False})])
            layer(torch.ones(1, 2))

    def look():
        hooks = [list(m._forward_hooks) + list(m._forward_pre_hooks) for m in layer.modules()]
        hooks += [list(m._forward_pre_hooks_with_kwargs) for m in layer.modules()]
        return hooks, "forward" in vars(layer[0]), layer.training, [p.requires_grad for p in layer.parameters()]

    before = look()
    for at in range(1, lines_of(call) + 1, step):
        interrupted(call, at)
        assert look() == before, at


@a_few
def test_threads_share_a_model(architecture, state_):
    model = make(architecture, state_)
    model(torch.tensor([PROMPT]))
    before = state(model)
    for call in calls_of(model).values():
        found = threads(model, call, 4)
        assert set(found) == {"ours: right", "plain: right"}, found
    assert state(model) == before
