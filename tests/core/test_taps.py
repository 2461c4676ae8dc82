"""Recorded activations, as one prompt sees them."""

from __future__ import annotations

import pytest
import torch
from cases import cases, shared

import tl_jacobian as tj
from tl_jacobian.core.hooks import Taps

PROMPT, LONGER = list(b"Paris is in"), list(b"The capital")
every_case = pytest.mark.parametrize(("architecture", "state"), cases())


def taps(row=0, n_pos=3):
    z = torch.arange(2 * 4 * 2 * 3, dtype=torch.float64).view(2, 4, 2, 3).requires_grad_()
    pattern = torch.arange(2 * 2 * 4 * 4, dtype=torch.float64).view(2, 2, 4, 4)
    return Taps({"blocks.0.attn.hook_z": z, "blocks.0.attn.hook_pattern": pattern}, row, n_pos)


def test_they_are_a_mapping_of_one_prompts_own():
    t = taps(row=1)
    assert list(t) == ["blocks.0.attn.hook_z", "blocks.0.attn.hook_pattern"]
    assert len(t) == 2
    assert "blocks.0.attn.hook_z" in t
    assert "hook_embed" not in t
    z, pattern = t.values()
    assert torch.equal(z, t.tensor("blocks.0.attn.hook_z")[1, :3].detach())
    assert not z.requires_grad
    assert torch.equal(pattern, t.tensor("blocks.0.attn.hook_pattern")[1, :, :3, :3])
    assert t.tensor("blocks.0.attn.hook_z").requires_grad


def test_gradients_are_cut_alike_with_leading_dimensions():
    t = taps(row=1)
    for name in t:
        batch = t.tensor(name).detach()
        many = torch.stack([batch, 2 * batch])
        assert torch.equal(t.cut(name, many), torch.stack([t[name], 2 * t[name]]))


def test_a_label_is_as_good_as_the_name():
    t = taps(row=1)
    for label, name in (("0.attn.z", "blocks.0.attn.hook_z"), ("0.attn.pattern", "blocks.0.attn.hook_pattern")):
        assert label in t
        assert t.full_name(label) == t.full_name(name) == name
        assert torch.equal(t[label], t[name])
        assert torch.equal(t.get(label), t[name])
        assert t.tensor(label) is t.tensor(name)
        batch = t.tensor(name).detach()
        assert torch.equal(t.cut(label, batch), t.cut(name, batch))
    assert "1.attn.z" not in t
    assert 0 not in t
    assert t.full_name("1.attn.z") == "1.attn.z"


def test_what_was_not_recorded_names_the_nearest():
    with pytest.raises(
        tj.errors.HookPointError,
        match=r"hook_zz' wasn't recorded \(the nearest that was: 'blocks.0.attn.hook_z'\); ask for it: .*record=\[",
    ):
        taps()["blocks.0.attn.hook_zz"]
    with pytest.raises(
        tj.errors.HookPointError, match=r"'hook_embed' wasn't recorded; ask for it: .*record=\['hook_embed'\]"
    ):
        Taps({})["hook_embed"]


@every_case
def test_activations_are_those_of_run_with_cache(architecture, state):
    model = shared(architecture, state)
    lin = tj.linearize(model, PROMPT, record=True)
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.tensor([PROMPT]))
    for name, activation in lin.taps.items():
        torch.testing.assert_close(activation, cache[name][0], rtol=1e-12, atol=1e-12)


@every_case
def test_each_member_of_a_batch_has_those_of_its_prompt_alone(architecture, state):
    model = shared(architecture, state)
    prompts = [PROMPT[:4], LONGER, PROMPT]
    for lin, prompt in zip(tj.linearize(model, prompts, record=True), prompts, strict=True):
        alone = tj.linearize(model, prompt, record=True)
        assert list(lin.taps) == list(alone.taps)
        v = alone.unembedding.direction(101, alone.logits)
        names = [name for name in alone.taps if name != "hook_pos_embed"]
        ours, theirs = lin.vjp_at(v, names), alone.vjp_at(v, names)
        for name, activation in alone.taps.items():
            # Norms, softmax and rotary tables in float32 sum in another order when there are more rows.
            torch.testing.assert_close(lin.taps[name], activation, rtol=1e-5, atol=1e-5)
        for name in names:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("architecture", "state"), cases(of=("gpt2", "gemma2")))
def test_each_position_has_its_own(architecture, state):
    """Patterns too: later tokens neither read nor are read."""
    model = shared(architecture, state)
    for lin in tj.linearize(model, PROMPT, position=[3, -1], record=True):
        alone = tj.linearize(model, PROMPT[: lin.position + 1], record=True)
        for name, activation in alone.taps.items():
            torch.testing.assert_close(lin.taps[name], activation, rtol=1e-5, atol=1e-5)
        rows = [tj.layer_influence(one, target=101, at=["resid", "heads"]).values for one in (lin, alone)]
        torch.testing.assert_close(*rows, rtol=1e-5, atol=1e-6)


def test_several_directions_at_once(generator):
    lin = tj.linearize(shared("llama", "bridge"), PROMPT, record=True)
    v = torch.randn(5, 32, generator=generator, dtype=torch.float64)
    names = ["blocks.1.attn.hook_pattern", "blocks.0.attn.hook_v", "blocks.2.hook_resid_mid"]
    (together,) = lin.stream_at(v, names)
    for i, row in enumerate(v):
        alone = lin.vjp_at(row, names)
        for name in names:
            torch.testing.assert_close(together[name][i], alone[name])


def test_gradients_by_label():
    lin = tj.linearize(shared("llama", "bridge"), PROMPT, record=True)
    names = {"1.attn.pattern": "blocks.1.attn.hook_pattern", "2.resid_mid": "blocks.2.hook_resid_mid"}
    by_label, by_name = (lin.vjp_at(lin.y, list(asked)) for asked in (names, names.values()))
    for label, name in names.items():
        assert torch.equal(by_label[label], by_name[name])


@pytest.mark.usefixtures("unchecked")
def test_bad_directions_and_names():
    lin = tj.linearize(shared("gpt2", "bridge"), PROMPT, record=True)
    v = torch.ones(32, dtype=torch.float64)
    with pytest.raises(tj.errors.DirectionError, match=r"shape \(3,\)"):
        lin.vjp_at(v[:3], ["blocks.0.hook_resid_pre"])
    with pytest.raises(tj.errors.HookPointError, match="wasn't recorded"):
        lin.vjp_at(v, ["blocks.9.hook_resid_pre"])
    with pytest.raises(tj.errors.HookPointError, match="doesn't depend on hook_pos_embed"):
        lin.vjp_at(v, ["hook_pos_embed"])


def test_get_has_a_default():
    lin = tj.linearize(shared("llama", "bridge"), "abc", record="resid")
    assert lin.taps.get("blocks.0.attn.hook_z") is None
    assert lin.taps.get("blocks.0.hook_resid_pre").shape == (len(lin.tokens), 32)
