"""The caller's model, hooks, gradients, random numbers and grad mode are as they were, whatever happens."""

from __future__ import annotations

import gc
import threading
import weakref
from contextlib import nullcontext

import pytest
import torch
from cases import cases, make, shared, slow
from untouched import PROMPT, assert_untouched, fresh, one_a_host, snapshot

import tl_jacobian as tj


def every_scope(model, prompt=PROMPT):
    lin = tj.linearize(model, prompt)
    results = [tj.semantic_scope(lin), tj.fisher_scope(lin, method="low_rank", rank=2)]
    results += [tj.temperature_scope(lin, confidence="logit_norm"), tj.output_scope(lin, lambda y, z: z.max())]
    return [r.scores for r in results]


@one_a_host
@pytest.mark.parametrize(
    "mode",
    [
        torch.inference_mode,
        *slow(nullcontext, torch.no_grad, torch.enable_grad),
    ],
)
def test_after_success_in_every_grad_mode(architecture, state, mode):
    model = fresh(architecture, state)
    for i, p in enumerate(model.parameters()):
        p.requires_grad_(i % 2 == 0)
    with mode():
        before = snapshot(model)
        scores = every_scope(model)
        assert_untouched(before, model)
    for ours, expected in zip(scores, every_scope(shared(architecture, state)), strict=True):
        torch.testing.assert_close(ours, expected)


@one_a_host
def test_token_ids_made_under_inference_mode(architecture, state):
    model = shared(architecture, state)
    with torch.inference_mode():
        ids = torch.tensor(PROMPT)
        v = torch.ones(32, dtype=torch.float64)
        inside = tj.direction_scope(tj.linearize(model, ids), v)
    assert torch.equal(inside.scores, tj.direction_scope(tj.linearize(model, PROMPT), v.clone()).scores)


@one_a_host
@pytest.mark.parametrize(
    "call",
    [
        lambda m: tj.linearize(m, []),
        lambda m: tj.linearize(m, PROMPT, position=99),
        lambda m: tj.semantic_scope(tj.linearize(m, PROMPT), "two tokens"),
        lambda m: tj.linearize(m, PROMPT).vjp(torch.ones(3)),
        lambda m: tj.linearize(m, PROMPT, final_norm=torch.ones(3)),
    ],
)
def test_after_a_bad_argument(architecture, state, call):
    model = fresh(architecture, state)
    before = snapshot(model)
    with pytest.raises(tj.JacobianScopeError):
        call(model)
    assert_untouched(before, model)


@one_a_host
def test_after_words_were_aligned_and_edited(architecture, state):
    model = fresh(architecture, state)
    before = snapshot(model)
    with torch.no_grad():
        tj.language.word_alignment(model, "wo", "er", template="{source} {target}", method="low_rank")
        tj.language.counterfactuals(model, "is it so", 65)
    with pytest.raises(tj.errors.ArgumentError, match="takes no minus="):
        tj.language.word_alignment(model, "wo", "er", minus=65)
    assert_untouched(before, model)


@one_a_host
def test_after_an_exception_inside_the_forward_pass(architecture, state):
    model = fresh(architecture, state)

    def fail(value, hook):
        raise ZeroDivisionError("in the middle")

    model.add_hook("blocks.1.hook_resid_pre", fail)
    before = snapshot(model)
    with pytest.raises(ZeroDivisionError, match="in the middle"):
        tj.linearize(model, PROMPT)
    assert_untouched(before, model)


@one_a_host
@pytest.mark.parametrize(
    "name",
    [
        "blocks.1.hook_resid_pre",
        *slow("hook_embed", "ln_final.hook_normalized"),
    ],
)
def test_the_callers_hooks_stay_and_take_effect(architecture, state, name):
    """A steering hook changes the attribution as it changes the model, and is still there afterwards."""
    model, seen = fresh(architecture, state), []
    plain = every_scope(model)

    def steer(value, hook):
        seen.append(value.shape)
        return value * (1 + 0.5 * torch.arange(value.shape[-1], dtype=value.dtype).sin())

    model.add_hook(name, steer)
    before = snapshot(model)
    with torch.no_grad():
        expected = model(torch.tensor([PROMPT]))[0, -1]
    lin = tj.linearize(model, PROMPT)
    torch.testing.assert_close(lin.logits, expected, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(every_scope(model)[0], plain[0], rtol=1e-3)
    assert_untouched(before, model)
    assert len(set(seen)) == 1, "the hook saw other shapes than in the model's own pass"
    model.reset_hooks()
    torch.testing.assert_close(every_scope(model), plain)


@pytest.mark.parametrize(("architecture", "state"), cases("bridge"))
def test_hooks_on_the_unembedding_see_every_position(architecture, state):
    model, seen = fresh(architecture, state), []
    model.add_hook("unembed.hook_in", lambda value, hook: seen.append(value.shape[1]))
    lin = tj.linearize(model, PROMPT)
    assert set(seen) == {len(PROMPT)}
    torch.testing.assert_close(lin.logits, tj.linearize(shared(architecture, state), PROMPT).logits)


def test_a_hook_that_rewrites_the_logits_is_refused():
    model = make("llama", "bridge")
    model.add_hook("unembed.hook_out", lambda value, hook: 2 * value)
    with pytest.raises(
        tj.errors.ContractError, match=r"differs from the model's own logits by .* hooks on the unembedding"
    ):
        tj.linearize(model, PROMPT)


@one_a_host
def test_train_mode_without_dropout_is_fine(architecture, state):
    model = fresh(architecture, state).train()
    before = snapshot(model)
    torch.testing.assert_close(every_scope(model), every_scope(shared(architecture, state)))
    assert_untouched(before, model)


@one_a_host
def test_gradients_and_graphs_of_the_caller_survive(architecture, state):
    model = fresh(architecture, state)
    loss = model(torch.tensor([PROMPT]))[0, -1].logsumexp(-1)
    every_scope(model)
    loss.backward()  # a graph recorded before, used after
    before = snapshot(model)
    every_scope(model)
    assert_untouched(before, model)


@one_a_host
def test_two_threads_in_turn(architecture, state):
    model, results, lock = shared(architecture, state), {}, threading.Lock()

    def work(name):
        with lock:
            results[name] = every_scope(model)

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.testing.assert_close(results["a"], results["b"], rtol=0, atol=0)
    torch.testing.assert_close(results["a"], every_scope(model), rtol=0, atol=0)


@one_a_host
def test_a_model_that_is_let_go_of_is_freed(architecture, state):
    """Nothing that is remembered of a model and its weights keeps them."""
    model = fresh(architecture, state)
    every_scope(model)
    gone = weakref.ref(model), weakref.ref(next(iter(model.parameters())))
    del model
    gc.collect()
    assert [which() for which in gone] == [None, None]
