"""What a call may not change about somebody else's model, seen before and after."""

from __future__ import annotations

import pytest
import torch
from cases import cases, make

PROMPT = list(b"Paris is in")

one_a_host = pytest.mark.parametrize(
    ("architecture", "state"), cases("hooked", "bridge", "bridge-compat", of=("gpt2", "gemma2"))
)


def fresh(architecture, state):
    """A model that has run once: TransformerBridge installs hooks of its own at its first pass, whoever calls it."""
    model = make(architecture, state)
    with torch.no_grad():
        model(torch.tensor([PROMPT]))
    return model


def snapshot(model):
    """Everything a scope could have changed."""
    original = getattr(model, "original_model", model)
    parameters = {id(p): p for p in [*torch.nn.Module.parameters(model), *original.parameters()]}.values()
    return {
        "hooks": [
            (name, list(m._forward_hooks.values()), list(m._forward_pre_hooks.values()), list(m._backward_hooks))
            for name, m in [*model.named_modules(), *original.named_modules()]
        ],
        "lens_hooks": {name: (len(p.fwd_hooks), len(p.bwd_hooks)) for name, p in model.hook_dict.items()},
        "requires_grad": [p.requires_grad for p in parameters],
        "grad": [p.grad is None or p.grad.clone() for p in parameters],
        "values": [p.detach().clone() for p in parameters],
        "training": [m.training for m in [*model.modules(), *original.modules()]],
        "padding_side": model.tokenizer.padding_side,
        "rng": torch.get_rng_state(),
        "grad_mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b


def assert_untouched(before, model):
    after = snapshot(model)
    changed = [key for key in before if not same(before[key], after[key])]
    assert not changed
