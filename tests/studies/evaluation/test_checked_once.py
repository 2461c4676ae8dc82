"""One evaluation holds each linearization against its model once, and no other time does anyone skip that."""

from __future__ import annotations

import pytest
from cases import shared

import tl_jacobian as tj
from tl_jacobian.analyses.baselines.runs import checked_once
from tl_jacobian.core.build import HostRerun
from tl_jacobian.errors import ContractError


@pytest.fixture
def checks(monkeypatch):
    """The tokens of each prompt that is run again at its own x."""
    found, check = [], HostRerun.check

    def counted(self, x, logits):
        found.append(tuple(self.tokens))
        check(self, x, logits)

    monkeypatch.setattr(HostRerun, "check", counted)
    return found


def test_each_prompt_is_checked_once(checks):
    """Leave-one-out, integrated gradients and curves under two operators: one check for each of two prompts."""
    methods = ("leave_one_out", "integrated_gradients", "semantic")
    trial = tj.Trial(methods=methods, k=(50,), also=[("mean", False)], sufficiency=False)
    model = shared("llama", "bridge")
    tj.evaluate(model, [[80, 81, 82, 83], [81, 82, 83]], trial, explained="next", progress=False)
    assert sorted(checks) == [(80, 81, 82), (81, 82)]


def test_outside_every_analysis_checks(checks):
    lin = tj.linearize(shared("llama", "bridge"), [80, 81, 82])
    with checked_once():
        tj.baselines.leave_one_out(lin)
    tj.baselines.leave_one_out(lin)
    tj.baselines.leave_one_out(lin)
    assert len(checks) == 3


def test_a_check_that_fails_isnt_remembered(monkeypatch):
    lin = tj.linearize(shared("llama", "bridge"), [80, 81, 82])

    def fails(*_: object) -> None:
        raise ContractError("other logits")

    with monkeypatch.context() as m:
        m.setattr(HostRerun, "check", fails)
        with checked_once():
            for _ in range(2):
                with pytest.raises(ContractError, match="other logits"):
                    tj.baselines.leave_one_out(lin)
