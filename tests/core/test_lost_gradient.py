"""A part of the model without gradient: refused where it is the model's, said where it is the caller's hook."""

from __future__ import annotations

import warnings

import pytest
import torch
from cases import cases, make
from untouched import assert_untouched, fresh, snapshot

import tl_jacobian as tj

PROMPT = list(b"Paris is in")
a_few = pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=("gpt2", "gemma3")))


def mlp_out(model, layer):
    return next(n for n in (f"blocks.{layer}.hook_mlp_out", f"blocks.{layer}.mlp.hook_out") if n in model.hook_dict)


def detached(value, hook):
    return value.detach()


def half_detached(value, hook):
    half = value.shape[-1] // 2
    return torch.cat([value[..., :half].detach(), value[..., half:]], -1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("architecture", "state"), cases())
def test_whole_models_pass_without_a_word(architecture, state, dtype):
    model = make(architecture, state, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        lin = tj.linearize(model, PROMPT)
    assert "gradient" not in lin.facts


@a_few
def test_hooks_that_detach_are_named(architecture, state):
    model = fresh(architecture, state)
    before = snapshot(model)
    with model.hooks(fwd_hooks=[(mlp_out(model, 1), detached)]):
        with pytest.warns(UserWarning, match=r"your hooks detach what they see at blocks\.1\..* \(it misses .*%"):
            lin = tj.linearize(model, PROMPT)
        assert lin.facts["gradient"].startswith("stopped by the caller's hooks at blocks.1.")
        assert tj.semantic_scope(lin, 65).metadata["gradient"] == lin.facts["gradient"]
    assert_untouched(before, model)
    assert "gradient" not in tj.linearize(model, PROMPT).facts


@a_few
def test_a_part_inside_of_a_hook(architecture, state):
    model = fresh(architecture, state)
    model.add_hook(mlp_out(model, 0), half_detached)
    with pytest.warns(UserWarning, match="inside of a module"):
        tj.linearize(model, PROMPT)


def test_in_half_precision_whole_outputs_are_found():
    model = make("llama", "bridge", torch.bfloat16)
    model.add_hook(mlp_out(model, 1), detached)
    with pytest.warns(UserWarning, match=r"blocks\.1\.mlp\.hook_out"):
        tj.linearize(model, PROMPT)


class Detaching(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs).detach()


class HalfDetaching(Detaching):
    def forward(self, *args, **kwargs):
        return half_detached(self.inner(*args, **kwargs), None)


class WithoutDerivative(Detaching):
    """As torch's own quantised layers are; a token at a time: their scale would let later ones change earlier ones."""

    def __init__(self, inner):
        super().__init__(torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(inner), dtype=torch.qint8)[0])

    def forward(self, x):
        return torch.stack([self.inner(token[None])[0] for token in x.flatten(0, -2)]).unflatten(0, x.shape[:-1])


def with_projection(wrap):
    model = make("llama", "bridge", torch.float32)
    found = [m for n, m in model.original_model.named_modules() if n.endswith("down_proj")]
    found[1].add_module("_original_component", wrap(found[1]._modules["_original_component"]))
    return model


@pytest.mark.parametrize(
    ("wrap", "where", "precision"),
    [
        (Detaching, r"at blocks\.1\.mlp\.down_proj", None),
        (HalfDetaching, "inside", None),
        (WithoutDerivative, r"at blocks\.1\.mlp\.down_proj", "model"),  # else refused for being quantised
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_model_that_loses_gradient_is_refused(wrap, where, precision):
    model = with_projection(wrap)
    with pytest.raises(tj.errors.ContractError, match=rf"goes on without gradient {where}.*quantised or custom module"):
        tj.linearize(model, PROMPT, precision=precision)
    model.add_hook("blocks.0.hook_resid_pre", lambda value, hook: value)  # which explains nothing
    with pytest.raises(tj.errors.ContractError, match="goes on without gradient"):
        tj.linearize(model, PROMPT, precision=precision)


def test_it_is_looked_at_once_for_a_model_and_its_hooks():
    model, calls = make("llama", "bridge"), []

    def hook_of(strength):
        def hook(value, hook):
            calls.append(strength)
            return value + strength

        return hook

    counts = []
    for strength in (1.0, torch.ones(32), torch.zeros(32)):
        with model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", hook_of(strength))]):
            tj.linearize(model, PROMPT)
        counts.append(len(calls))
        calls.clear()
    assert counts[0] > 1
    assert counts[1:] == [counts[0], 1]  # a number is another hook, another tensor isn't


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_unembedding_is_refused_by_name(unchecked):  # else a Protocol looks at each property itself
    model = torch.ao.quantization.quantize_dynamic(make("llama", "bridge", torch.float32), dtype=torch.qint8)
    for prompt in (PROMPT, "Paris"):
        with pytest.raises(tj.errors.UnsupportedModelError, match=r"can't be read .*unquantised lm_head"):
            tj.linearize(model, prompt)
