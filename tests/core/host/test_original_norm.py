"""The published final norm, read from a checkpoint's safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tl_jacobian.core.host.original_norm import read_original_norm
from tl_jacobian.core.norms import affine_of
from tl_jacobian.errors import UnsupportedModelError

WEIGHT, BIAS = torch.tensor([0.5, -1.0, 2.0, 0.25]), torch.tensor([1.0, 2.0, 3.0, 4.0])
OTHER = {"model.layers.0.input_layernorm.weight": torch.ones(4), "lm_head.weight": torch.ones(9, 4)}


def checkpoint(folder: Path, **tensors: Tensor) -> str:
    named = {name.replace("__", "."): t for name, t in tensors.items()}
    save_file({**OTHER, **named}, folder / "model.safetensors")
    return str(folder)


def sharded(folder: Path, shards: dict[str, dict[str, Tensor]]) -> str:
    for file, tensors in shards.items():
        save_file(tensors, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, tensors in shards.items() for name in tensors}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return str(folder)


def test_gain_without_bias(tmp_path):
    gain, bias = read_original_norm(checkpoint(tmp_path, model__norm__weight=WEIGHT), "LlamaForCausalLM")
    assert torch.equal(gain, WEIGHT)
    assert bias is None


def test_gain_and_bias(tmp_path):
    folder = checkpoint(tmp_path, transformer__ln_f__weight=WEIGHT, transformer__ln_f__bias=BIAS)
    gain, bias = read_original_norm(folder, "GPT2LMHeadModel")
    assert torch.equal(gain, WEIGHT)
    assert torch.equal(bias, BIAS)


@pytest.mark.parametrize(
    "name",
    [
        "model.norm", "transformer.ln_f", "ln_f", "gpt_neox.final_layer_norm", "model.final_layernorm",
        "model.decoder.final_layer_norm", "decoder.final_layer_norm", "model.language_model.norm",
        "language_model.model.norm",
    ],
)  # fmt: skip
def test_every_known_name(tmp_path, name):
    folder = checkpoint(tmp_path, **{f"{name}.weight": WEIGHT})
    assert torch.equal(read_original_norm(folder, "")[0], WEIGHT)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_as_float32(tmp_path, dtype):
    gain, bias = read_original_norm(
        checkpoint(tmp_path, ln_f__weight=WEIGHT.to(dtype), ln_f__bias=BIAS.to(dtype)), "GPT2LMHeadModel"
    )
    assert gain.dtype == bias.dtype == torch.float32
    assert torch.equal(gain, WEIGHT)


def test_the_shard_is_found_by_the_index_and_the_others_are_not_opened(tmp_path):
    folder = sharded(tmp_path, {"a.safetensors": OTHER, "b.safetensors": {"model.norm.weight": WEIGHT}})
    (tmp_path / "a.safetensors").unlink()
    assert torch.equal(read_original_norm(folder, "LlamaForCausalLM")[0], WEIGHT)


def test_bias_in_the_same_shard_is_read(tmp_path):
    tensors = {"transformer.ln_f.weight": WEIGHT, "transformer.ln_f.bias": BIAS}
    folder = sharded(tmp_path, {"a.safetensors": OTHER, "b.safetensors": tensors})
    assert torch.equal(read_original_norm(folder, "GPT2LMHeadModel")[1], BIAS)


def test_bias_in_another_shard_is_read_too(tmp_path):
    shards = {"a.safetensors": {"transformer.ln_f.weight": WEIGHT}, "b.safetensors": {"transformer.ln_f.bias": BIAS}}
    gain, bias = read_original_norm(sharded(tmp_path, shards), "GPT2LMHeadModel")
    assert torch.equal(gain, WEIGHT)
    assert bias is not None
    assert torch.equal(bias, BIAS)


def norm_class(module: str, name: str) -> Any:
    import importlib

    return getattr(importlib.import_module(f"transformers.models.{module}.modeling_{module}"), name)


@pytest.mark.parametrize(
    ("architecture", "module", "norm"),
    [
        ("LlamaForCausalLM", "llama", "LlamaRMSNorm"),
        ("Qwen2ForCausalLM", "qwen2", "Qwen2RMSNorm"),
        ("Qwen3ForCausalLM", "qwen3", "Qwen3RMSNorm"),
        ("GemmaForCausalLM", "gemma", "GemmaRMSNorm"),
        ("Gemma2ForCausalLM", "gemma2", "Gemma2RMSNorm"),
        ("Gemma3ForCausalLM", "gemma3", "Gemma3RMSNorm"),
        ("Gemma3ForConditionalGeneration", "gemma3", "Gemma3RMSNorm"),
        ("Gemma3nForConditionalGeneration", "gemma3n", "Gemma3nRMSNorm"),
        ("Gemma4ForCausalLM", "gemma4", "Gemma4RMSNorm"),
        ("Qwen3NextForCausalLM", "qwen3_next", "Qwen3NextRMSNorm"),
        ("Qwen3_5ForCausalLM", "qwen3_5", "Qwen3_5RMSNorm"),
    ],
)
def test_the_gain_is_what_the_architectures_own_norm_applies(tmp_path, architecture, module, norm):
    pytest.importorskip(f"transformers.models.{module}")
    own = norm_class(module, norm)(4)
    with torch.no_grad():
        own.weight.copy_(WEIGHT)
    gain, _ = read_original_norm(checkpoint(tmp_path, model__norm__weight=WEIGHT), architecture)
    torch.testing.assert_close(gain, affine_of(own, 4).gain)


def test_a_folder_without_safetensors_is_refused(tmp_path):
    with pytest.raises(UnsupportedModelError, match=r"needs the safetensors of .* found none; pass the norm itself"):
        read_original_norm(str(tmp_path), "LlamaForCausalLM")


def test_a_shard_that_is_not_there_is_refused(tmp_path):
    folder = sharded(tmp_path, {"a.safetensors": {"model.norm.weight": WEIGHT}})
    (tmp_path / "a.safetensors").unlink()
    with pytest.raises(UnsupportedModelError, match=r"damaged or incomplete: a.safetensors, which should hold"):
        read_original_norm(folder, "LlamaForCausalLM")


@pytest.mark.parametrize("in_shards", [False, True])
def test_a_checkpoint_without_a_known_norm_is_refused(tmp_path, in_shards):
    folder = sharded(tmp_path, {"a.safetensors": OTHER}) if in_shards else checkpoint(tmp_path)
    with pytest.raises(
        UnsupportedModelError, match=r"has no final norm under a known name \(model\.norm, .*final_norm="
    ):
        read_original_norm(folder, "LlamaForCausalLM")


def damaged_checkpoint(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x08\x00\x00")


def damaged_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map"')


@pytest.mark.parametrize("damage", [damaged_checkpoint, damaged_index])
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    damage(tmp_path)
    with pytest.raises(UnsupportedModelError, match="safetensors"):
        read_original_norm(str(tmp_path), "LlamaForCausalLM")


@pytest.mark.parametrize("name", ["someone/no-such-model", "no/such/folder/at/all", ""])
def test_a_name_that_can_not_be_fetched_is_refused(monkeypatch, name):
    """Offline, or never there: the same way out."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UnsupportedModelError, match=r"needs the safetensors of .* found none"):
        read_original_norm(name, "LlamaForCausalLM")


def test_from_the_hub_only_the_norms_shard_is_fetched(tmp_path, monkeypatch):
    sharded(tmp_path, {"a.safetensors": OTHER, "b.safetensors": {"model.norm.weight": WEIGHT}})
    fetched = []

    def download(repo: str, file: str) -> str:
        assert repo == "someone/model"
        fetched.append(file)
        return str(tmp_path / file)

    monkeypatch.setattr("tl_jacobian.core.host.original_norm.hf_hub_download", download)
    assert torch.equal(read_original_norm("someone/model", "LlamaForCausalLM")[0], WEIGHT)
    assert fetched == ["model.safetensors.index.json", "b.safetensors"]
