"""Blocks computed again in the backward pass: the same numbers, less memory, the caller's hooks as they were."""

from __future__ import annotations

import pytest
import torch
from cases import LAYERS, cases, make, shared, slow
from untouched import assert_untouched, fresh, snapshot

import tl_jacobian as tj
from tl_jacobian.core import graph
from tl_jacobian.core.host.hosts import resolve

PROMPT, OTHER = list(b"Paris is in"), list(b"Rome")
every_case = pytest.mark.parametrize(("architecture", "state"), cases())
one_a_host = pytest.mark.parametrize(
    ("architecture", "state"), cases("hooked", "bridge", "bridge-compat", of=("gpt2", "gemma2"))
)


def tight(model, n_prompts, n_pos, n_outputs) -> int:
    """A budget that keeping everything is over, and recomputing isn't."""
    need = resolve(model).footprint(n_prompts, n_pos, n_outputs)
    return need.peak(recompute=True) + (need.peak(recompute=False) - need.peak(recompute=True)) // 2


def again(model, prompt=PROMPT, **options):
    """A linearization whose blocks are recomputed."""
    several = isinstance(prompt[0], list)
    positions = options.get("position", -1)
    n_outputs = len(prompt) if several else len(positions) if isinstance(positions, list) else 1
    longest = max(map(len, prompt)) if several else len(prompt)
    budget = tight(model, len(prompt) if several else 1, longest, n_outputs)
    lin = tj.linearize(model, prompt, max_memory=budget, **options)
    assert (lin if isinstance(lin, tj.Linearization) else lin[0]).facts["activations"].startswith("computed again")
    return lin


def same(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@every_case
def test_products_are_the_same(architecture, state, generator):
    model = shared(architecture, state)
    kept, lin = tj.linearize(model, PROMPT), again(model)
    assert kept.facts["activations"] == "kept from the forward pass"
    same(lin.y, kept.y)
    same(lin.logits, kept.logits)
    v = torch.randn(3, lin.d_model, generator=generator, dtype=torch.float64)
    same(lin.vjp(v), kept.vjp(v))
    same(lin.vjp(v[0]), kept.vjp(v[0]))
    same(lin.vjp(v), kept.vjp(v))  # a graph can be pulled again
    dx = torch.randn(2, len(PROMPT), lin.d_model, generator=generator, dtype=torch.float64)
    same(lin.jvp(dx), kept.jvp(dx))


@one_a_host
def test_jacobians_and_scopes_are_the_same(architecture, state):
    model = shared(architecture, state)
    kept, lin = tj.linearize(model, PROMPT), again(model)
    with_room = tj.linearize(model, PROMPT, max_memory="1GiB")
    same(with_room.jacobian(), kept.jacobian())
    for scope in (tj.semantic_scope, lambda x: tj.temperature_scope(x, confidence="logit_norm"), tj.fisher_scope):
        a, b = scope(lin), scope(kept)
        same(a.scores, b.scores)
        assert a.metadata["activations"] == "computed again in each backward pass"


@one_a_host
def test_batches_and_several_positions_are_the_same(architecture, state):
    model = shared(architecture, state)
    for options in ({"prompt": [PROMPT, OTHER]}, {"prompt": PROMPT, "position": [2, -1]}):
        prompt = options.pop("prompt")
        pairs = zip(again(model, prompt, **options), tj.linearize(model, prompt, **options), strict=True)
        for mine, kept in pairs:
            same(mine.vjp(mine.y), kept.vjp(kept.y))
            same(tj.semantic_scope(mine).scores, tj.semantic_scope(kept).scores)


@one_a_host
def test_fisher_estimate_is_the_same(architecture, state, monkeypatch):
    model, options = shared(architecture, state), dict(method="estimate", n_products=20)
    lin = again(model)
    monkeypatch.setattr(graph, "MAX_CHUNK", lin.graph.chunk)  # which directions it takes depends on it
    kept = tj.linearize(model, PROMPT)
    assert kept.graph.chunk == lin.graph.chunk
    same(tj.fisher_scope(lin, **options).scores, tj.fisher_scope(kept, **options).scores)


def kept_bytes(model, **options) -> int:
    """Bytes that the forward pass hands to autograd for later, each storage once; without weights and their copies."""
    weights = [p for p in resolve(model)._parameters() if p.ndim > 1]
    own, shapes, storages = {p.data_ptr() for p in weights}, {p.shape for p in weights}, {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.shape not in shapes:
            storages[storage.data_ptr()] = tensor  # held, or its address would be given out again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        options.pop("of", tj.linearize)(model, PROMPT, **options)
    return sum(t.untyped_storage().nbytes() for t in storages.values())


@one_a_host
def test_blocks_keep_nothing_but_their_input(architecture, state):
    model = shared(architecture, state)
    kept, recomputed = kept_bytes(model), kept_bytes(model, of=again)
    stream = len(PROMPT) * 32 * 8
    assert kept > LAYERS * 10 * stream
    assert recomputed < LAYERS * stream + 12 * stream
    assert recomputed < kept / 3


@one_a_host
def test_each_backward_pass_runs_each_block_once(architecture, state):
    model, runs = make(architecture, state), []
    hook = model.blocks[1].mlp.register_forward_hook(lambda *_: runs.append(torch.is_grad_enabled()))
    again(model)  # the first look at a model under its hooks takes more runs
    runs.clear()
    lin = again(model)
    hook.remove()  # and still it runs: hooks are those of linearize()
    assert len(runs) == 1
    lin.vjp(lin.y)
    assert len(runs) == 2
    lin.vjp(torch.stack([lin.y] * 3))
    assert len(runs) == 2 + -(-3 // lin.graph.chunk)


# -- the caller's model and hooks ------------------------------------------------------------


@one_a_host
@pytest.mark.parametrize(
    "mode",
    [torch.inference_mode, *slow(torch.no_grad, torch.enable_grad)],
)
def test_the_model_is_left_as_it_was(architecture, state, mode):
    model, expected = fresh(architecture, state), tj.semantic_scope(tj.linearize(shared(architecture, state), PROMPT))
    forwards = [m.__dict__.get("forward") for m in model.modules()]
    attributes = [set(m.__dict__) for m in model.modules()]
    with mode():
        before = snapshot(model)
        lin = again(model)
        assert_untouched(before, model)
        scores = tj.semantic_scope(lin).scores
        assert_untouched(before, model)
    assert forwards == [m.__dict__.get("forward") for m in model.modules()]
    assert attributes == [set(m.__dict__) for m in model.modules()]
    same(scores, expected.scores)


@one_a_host
def test_no_module_holds_on_to_a_graph(architecture, state):
    """TransformerBridge's attention remembers its last pattern, and a graph would come with it."""
    model = fresh(architecture, state)
    lin = again(model)
    lin.vjp(lin.y)
    held = [v for b in model.blocks for m in b.modules() for v in m.__dict__.values() if isinstance(v, torch.Tensor)]
    assert all(v.grad_fn is None for v in held)


@one_a_host
def test_after_an_exception_in_either_pass(architecture, state):
    model, fail = fresh(architecture, state), [True]

    def hook(value, hook):
        if fail[0]:
            raise ZeroDivisionError("in the middle")

    model.add_hook("blocks.1.hook_resid_pre", hook)
    before = snapshot(model)
    with pytest.raises(ZeroDivisionError, match="in the middle"):
        again(model)
    assert_untouched(before, model)
    fail[0] = False
    lin = again(model)
    fail[0] = True
    with pytest.raises(ZeroDivisionError, match="in the middle"):
        lin.vjp(lin.y)
    assert_untouched(before, model)
    assert not any("forward" in m.__dict__ for m in model.blocks)


def steer(value, hook):
    return value * (1 + 0.5 * torch.arange(value.shape[-1], dtype=value.dtype).sin())


def steer_in_place(value, hook):
    value[..., :5] += 1.0
    return value


@one_a_host
@pytest.mark.parametrize(
    ("hook", "name"),
    [
        (steer_in_place, "blocks.0.hook_resid_pre"),
        pytest.param(steer, "blocks.0.hook_resid_pre", marks=pytest.mark.slow),
        pytest.param(steer_in_place, "blocks.2.hook_resid_post", marks=pytest.mark.slow),
        pytest.param(steer, "blocks.2.hook_resid_post", marks=pytest.mark.slow),
    ],
)
def test_hooks_act_as_they_did_even_when_they_are_gone(architecture, state, hook, name):
    model = fresh(architecture, state)
    with model.hooks(fwd_hooks=[(name, hook)]):
        expected = tj.semantic_scope(tj.linearize(model, PROMPT)).scores
        lin = again(model)
    same(tj.semantic_scope(lin).scores, expected)
    plain = again(model)
    assert not torch.allclose(tj.semantic_scope(plain).scores, expected, rtol=1e-3)
    with model.hooks(fwd_hooks=[(name, hook)]):  # and new ones don't
        same(
            tj.semantic_scope(plain).scores, tj.semantic_scope(tj.linearize(shared(architecture, state), PROMPT)).scores
        )


@one_a_host
def test_hooks_that_draw_random_numbers(architecture, state):
    """The noise of the first pass comes back, and the global generator doesn't move."""
    model = fresh(architecture, state)
    state_of_rng = torch.get_rng_state()
    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", lambda v, hook: v + torch.randn_like(v))]):
        kept = tj.linearize(model, PROMPT)
        torch.set_rng_state(state_of_rng)
        lin = again(model)
        after = torch.get_rng_state()
        same(lin.vjp(lin.y), kept.vjp(kept.y))
        assert torch.equal(after, torch.get_rng_state())
    torch.set_rng_state(state_of_rng)


@one_a_host
def test_a_hook_that_gives_other_values_is_refused(architecture, state):
    model, calls = fresh(architecture, state), []

    def growing(value, hook):
        calls.append(1)
        return value * (1 + len(calls) / 10)

    model.add_hook("blocks.1.hook_resid_pre", growing)
    with pytest.raises(
        tj.errors.ContractError, match="a block gave other values when the backward pass ran it again: a hook"
    ):
        again(model)  # whose first look at the hooks takes a product


@one_a_host
def test_weights_changed_meanwhile_are_refused(architecture, state):
    model = make(architecture, state)
    lin = again(model)
    with torch.no_grad():
        next(torch.nn.Module.parameters(model.blocks[0])).mul_(1.5)
    with pytest.raises(tj.errors.ContractError, match="weights were changed after linearize"):
        lin.vjp(lin.y)


@one_a_host
def test_weights_that_require_grad_and_train_mode(architecture, state):
    model = make(architecture, state).requires_grad_(True)
    lin = again(model)
    model.train()
    same(lin.vjp(lin.y), tj.linearize(shared(architecture, state), PROMPT).vjp(lin.y))
    assert model.training


@one_a_host
def test_an_activation_carried_past_a_block(architecture, state, generator):
    """A hook that adds an early layer's stream to a later one: no block in between sees that path."""
    model, early = fresh(architecture, state), {}
    hooks = [
        ("blocks.0.hook_resid_post", lambda v, hook: early.update(value=v)),
        ("blocks.2.hook_resid_post", lambda v, hook: v + early["value"]),
    ]
    dx = torch.randn(2, len(PROMPT), 32, generator=generator, dtype=torch.float64)
    with model.hooks(fwd_hooks=hooks):
        kept, lin = tj.linearize(model, PROMPT), again(model)
    close = {"rtol": 1e-5, "atol": 1e-5}  # float32 norms on the bridge
    torch.testing.assert_close(lin.vjp(lin.y), kept.vjp(lin.y), **close)
    torch.testing.assert_close(kept.jvp(dx), torch.einsum("toi,kti->ko", kept.jacobian(), dx), **close)
    torch.testing.assert_close(lin.jvp(dx), kept.jvp(dx), **close)


@one_a_host
def test_backward_hooks_take_part(architecture, state):
    model = fresh(architecture, state)
    with model.hooks(bwd_hooks=[("blocks.1.hook_resid_post", lambda grad, hook: (grad * 0.5,))]):
        kept, lin = tj.linearize(model, PROMPT), again(model)
        expected = kept.vjp(kept.y)
    assert not torch.allclose(expected, tj.linearize(model, PROMPT).vjp(kept.y))
    same(lin.vjp(lin.y), expected)


def test_blocks_that_return_lists():
    model = make("llama", "bridge")
    kept = tj.linearize(model, PROMPT)
    for block in model.blocks:
        inner = block.forward  # TransformerBridge would hand an attribute on to what it wraps
        block.__dict__["forward"] = lambda *args, inner=inner, **kwargs: [inner(*args, **kwargs)]
        block.register_forward_hook(lambda module, args, out: out[0])
    lin = again(model)
    same(lin.vjp(lin.y), kept.vjp(kept.y))


@pytest.mark.parametrize("linearize", [tj.linearize, again])
def test_checkpointing_left_on(linearize):
    model = make("llama", "bridge")
    expected = tj.semantic_scope(tj.linearize(model, PROMPT), 65).scores
    model.original_model.gradient_checkpointing_enable()
    model.original_model.train()
    same(tj.semantic_scope(linearize(model, PROMPT), 65).scores, expected)
    assert model.original_model.is_gradient_checkpointing
