"""Freed memory is given back to the system where much has gathered, and whenever a block is run again."""

from __future__ import annotations

import psutil
import pytest
import torch
from cases import LAYERS, cases, shared

import tl_jacobian as tj
from tl_jacobian.core.host import heap
from tl_jacobian.core.host.heap import Heap
from tl_jacobian.core.host.hosts import resolve

PROMPT, MIB = list(b"Paris is in"), 1 << 20


def resident() -> int:
    return psutil.Process().memory_info().rss


@pytest.mark.skipif(heap._library() is None, reason="not glibc")
@pytest.mark.parametrize("filled_before", [False, True])
def test_what_lies_between_is_given_back(filled_before):
    """Whatever ran in this process before: holes that are left would take what is made here, and hide what is freed."""
    others = [torch.ones(16 * 1024) for _ in range(6400)] if filled_before else []
    del others[:5000]
    heap.give_back()
    mine = Heap(32 * MIB)
    kept = [torch.ones(16 * 1024) for _ in range(3200)]  # 64 KiB each: below what gets pages of its own
    mine.tidy()
    assert mine.given_back == 0, "nothing is free yet"
    del kept[::2]
    before = resident()
    mine.tidy()
    assert mine.given_back == 1
    assert before - resident() > 64 * MIB
    mine.tidy()
    assert mine.given_back == 1
    assert all(bool(one.eq(1).all()) for one in kept)


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(heap, "_library", lambda: None)
    mine = Heap(0)
    mine.tidy()
    assert mine.given_back == 0


@pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=["llama"]))
def test_blocks_that_are_run_again_tidy_up(architecture, state, monkeypatch):
    model, tidied = shared(architecture, state), []
    monkeypatch.setattr(Heap, "tidy", lambda self: tidied.append(self))
    tj.linearize(model, PROMPT)
    assert not tidied, "everything is kept"
    need = resolve(model).footprint(1, len(PROMPT), 1)
    lin = tj.linearize(model, PROMPT, max_memory=need.peak(recompute=True))
    assert len(tidied) >= LAYERS
    tidied.clear()
    lin.vjp(lin.y)
    assert len(tidied) == LAYERS


@pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=["llama"]))
def test_a_gpu_keeps_nothing_in_the_heap(architecture, state, monkeypatch):
    model = shared(architecture, state)
    host = resolve(model)
    need = host.footprint(1, 32, 1)
    monkeypatch.setattr(type(host), "_on_cpu", False)
    other = resolve(model).footprint(1, 32, 1)
    assert need.holes > 0 == other.holes
    assert other.peak(recompute=True) == need.peak(recompute=True) - need.holes
    assert other.peak(recompute=False) == need.peak(recompute=False)
