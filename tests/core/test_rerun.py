"""Runs without a graph, and linearizing what was read before."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import replace

import pytest
import torch
from allocations import Allocations
from cases import LAYERS, cases, exists, make, shared
from untouched import assert_untouched, snapshot

import tl_jacobian as tj
from tl_jacobian.analyses.baselines.leave_one_out import without_each
from tl_jacobian.core import build
from tl_jacobian.core.host.hosts import resolve
from tl_jacobian.core.host.past import Past
from tl_jacobian.core.host.transformer_lens import TransformerLensHost
from tl_jacobian.core.linearize import Options, linearize_read
from tl_jacobian.core.prompts import Read
from tl_jacobian.core.rerun import last_logits, padded, run

TEXT = "Paris is in"


def test_prompts_are_padded_on_the_right():
    assert padded([[5], [6, 7, 8]]).tolist() == [[5, 0, 0], [6, 7, 8]]


def test_last_logits_are_those_of_each_prompt_alone_and_leave_no_graph():
    model = shared("gpt2", "bridge")
    prompts = [[5, 6], [7, 8, 9, 10], [11]]
    with torch.inference_mode():
        found = last_logits(resolve(model), prompts)
    assert not found.is_inference()
    assert not run(resolve(model), prompts).y.requires_grad
    for row, ids in zip(found, prompts, strict=True):
        torch.testing.assert_close(row, tj.linearize(model, ids).logits.to(row), rtol=1e-9, atol=1e-9)


def test_a_read_prompt_gives_what_the_prompt_gives():
    model = shared("gpt2", "bridge")
    lin = tj.linearize(model, TEXT, record="resid", position=-2)
    (read,) = linearize_read(resolve(model), [Read(lin.tokens.tolist(), [lin.position])], Options(record="resid"))
    assert torch.equal(lin.y, read.y)
    assert list(lin.taps) == list(read.taps)


# -- within the budget -------------------------------------------------------------------

LONG = [i % 200 for i in range(40)]


def left_for_runs(model, state, n, record):
    """A linearization whose budget leaves room for n runs, and not for one more."""
    host = resolve(model)
    need, runs = host.footprint(1, len(LONG), 1), host.footprint(n, len(LONG), n)
    size = runs.peak(recompute=True) if record else runs.passing
    return tj.linearize(model, LONG, max_memory=need.kept(recompute=False) + size)


@pytest.fixture
def prompts_a_pass(monkeypatch):
    """How many prompts each forward pass has."""
    seen, forward = [], TransformerLensHost.forward
    monkeypatch.setattr(
        TransformerLensHost,
        "forward",
        lambda self, tokens, *rest, **k: seen.append(len(tokens)) or forward(self, tokens, *rest, **k),
    )
    return seen


@pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=["llama"]))
@pytest.mark.parametrize("record", [False, True])
def test_runs_go_together_as_the_budget_allows_and_their_values_stay(architecture, state, record, prompts_a_pass):
    model, n = shared(architecture, state), 11 if record else 3 * LAYERS
    lin = left_for_runs(model, state, n, record)
    assert "kept" in lin.facts["activations"]
    ask = (
        (lambda one: tj.baselines.smoothgrad(one, 5, samples=25, batch_size=25))
        if record
        else (lambda one: tj.baselines.leave_one_out(one, 5, batch_size=40))
    )
    want = ask(tj.linearize(model, LONG)).scores
    assert max(prompts_a_pass) == (25 if record else 40)
    prompts_a_pass.clear()
    with Allocations() as counted:
        found = counted.run(lambda: ask(lin))
    assert max(prompts_a_pass) == n
    torch.testing.assert_close(found.scores, want, rtol=1e-6, atol=1e-6)
    assert counted.runs[0][0] <= lin.rerun.request.budget - lin.rerun.held


@pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=["llama"]))
def test_a_run_that_does_not_fit_is_refused_and_what_would_do_is_said(architecture, state):
    model = shared(architecture, state)
    least = resolve(model).footprint(1, len(LONG), 1).peak(recompute=True)
    lin = tj.linearize(model, LONG, max_memory=least)
    lin = dataclasses.replace(lin, rerun=dataclasses.replace(lin.rerun, held=least))
    with pytest.raises(tj.errors.MemoryBudgetError, match=r"once more is predicted to take .* linearize with") as error:
        tj.baselines.smoothgrad(lin, 5, samples=2)
    enough = re.search(r"with max_memory='(.*?)'", str(error.value))[1]
    tj.baselines.smoothgrad(tj.linearize(model, LONG, max_memory=enough), 5, samples=2)


def test_without_a_budget_what_is_free_at_the_time_decides(monkeypatch, prompts_a_pass):
    model = shared("llama", "bridge")
    lin, host = tj.linearize(model, LONG), resolve(model)
    free = int(host.footprint(3, len(LONG), 3).passing / 0.9) + 1
    monkeypatch.setattr(TransformerLensHost, "available_memory", lambda self: free)
    prompts_a_pass.clear()
    tj.baselines.leave_one_out(lin, 5)
    assert max(prompts_a_pass) == 3
    monkeypatch.setattr(TransformerLensHost, "available_memory", lambda self: 10)
    with pytest.raises(tj.errors.MemoryBudgetError, match="9B can be used now; free memory"):
        tj.baselines.leave_one_out(lin, 5)


def test_a_text_ends_with_any_of_the_end_tokens_that_generation_knows():
    model = make("llama", "bridge")
    prompt = list(b"Paris is")
    after = int(tj.linearize(model, prompt).logits.argmax())
    for ends in ([257, after], after):
        model.original_model.generation_config.eos_token_id = ends
        found = tj.attribute_generation(model, prompt, 4)
        assert len(found) == 1
        assert found.metadata["ended"]
    model.original_model.generation_config.eos_token_id = None
    assert len(tj.attribute_generation(model, prompt, 4)) > 1


SENTENCE = list(b"Paris is in the north of France, it ")


def without_a_past(monkeypatch):
    monkeypatch.setattr(TransformerLensHost, "past", lambda *args, **options: None)


@pytest.fixture
def after_a_past(monkeypatch):
    """How many tokens each run went on from."""
    starts, forward = [], TransformerLensHost.forward

    def counted(self, *args, past=None, **options):
        starts.append(0 if past is None else past.length)
        return forward(self, *args, past=past, **options)

    monkeypatch.setattr(TransformerLensHost, "forward", counted)
    monkeypatch.setattr(build, "_SHORT", 16)
    return starts


@pytest.mark.each_architecture
@pytest.mark.parametrize(("architecture", "state"), cases())
@pytest.mark.parametrize("answer", [None, "is it"])
def test_runs_that_go_on_from_keys_and_values_give_what_whole_runs_give(
    architecture, state, answer, after_a_past, monkeypatch
):
    """To rounding in float64, on every architecture; a window of 16 tokens on Gemma's local layers included."""
    model = shared(architecture, state)
    lin = tj.linearize(model, SENTENCE, answer=answer)
    before = snapshot(model)
    found = without_each(lin, lin.answer if answer else (3,), batch_size=8)
    assert max(after_a_past) >= 32
    assert_untouched(before, model)
    without_a_past(monkeypatch)
    after_a_past.clear()
    whole = without_each(lin, lin.answer if answer else (3,), batch_size=8)
    assert not any(after_a_past)
    torch.testing.assert_close(found.log_prob, whole.log_prob, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(found.kl, whole.kl, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("state", ["hooked", "bridge"])
def test_a_past_that_gives_other_logits_is_not_used(state, after_a_past, monkeypatch):
    if not exists("llama", state):
        pytest.skip("TransformerLens 4 has the bridge alone")
    lin = tj.linearize(shared("llama", state), SENTENCE)
    whole = without_each(lin, (3,))
    before = Past.before

    def doubled(self, n):
        return replace(before(self, n), layers=[(2 * keys, values) for keys, values in before(self, n).layers])

    monkeypatch.setattr(Past, "before", doubled)
    after_a_past.clear()
    again = without_each(lin, (3,))
    assert len([start for start in after_a_past if start]) == 1  # the one that it was tried with
    torch.testing.assert_close(again.log_prob, whole.log_prob, rtol=1e-9, atol=1e-11)


def test_hooks_that_may_mix_positions_see_whole_prompts(after_a_past):
    model = shared("llama", "bridge")
    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", lambda x, hook: x - x.mean(1, keepdim=True))]):
        lin = tj.linearize(model, SENTENCE)
        without_each(lin, (3,))
    assert not any(after_a_past)


def test_without_room_for_keys_and_values_runs_are_whole(after_a_past, monkeypatch):
    model = shared("llama", "bridge")
    lin = tj.linearize(model, SENTENCE, max_memory="40MiB")
    monkeypatch.setattr(Past, "bytes", property(lambda self: 1 << 30))
    without_each(lin, (3,))
    assert not any(after_a_past)
