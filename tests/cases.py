"""Models of the suite: small, with random weights, made from configs without a download.

One entry an architecture, and for each every (host, processing state) that exists for it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import transformer_lens
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

HAS_HOOKED = hasattr(transformer_lens, "HookedTransformer")
VOCAB, WIDTH, HEADS, KV_HEADS, LAYERS, MLP, CONTEXT = 300, 24, 4, 2, 3, 48, 64
STATES = ("hooked", "hooked-folded", "hooked-centered", "bridge", "bridge-compat")

_COMMON = dict(vocab_size=VOCAB, bos_token_id=256, eos_token_id=257, pad_token_id=258)
_MODERN = dict(
    hidden_size=WIDTH,
    num_hidden_layers=LAYERS,
    num_attention_heads=HEADS,
    intermediate_size=MLP,
    max_position_embeddings=CONTEXT,
    **_COMMON,
)
_GEMMA = dict(_MODERN, num_key_value_heads=KV_HEADS, head_dim=8, hidden_activation="gelu_pytorch_tanh")


@dataclass(frozen=True)
class Architecture:
    """One architecture: its Hugging Face config, and what HookedTransformer calls it."""

    config: Callable[[], Any]
    convert: str  # TransformerLens's weight conversion
    hooked: dict[str, Any]  # HookedTransformerConfig beyond the common part


def _rotary(dim: int, **more: Any) -> dict[str, Any]:
    return dict(positional_embedding_type="rotary", rotary_dim=dim, rotary_adjacent_pairs=False, **more)


_RMS = dict(normalization_type="RMS", final_rms=True, gated_mlp=True, eps=1e-6)
_GEMMA_HOOKED = dict(
    _RMS,
    **_rotary(8),
    act_fn="gelu_pytorch_tanh",
    d_head=8,
    n_key_value_heads=KV_HEADS,
    use_attn_scale=True,
    use_normalization_before_and_after=True,
    use_local_attn=True,
    window_size=16,
    attn_types=["local", "global", "local"],
)

ARCHITECTURES: dict[str, Architecture] = {
    "gpt2": Architecture(  # LayerNorm with bias, learned positions
        lambda: GPT2Config(
            n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=CONTEXT, resid_pdrop=0.0, embd_pdrop=0.0,
            attn_pdrop=0.0, **_COMMON,
        ),
        "convert_gpt2_weights",
        dict(normalization_type="LN", act_fn="gelu_new", d_mlp=4 * WIDTH, original_architecture="GPT2LMHeadModel"),
    ),
    "neox": Architecture(  # parallel blocks, untied unembedding
        lambda: GPTNeoXConfig(**_MODERN, rotary_pct=0.5, hidden_act="gelu", attention_bias=True),
        "convert_neox_weights",
        dict(
            normalization_type="LN", act_fn="gelu", parallel_attn_mlp=True, original_architecture="GPTNeoXForCausalLM",
            **_rotary(3 * 2 // 2 // 1 if False else 2),
        ),
    ),
    "llama": Architecture(  # RMSNorm, grouped-query attention, rotary
        lambda: LlamaConfig(**_MODERN, num_key_value_heads=KV_HEADS, rms_norm_eps=1e-6),
        "convert_llama_weights",
        dict(
            _RMS, **_rotary(6), act_fn="silu", n_key_value_heads=KV_HEADS, original_architecture="LlamaForCausalLM"
        ),
    ),
    "qwen2": Architecture(  # biases on q, k, v
        lambda: Qwen2Config(**_MODERN, num_key_value_heads=KV_HEADS, rms_norm_eps=1e-6),
        "convert_qwen2_weights",
        dict(
            _RMS, **_rotary(6), act_fn="silu", n_key_value_heads=KV_HEADS, original_architecture="Qwen2ForCausalLM"
        ),
    ),
    "gemma2": Architecture(  # soft-caps, scaled embeddings, post-norms
        lambda: Gemma2Config(
            **_GEMMA, query_pre_attn_scalar=8, sliding_window=16, final_logit_softcapping=3.0,
            attn_logit_softcapping=5.0, rms_norm_eps=1e-6,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
        "convert_gemma_weights",
        dict(
            _GEMMA_HOOKED, attn_scores_soft_cap=5.0, output_logits_soft_cap=3.0,
            original_architecture="Gemma2ForCausalLM",
        ),
    ),
    "gemma3": Architecture(  # norms on q and k, local and global rotary bases
        lambda: Gemma3TextConfig(
            **_GEMMA, query_pre_attn_scalar=8, sliding_window=16, rms_norm_eps=1e-6,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
        "convert_gemma_weights",
        dict(
            _GEMMA_HOOKED, use_qk_norm=True, rotary_base=1_000_000, rotary_base_local=10_000,
            original_architecture="Gemma3ForCausalLM",
        ),
    ),
    "phi": Architecture(  # parallel blocks and a bias on the unembedding
        lambda: PhiConfig(**_MODERN, partial_rotary_factor=0.5, hidden_act="gelu_new"),
        "convert_phi_weights",
        dict(
            normalization_type="LN", act_fn="gelu_new", parallel_attn_mlp=True, **_rotary(3),
            original_architecture="PhiForCausalLM",
        ),
    ),
}
