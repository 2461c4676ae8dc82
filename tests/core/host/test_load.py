"""Models by name, and over a device map; a processor is a device too."""

from __future__ import annotations

import pytest
import torch
from cases import HAS_HOOKED, hf_model, shared, tokenizer

import tl_jacobian as tj
from tl_jacobian.core.host import load
from tl_jacobian.core.host.load import load_model
from tl_jacobian.errors import UnsupportedModelError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    hf_model("llama", torch.float32).save_pretrained(path)
    tokenizer().save_pretrained(path)
    return str(path)


@pytest.mark.parametrize("device_map", [None, "cpu", '{"": "cpu"}', "auto", "sequential"])
def test_a_folder_over_a_device_map_gives_the_same_numbers(folder, device_map):
    if device_map in ("auto", "sequential") and torch.cuda.is_available():
        device_map = "cpu"
    lin = tj.linearize(load_model(folder, device_map=device_map), [1, 2, 3, 4])
    expected = tj.linearize(shared("llama", "bridge", torch.float32), [1, 2, 3, 4])
    torch.testing.assert_close(lin.logits, expected.logits)
    torch.testing.assert_close(tj.temperature_scope(lin).scores, tj.temperature_scope(expected).scores)


def test_the_demo_model_over_a_device_map_adds_no_bos(folder, monkeypatch):
    monkeypatch.setattr(load, "demo_folder", lambda: folder)
    assert load_model("demo", device_map="cpu").cfg.default_prepend_bos is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(device_map="{", kind="bridge"), r"device_map='\{' isn't JSON"),
        (dict(device_map="nowhere"), r"with device_map='nowhere': .* Expected \"auto\", \"balanced\""),
        (dict(device_map='{"": "disk"}'), "not supported yet|leaves .* weights off its devices"),
        (dict(device_map='{"": "meta"}'), "meta|off its devices"),
        (dict(device_map="auto", device="meta"), "device='meta' and device_map='auto': give one of them"),
    ],
)
def test_device_maps_that_can_not_be_used(folder, options, message):
    with pytest.raises(UnsupportedModelError, match=message):
        load_model(folder, **options)


@pytest.mark.skipif(not HAS_HOOKED, reason="there is no HookedTransformer in TransformerLens 4")
def test_a_hooked_transformer_takes_no_device_map():
    with pytest.raises(UnsupportedModelError, match=r"host 'hooked' takes no device map \('auto'\): load the model on"):
        load_model("gpt2", "hooked", device_map="auto")
