"""TransformerBridge as a host (TransformerLens 3 and 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from tl_jacobian.errors import HookPointError, UnsupportedModelError
from tl_jacobian.host.footprint import Habits
from tl_jacobian.host.transformer_lens_host import TransformerLensHost


class TransformerBridgeHost(TransformerLensHost):
    """A :class:`~tl_jacobian.host.base.Host` over ``transformer_lens.model_bridge.TransformerBridge``."""

    name = "TransformerBridge"
    # Hugging Face code between the norm and the unembedding may insist on the prompt's shape
    # (GPT-2's does), so every position is normalised and only one unembedded.
    earliest_cut = "unembed"

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        if not self._is_causal():
            raise UnsupportedModelError(
                f"{self._architecture()} is not a decoder-only causal language model: it has no next-token "
                "prediction to explain; pass a causal model (GPT-2, Llama, Gemma, ...)"
            )

    def _is_causal(self) -> bool:
        source = self.model.original_model
        encoder_decoder = getattr(getattr(source, "config", None), "is_encoder_decoder", False)
        # An encoder (BERT) can't generate; a diffusion model can, but not from left to right.
        generates = source.can_generate() if hasattr(source, "can_generate") else True
        return generates and bool(self.model.adapter.supports_causal_loss) and not encoder_decoder

    def _passes(self, name: str) -> bool:
        return str(name).endswith(".hook_resid_mid")  # another name of ln2.hook_in

    def patched(
        self, clean: list[int], corrupted: list[int], kind: str, metric: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "layers places"]:
        if kind == "resid_mid":
            raise HookPointError(
                "on TransformerBridge hook_resid_mid is the input of the MLP's norm, so patching it there leaves the "
                'residual stream as it was: compare at="resid_pre" or "attn_out", or use a HookedTransformer'
            )
        return super().patched(clean, corrupted, kind, metric)

    def _run(self, tokens: Tensor) -> Tensor:
        # No cache of keys and values: nothing is generated, and it would copy them.
        return self.model(tokens, return_type="logits", use_cache=False)

    def _parameters(self) -> list[nn.Parameter]:
        # The Hugging Face model isn't a registered submodule of the bridge.
        mine, theirs = super()._parameters(), nn.Module.parameters(self.model.original_model)
        return list({id(p): p for p in [*mine, *theirs]}.values())

    def _architecture(self) -> str | None:
        return self.cfg.architecture

    def _habits(self) -> Habits:
        compatible = any(getattr(m, "compatibility_mode", False) for m in self.model.blocks[0].modules())
        return Habits(softmax_bytes=4, scrubs=compatible, copies_weights=False)
