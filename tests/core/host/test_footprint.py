"""Predicted memory against memory counted allocation by allocation: never too little, seldom twice as much."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from allocations import Allocations
from cases import CONTEXT, VOCAB, WIDTH, cases, shared

import tl_jacobian as tj
from tl_jacobian.core.graph import CPU_ROWS
from tl_jacobian.core.host.hosts import resolve
from tl_jacobian.core.rerun import run

PROMPT = [i % 200 for i in range(CONTEXT)]
CASES = [
    (architecture, state, dtype)
    for architecture, state in cases("hooked", "bridge", "bridge-compat")
    for dtype in (torch.float32, torch.float64, torch.bfloat16)
    if architecture in ("gpt2", "llama", "gemma2", "gemma3") and (dtype == torch.float32 or architecture == "llama")
]
one_a_host = pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=["llama"]))


def footprint(model, n_prompts=1, n_pos=CONTEXT, n_outputs=1):
    """Without what isn't counted here: work at the unembedding, and what an allocator doesn't give back."""
    return dataclasses.replace(resolve(model).footprint(n_prompts, n_pos, n_outputs), head=0, holes=0)


def linearized(model, recompute, prompt=PROMPT, **options):
    need = resolve(model).footprint(len(prompt) if isinstance(prompt[0], list) else 1, CONTEXT, 1)
    budget = need.peak(recompute=True) if recompute else need.peak(recompute=False, directions=32) * 4
    lin = tj.linearize(model, prompt, max_memory=budget, **options)
    assert ("again" in (lin[0] if isinstance(prompt[0], list) else lin).facts["activations"]) == recompute
    return lin


def bounded(predicted, measured, slack=3.5):
    assert measured <= predicted <= slack * measured, f"predicted {predicted / measured:.2f} of what was measured"


@pytest.mark.parametrize(("architecture", "state", "dtype"), CASES)
@pytest.mark.parametrize("recompute", [False, True])
def test_what_is_kept_and_the_peaks(architecture, state, dtype, recompute):
    model, k = shared(architecture, state, dtype), 8
    need, loose = footprint(model), 6 if dtype == torch.bfloat16 else 3.5  # one host's softmax may be float32 then
    tj.linearize(model, PROMPT)  # what is set up once
    v, dx = torch.ones(k, 1, WIDTH, dtype=dtype), torch.ones(k, 1, CONTEXT, WIDTH, dtype=dtype)
    with Allocations() as counted:
        lin = counted.run(lambda: linearized(model, recompute))
        graph = dataclasses.replace(lin.graph, room=1 << 40, results=None)
        pulled = counted.run(lambda: graph.pull(v))
        pushed = counted.run(lambda: graph.pusher()(dx))
        again = counted.run(lambda: run(resolve(model), [PROMPT] * 2).logits)
    del pulled, pushed, again
    (made, kept), (pull, _), (push, _), (passing, _) = counted.runs
    bounded(footprint(model, 2, CONTEXT, 2).passing, passing, loose)
    assert kept <= need.kept(recompute)
    bounded(need.peak(recompute, push=False), made, loose)
    bounded(need.peak(recompute, k, push=False), kept + pull, loose)
    bounded(need.peak(recompute, k), kept + push, loose)


@one_a_host
def test_a_batch(architecture, state):
    model = shared(architecture, state, torch.float32)
    with Allocations() as counted:
        lins = counted.run(lambda: linearized(model, False, [PROMPT] * 3))
    del lins
    ((made, kept),) = counted.runs
    need = footprint(model, n_prompts=3, n_outputs=3)
    bounded(need.kept(recompute=False), kept)
    bounded(need.peak(recompute=False, push=False), made)


@pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=["gpt2"]))
def test_longer_prompts_and_more_of_them_take_more(architecture, state):
    model = shared(architecture, state)
    for recompute in (False, True):
        sizes = [footprint(model, 1, n).peak(recompute) for n in (1, 2, 8, 32, CONTEXT, 1000)]
        assert sizes == sorted(set(sizes))
        assert footprint(model, 2).peak(recompute) > footprint(model, 1).peak(recompute)
        assert footprint(model, 1, CONTEXT, 9).peak(recompute) > footprint(model).peak(recompute)
        assert footprint(model).peak(recompute, 2) > footprint(model).peak(recompute, 1)
    assert footprint(model).peak(True) < footprint(model).peak(False)


@pytest.mark.parametrize(("architecture", "state"), cases("bridge"))
def test_hooks_on_the_unembedding_have_logits_everywhere(architecture, state):
    model = shared(architecture, state)
    plain = footprint(model).ends
    with model.hooks(fwd_hooks=[("unembed.hook_in", lambda value, hook: None)]):
        assert footprint(model).ends - plain > (CONTEXT - 1) * VOCAB * 8
    assert footprint(model).ends == plain


# -- through linearize -------------------------------------------------------------------------


@one_a_host
def test_a_request_that_cannot_fit_is_refused_before_the_model_runs(architecture, state):
    model, ran = shared(architecture, state), []
    hook = model.blocks[0].register_forward_pre_hook(lambda *_: ran.append(1))
    try:
        with pytest.raises(tj.errors.MemoryBudgetError, match=r"64 tokens is predicted to take .* at most \d+ tokens"):
            tj.linearize(model, PROMPT, max_memory=resolve(model).footprint(1, 60, 1).peak(recompute=True))
        assert not ran
    finally:
        hook.remove()


@one_a_host
@pytest.mark.parametrize("bad", ["lots", -1, 0])
def test_bad_budgets(architecture, state, bad):
    with pytest.raises(tj.errors.ArgumentError, match="expected"):
        tj.linearize(shared(architecture, state), PROMPT, max_memory=bad)


@one_a_host
def test_the_budget_sets_the_chunk(architecture, state):
    model = shared(architecture, state)
    need = resolve(model).footprint(1, CONTEXT, 1)
    least = need.peak(recompute=True)
    budgets = [least, least + 2 * need.direction, 100 * least]
    assert [tj.linearize(model, PROMPT, max_memory=b).graph.chunk for b in budgets] == [1, 2, CPU_ROWS // CONTEXT]


@one_a_host
def test_jacobians_that_do_not_fit_are_refused(architecture, state):
    model = shared(architecture, state)
    lin = tj.linearize(model, PROMPT, max_memory=resolve(model).footprint(1, CONTEXT, 1).peak(recompute=True))
    with pytest.raises(
        tj.errors.MemoryBudgetError, match=r"the Jacobians of 64 tokens would take 512.0KiB.*fewer positions="
    ):
        lin.jacobian()


@one_a_host
def test_without_a_budget_what_is_available_decides(architecture, state, monkeypatch):
    model = shared(architecture, state)
    host, need = type(resolve(model)), resolve(model).footprint(1, CONTEXT, 1)
    monkeypatch.setattr(host, "available_memory", lambda self: int(need.peak(recompute=True) / 0.8))
    assert "again" in tj.linearize(model, PROMPT).facts["activations"]
    monkeypatch.setattr(host, "available_memory", lambda self: need.peak(recompute=True))
    with pytest.raises(tj.errors.MemoryBudgetError, match="that can be used now"):
        tj.linearize(model, PROMPT)
