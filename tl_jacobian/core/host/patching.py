"""Activation patching as TransformerLens does it (``transformer_lens.patching``), on either host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

# For each kind of activation: TransformerLens's function for it. All but the heads' give (layer, pos).
FUNCTIONS = {
    "resid_pre": "get_act_patch_resid_pre",
    "resid_mid": "get_act_patch_resid_mid",
    "attn_out": "get_act_patch_attn_out",
    "mlp_out": "get_act_patch_mlp_out",
    "heads": "get_act_patch_attn_head_out_all_pos",
}
HOOKS = {kind: f"hook_{kind}" for kind in FUNCTIONS} | {"heads": "attn.hook_z"}


def measure(
    model: Any,
    clean: Int[Tensor, "1 pos"],
    corrupted: Int[Tensor, "1 pos"],
    kind: str,
    metric: Callable[[Float[Tensor, "1 pos d_vocab"]], Tensor],
) -> Float[Tensor, "layers places"]:
    """The metric of the corrupted prompt, with one activation at a time taken from the clean prompt's run.

    One forward pass for each place; a progress bar, TransformerLens's own.
    """
    from transformer_lens import patching

    hook = HOOKS[kind]
    with torch.no_grad():
        _, cache = model.run_with_cache(clean, names_filter=lambda name: name.endswith(hook))
        return getattr(patching, FUNCTIONS[kind])(model, corrupted, cache, metric)
