"""The published final norm, read from a checkpoint's safetensors and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError, safe_open
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
# Architectures whose norm multiplies by (1 + weight); Gemma 3n and 4 don't.
_ONE_PLUS_WEIGHT = ("GemmaFor", "Gemma2For", "Gemma3For", "VaultGemma", "RecurrentGemma", "Qwen3Next", "Qwen3_5")


def read_original_norm(model_name: str, architecture: str) -> tuple[Tensor, Tensor | None]:
    """Gain and bias of the final norm of a local folder or a Hub model.

    From the Hub only the index and the one file that holds the norm are fetched.

    Raises:
        UnsupportedModelError: no readable safetensors there, or no final norm under a known name.
    """
    try:
        files = _files_by_tensor(model_name)
        name = _norm_name(files, model_name)
        gain = _read(model_name, files, f"{name}.weight")
        bias = _read(model_name, files, f"{name}.bias") if f"{name}.bias" in files else None
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        if isinstance(error, UnsupportedModelError):
            raise
        raise UnsupportedModelError(f"the safetensors of {model_name!r} are damaged or incomplete: {error}") from error
    return (1 + gain if architecture.startswith(_ONE_PLUS_WEIGHT) else gain), bias


def _files_by_tensor(model_name: str) -> dict[str, str]:
    """For every tensor of the checkpoint the file it is in."""
    if (index := _file(model_name, "model.safetensors.index.json")) is not None:
        return dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    if (single := _file(model_name, "model.safetensors")) is not None:
        with safe_open(single, framework="pt") as tensors:
            return dict.fromkeys(tensors.keys(), "model.safetensors")
    raise UnsupportedModelError(
        f'final_norm="original" needs the safetensors of {model_name!r}, a local folder or a Hub model, and '
        "found none; pass the norm itself: final_norm=hf_model.model.norm or final_norm=(weight, bias)"
    )


def _read(model_name: str, files: dict[str, str], tensor: str) -> Tensor:
    path = _file(model_name, files[tensor])
    if path is None:
        raise FileNotFoundError(f"{files[tensor]}, which should hold {tensor}, is missing")
    with safe_open(path, framework="pt") as tensors:
        return tensors.get_tensor(tensor).float()


def _file(model_name: str, file: str) -> Path | None:
    if Path(model_name).is_dir():
        path = Path(model_name) / file
        return path if path.exists() else None
    try:
        return Path(hf_hub_download(model_name, file))
    except (HfHubHTTPError, HFValidationError, OSError):  # unknown name, no such file, no network
        return None


def _norm_name(files: dict[str, str], model_name: str) -> str:
    for name in _NAMES:
        if f"{name}.weight" in files:
            return name
    raise UnsupportedModelError(
        f"{model_name!r} has no final norm under a known name ({', '.join(_NAMES)}); pass it yourself: "
        "final_norm=(weight, bias)"
    )
