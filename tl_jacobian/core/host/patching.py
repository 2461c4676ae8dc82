"""Activation patching as TransformerLens does it (``transformer_lens.patching``), on either host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_jacobian.core.hooks import ATTN_OUT, MLP_OUT, RESID_MID, RESID_PRE, Z
from tl_jacobian.errors import HookPointError

# For each kind of activation: where it is in a block, and TransformerLens's function for it. All but the heads' give
# (layer, pos).
HOOKS = {"resid_pre": RESID_PRE, "resid_mid": RESID_MID, "attn_out": ATTN_OUT, "mlp_out": MLP_OUT, "heads": Z}
_FUNCTIONS = {kind: f"get_act_patch_{kind}" for kind in HOOKS} | {"heads": "get_act_patch_attn_head_out_all_pos"}


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

    with torch.no_grad():
        _, cache = model.run_with_cache(clean, names_filter=lambda name: name.endswith(HOOKS[kind]))
        if kind == "heads":
            _check_heads(model, cache)
        return getattr(patching, _FUNCTIONS[kind])(model, corrupted, cache, metric)


def _check_heads(model: Any, cache: Any) -> None:
    """TransformerLens cuts heads' outputs by the width of queries, which latent attention's values don't have."""
    n_heads = int(model.cfg.n_heads)
    for name, z in cache.items():
        if z.ndim != 4 or z.shape[2] != n_heads:
            raise HookPointError(
                f"TransformerLens cuts {name} into {tuple(z.shape[2:])} (heads, d_head), but the model has {n_heads} "
                'heads, so patching them one by one would patch other things: compare at="attn_out" or "resid_pre"'
            )
