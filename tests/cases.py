"""Models of the suite: small, with random weights, made from configs without a download.

One entry an architecture, and for each every (host, processing state) that exists for it. Tests run on a covering set
of these pairs; with TL_JACOBIAN_TESTS=all, as `make test-everything` sets it, on every one.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from tl_jacobian.core.host.hosts import hooked_class

HAS_HOOKED = hooked_class() is not None
VOCAB, WIDTH, HEADS, KV_HEADS, D_HEAD, LAYERS, MLP, CONTEXT = 300, 32, 4, 2, 8, 3, 48, 64
EVERY = os.environ.get("TL_JACOBIAN_TESTS") == "all"
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
_GEMMA = dict(_MODERN, num_key_value_heads=KV_HEADS, head_dim=D_HEAD, hidden_activation="gelu_pytorch_tanh")


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
    **_rotary(D_HEAD),
    act_fn="gelu_pytorch_tanh",
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
            n_embd=WIDTH,
            n_layer=LAYERS,
            n_head=HEADS,
            n_positions=CONTEXT,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **_COMMON,
        ),
        "convert_gpt2_weights",
        dict(normalization_type="LN", act_fn="gelu_new", d_mlp=4 * WIDTH, original_architecture="GPT2LMHeadModel"),
    ),
    "neox": Architecture(  # parallel blocks, untied unembedding
        lambda: GPTNeoXConfig(**_MODERN, rotary_pct=0.5, hidden_act="gelu", attention_bias=True),
        "convert_neox_weights",
        dict(
            normalization_type="LN",
            act_fn="gelu",
            parallel_attn_mlp=True,
            original_architecture="GPTNeoXForCausalLM",
            **_rotary(D_HEAD // 2),
        ),
    ),
    "llama": Architecture(  # RMSNorm, grouped-query attention, rotary
        lambda: LlamaConfig(**_MODERN, num_key_value_heads=KV_HEADS, rms_norm_eps=1e-6),
        "convert_llama_weights",
        dict(
            _RMS, **_rotary(D_HEAD), act_fn="silu", n_key_value_heads=KV_HEADS, original_architecture="LlamaForCausalLM"
        ),
    ),
    "qwen2": Architecture(  # biases on q, k, v
        lambda: Qwen2Config(**_MODERN, num_key_value_heads=KV_HEADS, rms_norm_eps=1e-6),
        "convert_qwen2_weights",
        dict(
            _RMS, **_rotary(D_HEAD), act_fn="silu", n_key_value_heads=KV_HEADS, original_architecture="Qwen2ForCausalLM"
        ),
    ),
    "gemma2": Architecture(  # soft-caps, scaled embeddings, post-norms
        lambda: Gemma2Config(
            **_GEMMA,
            query_pre_attn_scalar=8,
            sliding_window=16,
            final_logit_softcapping=3.0,
            attn_logit_softcapping=5.0,
            rms_norm_eps=1e-6,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
        "convert_gemma_weights",
        dict(
            _GEMMA_HOOKED,
            attn_scores_soft_cap=5.0,
            output_logits_soft_cap=3.0,
            original_architecture="Gemma2ForCausalLM",
        ),
    ),
    "gemma3": Architecture(  # norms on q and k, local and global rotary bases
        lambda: Gemma3TextConfig(
            **_GEMMA,
            query_pre_attn_scalar=8,
            sliding_window=16,
            rms_norm_eps=1e-6,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
        "convert_gemma_weights",
        dict(
            _GEMMA_HOOKED,
            use_qk_norm=True,
            rotary_base=1_000_000,
            rotary_base_local=10_000,
            original_architecture="Gemma3ForCausalLM",
        ),
    ),
    "phi": Architecture(  # parallel blocks and a bias on the unembedding
        lambda: PhiConfig(**_MODERN, partial_rotary_factor=0.5, hidden_act="gelu_new"),
        "convert_phi_weights",
        dict(
            normalization_type="LN",
            act_fn="gelu_new",
            parallel_attn_mlp=True,
            **_rotary(D_HEAD // 2),
            original_architecture="PhiForCausalLM",
        ),
    ),
}


# A state for each architecture, the next where a test cannot take the first: together they cover every state, what is
# hard stands in front. A soft-cap over a folded norm, a bias on an unembedding that is centred, parallel blocks that
# share one folded norm, biases on q, k and v that folding leaves in another precision, norms on q and k and two rotary
# bases where the bridge calls the original modules.
PREFERRED = {
    "gpt2": ("hooked", "bridge-compat", "bridge", "hooked-centered", "hooked-folded"),
    "neox": ("hooked-folded", "bridge", "hooked-centered", "bridge-compat", "hooked"),
    "llama": ("hooked", "bridge", "hooked-centered", "bridge-compat", "hooked-folded"),
    "qwen2": ("bridge-compat", "bridge", "hooked-folded", "hooked-centered", "hooked"),
    "gemma2": ("bridge-compat", "hooked", "hooked-folded", "bridge"),
    "gemma3": ("bridge", "hooked-centered", "bridge-compat", "hooked-folded", "hooked"),
    "phi": ("hooked-centered", "hooked", "bridge-compat", "hooked-folded", "bridge"),
}


def cases(*states: str, of: Iterable[str] = ARCHITECTURES, every: bool = EVERY) -> list[tuple[str, str]]:
    """(architecture, state) pairs of these states (or all): each architecture and each state; or ``every`` pair."""
    product = [(a, s) for a in of for s in states or STATES if exists(a, s)]
    if every:
        return product
    chosen = {a: next(s for s in PREFERRED[a] if (a, s) in product) for a, _ in product}
    pairs = list(chosen.items())
    for state in {s: None for _, s in product if s not in chosen.values()}:
        pairs.append(next(pair for pair in product if pair[1] == state))
    return pairs


def slow(*values: Any) -> list[Any]:
    """Parameters of the slow tier alone; a tuple is one of each argument."""
    return [pytest.param(*(v if isinstance(v, tuple) else (v,)), marks=pytest.mark.slow) for v in values]


def exists(architecture: str, state: str) -> bool:
    """Whether TransformerLens can build this pair."""
    if state.startswith("hooked") and not HAS_HOOKED:
        return False
    # Centring isn't invariant under a soft-cap, so TransformerLens refuses it.
    return not (architecture == "gemma2" and state == "hooked-centered")


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer: one token a byte (ids 0 to 255), then the special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {c: i for i, c in enumerate(alphabet)} | {"<bos>": 256, "<eos>": 257, "<pad>": 258}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    # TransformerLens loads a tokenizer again by its name; "adds BOS already" spares it that.
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        name_or_path="bytes",
        add_bos_token=True,
    )


@cache
def hf_model(architecture: str, dtype: torch.dtype = torch.float64) -> Any:
    """The Hugging Face model, weights large enough that every part matters."""
    config = ARCHITECTURES[architecture].config()
    with torch.random.fork_rng():  # its initial weights are replaced below
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").to(dtype).eval()
    model.config.architectures = [type(model).__name__]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            scale = 0.3 if p.ndim == 1 else 0.6 / p.shape[-1] ** 0.5 * 2
            noise = scale * torch.randn(p.shape, generator=generator, dtype=dtype)
            p.copy_(p + noise if "norm" in name or "ln_" in name else noise)
    return model


def make(architecture: str, state: str, dtype: torch.dtype = torch.float64) -> Any:
    """A fresh model of the given architecture on the given host, in the given processing state."""
    with torch.random.fork_rng():  # building a model draws initial weights
        return _make(architecture, state, dtype)


def _make(architecture: str, state: str, dtype: torch.dtype) -> Any:
    source = copy.deepcopy(hf_model(architecture, dtype))
    if state.startswith("hooked"):
        return _hooked(architecture, state, source, dtype)
    bridge = TransformerBridge.boot_transformers(
        f"tiny-{architecture}", hf_model=source, tokenizer=tokenizer(), device="cpu", dtype=dtype
    )
    if state == "bridge-compat":
        bridge.enable_compatibility_mode(disable_warnings=True)
        bridge.to(dtype)  # folding leaves some of Qwen2's biases in float32
    return bridge.eval()


@cache
def shared(architecture: str, state: str, dtype: torch.dtype = torch.float64) -> Any:
    """A model that tests may share as long as they leave it as it was, which is what they test."""
    return make(architecture, state, dtype)


def _hooked(architecture: str, state: str, source: Any, dtype: torch.dtype) -> Any:
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained import weight_conversions

    arch = ARCHITECTURES[architecture]
    common: dict[str, Any] = dict(
        d_model=WIDTH,
        n_heads=HEADS,
        d_head=D_HEAD,
        n_layers=LAYERS,
        d_mlp=MLP,
        n_ctx=CONTEXT,
        d_vocab=VOCAB,
        eps=1e-5,
        device="cpu",
        dtype=dtype,
        model_name=f"tiny-{architecture}",
    )
    cfg = HookedTransformerConfig.from_dict({**common, **arch.hooked})
    model = HookedTransformer(cfg, tokenizer(), move_to_device=False)
    folded, centered = state != "hooked", state == "hooked-centered"
    model.load_and_process_state_dict(
        getattr(weight_conversions, arch.convert)(source, cfg),
        fold_ln=folded,
        center_writing_weights=folded and cfg.normalization_type == "LN",
        center_unembed=centered,
        fold_value_biases=folded,
    )
    return model.to(dtype)


def final_norm_of(hf: Any) -> nn.Module:
    """The norm before a Hugging Face model's unembedding."""
    body = next(getattr(hf, n) for n in ("model", "transformer", "gpt_neox") if hasattr(hf, n))
    return next(getattr(body, n) for n in ("norm", "ln_f", "final_layer_norm", "final_layernorm") if hasattr(body, n))
