"""Kinds of activations that are patched, and their places, as ``transformer_lens.patching`` has them."""

from __future__ import annotations

from typing import Literal, NamedTuple

from tl_jacobian.core.hooks import ATTN_OUT, MLP_OUT, MLP_POST, PATTERN, RESID_MID, RESID_PRE, K, Q, V, Z

# What one place is: a token of a layer, a head of a layer (all tokens together), a head at a token, or a neuron (all
# tokens together).
Axes = Literal["token", "head", "head at token", "neuron"]


class Kind(NamedTuple):
    """A kind of activation.

    Attributes:
        hook: where it is in a block.
        axes: what one place is. A head's attention pattern belongs to the token that attends.
    """

    hook: str
    axes: Axes


KINDS: dict[str, Kind] = {
    "resid_pre": Kind(RESID_PRE, "token"),
    "resid_mid": Kind(RESID_MID, "token"),
    "attn_out": Kind(ATTN_OUT, "token"),
    "mlp_out": Kind(MLP_OUT, "token"),
    "mlp_post": Kind(MLP_POST, "token"),
    "heads": Kind(Z, "head"),
    "q": Kind(Q, "head at token"),
    "k": Kind(K, "head at token"),
    "v": Kind(V, "head at token"),
    "z": Kind(Z, "head at token"),
    "pattern": Kind(PATTERN, "head at token"),
    "neurons": Kind(MLP_POST, "neuron"),
}
