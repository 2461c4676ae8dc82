"""HookedTransformer as a host (TransformerLens 3)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tl_jacobian.errors import UnsupportedModelError
from tl_jacobian.host.footprint import Habits
from tl_jacobian.host.transformer_lens_host import TransformerLensHost


def hooked_class() -> type | None:
    """``transformer_lens.HookedTransformer``, or None where TransformerLens has none (version 4)."""
    try:
        from transformer_lens import HookedTransformer
    except ImportError:  # which is also what asking version 4 with hasattr() would raise
        return None
    return HookedTransformer


class HookedTransformerHost(TransformerLensHost):
    """A :class:`~tl_jacobian.host.base.Host` over ``transformer_lens.HookedTransformer``."""

    name = "HookedTransformer"
    earliest_cut = "norm"

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        if self.cfg.attention_dir != "causal":
            raise UnsupportedModelError(
                f"attention_dir={self.cfg.attention_dir!r}: expected a causal model, whose later tokens can't "
                "change an earlier prediction"
            )

    def _run(self, tokens: Tensor) -> Tensor:
        # With a tokenizer that pads on the left, the model would guess a mask from the ids;
        # prompts here are padded on the right, where a causal model needs none.
        return self.model(tokens, return_type="logits", padding_side="right")

    def _architecture(self) -> str | None:
        return self.cfg.original_architecture

    def _habits(self) -> Habits:
        return Habits(softmax_bytes=0, scrubs=True, copies_weights=True)
