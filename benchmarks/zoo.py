"""A tiny random model of every causal architecture that TransformerLens lists and `transformers` can build.

No download: configs with small numbers, weights drawn from a seed, large enough that every part of a model matters.
Names are `transformers`' model types. Architectures that exist only as code on a model hub aren't here.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCAB, WIDTH, HEADS, LAYERS = 300, 32, 4, 3

# Whatever of this a config class has; what it hasn't would be kept as an attribute that nobody reads.
_COMMON: dict[str, Any] = dict(
    vocab_size=VOCAB,
    hidden_size=WIDTH,
    num_hidden_layers=LAYERS,
    num_attention_heads=HEADS,
    num_key_value_heads=2,
    head_dim=8,
    intermediate_size=48,
    max_position_embeddings=64,
    bos_token_id=256,
    eos_token_id=257,
    pad_token_id=258,
    attention_dropout=0.0,
    hidden_dropout=0.0,
    resid_pdrop=0.0,
    embd_pdrop=0.0,
    attn_pdrop=0.0,
    dropout=0.0,
    activation_dropout=0.0,
    layerdrop=0.0,
    sliding_window=4,
    # mixtures of experts
    num_experts=4,
    num_local_experts=4,
    n_routed_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=24,
    n_group=1,
    topk_group=1,
    first_k_dense_replace=1,
    # latent attention
    q_lora_rank=16,
    kv_lora_rank=16,
    qk_rope_head_dim=4,
    qk_nope_head_dim=8,
    v_head_dim=6,
    # state spaces
    state_size=8,
    mamba_d_state=8,
    mamba_n_heads=8,
    mamba_d_head=8,
    mamba_n_groups=1,
    mamba_expand=2,
    time_step_rank=4,
    chunk_size=4,
    linear_key_head_dim=8,
    linear_value_head_dim=8,
    linear_num_key_heads=2,
    linear_num_value_heads=4,
)
_LOCAL = ["sliding_attention", "full_attention", "sliding_attention"]
_LINEAR = ["linear_attention", "full_attention", "linear_attention"]
_GPT2 = dict(n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=64, n_inner=48)

# What an architecture needs beside that; None takes a number away.
_OWN: Mapping[str, dict[str, Any]] = {
    "bamba": dict(attn_layer_indices=[1]),
    "bloom": dict(n_layer=LAYERS, n_head=HEADS),
    "codegen": dict(_GPT2, rotary_dim=4),
    "cohere2": dict(layer_types=_LOCAL, logit_scale=0.3),
    "cohere": dict(logit_scale=0.3),
    "deepseek_v3": dict(num_key_value_heads=HEADS, head_dim=None),
    "youtu": dict(num_key_value_heads=HEADS, head_dim=None),
    "deepseek_v2": dict(num_key_value_heads=HEADS, n_shared_experts=1, head_dim=None),
    "exaone4": dict(layer_types=_LOCAL),
    "falcon": dict(new_decoder_architecture=False, multi_query=True, parallel_attn=True, ffn_hidden_size=48, bias=True),
    "falcon_h1": dict(mamba_d_ssm=64, lm_head_multiplier=0.7, embedding_multiplier=1.7, attention_out_multiplier=0.8),
    "gemma2": dict(
        layer_types=_LOCAL, query_pre_attn_scalar=8, final_logit_softcapping=3.0, attn_logit_softcapping=5.0
    ),
    "gemma3_text": dict(layer_types=_LOCAL, query_pre_attn_scalar=8),
    "gemma4_text": dict(
        layer_types=_LOCAL, hidden_size_per_layer_input=8, vocab_size_per_layer_input=VOCAB, num_kv_shared_layers=1
    ),
    "glm4_moe_lite": dict(num_key_value_heads=HEADS, head_dim=None),
    # few index heads would all be cut to zero at once: ties, which each device's top-k breaks in its own way
    "glm_moe_dsa": dict(num_key_value_heads=HEADS, head_dim=None, index_topk=4, index_n_heads=16, index_head_dim=8),
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "gpt_neo": dict(
        num_layers=LAYERS, attention_types=[[["global", "local", "global"], 1]], window_size=4, num_heads=HEADS
    ),
    "gpt_neox": dict(rotary_pct=0.5, num_key_value_heads=None),
    "gpt_oss": dict(layer_types=_LOCAL),
    "gptj": dict(_GPT2, rotary_dim=4),
    "granite": dict(logits_scaling=3.0, embedding_multiplier=2.0, residual_multiplier=0.5, attention_multiplier=0.3),
    "granitemoe": dict(logits_scaling=3.0, embedding_multiplier=2.0, residual_multiplier=0.5, attention_multiplier=0.3),
    "granitemoehybrid": dict(
        logits_scaling=3.0,
        embedding_multiplier=2.0,
        residual_multiplier=0.5,
        attention_multiplier=0.3,
        layer_types=["mamba", "attention", "mamba"],
        shared_intermediate_size=48,
    ),
    "jamba": dict(
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        mamba_dt_rank=4,
        use_mamba_kernels=False,
    ),
    "lfm2": dict(layer_types=["conv", "full_attention", "conv"]),
    "lfm2_moe": dict(layer_types=["conv", "full_attention", "conv"], num_dense_layers=1),
    "llama4_text": dict(intermediate_size_mlp=48),
    "mamba2": dict(num_heads=8, head_dim=8, n_groups=1),
    "modernbert-decoder": dict(global_attn_every_n_layers=2, local_attention=4),
    "mpt": dict(d_model=WIDTH, n_heads=HEADS, n_layers=LAYERS, max_seq_len=64, expansion_ratio=2),
    "nemotron_h": dict(
        hybrid_override_pattern="M*-",
        mamba_num_heads=8,
        mamba_head_dim=8,
        n_groups=1,
        ssm_state_size=8,
        layers_block_type=["mamba", "attention", "moe"],
    ),
    "openai-gpt": _GPT2,
    "olmo_hybrid": dict(layer_types=_LINEAR),
    "opt": dict(ffn_dim=48, word_embed_proj_dim=WIDTH),
    "opt-350m": dict(ffn_dim=48, word_embed_proj_dim=16, do_layer_norm_before=False),
    "phi3": dict(pad_token_id=258, original_max_position_embeddings=64),
    "qwen2_moe": dict(shared_expert_intermediate_size=24),
    "qwen3_next": dict(layer_types=_LINEAR, shared_expert_intermediate_size=24),
    "qwen3_5_text": dict(layer_types=_LINEAR),
    "qwen3_5_moe_text": dict(layer_types=_LINEAR, shared_expert_intermediate_size=24),
    "recurrent_gemma": dict(
        attention_window_size=8, lru_width=WIDTH, block_types=["recurrent", "attention", "recurrent"]
    ),
    "rwkv": dict(attention_hidden_size=WIDTH, context_length=64),
    "stablelm": dict(use_qkv_bias=True),
    "xglm": dict(
        d_model=WIDTH, ffn_dim=48, num_layers=LAYERS, attention_heads=HEADS, scale_embedding=True, pad_token_id=1
    ),
    "zamba2": dict(
        layers_block_type=["mamba", "hybrid", "mamba"],
        n_mamba_heads=8,
        mamba_headdim=8,
        mamba_ngroups=1,
        num_mem_blocks=1,
        attention_head_dim=16,
        attention_hidden_size=64,
        hybrid_layer_ids=[1],
        use_mem_rope=True,
    ),
}
# transformers' XGLM writes a number into float64 that doesn't fit.
DTYPES = {"xglm": torch.float32}
_TYPES = {"opt-350m": "opt"}  # names that aren't model types


def listed() -> list[str]:
    """Model types of the architectures that the installed TransformerLens has an adapter for."""
    from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES as known

    found: dict[str, str] = {}
    for kind, cls in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        names = cls if isinstance(cls, tuple) else (cls,)
        for name in names:
            # Several model types may share a class (gpt-sw3 and gpt2): the one that the class is named for.
            if name in known and (name not in found or kind.replace("_", "") == name.lower().split("for")[0]):
                found[name] = kind
    found |= {"GPT2LMHeadModel": "gpt2", "LlamaForCausalLM": "llama", "Llama4ForCausalLM": "llama4_text"}
    found |= {"Qwen3_5ForCausalLM": "qwen3_5_text", "Qwen3_5MoeForCausalLM": "qwen3_5_moe_text"}
    skipped = {name for name in found if name.endswith("ForConditionalGeneration")}  # want image processors
    return sorted({kind for name, kind in found.items() if name not in skipped} | set(_TYPES))


def config_of(name: str) -> Any:
    kind = _TYPES.get(name, name)
    plain = AutoConfig.for_model(kind)
    known = plain.to_dict().keys() | plain.attribute_map.keys()
    wanted = {key: value for key, value in _COMMON.items() if key in known} | _OWN.get(name, {})
    return AutoConfig.for_model(kind, **{key: value for key, value in wanted.items() if value is not None})


def hugging_face(name: str, dtype: torch.dtype = torch.float64, seed: int = 1) -> Any:
    """The tiny model of one architecture."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        # Grouped products of mixtures exist in half precision and float32 alone.
        ways = dict(attn_implementation="eager", experts_implementation="eager")
        model = AutoModelForCausalLM.from_config(config_of(name), **ways).to(dtype).eval()
        model.config.architectures = [type(model).__name__]
        with torch.no_grad():
            for p in model.parameters():
                if p.ndim == 1:
                    p.add_(0.2 * torch.randn_like(p))
                else:
                    p.copy_(1.2 / p.shape[-1] ** 0.5 * torch.randn_like(p))
    return model


def bridge(model: Any, tokenizer: Any, compatible: bool = False) -> Any:
    """A TransformerBridge around a copy of it."""
    from transformer_lens.model_bridge import TransformerBridge

    dtype = next(model.parameters()).dtype
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = TransformerBridge.boot_transformers(
            "tiny", hf_model=copy.deepcopy(model), tokenizer=tokenizer, device="cpu", dtype=dtype
        )
        if compatible:
            found.enable_compatibility_mode(disable_warnings=True)
            found.to(dtype)
    return found.eval()


def layers_of(model: nn.Module, n: int) -> nn.ModuleList:
    """The list of a Hugging Face model's blocks."""
    return next(m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == n)
