"""An SAE from disk: numbers alone, and what says which activation they are of."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from tl_jacobian.core.sae import read_sae
from tl_jacobian.core.sae_file import load_sae
from tl_jacobian.errors import ArgumentError

WEIGHTS = {"W_enc": torch.eye(2, 3), "W_dec": torch.eye(3, 2), "b_enc": torch.tensor([0.0, -1.0, 0.0])}


def test_a_folder_of_saelens_and_a_file(tmp_path):
    save_file(WEIGHTS, tmp_path / "sae_weights.safetensors")
    assert read_sae(load_sae(tmp_path / "sae_weights.safetensors")).at is None
    cfg = {"architecture": "topk", "k": 1, "metadata": {"hook_name": "blocks.1.hook_resid_post"}}
    (tmp_path / "cfg.json").write_text(json.dumps(cfg))
    for path in (tmp_path, tmp_path / "sae_weights.safetensors"):
        found = read_sae(load_sae(path))
        assert (found.at, found.n_features) == ("blocks.1.hook_resid_post", 3)
        assert found.activations(torch.tensor([[2.0, 1.5]])).tolist() == [[2.0, 0.0, 0.0]]
        assert found.written(torch.tensor([[2.0, 1.5]]), 0).tolist() == [[2.0, 0.0]]


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda at: None, "there is no SAE"),
        (lambda at: at.mkdir(), "sae_weights.safetensors and cfg.json"),
        (lambda at: at.write_bytes(pickle.dumps(WEIGHTS)), "save_file"),
        (lambda at: at.write_bytes(b"\xff" * 40), "can't be read as safetensors"),
    ],
)
def test_what_is_no_sae_is_refused(tmp_path, make, remedy):
    make(tmp_path / "found")
    with pytest.raises(ArgumentError, match=remedy):
        load_sae(tmp_path / "found")


@pytest.mark.parametrize("text", ["[1]", "{", "[" * 100_000])
def test_a_configuration_that_is_none_is_refused(tmp_path, text):
    save_file(WEIGHTS, tmp_path / "weights.safetensors")
    (tmp_path / "cfg.json").write_text(text)
    with pytest.raises(ArgumentError, match=r"'cfg\.json' beside the weights"):
        load_sae(tmp_path)
