"""input_hook, output_hook and input_value: any two activations as x and y."""

from __future__ import annotations

import weakref
from contextlib import nullcontext

import naive
import pytest
import torch
from cases import LAYERS, cases, make, shared, slow
from untouched import assert_untouched, fresh, snapshot

import tl_jacobian as tj
from tl_jacobian.analyses.paths import Place
from tl_jacobian.core.hooks import wanted
from tl_jacobian.core.host.hosts import resolve

PROMPT, N, TARGET = list(b"Paris is in"), 11, 101
PARALLEL = ("neox", "phi")
every_host = pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", "bridge-compat"))
one_a_host = pytest.mark.parametrize(
    ("architecture", "state"), cases("hooked", "bridge", "bridge-compat", of=("gpt2", "gemma2"))
)
ENDS = [
    ("hook_embed", "blocks.0.hook_resid_pre"),
    ("hook_embed", "blocks.1.hook_mlp_out"),
    ("blocks.0.hook_resid_post", "blocks.2.hook_resid_post"),
    ("blocks.0.attn.hook_z", "blocks.1.hook_attn_out"),
    ("blocks.1.attn.hook_v", "blocks.2.attn.hook_z"),
    ("blocks.1.hook_resid_pre", None),
    ("blocks.1.hook_attn_out", "blocks.1.hook_resid_mid"),
]
v32 = torch.linspace(-1, 2, 32, dtype=torch.float64)


def same(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def recomputed(model, prompt=PROMPT, **options):
    """A linearization within a budget that keeping everything is over, and recomputing isn't."""
    host = resolve(model)
    taps, _ = wanted(options.get("record"), host.hook_points())
    need = host.footprint(1, len(prompt), 1, taps)
    low, high = need.peak(recompute=True), need.peak(recompute=False)
    lin = tj.linearize(model, prompt, max_memory=low + (high - low) // 2, **options)
    assert lin.facts["activations"].startswith("computed again")
    return lin


# -- against captured tensors -------------------------------------------------------------------------


@every_host
def test_products_equal_autograd_between_captured_activations(architecture, state):
    model = shared(architecture, state)
    for source, output in ENDS:
        if architecture in PARALLEL and "resid_mid" in f"{output}":
            continue
        names = [name for name in (source, output) if name]
        run, at = naive.inside(model, PROMPT, names), 7
        end = run.y if output is None else run.at[output][0].flatten(1)
        lin = tj.linearize(model, PROMPT, input_hook=source, output_hook=output, position=at)
        v = torch.linspace(-1, 2, end.shape[-1], dtype=torch.float64)
        (expected,) = torch.autograd.grad(v @ end[at], run.at[source])
        expected = expected[0, : at + 1].flatten(1)
        torch.testing.assert_close(lin.y, end[at].detach(), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(lin.vjp(v), expected, rtol=1e-5, atol=1e-5)
        scores = tj.direction_scope(lin, v).scores
        torch.testing.assert_close(scores, expected.norm(dim=-1).float(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(lin.graph.x.detach()[0], run.at[source][0, : at + 1].detach().flatten(1))


@pytest.mark.parametrize(("architecture", "state"), cases("hooked"))
def test_the_middle_of_the_stream_as_input(architecture, state):
    """HookedTransformer can take it; on the bridge it would reach the MLP alone, so it points to the same Jacobian."""
    if architecture in PARALLEL:
        with pytest.raises(tj.errors.HookPointError, match=r"no hook point 'blocks.1.hook_resid_mid'"):
            tj.linearize(shared(architecture, "bridge"), PROMPT, input_hook="blocks.1.hook_resid_mid")
        return
    lin = tj.linearize(shared(architecture, state), PROMPT, input_hook="blocks.1.hook_resid_mid")
    with pytest.raises(
        tj.errors.HookPointError, match=r"reaches the MLP alone, .*; use blocks.1.hook_attn_out, whose Jac"
    ):
        tj.linearize(shared(architecture, "bridge"), PROMPT, input_hook="blocks.1.hook_resid_mid")
    for host in (state, "bridge"):
        other = tj.linearize(shared(architecture, host), PROMPT, input_hook="blocks.1.hook_attn_out")
        torch.testing.assert_close(other.vjp(v32), lin.vjp(v32), rtol=1e-4, atol=1e-4)


@one_a_host
def test_jacobians_of_any_shape(architecture, state, generator):
    lin = tj.linearize(
        shared(architecture, state),
        PROMPT,
        input_hook="blocks.0.attn.hook_v",
        output_hook="blocks.1.hook_resid_pre",
        position=3,
    )
    d_in = {"gpt2": 32}.get(architecture, lin.graph.x.shape[-1])
    j = lin.jacobian()
    assert j.shape == (4, 32, d_in)
    torch.testing.assert_close(torch.einsum("o,toi->ti", v32, j), lin.vjp(v32), rtol=1e-5, atol=1e-5)
    dx = torch.randn(2, 4, d_in, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(lin.jvp(dx), torch.einsum("toi,kti->ko", j, dx), rtol=1e-5, atol=1e-5)


@one_a_host
def test_a_batch_of_prompts_with_ends(architecture, state):
    model, ends = (
        shared(architecture, state),
        dict(input_hook="blocks.0.attn.hook_z", output_hook="blocks.2.hook_mlp_out"),
    )
    prompts = [PROMPT[:4], PROMPT]
    batch = tj.linearize(model, prompts, **ends)
    for a, prompt in zip(tj.direction_scope(batch, v32), prompts, strict=True):
        alone = tj.direction_scope(tj.linearize(model, prompt, **ends), v32)
        torch.testing.assert_close(a.scores, alone.scores, rtol=1e-5, atol=1e-6)
        assert a.tokens == tuple(prompt)


@every_host
def test_logits_are_the_models_whatever_is_explained(architecture, state):
    model = shared(architecture, state)
    lin = tj.linearize(model, PROMPT, output_hook="blocks.1.hook_resid_pre")
    torch.testing.assert_close(lin.logits, tj.linearize(model, PROMPT).logits, rtol=1e-9, atol=1e-9)


def test_results_say_what_they_explain():
    lin = tj.linearize(
        shared("llama", "bridge"), PROMPT, input_hook="blocks.0.hook_resid_post", output_hook="blocks.2.hook_resid_pre"
    )
    a = tj.direction_scope(lin, v32)
    assert lin.per == "activation norm at blocks.0.hook_resid_post"
    assert a.metadata["features"] == ("activations at blocks.0.hook_resid_post, positions 0 to the explained one")
    assert a.metadata["output_hook"] == "blocks.2.hook_resid_pre"
    plain = tj.direction_scope(tj.linearize(shared("llama", "bridge"), PROMPT), v32)
    assert plain.metadata["features"].startswith("token embeddings at hook_embed")
    assert plain.metadata["output_hook"] is None
    semantic = tj.semantic_scope(tj.linearize(shared("llama", "bridge"), PROMPT, input_hook="blocks.1.hook_resid_pre"))
    assert semantic.metadata["score"] == "logits per unit of activation norm at blocks.1.hook_resid_pre"


# -- input_value ----------------------------------------------------------------------------------------


@every_host
@pytest.mark.parametrize("source", ["hook_embed", "blocks.1.hook_resid_pre", "blocks.1.attn.hook_z"])
def test_a_given_value_is_what_a_hook_would_put_in(architecture, state, source, generator):
    """Half-way embeddings, as in integrated gradients."""
    model = shared(architecture, state)
    own = tj.linearize(model, PROMPT, input_hook=source).graph.x.detach()
    value = 0.3 * own + 0.1 * torch.randn(own.shape, generator=generator, dtype=torch.float64)
    before = value.clone()
    lin = tj.linearize(model, PROMPT, input_hook=source, input_value=value)
    with model.hooks(fwd_hooks=[(source, lambda v, hook: value.view_as(v).clone())]):
        expected = tj.linearize(model, PROMPT, input_hook=source)
        theirs = model(torch.tensor([PROMPT]))[0, -1].detach()
    assert torch.equal(lin.graph.x.detach(), value)
    torch.testing.assert_close(lin.logits, theirs, rtol=1e-6, atol=1e-6)
    same(lin.logits, expected.logits)
    same(lin.vjp(v32), expected.vjp(v32))
    assert not torch.allclose(lin.vjp(v32), tj.linearize(model, PROMPT, input_hook=source).vjp(v32), rtol=1e-2)
    assert torch.equal(value, before)
    assert not value.requires_grad


@one_a_host
def test_the_given_value_stays_the_callers(architecture, state):
    """In-place hooks change a copy; a value that requires grad gets none."""
    model = fresh(architecture, state)
    value = tj.linearize(model, PROMPT).graph.x.detach().mul(0.5).requires_grad_()
    before = value.detach().clone()
    model.add_hook("blocks.0.hook_resid_pre", lambda v, hook: v.mul_(2))
    lin = tj.linearize(model, PROMPT, input_value=value)
    lin.vjp(v32)
    assert torch.equal(value.detach(), before)
    assert value.grad is None
    with torch.no_grad():
        value.zero_()
    assert torch.equal(lin.graph.x.detach(), before), "what the caller does with it later doesn't matter"
    single = tj.linearize(model, PROMPT, input_value=before.float())
    assert single.graph.x.dtype == torch.float64
    torch.testing.assert_close(single.vjp(v32), lin.vjp(v32), rtol=1e-4, atol=1e-4)


def test_each_prompt_of_a_batch_has_its_value():
    model = shared("llama", "bridge")
    x = tj.linearize(model, [PROMPT, PROMPT[::-1]])[0].graph.x.detach() * torch.tensor([0.5, 2.0]).view(2, 1, 1)
    batch = tj.linearize(model, [PROMPT, PROMPT[::-1]], input_value=x)
    for i, prompt in enumerate((PROMPT, PROMPT[::-1])):
        alone = tj.linearize(model, prompt, input_value=x[i : i + 1])
        torch.testing.assert_close(batch[i].vjp(v32), alone.vjp(v32), rtol=1e-5, atol=1e-5)


# -- recomputed blocks ------------------------------------------------------------------------------------


@one_a_host
@pytest.mark.parametrize("ends", [{}, dict(input_hook="blocks.0.attn.hook_z", output_hook="blocks.2.hook_mlp_out")])
def test_recomputing_gives_the_same_numbers(architecture, state, ends):
    model = shared(architecture, state)
    kept, lin = (make_(model, PROMPT, record=True, **ends) for make_ in (tj.linearize, recomputed))
    assert kept.facts["activations"] == "kept from the forward pass"
    same(lin.vjp(v32), kept.vjp(v32))
    for name, activation in kept.taps.items():
        same(lin.taps[name], activation)
    for at in ("resid", "components", "heads", "sources"):
        for kind in ("norm", "gradient_x_activation"):
            ours, theirs = (tj.layer_influence(one, v32, at=at, kind=kind) for one in (lin, kept))
            assert ours.rows == theirs.rows
            same(ours.values, theirs.values)
    for place in (Place("blocks.1.attn.hook_z", heads=[1]), Place("blocks.1.hook_resid_mid", positions=[2])):
        ours, theirs = (tj.path_scope(one, place, v32) for one in (lin, kept))
        same(ours.share.scores, theirs.share.scores)
        same(ours.around.scores, theirs.around.scores)
    if not ends:
        ours, theirs = (tj.residual_contributions(one, target=TARGET) for one in (lin, kept))
        assert ours.heads == theirs.heads
        assert ours.sources == theirs.sources
        same(ours.values, theirs.values)


@one_a_host
def test_recomputing_within_hooks_and_grad_modes(architecture, state):
    model = fresh(architecture, state)
    with model.hooks(fwd_hooks=[("blocks.1.hook_attn_out", lambda v, hook: v * 0.5)]):
        kept, lin = (make_(model, PROMPT, record=True) for make_ in (tj.linearize, recomputed))
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            ours, theirs = (tj.layer_influence(one, target=TARGET).values for one in (lin, kept))
            same(ours, theirs)


# -- the caller's model --------------------------------------------------------------------------------------


@one_a_host
@pytest.mark.parametrize("make_", [tj.linearize, recomputed])
@pytest.mark.parametrize("ends", [pytest.param({}, marks=pytest.mark.slow), dict(output_hook="blocks.2.hook_mlp_out")])
def test_nothing_is_held_once_a_linearization_is_gone(architecture, state, make_, ends):
    model = fresh(architecture, state)
    lin = make_(model, PROMPT, record=True, **ends)
    tj.layer_influence(lin, v32)
    tj.path_scope(lin, "blocks.1.attn.hook_z", v32)
    held = [v for m in model.modules() for v in m.__dict__.values() if isinstance(v, torch.Tensor)]
    assert all(v.grad_fn is None for v in held), "TransformerBridge's attention remembers its last pattern"
    graph = [t for t in lin.taps.recorded.values() if t.requires_grad]
    alive = [weakref.ref(t) for t in (lin.graph.x, lin.graph.y, *graph)]
    assert len(alive) > 10
    del lin, graph
    assert not any(ref() is not None for ref in alive)


@one_a_host
@pytest.mark.parametrize("mode", [torch.inference_mode, *slow(nullcontext, torch.no_grad)])
def test_the_model_is_left_as_it_was(architecture, state, mode):
    model = fresh(architecture, state)
    expected = tj.layer_influence(tj.linearize(shared(architecture, state), PROMPT, record=True), target=TARGET)
    with mode():
        before = snapshot(model)
        lin = tj.linearize(model, PROMPT, record=True)
        found = tj.layer_influence(lin, target=TARGET)
        tj.head_influence(lin, "fisher", rank=2)
        tj.path_scope(lin, "blocks.1.attn.hook_z", heads=[0])
        tj.residual_contributions(lin)
        tj.linearize(model, PROMPT, input_hook="blocks.1.attn.hook_z", output_hook="blocks.2.hook_resid_post")
        assert_untouched(before, model)
    torch.testing.assert_close(found.values, expected.values)


REFUSED = [
    dict(record=["blocks.0.hook_resid_pr"]),
    dict(record=["resid", "blocks.0.attn.hook_result"]),
    dict(input_hook="blocks.7.hook_resid_pre"),
    dict(output_hook="nowhere"),
    dict(input_hook="blocks.0.attn.hook_result"),
    dict(output_hook="blocks.0.attn.hook_result"),
    dict(output_hook="blocks.0.attn.hook_pattern"),
    dict(input_hook="blocks.1.hook_resid_pre", output_hook="blocks.0.hook_resid_pre"),
    dict(input_value=torch.ones(1, 2, 32, dtype=torch.float64)),
]


@one_a_host
def test_the_model_is_left_as_it_was_after_a_refusal(architecture, state):
    model = fresh(architecture, state)
    model.add_hook("blocks.0.hook_resid_pre", lambda value, hook: value * 2)
    before = snapshot(model)
    for options in REFUSED:
        for make_ in (tj.linearize, recomputed):
            with pytest.raises(tj.JacobianScopeError):
                make_(model, PROMPT, **options)
            assert_untouched(before, model)


@one_a_host
def test_contributions_leave_hooks_on_norms_alone(architecture, state):
    """Norms are measured by running them: the caller's hooks on them neither run nor go."""
    model, calls = fresh(architecture, state), []
    names = [n for n in ("ln_final.hook_scale", "blocks.1.ln1_post.hook_scale") if n in model.hook_dict]
    for name in names:
        model.add_hook(name, lambda value, hook: calls.append(1))
    tj.linearize(model, PROMPT)  # looks, once, for gradient that gets lost
    calls.clear()
    lin = tj.linearize(model, PROMPT, record=True)
    before, ran = snapshot(model), len(calls)
    assert ran == len(names)
    c = tj.residual_contributions(lin, target=TARGET)
    assert len(calls) == ran
    assert_untouched(before, model)
    assert c.heads.rows == tuple(map(str, range(LAYERS)))


# -- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [s for _, s in cases("hooked", "bridge", of=["gpt2"])])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            dict(input_hook="blocks.1.hook_resid_pr"),
            tj.errors.HookPointError,
            "did you mean 'blocks.1.hook_resid_pre' or",
        ),
        (
            dict(output_hook="blocks.1.hook_resid_pst"),
            tj.errors.HookPointError,
            "did you mean 'blocks.1.hook_resid_post' or",
        ),
        (dict(record="blocks.1.atn.hook_z"), tj.errors.HookPointError, "did you mean 'blocks.1.attn.hook_z' or"),
        (
            dict(input_hook="blocks.9.hook_resid_pre"),
            tj.errors.HookPointError,
            "'blocks.9.hook_resid_pre': its layers are 0 to 2",
        ),
        (dict(output_hook="blocks.-1.hook_resid_pre"), tj.errors.HookPointError, "its layers are 0 to 2"),
        (dict(record=["blocks.3.attn.hook_z"]), tj.errors.HookPointError, "its layers are 0 to 2"),
        (dict(record="zzz"), tj.errors.HookPointError, "record='zzz': 'zzz' is neither a group"),
        (dict(input_hook=3), tj.errors.ArgumentError, "input_hook=3 is an int, expected text"),
        (dict(record=3), tj.errors.ArgumentError, "record=3 is an int, expected True, or a list of 'resid'"),
        (dict(record=["resid", 3]), tj.errors.ArgumentError, "or names of hook points"),
        (
            dict(record="blocks.0.attn.hook_result"),
            tj.errors.HookPointError,
            r"blocks.0.attn.hook_result exists but wasn't reached .*use_attn_result",
        ),
        (
            dict(input_hook="blocks.0.attn.hook_result"),
            tj.errors.ContractError,
            "never reached blocks.0.attn.hook_result",
        ),
        (
            dict(output_hook="blocks.0.attn.hook_result"),
            tj.errors.ContractError,
            "never reached blocks.0.attn.hook_result",
        ),
        (
            dict(input_hook="blocks.1.hook_resid_pre", output_hook="blocks.0.hook_resid_post"),
            tj.errors.ContractError,
            "blocks.0.hook_resid_post doesn't depend on blocks.1.hook_resid_pre: the output must come after the input",
        ),
        (
            dict(input_hook="unembed.hook_in"),
            tj.errors.HookPointError,
            r"unembed.hook_in .*: it comes after the final norm",
        ),
        (
            dict(output_hook="blocks.0.attn.hook_pattern"),
            tj.errors.HookPointError,
            r"shape \(1, 4, 11, 11\), .* its positions",
        ),
        (
            dict(input_hook="blocks.0.attn.hook_attn_scores"),
            tj.errors.HookPointError,
            "choose a hook point inside the blocks",
        ),
        (
            dict(output_hook="blocks.1.hook_resid_pre", final_norm=torch.ones(32)),
            tj.errors.ArgumentError,
            "not for output_hook='blocks.1.hook_resid_pre'; leave it out",
        ),
        (
            dict(input_value=torch.ones(1, 2, 32)),
            tj.errors.HookPointError,
            r"value for hook_embed has shape \(1, 2, 32\), expected \(1, 11, 32\)",
        ),
        (dict(input_value=[1.0]), tj.errors.ArgumentError, r"input_value=\[1.0\] is a list, expected a tensor"),
        (dict(input_value=torch.full((1, 11, 32), float("nan"))), tj.errors.ContractError, "are not finite"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("unchecked")
def test_bad_ends_are_named(state, options, error, message):
    with pytest.raises(error, match=message):
        tj.linearize(shared("gpt2", state), PROMPT, **options)


@pytest.mark.parametrize(
    "scope",
    [
        tj.semantic_scope,
        tj.temperature_scope,
        tj.fisher_scope,
        lambda lin: tj.temperature_scope(lin, confidence="logit_norm"),
    ],
)
def test_only_directions_are_explained_inside(scope):
    lin = tj.linearize(shared("gpt2", "bridge"), PROMPT, output_hook="blocks.1.hook_resid_post")
    with pytest.raises(
        tj.errors.ArgumentError, match=r"blocks.1.hook_resid_post, .*: use direction_scope\(lin, v\) or"
    ):
        scope(lin)
    assert tj.direction_scope(lin, v32).scores.isfinite().all()
    feature = tj.output_scope(lin, lambda y, logits: (v32 @ y).relu() + v32 @ y, name="feature")
    share = 2.0 if feature.metadata["value"] > 0 else 1.0
    torch.testing.assert_close(feature.scores, share * tj.direction_scope(lin, v32).scores)
    with pytest.raises(tj.errors.ArgumentError, match=r"fn\(y, logits\) failed with logits=None .* make it of y alone"):
        tj.output_scope(lin, lambda y, z: z.max())


def test_a_hook_that_detaches_the_stream_is_pointed_out():
    model = make("gpt2", "bridge")
    model.add_hook("blocks.1.hook_resid_pre", lambda value, hook: value.detach())
    with pytest.raises(tj.errors.ContractError, match=r"no hook may detach the residual stream between them"):
        tj.linearize(model, PROMPT, output_hook="blocks.2.hook_resid_pre")
    tj.linearize(model, PROMPT, input_hook="blocks.1.hook_resid_pre")
