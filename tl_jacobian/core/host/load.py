"""Models by name, on either host, unfolded: for the command line and notebooks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tl_jacobian.core.host.demo import demo_folder, kinds, load_demo_model
from tl_jacobian.errors import UnsupportedModelError
from tl_jacobian.results.arguments import checked


@checked
def load_model(
    name: str, kind: str | None = None, *, device: str = "cpu", dtype: str = "float32", device_map: str | None = None
) -> Any:
    """``"demo"``, any model name that TransformerLens knows, or (bridge) a local folder.

    Loaded without folding LayerNorm, so that every scope works.

    Args:
        name: of the model.
        kind: ``"hooked"`` or ``"bridge"``; default: hooked where there is one and it can load the model.
        device, dtype: of its weights.
        device_map: in place of ``device``, for a model larger than one device: ``"auto"``, ``"balanced"``, ...,
            or a JSON object of modules and devices, as accelerate knows them. For bridges.

    Raises:
        UnsupportedModelError: the name isn't known or can't be loaded, or the device isn't there.
    """
    # HookedTransformer can't load a folder, or over a device map.
    kind = kind or ("bridge" if Path(name).is_dir() or device_map is not None else kinds()[0])
    if kind not in kinds():
        raise UnsupportedModelError(f"host {kind!r} isn't in the installed TransformerLens, expected {kinds()}")
    precision: torch.dtype = getattr(torch, dtype)
    _check_device(device)
    if device_map is not None:
        return _mapped(name, kind, device, precision, device_map)
    if name == "demo":
        return load_demo_model(kind, device=device, dtype=precision)  # type: ignore[arg-type]
    try:
        return _LOADERS[kind](name, device, precision)
    except (OSError, ValueError, KeyError) as error:
        raise UnsupportedModelError(
            f'can\'t load model {name!r} on host {kind!r}: {str(error)[:200]}. Expected "demo", a name from '
            "TransformerLens's list, or (bridge) a Hugging Face name or local folder"
        ) from error


def _mapped(name: str, kind: str, device: str, dtype: torch.dtype, device_map: str) -> Any:
    """A bridge whose blocks lie on several devices."""
    if kind != "bridge":
        raise UnsupportedModelError(
            f"host {kind!r} takes no device map ({device_map!r}): load the model on the bridge, or in Python with "
            "HookedTransformer.from_pretrained_no_processing(name, n_devices=...)"
        )
    if device != "cpu":
        raise UnsupportedModelError(f"device={device!r} and device_map={device_map!r}: give one of them")
    places = _places(device_map)
    try:
        model = _boot(str(demo_folder()) if name == "demo" else name, device_map=places, dtype=dtype)
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise UnsupportedModelError(
            f'can\'t load model {name!r} with device_map={device_map!r}: {str(error)[:300]}. Expected "auto", '
            '"balanced", "sequential", one device, or a JSON object like {"": 0}'
        ) from error
    _check_placed(model, device_map)
    if name == "demo":
        model.cfg.default_prepend_bos = False
    return model


def _check_placed(model: Any, device_map: str) -> None:
    """Weights that accelerate brings in for each forward pass aren't there when a scope reads them."""
    away = sum(p.is_meta for p in torch.nn.Module.parameters(model.original_model))
    if away:
        raise UnsupportedModelError(
            f"device_map={device_map!r} leaves {away} of the model's weights off its devices (on the disk, or "
            "offloaded to the processor's memory), where scopes can't read them; use more or larger devices, or a "
            "smaller dtype"
        )


def _places(device_map: str) -> Any:
    """accelerate's name of a strategy, or modules and their devices."""
    if not device_map.lstrip().startswith("{"):
        return device_map
    try:
        return json.loads(device_map)
    except ValueError as error:
        raise UnsupportedModelError(
            f'device_map={device_map!r} isn\'t JSON: {error}; expected like {{"": 0}}'
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
    return _boot(name, device=device, dtype=dtype)


def _boot(name: str, **where: Any) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_transformers(name, **where).eval()


_LOADERS = {"hooked": _hooked, "bridge": _bridge}
