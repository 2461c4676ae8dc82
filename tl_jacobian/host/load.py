"""Models by name, on either host, unfolded: for the command line and notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tl_jacobian.errors import UnsupportedModelError
from tl_jacobian.host.demo_model import kinds, load_demo_model


def load_model(name: str, kind: str | None = None, *, device: str = "cpu", dtype: str = "float32") -> Any:
    """``"demo"``, any model name that TransformerLens knows, or (bridge) a local folder.

    Loaded without folding LayerNorm, so that every scope works.

    Raises:
        UnsupportedModelError: the name isn't known or can't be loaded, or the device isn't there.
    """
    # HookedTransformer can't load a folder.
    kind = kind or ("bridge" if Path(name).is_dir() else kinds()[0])
    if kind not in kinds():
        raise UnsupportedModelError(f"host {kind!r} isn't in the installed TransformerLens, expected {kinds()}")
    precision: torch.dtype = getattr(torch, dtype)
    _check_device(device)
    if name == "demo":
        return load_demo_model(kind, device=device, dtype=precision)  # type: ignore[arg-type]
    try:
        return _LOADERS[kind](name, device, precision)
    except (OSError, ValueError, KeyError) as error:
        raise UnsupportedModelError(
            f'can\'t load model {name!r} on host {kind!r}: {str(error)[:200]}. Expected "demo", a name from '
            "TransformerLens's list, or (bridge) a Hugging Face name or local folder"
        ) from error


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UnsupportedModelError(f"device {device!r} isn't available: {error}") from error


def _hooked(name: str, device: str, dtype: torch.dtype) -> Any:
    from transformer_lens import HookedTransformer

    return HookedTransformer.from_pretrained_no_processing(name, device=device, dtype=dtype).eval()


def _bridge(name: str, device: str, dtype: torch.dtype) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_transformers(name, device=device, dtype=dtype).eval()


_LOADERS = {"hooked": _hooked, "bridge": _bridge}
