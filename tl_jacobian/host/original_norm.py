"""The published final norm, read from a checkpoint's safetensors and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from tl_jacobian.errors import UnsupportedModelError

# Where checkpoints keep the norm before the unembedding.
_NAMES = (
    "model.norm",
    "transformer.ln_f",
    "ln_f",
    "gpt_neox.final_layer_norm",
    "model.final_layernorm",
    "model.decoder.final_layer_norm",
    "decoder.final_layer_norm",
    "model.language_model.norm",
    "language_model.model.norm",
)
# Architectures whose norm multiplies by (1 + weight).
_ONE_PLUS_WEIGHT = ("Gemma",)


def read_original_norm(model_name: str, architecture: str) -> tuple[Tensor, Tensor | None]:
    """Gain and bias of the final norm of a local folder or a Hub model.

    From the Hub only the index and the one shard that holds the norm are fetched.

    Raises:
        UnsupportedModelError: no safetensors there, or no final norm under a known name.
    """
    shard, name = _locate(model_name)
    from safetensors import safe_open

    with safe_open(shard, framework="pt") as tensors:
        keys = set(tensors.keys())
        gain = tensors.get_tensor(f"{name}.weight").float()
        bias = tensors.get_tensor(f"{name}.bias").float() if f"{name}.bias" in keys else None
    if architecture.startswith(_ONE_PLUS_WEIGHT):
        gain = 1 + gain
    return gain, bias


def _locate(model_name: str) -> tuple[Path, str]:
    """The shard file and the prefix of the norm's tensors."""
    index = _file(model_name, "model.safetensors.index.json")
    if index is not None:
        shards: dict[str, str] = json.loads(index.read_text())["weight_map"]
        name = _norm_name(shards, model_name)
        shard = _file(model_name, shards[f"{name}.weight"])
    else:
        shard = _file(model_name, "model.safetensors")
        name = _norm_name(_keys(shard), model_name) if shard else ""
    if shard is None:
        raise UnsupportedModelError(
            f'final_norm="original" needs the safetensors of {model_name!r}, a local folder or a Hub model, and '
            "found none; pass the norm itself: final_norm=hf_model.model.norm or final_norm=(weight, bias)"
        )
    return shard, name


def _file(model_name: str, file: str) -> Path | None:
    if Path(model_name).is_dir():
        path = Path(model_name) / file
        return path if path.exists() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(model_name, file))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        return None


def _keys(shard: Path) -> set[str]:
    from safetensors import safe_open

    with safe_open(shard, framework="pt") as tensors:
        return set(tensors.keys())


def _norm_name(keys: dict[str, str] | set[str], model_name: str) -> str:
    for name in _NAMES:
        if f"{name}.weight" in keys:
            return name
    raise UnsupportedModelError(
        f"{model_name!r} has no final norm under a known name ({', '.join(_NAMES)}); pass it yourself: "
        "final_norm=(weight, bias)"
    )
