"""Models larger than a device: weights of blocks lie elsewhere until they are needed (accelerate, on the CPU)."""

from __future__ import annotations

import copy

import pytest
import torch
from accelerate import cpu_offload
from transformer_lens.model_bridge import TransformerBridge

import tl_jacobian as tj
from tests import cases

PROMPT = list(b"Paris is in")


def estimate(lin):
    return tj.fisher_scope(lin, method="estimate", n_products=12)


def booted(hf):
    return TransformerBridge.boot_transformers(
        "tiny-llama", hf_model=hf, tokenizer=cases.tokenizer(), device="cpu", dtype=torch.float64
    ).eval()


@pytest.mark.parametrize("when", ["before booting", "after booting"])
def test_offloaded_blocks_give_the_same_scores(when):
    hf = copy.deepcopy(cases.hf_model("llama"))
    if when == "before booting":
        for layer in hf.model.layers[1:]:
            cpu_offload(layer, execution_device="cpu")
    model = booted(hf)
    if when == "after booting":  # a block of the bridge's own would call itself without end, in TransformerLens
        cpu_offload(model.blocks[1].original_component, execution_device="cpu")
    assert any(p.is_meta for p in model.original_model.parameters())
    lin, alone = (tj.linearize(m, PROMPT) for m in (model, cases.shared("llama", "bridge")))
    for scope in (tj.semantic_scope, tj.temperature_scope, estimate):
        torch.testing.assert_close(scope(lin).scores, scope(alone).scores)
