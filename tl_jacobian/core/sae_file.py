"""An SAE or transcoder from disk: SAELens's folder, or one safetensors file of weights. Numbers are read, no code.

Pickles (``.pt``, ``.pkl``) can run whatever they like when they are loaded, and are refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tl_jacobian.errors import ArgumentError

_WEIGHTS = ("sae_weights.safetensors", "weights.safetensors")


def load_sae(path: str | Path, device: str = "cpu") -> SimpleNamespace:
    """Weights by name, and what ``cfg.json`` says of them as ``cfg``: what :func:`tl_jacobian.feature_scope` takes.

    Args:
        path: a folder with ``sae_weights.safetensors`` and ``cfg.json``, as SAELens saves them; or a safetensors file
            with ``W_enc`` (d_in, features), ``W_dec`` (features, d_out) and, where there are, ``b_enc``, ``b_dec``,
            ``threshold``, beside which a ``cfg.json`` may lie.
        device: of the weights.

    Raises:
        ArgumentError: there is no such file, or it isn't of this kind.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    file = next((path / name for name in _WEIGHTS if (path / name).is_file()), None) if path.is_dir() else path
    if file is None or not file.is_file():
        expected = f"a safetensors file, or a folder that holds {_WEIGHTS[0]} and cfg.json"
        raise ArgumentError(f"there is no SAE at {str(path)!r}, expected {expected}")
    try:
        weights = load_file(file, device)
    except (SafetensorError, OSError) as error:
        raise ArgumentError(
            f"{file.name!r} can't be read as safetensors ({error}); weights in another format are saved as such with "
            "safetensors.torch.save_file({'W_enc': ..., 'W_dec': ...}, path)"
        ) from error
    cfg = file.parent / "cfg.json"
    return SimpleNamespace(**weights, cfg=_config(cfg) if cfg.is_file() else None)


def _config(file: Path) -> SimpleNamespace:
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArgumentError(f"{file.name!r} beside the weights can't be read: {error}") from error
    if not isinstance(found, dict):
        raise ArgumentError(f"{file.name!r} beside the weights is a {type(found).__name__}, expected a JSON object")
    metadata = found.get("metadata")
    if isinstance(metadata, dict):
        found["metadata"] = SimpleNamespace(**metadata)
    return SimpleNamespace(**found)
