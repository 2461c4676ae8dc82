"""Interventions: the truth is TransformerLens's own run with hooks, the promise its derivative."""

from __future__ import annotations

import pytest
import torch
from cases import cases, shared
from untouched import assert_untouched, snapshot

import tl_jacobian as tj
from tl_jacobian.analyses.interventions import compare_edit, intervene
from tl_jacobian.errors import ArgumentError

TEXT = "the cat sat"
Z = "blocks.1.attn.hook_z"


@pytest.mark.parametrize("case", cases())
def test_a_silenced_head_does_what_a_hook_of_transformer_lens_does(case):
    model = shared(*case)
    lin = tj.linearize(model, TEXT, record="heads", prepend_bos=False)
    found = intervene(lin, Z, heads=[2], target=100)

    def silence(z, hook):
        z = z.clone()
        z[:, :, 2] = 0
        return z

    with torch.no_grad():
        theirs = model.run_with_hooks(lin.tokens[None], fwd_hooks=[(Z, silence)])[0, -1]
    assert found.before == pytest.approx(float(lin.logits[100]))
    assert found.after == pytest.approx(float(theirs[100]), rel=1e-9, abs=1e-9)
    best = theirs.log_softmax(-1).exp().max()
    assert max(p.probability for p in found.predictions_after) == pytest.approx(float(best), rel=1e-9)


@pytest.mark.parametrize("hook", [None, Z, "blocks.1.hook_resid_pre", "blocks.0.hook_mlp_out"])
def test_the_promise_is_the_derivative_of_the_effect(hook, generator):
    lin = tj.linearize(shared("gpt2", "bridge"), TEXT, record=["heads", "resid", "components"])
    old = lin.graph.x.detach()[0] if hook is None else lin.taps[hook].detach()
    nudge = torch.randn(old.shape, generator=generator, dtype=old.dtype)
    errors = []
    for size in (1e-3, 1e-4):
        found = intervene(lin, hook, replacement=old + size * nudge, target=100, minus=101)
        errors.append(abs(found.effect - found.promised))
    assert errors[1] < 0.02 * abs(found.promised)
    assert errors[1] < errors[0] / 50  # what is left is of second order


def test_taking_out_a_token_is_what_leave_one_out_measures():
    lin = tj.linearize(shared("gpt2", "bridge"), TEXT)
    falls = tj.baselines.leave_one_out(lin, 100).scores
    for at in (0, 3):
        found = intervene(lin, positions=[at], target=100)
        p = {one.token: one.probability for one in found.predictions_before}[100]
        after = {one.token: one.probability for one in found.predictions_after}[100]
        assert torch.tensor(p / after).log().item() == pytest.approx(falls[at].item(), abs=1e-6)


def test_an_answer_is_watched_by_its_log_probability():
    lin = tj.linearize(shared("llama", "bridge"), TEXT, answer=" on it", record="heads")
    found = intervene(lin, Z, heads=[0], replacement="mean")
    assert found.before == pytest.approx(float(lin.log_probs.sum()), rel=1e-9)
    assert (found.unit, found.predictions_before) == ("nats", ())


def test_an_edit_of_as_many_tokens_has_a_promise_and_another_has_none():
    model = shared("llama", "bridge")
    lin, same, longer = (tj.linearize(model, text) for text in (TEXT, "the cat sit", "the cats sat"))
    found = compare_edit(lin, same, target=100)
    assert found.after == pytest.approx(float(same.logits[100]))
    dx = (same.graph.x - lin.graph.x).detach()[0]
    assert found.promised == pytest.approx(float((lin.vjp(lin.head.weight[:, 100].to(lin.y)) * dx).sum()), rel=1e-6)
    assert compare_edit(lin, longer, target=100).promised is None


def test_what_can_not_be_replaced_is_refused_and_the_model_is_as_it_was():
    model = shared("llama", "bridge")
    lin, before = tj.linearize(model, TEXT, record="heads"), snapshot(model)
    with pytest.raises(ArgumentError, match="which has no heads"):
        intervene(lin, None, heads=[0])
    with pytest.raises(ArgumentError, match=r"positions=\[99\], expected at least one, each 0 to 1\d"):
        intervene(lin, Z, positions=[99])
    with pytest.raises(ArgumentError, match="take prompts of as many tokens"):
        intervene(lin, Z, replacement=torch.zeros(2, 4, 8, dtype=torch.float64))
    with pytest.raises(ArgumentError, match="expected the same answer"):
        compare_edit(lin, tj.linearize(model, TEXT, answer="x"))
    assert_untouched(before, model)
