"""From the caller's model to its host: HookedTransformer (TransformerLens 3) or TransformerBridge (3 and 4)."""

from __future__ import annotations

import math
import sys
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from tl_jacobian.core.hooks import EMBED, RESID_MID, parsed
from tl_jacobian.core.host.backward import Rule, rule_name
from tl_jacobian.core.host.base import Host
from tl_jacobian.core.host.loan import Loan, modules_in
from tl_jacobian.core.host.memory import Habits
from tl_jacobian.core.host.past import Past
from tl_jacobian.core.host.precision import Precision
from tl_jacobian.core.host.transformer_lens import TransformerLensHost
from tl_jacobian.errors import UnsupportedModelError


def hooked_class() -> type | None:
    """``transformer_lens.HookedTransformer``, or None where TransformerLens has none (version 4)."""
    try:
        from transformer_lens import HookedTransformer
    except ImportError:  # which is also what asking version 4 with hasattr() would raise
        return None
    return HookedTransformer


class HookedTransformerHost(TransformerLensHost):
    """A :class:`~tl_jacobian.core.host.base.Host` over ``transformer_lens.HookedTransformer``."""

    name = "HookedTransformer"
    earliest_cut = "norm"

    def __init__(self, model: Any, precision: Precision = None, rule: str | None = None) -> None:
        super().__init__(model, precision, rule)
        if self.cfg.attention_dir != "causal":
            raise UnsupportedModelError(
                f"attention_dir={self.cfg.attention_dir!r}: expected a causal model, whose later tokens can't "
                "change an earlier prediction"
            )

    def _run(self, tokens: Tensor, cache: Any = None) -> Tensor:
        # With a tokenizer that pads on the left, the model would guess a mask from the ids;
        # prompts here are padded on the right, where a causal model needs none.
        if cache is None:
            return self.model(tokens, return_type="logits", padding_side="right")
        return self.model(
            tokens,
            return_type="logits",
            past_kv_cache=cache,
            attention_mask=torch.ones_like(tokens),
            padding_side="right",
        )

    def _cache(self, past: Past | None, n: int) -> Any:
        from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

        cache = TransformerLensKeyValueCache.init_cache(self.cfg, self._device, n)
        if past is not None:
            for entry, (keys, values) in zip(cache.entries, past.rows(n), strict=True):
                entry.past_keys, entry.past_values = keys, values
            cache.previous_attention_mask = torch.ones(n, past.length, dtype=torch.int, device=self._device)
        return cache

    def _kept(self, cache: Any, length: int) -> Past:
        return Past([(entry.past_keys, entry.past_values) for entry in cache.entries], 1, length)

    def _architecture(self) -> str | None:
        return self.cfg.original_architecture

    def _habits(self) -> Habits:
        return Habits(softmax_bytes=0, scrubs=True, copies_weights=True, mask_bytes=3)


class TransformerBridgeHost(TransformerLensHost):
    """A :class:`~tl_jacobian.core.host.base.Host` over ``transformer_lens.model_bridge.TransformerBridge``."""

    name = "TransformerBridge"
    # Hugging Face code between the norm and the unembedding may insist on the prompt's shape
    # (GPT-2's does), so every position is normalised and only one unembedded.
    earliest_cut = "unembed"

    def __init__(self, model: Any, precision: Precision = None, rule: str | None = None) -> None:
        super().__init__(model, precision, rule)
        if not self._is_causal():
            raise UnsupportedModelError(
                f"{self._architecture()} is not a decoder-only causal language model: it has no next-token "
                "prediction to explain; pass a causal model (GPT-2, Llama, Gemma, ...)"
            )
        if not hasattr(model, "blocks"):
            raise UnsupportedModelError(
                f"{self._architecture()} has no single list of blocks on this bridge (model.blocks), so nobody could "
                "say which layer comes after which; pass a model with one stack of layers"
            )

        if self._lost_sinks():
            raise UnsupportedModelError(
                f"{self._architecture()}'s attention has sinks, so its weights don't sum to one, and compatibility "
                "mode folded value biases into the output bias as if they did: the logits aren't those of the model's "
                "weights any more; boot it again, and call enable_compatibility_mode(fold_value_biases=False), or none"
            )

    def _lost_sinks(self) -> bool:
        """Whether folding took biases of the values through an attention whose weights don't sum to one (gpt-oss)."""
        for block in self.model.blocks:
            attention = getattr(getattr(block, "attn", None), "original_component", None)
            bias = getattr(getattr(attention, "v_proj", None), "bias", None)
            if getattr(attention, "sinks", None) is not None and bias is not None and not bias.any():
                return any(getattr(m, "compatibility_mode", False) for m in block.modules())
        return False

    def _is_causal(self) -> bool:
        source = self.model.original_model
        encoder_decoder = getattr(getattr(source, "config", None), "is_encoder_decoder", False)
        # An encoder (BERT) can't generate; a diffusion model can, but not from left to right.
        generates = source.can_generate() if hasattr(source, "can_generate") else True
        return generates and bool(self.model.adapter.supports_causal_loss) and not encoder_decoder

    def _point(self, name: str) -> nn.Module:
        # hook_embed is another name of embed_ln.hook_out where a model normalises its embeddings (BLOOM), and on some
        # (Granite) a view that has been scaled: x is what the embedding layer gives, Hugging Face's inputs_embeds.
        return self.model.embed if name in (EMBED, "embed.hook_out") else super()._point(name)

    def _passes(self, name: str) -> bool:
        return parsed(name).path == RESID_MID  # another name of ln2.hook_in

    def _run(self, tokens: Tensor, cache: Any = None) -> Tensor:
        with Loan() as loan, loan:
            if (positions := getattr(self.model, "pos_embed", None)) is not None:
                # The bridge leaves the batch's size there, for whichever thread reads it next.
                loan.by_thread(positions, "_current_batch_size")
            if cache is not None:
                return self.model(tokens, return_type="logits", past_key_values=cache, use_cache=True)
            # No cache of keys and values: nothing is generated, and it would copy them.
            return self.model(tokens, return_type="logits", use_cache=self._needs_cache)

    def _cache(self, past: Past | None, n: int) -> Any:
        cache = DynamicCache()
        for layer, (keys, values) in enumerate([] if past is None else past.rows(n)):
            cache.update(keys, values, layer)
        return cache

    def _kept(self, cache: Any, length: int) -> Past:
        return Past([(layer.keys, layer.values) for layer in cache.layers], 2, length)

    @cached_property
    def _needs_cache(self) -> bool:
        """Whether Qwen3-Next's linear attention runs with a cache alone.

        Without one TransformerLens 3 goes its own way through it, which reads functions where transformers 5 has none.
        """
        ways = (m.__dict__["_modules"].get("_original_component") for m in modules_in(self.model) if _goes_own_way(m))
        return any(not hasattr(original, "causal_conv1d_fn") for original in ways)

    def _end_tokens(self) -> list[int]:
        found = getattr(getattr(self.model.original_model, "generation_config", None), "eos_token_id", None)
        return found if isinstance(found, list) else [] if found is None else [found]

    def _logit_scale(self) -> float:
        # TransformerLens's adapters say what follows the unembedding as a function; a soft-cap's slope at zero is one.
        transform = getattr(self.model.adapter, "apply_output_logits_transform", None)
        small = torch.full((1,), 1e-9, dtype=torch.float64)
        scale = 1.0 if transform is None else (transform(small) / small).item()
        return 1.0 if math.isclose(scale, 1.0, rel_tol=1e-12) else scale  # dividing rounds

    def _roots(self) -> tuple[nn.Module, ...]:
        # The Hugging Face model isn't a registered submodule of the bridge.
        return (self.model, self.model.original_model)

    def _architecture(self) -> str | None:
        return self.cfg.architecture

    def _habits(self) -> Habits:
        compatible = any(getattr(m, "compatibility_mode", False) for b in self.model.blocks[:1] for m in b.modules())
        return Habits(softmax_bytes=4, scrubs=compatible, copies_weights=False, mask_bytes=6)


def _goes_own_way(module: nn.Module) -> bool:
    finds_them = hasattr(sys.modules[type(module).__module__], "_resolve_hf_fn")  # version 4
    return type(module).__name__ == "GatedDeltaNetBridge" and not finds_them


def hosts() -> dict[type, type]:
    """The host for each model class that the installed TransformerLens has."""
    from transformer_lens.model_bridge import TransformerBridge

    found: dict[type, type] = {TransformerBridge: TransformerBridgeHost}
    if (hooked := hooked_class()) is not None:
        found[hooked] = HookedTransformerHost
    return found


def resolve(model: Any, precision: Precision = None, rule: Rule = None) -> Host:
    """The host for a model.

    Args:
        precision: None computes what the weights define, in float32 at least; ``"model"`` as the model would.
        rule: of the backward pass (:mod:`tl_jacobian.core.host.backward`); None: the exact Jacobian.

    Raises:
        ArgumentError: there is no such rule.
        UnsupportedModelError: not a HookedTransformer or TransformerBridge, or not a causal model.
    """
    name = rule_name(rule)
    for cls, host in hosts().items():
        if isinstance(model, cls):
            return host(model, precision, name)
    raise UnsupportedModelError(
        f"can't linearise a {type(model).__module__}.{type(model).__name__}; expected a HookedTransformer or a "
        "TransformerBridge with a causal language model. For a Hugging Face model use "
        "TransformerBridge.boot_transformers(name, hf_model=model, tokenizer=tokenizer)"
    )
