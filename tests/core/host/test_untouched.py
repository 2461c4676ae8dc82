"""Hooks, requires_grad flags and grad modes are as they were, also after an exception."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch import nn

from tl_jacobian.core.graph import recording
from tl_jacobian.core.host.loan import Loan


@contextmanager
def frozen(parameters):
    with Loan() as loan, loan:
        loan.freeze(parameters)
        yield


@contextmanager
def hooked(pre, post):
    with Loan() as loan, loan:
        for module, hook in pre:
            loan.hook(module, hook, "before")
        for module, hook in post:
            loan.hook(module, hook, "after")
        yield


def model() -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(3), nn.LayerNorm(3))


def hooks_of(m: nn.Module) -> list[tuple]:
    return [(dict(s._forward_pre_hooks), dict(s._forward_hooks), dict(s._backward_hooks)) for s in m.modules()]


def flags(m: nn.Module) -> list[bool]:
    return [p.requires_grad for p in m.parameters()]


# -- frozen ----------------------------------------------------------------------------


def mixed() -> nn.Sequential:
    m = model()
    m[0].bias.requires_grad_(False)
    return m


def test_nothing_requires_grad_inside_and_flags_return():
    m = mixed()
    with frozen(m.parameters()):
        assert flags(m) == [False] * 4
    assert flags(m) == [True, False, True, True]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_flags_return_after_an_exception(error):
    m = mixed()
    with pytest.raises(error, match="boom"), frozen(m.parameters()):
        raise error("boom")
    assert flags(m) == [True, False, True, True]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_flags_return_in_any_grad_mode(mode):
    m = mixed()
    with mode():
        with frozen(m.parameters()):
            assert flags(m) == [False] * 4
        assert flags(m) == [True, False, True, True]
    assert not any(p.is_inference() for p in m.parameters())


def test_gradients_that_were_there_stay():
    m = model()
    m(torch.ones(2, 3)).sum().backward()
    before = [p.grad for p in m.parameters()]
    with frozen(m.parameters()):
        pass
    assert all(p.grad is g for p, g in zip(m.parameters(), before, strict=True))


@pytest.mark.usefixtures("unchecked")
def test_tensors_that_are_no_leaves_are_left_alone():
    """A parametrised weight is computed from another: its flag can't be set."""
    leaf = nn.Parameter(torch.ones(3))
    computed = leaf * 2
    with frozen([leaf, computed]):
        assert not leaf.requires_grad
        assert computed.requires_grad
    assert leaf.requires_grad
    assert computed.grad_fn is not None


def test_a_tied_parameter_may_come_twice():
    p = nn.Parameter(torch.ones(3))
    with frozen([p, p]):
        assert not p.requires_grad
    assert p.requires_grad


def test_a_parameter_that_can_not_be_frozen_gives_back_the_others():
    class Stubborn(nn.Parameter):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "requires_grad" and not value:
                raise RuntimeError("I stay as I am")
            super().__setattr__(name, value)

    first, stubborn = nn.Parameter(torch.ones(3)), Stubborn(torch.ones(3))
    with pytest.raises(RuntimeError, match="I stay as I am"), frozen([first, stubborn]):
        pass
    assert first.requires_grad
    assert stubborn.requires_grad


def test_nesting_keeps_the_outer_state():
    m = mixed()
    with frozen(m.parameters()):
        with frozen(m.parameters()):
            pass
        assert flags(m) == [False] * 4
    assert flags(m) == [True, False, True, True]


def test_parameters_made_in_inference_mode_get_their_flags_back():
    with torch.inference_mode():
        m = model()
    with frozen(m.parameters()):
        pass
    assert flags(m) == [True] * 4


# -- hooked ----------------------------------------------------------------------------


def test_hooks_run_inside_and_are_gone_outside():
    m, seen = model(), []
    before = hooks_of(m)
    with hooked([(m[0], lambda mod, args: seen.append("pre"))], [(m[1], lambda mod, args, out: seen.append("post"))]):
        m(torch.ones(2, 3))
        assert seen == ["pre", "post"]
    m(torch.ones(2, 3))
    assert seen == ["pre", "post"]
    assert hooks_of(m) == before


def test_hooks_may_replace_what_flows():
    m = nn.Sequential(nn.Identity())
    with hooked([(m[0], lambda mod, args: (args[0] * 2,))], [(m[0], lambda mod, args, out: out + 1)]):
        assert m(torch.ones(1)).item() == 3
    assert m(torch.ones(1)).item() == 1


def test_the_callers_hooks_stay_and_run_first():
    m, seen = model(), []
    m[0].register_forward_hook(lambda mod, args, out: seen.append("theirs"))
    m[0].register_forward_pre_hook(lambda mod, args: seen.append("their pre"))
    before = hooks_of(m)
    pre, post = lambda mod, args: seen.append("our pre"), lambda mod, args, out: seen.append("ours")
    with hooked([(m[0], pre)], [(m[0], post)]):
        m(torch.ones(2, 3))
    assert seen == ["their pre", "our pre", "theirs", "ours"]
    assert hooks_of(m) == before


def test_hooks_are_gone_after_an_error_in_the_body():
    m = model()
    with pytest.raises(KeyboardInterrupt, match="boom"), hooked([(m[0], print)], [(m[1], print)]):
        raise KeyboardInterrupt("boom")
    assert hooks_of(m) == hooks_of(model())


def test_hooks_are_gone_after_an_error_in_a_hook():
    def fail(*args: object) -> None:
        raise RuntimeError("boom")

    m = model()
    with pytest.raises(RuntimeError, match="boom"), hooked([(m[0], fail)], []):
        m(torch.ones(2, 3))
    assert hooks_of(m) == hooks_of(model())


@pytest.mark.usefixtures("unchecked")
def test_hooks_are_gone_when_a_later_one_can_not_be_registered():
    class Closed(nn.Module):
        def register_forward_hook(self, *args, **kwargs):
            raise RuntimeError("no hooks here")

    m = model()
    with pytest.raises(RuntimeError, match="no hooks here"), hooked([(m[0], print)], [(Closed(), print)]):
        pass
    assert hooks_of(m) == hooks_of(model())


def test_a_hook_on_one_module_twice_is_two_hooks():
    m, seen = model(), []
    hook = (m[0], lambda mod, args: seen.append(1))
    with hooked([hook, hook], []):
        m(torch.ones(2, 3))
    assert seen == [1, 1]
    assert hooks_of(m) == hooks_of(model())


# -- recording -------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_a_graph_is_recorded_in_any_mode_and_the_mode_returns(mode):
    with mode():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        with recording():
            x = torch.ones(2, requires_grad=True)
            (grad,) = torch.autograd.grad((x * x).sum(), x)
            assert grad.tolist() == [2.0, 2.0]
        assert before == (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        with pytest.raises(RuntimeError, match="boom"), recording():
            raise RuntimeError("boom")
        assert before == (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
