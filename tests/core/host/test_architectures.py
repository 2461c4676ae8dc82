"""Scores of architectures that are odd somewhere, against plain autograd on the Hugging Face model.

All architectures: benchmarks/architectures.py.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

import tl_jacobian as tj
from benchmarks import zoo
from benchmarks.architectures import Plain, error
from tests.cases import make, tokenizer
from tl_jacobian.core.host.hosts import resolve
from tl_jacobian.core.rerun import run

IDS = tokenizer().encode("The cap", add_special_tokens=False)


@cache
def plain(name: str) -> Plain:
    return Plain(zoo.hugging_face(name), IDS)


@cache
def bridge(name: str) -> Any:
    """The bridge, if TransformerLens boots it into the same function (3.9 drops Cohere's logit scale)."""
    model = zoo.bridge(zoo.hugging_face(name), tokenizer())
    with torch.no_grad():
        if error(model(torch.tensor([IDS]))[0, -1], plain(name).logits) > 1e-5:
            pytest.skip(f"{name} has other logits on this TransformerLens")
    return model


@cache
def recorded(name: str) -> Any:
    return tj.linearize(bridge(name), IDS, record=True)


# An embedding norm, a scale behind the embeddings that hooks see, one of logits, ones of nearly everything, a
# projection behind the embeddings.
@pytest.mark.parametrize(
    "name", ["bloom", "granite", "cohere", "opt-350m", pytest.param("falcon_h1", marks=pytest.mark.slow)]
)
def test_scores_are_those_of_autograd_at_the_embedding_layer(name):
    right, lin = plain(name), tj.linearize(bridge(name), IDS)
    torch.testing.assert_close(lin.graph.x.detach(), right.x.detach(), rtol=1e-6, atol=1e-6)
    assert error(tj.semantic_scope(lin, right.target).scores, right.semantic()) < 1e-6
    assert error(tj.temperature_scope(lin).scores, right.temperature()) < 1e-6
    assert error(tj.fisher_scope(lin, method="exact").scores, right.fisher()) < 1e-6


def test_x_is_the_embedding_under_both_of_its_names():
    model = bridge("bloom")
    by_name = tj.linearize(model, IDS, input_hook="embed.hook_out")
    torch.testing.assert_close(by_name.graph.x, tj.linearize(model, IDS).graph.x)
    normed = tj.linearize(model, IDS, input_hook="embed_ln.hook_out")
    assert not torch.allclose(normed.graph.x, by_name.graph.x)


# -- hook points ---------------------------------------------------------------------------------


@pytest.mark.parametrize("recompute", [False, True])
def test_scaled_hook_points_fire_and_lead_the_gradient(recompute):
    """What attention writes in Granite, residual_multiplier included: its gradient is that of the stream behind it."""
    model, right = bridge("granite"), plain("granite")
    names = [f"blocks.0.{path}" for path in ("hook_attn_out", "hook_mlp_out")] + ["blocks.1.hook_resid_pre"]
    budget = resolve(model).footprint(1, len(IDS), 1, names).peak(recompute=True) if recompute else None
    lin = tj.linearize(model, IDS, record=names, max_memory=budget)
    assert ("again" in lin.facts["activations"]) == recompute
    grid = tj.layer_influence(lin, target=right.target, at=names)
    assert error(grid.values[2], right.by_layer()[1]) < 1e-6
    # Nothing comes between what the MLP writes and the next block.
    torch.testing.assert_close(grid.values[1], grid.values[2])
    assert not model.blocks[0].hook_attn_out.has_hooks()
    multiplier = model.original_model.config.residual_multiplier
    written = right.outs[0] - right.blocks[0]
    ours = lin.taps["0.attn_out"] + lin.taps["0.mlp_out"]
    torch.testing.assert_close(ours, written[0].detach())
    assert multiplier == 0.5


def test_odd_hook_points_are_left_out_and_named():
    lin = recorded("opt")
    odd = [f"blocks.{i}.hook_resid_mid" for i in range(zoo.LAYERS)]
    if not (left := lin.facts.get("not_recorded")):
        pytest.skip("this TransformerLens shows OPT's hook_resid_mid by position")
    assert left == odd
    assert tj.layer_influence(lin).metadata["not_recorded"]
    with pytest.raises(tj.errors.HookPointError, match=r"resid_mid was left out .* shape \(7, 32\)"):
        tj.layer_influence(lin, at=odd[:1])
    with pytest.raises(tj.errors.HookPointError, match=r"expected \(batch, 7 positions"):
        tj.linearize(bridge("opt"), IDS, record=odd[:1])


def test_heads_of_latent_attention_are_the_models_own():
    lin, right = recorded("deepseek_v3"), plain("deepseek_v3")
    grid = tj.head_influence(lin, target=right.target)
    assert grid.columns == ("H0", "H1", "H2", "H3")
    assert error(grid.values, torch.stack(list(right.by_head(4).values()))) < 1e-6
    c = tj.residual_contributions(lin, target=right.target)
    for layer in c.heads.rows:
        assert abs(c.heads.pick(layer).values.sum().item() - c[f"{layer}.attn"]) < 1e-5
    other, token = tokenizer().encode("The Kap", add_special_tokens=False), right.target
    with pytest.raises(tj.errors.HookPointError, match="has 4 heads, so patching them one by one"):
        tj.compare_patching(bridge("deepseek_v3"), other, IDS, metric=lambda z: z[token], at="heads")


def test_a_kind_of_hook_point_that_a_model_has_not_is_said():
    with pytest.raises(tj.errors.HookPointError, match="this model has no hook points of at='heads'"):
        tj.head_influence(recorded("mamba"))


def test_native_names_are_known():
    model = make("llama", "bridge")
    names = ["blocks.0.hook_in", "blocks.1.hook_out", "blocks.1.attn.o.hook_in"]
    native, usual = tj.linearize(model, IDS, record=names), tj.linearize(model, IDS, record=True)
    for name, other in zip(names, ["0.resid_pre", "1.resid_post", "blocks.1.attn.hook_z"], strict=True):
        assert torch.equal(native.taps[name], usual.taps[other])
        assert torch.equal(native.taps[other], usual.taps[name])
    assert torch.equal(tj.head_influence(native).values, tj.head_influence(usual).values[1:2])
    inside = tj.linearize(model, IDS, output_hook="blocks.1.hook_out", record=True)
    assert "1.mlp" in tj.residual_contributions(inside, torch.ones(32)).names


# -- causal or not -------------------------------------------------------------------------------


def test_bidirectional_attention_is_refused():
    for name, options in (("bert", {}), ("gemma3_text", dict(use_bidirectional_attention=True))):
        config = zoo.config_of(name)
        for key, value in options.items():
            setattr(config, key, value)
        with torch.random.fork_rng():
            hf = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        hf.config.architectures = [type(hf).__name__]
        with torch.no_grad():  # large enough that a later token shows
            for p in hf.parameters():
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(0)) / p.shape[-1] ** 0.5)
        with pytest.raises(tj.errors.UnsupportedModelError, match="isn't causal: another token at position 4 changes"):
            tj.linearize(zoo.bridge(hf, tokenizer()), IDS)


def test_causality_is_tried_once_without_the_callers_hooks():
    model, calls = make("gpt2", "bridge"), []
    before = torch.get_rng_state()
    with model.hooks(fwd_hooks=[("blocks.0.hook_out", lambda value, hook: calls.append(value.shape))]):
        run(resolve(model), [IDS[:1]])
        run(resolve(model), [IDS])
    assert [shape[1] for shape in calls] == [1, len(IDS)]
    assert torch.equal(torch.get_rng_state(), before)


def test_value_biases_folded_past_attention_sinks_are_refused():
    """They change what the model computes, as its own logits show: a part of the attention goes to no token."""
    hf = zoo.hugging_face("gpt_oss")
    for options, fine in ((dict(), False), (dict(fold_value_biases=False), True)):
        model = zoo.bridge(hf, tokenizer())
        model.enable_compatibility_mode(disable_warnings=True, **options)
        model.to(torch.float64)
        with torch.no_grad():
            logits = [m(torch.tensor([IDS])) for m in (model, hf)]
        mine, theirs = (z[0, -1] if torch.is_tensor(z) else z.logits[0, -1] for z in logits)
        off = error(mine - mine.mean(), theirs - theirs.mean())
        assert (off < 1e-5) == fine
        if fine:
            tj.linearize(model, IDS)
        else:
            with pytest.raises(tj.errors.UnsupportedModelError, match="fold_value_biases=False"):
                tj.linearize(model, IDS)


def test_two_stacks_of_layers_are_refused():
    model = zoo.bridge(zoo.hugging_face("hrm_text"), tokenizer())
    with pytest.raises(tj.errors.UnsupportedModelError, match="no single list of blocks"):
        tj.linearize(model, IDS)


def test_a_model_without_layers():
    config = GPT2Config(n_embd=32, n_layer=0, n_head=4, n_positions=64, vocab_size=300)
    with torch.random.fork_rng():
        hf = AutoModelForCausalLM.from_config(config).double().eval()
    hf.config.architectures = [type(hf).__name__]
    model = zoo.bridge(hf, tokenizer())
    lin = tj.linearize(model, IDS, record=True)
    x = hf.transformer.wte(torch.tensor([IDS])).detach().requires_grad_()
    (right,) = torch.autograd.grad(hf(inputs_embeds=x).logits[0, -1, 65], x)
    assert error(tj.semantic_scope(lin, 65).scores, right[0].norm(dim=-1)) < 1e-6
    c = tj.residual_contributions(lin, target=65)
    assert abs(c["unattributed"]) < 1e-5
    assert c.names[:2] == ("embed", "pos_embed")


# -- what components write -----------------------------------------------------------------------


# Multipliers of the embeddings and of what is written; of the stream itself, and per-layer embeddings; an embedding
# norm; convolutions in some layers; a state-space mixer beside attention; mixers alone.
@pytest.mark.parametrize("name", ["granite", "gemma4_text", "bloom", "lfm2", "falcon_h1", "mamba"])
def test_contributions_add_up_block_by_block(name):
    right, lin = plain(name), recorded(name)
    c = tj.residual_contributions(lin, target=right.target)
    assert abs(c["unattributed"]) < 1e-6 * c.values.abs().max()
    assert abs(c.total - right.logits[right.target].item()) < 1e-5
    last = right.outs[zoo.LAYERS - 1]
    # v.y is linear in the stream at the final norm's scale, so each feature has a share of it (RMS norms).
    y, h = right.y[0, -1], last[0, -1]
    if name != "bloom":
        u = (torch.autograd.grad(right.logits[right.target], right.y, retain_graph=True)[0][0, -1] * y / h).detach()
        stream = {p.name: p.value for p in c}
        scale = getattr(
            zoo.layers_of(right.model, zoo.LAYERS)[-1], "layer_scalar", torch.ones(())
        )  # Gemma 4's, of the last block
        wrote = u @ (last[0, -1] - scale * right.blocks[zoo.LAYERS - 1][0, -1]).detach()
        ours = sum(v for n, v in stream.items() if n.startswith(f"{zoo.LAYERS - 1}."))
        assert abs(ours - wrote.item()) < 1e-5 * c.values.abs().max()


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("openai-gpt", "block 0 does something else to the residual stream than to add"),
        ("opt-350m", "32 features where it begins and 16 at the end: a projection"),
        ("modernbert-decoder", "another layer stands behind it"),
    ],
)
def test_contributions_that_cannot_add_up_are_refused(name, match):
    with pytest.raises(tj.errors.UnsupportedModelError, match=match):
        tj.residual_contributions(recorded(name))


def test_blocks_that_keep_states_in_a_cache_are_run_again_as_they_were():
    """Qwen3-Next's linear attention runs with a cache alone on some versions, and puts its states there each time."""
    right, model = plain("qwen3_next"), bridge("qwen3_next")
    least = resolve(model).footprint(1, len(IDS), 1).peak(recompute=True)
    lin = tj.linearize(model, IDS, max_memory=least)
    assert "again" in lin.facts["activations"]
    assert error(tj.semantic_scope(lin, right.target).scores, right.semantic()) < 1e-6
