"""A computation that nobody waits for stops within a block, forward and backward, and leaves the model as it was."""

from __future__ import annotations

import pytest
import torch
from cases import LAYERS, cases, shared
from untouched import assert_untouched, snapshot

import tl_jacobian as tj
from tl_jacobian.core.cancel import cancellable
from tl_jacobian.core.progress import progress, telling
from tl_jacobian.errors import Cancelled


def asked_after(n: int):
    """No for n times, then yes; counts."""
    times = []

    def asked() -> bool:
        times.append(None)
        return len(times) > n

    asked.times = times
    return asked


@pytest.mark.parametrize("case", cases("hooked", "bridge"))
def test_a_forward_pass_stops_before_the_next_block(case):
    model = shared(*case)
    tj.linearize(model, "abc")  # a first run tries whether the model is causal, and the bridge wires up its own hooks
    before = snapshot(model)
    asked = asked_after(1)
    with pytest.raises(Cancelled), cancellable(asked):
        tj.linearize(model, "abc")
    assert len(asked.times) == 2  # not the third block's
    assert_untouched(before, model)


@pytest.mark.parametrize("memory", [None, "recompute"])
@pytest.mark.parametrize("k", [1, 4])
def test_a_backward_pass_stops_between_blocks(memory, k, monkeypatch):
    model = shared("llama", "bridge")
    lin = tj.linearize(model, "abcdefgh" * 4)
    if memory is not None:
        monkeypatch.setattr("tl_jacobian.core.memory._FEW", 10**9)  # any budget is too small to keep all
        lin = tj.linearize(model, "abcdefgh" * 4)
        assert "computed again" in str(dict(lin.facts))
    v = torch.randn(k, *lin.y.shape, dtype=lin.y.dtype, generator=torch.Generator().manual_seed(0))
    whole = lin.vjp(v)
    counted = asked_after(1000)
    with cancellable(counted):
        assert torch.equal(lin.vjp(v), whole)  # asking changes no number
    assert len(counted.times) > LAYERS
    asked = asked_after(2)
    with pytest.raises(Cancelled), cancellable(asked):
        lin.vjp(v)
    assert len(asked.times) == 3
    assert torch.equal(lin.vjp(v), whole)  # the graph can be used as before, and holds no hooks
    assert not any(place._backward_hooks for place in lin.graph.between)


def test_loops_with_a_bar_tell_how_far_they_are_and_stop():
    told = []
    with telling(lambda *step: told.append(step)), progress(3, "products") as bar:
        bar.update()
        bar.update(2)
    assert told == [("products", 1, 3), ("products", 3, 3)]
    asked = asked_after(0)
    with pytest.raises(Cancelled), cancellable(asked), progress(1, "products") as bar:
        bar.update()
