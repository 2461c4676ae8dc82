"""What HookedTransformer and TransformerBridge have in common, which is nearly everything.

How they run, and what is read of them without setting off the caller's hooks: weights and norms, a fingerprint of
the weights, the text of single tokens, and whether a gradient would mean what a scope says it means.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tl_jacobian.core.hooks import ATTN_OUT, RESID_MID
from tl_jacobian.core.host.base import END_TO_END, Anatomy, OutputProjection, Trace, Watch
from tl_jacobian.core.host.memory import Habits, Sizes, available, footprint
from tl_jacobian.core.host.operations import Rules
from tl_jacobian.core.host.original_norm import read_original_norm
from tl_jacobian.core.host.patching import measure
from tl_jacobian.core.host.precision import Precision, computing, described, in_float32, rules_for
from tl_jacobian.core.host.recompute import Hook, forgetful, frozen, hooked, in_state, recomputed
from tl_jacobian.core.host.recorder import Cut, Places, Recorder, hook_point
from tl_jacobian.core.memory import Footprint
from tl_jacobian.core.norms import NormAffine, affine_of
from tl_jacobian.core.unembedding import Unembedding, precise
from tl_jacobian.errors import HookPointError, PromptError, UnsupportedModelError

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class TransformerLensAnatomy:
    """An :class:`~tl_jacobian.core.host.base.Anatomy` of either host's model.

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
        with in_state(without), in_float32():
            return affine_of(norm, int(self.model.cfg.d_model), self.model.W_U)


# Probabilities that attention modules hand to functional dropout.
_FUNCTIONAL = ("attention_dropout", "dropout", "resid_dropout", "hidden_dropout", "attn_dropout", "dropout_p")


def check_dropout(model: nn.Module) -> None:
    """Raise UnsupportedModelError if a forward pass would drop activations at random."""
    for name, module in model.named_modules():
        if module.training and (p := _probability(module)) > 0:
            raise UnsupportedModelError(
                f"dropout is active (p={p} in {name or type(module).__name__}), so two runs would give two "
                "attributions; call model.eval() first"
            )


def check_weights(parameters: Iterable[Tensor]) -> None:
    """Raise UnsupportedModelError if autograd can't record with these weights."""
    if any(p.is_inference() for p in parameters):
        raise UnsupportedModelError(
            "the model's weights were made under torch.inference_mode(), where no gradient can pass; load the model "
            "outside of it (using the scopes inside is fine)"
        )


def _probability(module: nn.Module) -> float:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return float(module.p)
    settings = (module.__dict__.get(name) for name in _FUNCTIONAL)
    return max((p for p in settings if isinstance(p, float)), default=0.0)


_SENTENCEPIECE_SPACE = "▁"


def token_texts(tokenizer: Any | None, tokens: Sequence[int]) -> tuple[str, ...]:
    """One text a token; ids as text where there is no tokenizer.

    A SentencePiece token shows its spaces in the raw piece, and decoding it alone drops one.
    A token that holds part of a character decodes to U+FFFD.
    """
    if tokenizer is None:
        return tuple(f"<{token}>" for token in tokens)
    pieces = tokenizer.convert_ids_to_tokens(list(tokens))
    return tuple(_text(tokenizer, token, piece) for token, piece in zip(tokens, pieces, strict=True))


def _text(tokenizer: Any, token: int, piece: str | None) -> str:
    if piece is None:  # a padded vocabulary has ids that no token owns
        return f"<id {token}>"
    if _SENTENCEPIECE_SPACE in piece:  # decoding would drop the first of its spaces
        return piece.replace(_SENTENCEPIECE_SPACE, " ")
    return tokenizer.decode([token], clean_up_tokenization_spaces=False)


_SAMPLE = 64


def weights_digest(parameters: Iterable[Tensor]) -> str:
    """Differs between checkpoints, is the same on every device; reads 64 numbers of each parameter.

    >>> a, b = torch.zeros(3), torch.tensor([0.0, 0.0, 1.0])
    >>> weights_digest([a]) == weights_digest([a.clone()]), weights_digest([a]) == weights_digest([b])
    (True, False)
    """
    total = hashlib.sha256()
    for p in parameters:
        flat = p.detach().flatten()
        places = torch.linspace(0, max(len(flat) - 1, 0), min(_SAMPLE, len(flat)), dtype=torch.float64).long()
        sample = flat[places.to(flat.device)].to("cpu", torch.float32)
        total.update(str(tuple(p.shape)).encode() + sample.numpy().tobytes())
    return total.hexdigest()[:16]


class TransformerLensHost:
    """A :class:`tl_jacobian.core.host.base.Host` over a TransformerLens model."""

    name = "TransformerLens"
    # The first module that may be given the explained position alone.
    earliest_cut: Cut = "unembed"

    def __init__(self, model: Any, precision: Precision = None) -> None:
        self.model = model
        self.cfg = model.cfg
        self.precision: Precision = precision

    # -- text ----------------------------------------------------------------------

    @property
    def n_ctx(self) -> int | None:
        n_ctx = getattr(self.cfg, "n_ctx", None)
        return n_ctx if n_ctx and n_ctx > 0 else None

    @property
    def d_vocab(self) -> int:
        return int(self.model.W_U.shape[1])

    @property
    def prepends_bos(self) -> bool:
        return bool(self.cfg.default_prepend_bos)

    def tokenize(self, text: str, prepend_bos: bool | None) -> list[int]:
        self._need_tokenizer(text)
        options = {} if prepend_bos is None else {"prepend_bos": prepend_bos}
        # Never truncated: a prompt that is too long is the caller's to shorten.
        return self.model.to_tokens(text, truncate=False, **options)[0].tolist()

    def encode(self, text: str) -> list[int]:
        self._need_tokenizer(text)
        return self.model.tokenizer.encode(text, add_special_tokens=False)

    def decode(self, tokens: list[int]) -> str:
        if self.model.tokenizer is None:
            return " ".join(map(str, tokens))
        return self.model.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)

    def token_texts(self, tokens: list[int]) -> tuple[str, ...]:
        return token_texts(self.model.tokenizer, tokens)

    def is_bos(self, token: int) -> bool:
        return self.model.tokenizer is not None and token == self.model.tokenizer.bos_token_id

    def is_eos(self, token: int) -> bool:
        return self.model.tokenizer is not None and token == self.model.tokenizer.eos_token_id

    def _need_tokenizer(self, text: str) -> None:
        if self.model.tokenizer is None:
            raise PromptError(f"{text!r} can't be tokenised: this model has no tokenizer; pass token ids")

    # -- numbers -------------------------------------------------------------------

    def unembedding(self) -> Unembedding:
        weight, bias = self.model.W_U, self.model.b_U
        if weight.is_meta:
            raise UnsupportedModelError(
                "the unembedding's weights can't be read: W_U is on the meta device, offloaded by accelerate; keep the "
                "embedding and the unembedding on a device (what is offloaded inside the blocks is fine)"
            )
        if not weight.is_floating_point() or weight.ndim != 2:
            raise UnsupportedModelError(
                f"the unembedding's weights can't be read: W_U has dtype {weight.dtype} and shape "
                f"{tuple(weight.shape)}, expected floating point (d_model, d_vocab); "
                "load the model with an unquantised lm_head"
            )
        return Unembedding(weight.detach(), None if bias is None else bias.detach(), self._soft_cap())

    def forward(
        self,
        tokens: Int[Tensor, "batch pos"],
        rows: Int[Tensor, " outputs"],
        positions: Int[Tensor, " outputs"],
        watch: Watch = END_TO_END,
        recompute: bool = False,
    ) -> Trace:
        parameters = self._parameters()
        check_dropout(self.model)
        check_weights(parameters)
        rules = self._rules()
        places, lift = Places(tokens.shape[1], rows, positions), precise if rules else (lambda activation: activation)
        recorder = Recorder(places, watch, self._where_to_cut(), lift)
        pre = [(self.model.unembed, recorder.unembed)]
        if (norm := getattr(self.model, "ln_final", None)) is not None:
            pre.append((norm, recorder.final_norm))
        blocks = [(block, recorder.block) for block in self.model.blocks]
        again = recomputed(self.model.blocks, rules) if recompute else forgetful(self.model.blocks)
        with frozen(parameters), hooked(pre, self._watched(recorder), blocks), again, self.computing():
            logits = self._run(tokens.to(self.cfg.device))
        return recorder.trace(logits)

    def computing(self) -> AbstractContextManager[None]:
        return computing(self.model, self._rules(), self.precision)

    def _rules(self) -> Rules:
        return rules_for((*self._parameters(), torch.empty(0, dtype=self.cfg.dtype)), self.precision)

    def _watched(self, recorder: Recorder) -> list[tuple[nn.Module, Hook]]:
        """The hooks that record activations, each at its hook point."""
        watch, points = recorder.watch, self.model.hook_dict
        source = hook_point(points, watch.source)
        if self._passes(watch.source):
            raise HookPointError(
                f"on {self.name} an activation put in at {watch.source} reaches the MLP alone, and the residual stream "
                f"goes on without it; use {watch.source.replace(RESID_MID, ATTN_OUT)}, whose Jacobian is the same"
            )
        tap = {True: recorder.passing, False: recorder.tap}
        taps = [(hook_point(points, name), partial(tap[self._passes(name)], name)) for name in watch.taps]
        after = [(hook_point(points, watch.output), recorder.output)] if watch.output else []
        return [(source, recorder.source), *taps, *after]

    def hook_points(self) -> tuple[str, ...]:
        return tuple(self.model.hook_dict)

    def footprint(self, n_prompts: int, n_pos: int, n_outputs: int, taps: Sequence[str] = ()) -> Footprint:
        # Hooks on the unembedding are shown every position, so every position has logits.
        outputs = n_prompts * n_pos if self._where_to_cut() == "never" else n_outputs
        itemsize = max(self.model.W_U.element_size(), 4 if self._rules() else 0)
        sizes = Sizes(n_prompts, n_pos, outputs, self.d_vocab, itemsize)
        return footprint(self.cfg, sizes, self._habits(), taps)

    def available_memory(self) -> int:
        return available({p.device for p in self._parameters()})

    def anatomy(self, affine: NormAffine | None) -> Anatomy:
        return TransformerLensAnatomy(self.model, affine)

    def patched(
        self, clean: list[int], corrupted: list[int], kind: str, metric: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "layers places"]:
        good, bad = (torch.tensor([ids], device=self.cfg.device) for ids in (clean, corrupted))
        with self.computing():
            return measure(self.model, good, bad, kind, lambda logits: metric(logits[0, -1]))

    def facts(self) -> Mapping[str, Any]:
        return {
            "host": self.name,
            "model": Path(str(getattr(self.cfg, "model_name", "unknown"))).name,
            "architecture": str(self._architecture()),
            "dtype": str(self.model.W_U.dtype).removeprefix("torch."),
            "precision": described(self._parameters(), self.precision),
        }

    def weights_digest(self) -> str:
        return weights_digest(self._parameters())

    def original_norm(self) -> tuple[Tensor, Tensor | None]:
        return read_original_norm(str(getattr(self.cfg, "model_name", "")), str(self._architecture()))

    # -- where the two hosts differ ------------------------------------------------

    def _passes(self, name: str) -> bool:
        """Whether the residual stream is seen at that hook point and doesn't go through it."""
        return False

    def _run(self, tokens: Tensor) -> Tensor:
        raise NotImplementedError

    def _parameters(self) -> list[nn.Parameter]:
        return list(nn.Module.parameters(self.model))

    def _architecture(self) -> str | None:
        raise NotImplementedError

    def _habits(self) -> Habits:
        raise NotImplementedError

    # -- helpers -------------------------------------------------------------------

    def _soft_cap(self) -> float | None:
        cap = getattr(self.cfg, "output_logits_soft_cap", None)
        return float(cap) if cap and cap > 0 else None  # TransformerLens writes "none" as -1 or None

    def _where_to_cut(self) -> Cut:
        """As early as possible, but never before the caller's hooks: they see every position."""
        if _has_hooks(self.model.unembed):
            return "never"
        watched = _has_hooks(getattr(self.model, "ln_final", None))
        return "unembed" if watched else self.earliest_cut


def _has_hooks(module: nn.Module | None) -> bool:
    """Whether the caller put hooks on a module or on any hook point inside it."""
    if module is None:
        return False
    return any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
