"""A TransformerLens model's weights and norms, read without setting off the caller's hooks."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import nn

from tl_jacobian.anatomy import OutputProjection
from tl_jacobian.final_norm import NormAffine, affine_of
from tl_jacobian.host.untouched import in_state

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class TransformerLensAnatomy:
    """An :class:`~tl_jacobian.anatomy.Anatomy` of either host's model.

    Args:
        model: the caller's.
        affine: gain and bias of the final norm before it was folded, if the caller gave them.
    """

    def __init__(self, model: Any, affine: NormAffine | None) -> None:
        self.model = model
        self.affine = affine

    @property
    def n_layers(self) -> int:
        return len(self.model.blocks)

    def output_projection(self, layer: int) -> OutputProjection:
        attention = self.model.blocks[layer].attn
        bias = attention.b_O
        return OutputProjection(attention.W_O.detach(), None if bias is None else bias.detach())

    def attention_post_norm(self, layer: int) -> NormAffine | None:
        norm = getattr(self.model.blocks[layer], "ln1_post", None)
        return None if norm is None else self._measured(norm)

    def final_norm(self) -> NormAffine | None:
        if self.affine is not None:
            return self.affine
        norm = getattr(self.model, "ln_final", None)
        return None if norm is None else self._measured(norm)

    def _measured(self, norm: nn.Module) -> NormAffine:
        without = [(m, {name: OrderedDict() for name in _HOOKS}) for m in nn.Module.modules(norm)]
        with in_state(without):
            return affine_of(norm, int(self.model.cfg.d_model), self.model.W_U)
