"""What HookedTransformer and TransformerBridge have in common, which is nearly everything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tl_jacobian.anatomy import Anatomy
from tl_jacobian.errors import HookPointError, PromptError, UnsupportedModelError
from tl_jacobian.final_norm import NormAffine
from tl_jacobian.host.anatomy import TransformerLensAnatomy
from tl_jacobian.host.available import available
from tl_jacobian.host.base import END_TO_END, Trace, Watch
from tl_jacobian.host.checks import check_dropout, check_weights
from tl_jacobian.host.fingerprint import weights_digest
from tl_jacobian.host.footprint import Habits, Sizes, footprint
from tl_jacobian.host.hook_points import hook_point
from tl_jacobian.host.original_norm import read_original_norm
from tl_jacobian.host.patching import measure
from tl_jacobian.host.recompute import forgetful, recomputed
from tl_jacobian.host.recorder import Cut, Places, Recorder
from tl_jacobian.host.texts import token_texts
from tl_jacobian.host.untouched import Hook, frozen, hooked
from tl_jacobian.memory import Footprint
from tl_jacobian.unembedding import Unembedding


class TransformerLensHost:
    """A :class:`tl_jacobian.host.base.Host` over a TransformerLens model."""

    name = "TransformerLens"
    # The first module that may be given the explained position alone.
    earliest_cut: Cut = "unembed"

    def __init__(self, model: Any) -> None:
        self.model = model
        self.cfg = model.cfg

    # -- text ----------------------------------------------------------------------

    @property
    def n_ctx(self) -> int | None:
        n_ctx = getattr(self.cfg, "n_ctx", None)
        return n_ctx if n_ctx and n_ctx > 0 else None

    @property
    def d_vocab(self) -> int:
        return int(self.model.W_U.shape[1])

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
        recorder = Recorder(Places(tokens.shape[1], rows, positions), watch, self._where_to_cut())
        pre = [(self.model.unembed, recorder.unembed)]
        if (norm := getattr(self.model, "ln_final", None)) is not None:
            pre.append((norm, recorder.final_norm))
        blocks = [(block, recorder.block) for block in self.model.blocks]
        again = recomputed(self.model.blocks) if recompute else forgetful(self.model.blocks)
        with frozen(parameters), hooked(pre, self._watched(recorder), blocks), again:
            logits = self._run(tokens.to(self.cfg.device))
        return recorder.trace(logits)

    def _watched(self, recorder: Recorder) -> list[tuple[nn.Module, Hook]]:
        """The hooks that record activations, each at its hook point."""
        watch, points = recorder.watch, self.model.hook_dict
        source = hook_point(points, watch.source)
        if self._passes(watch.source):
            raise HookPointError(
                f"on {self.name} an activation put in at {watch.source} reaches the MLP alone, and the residual stream "
                f"goes on without it; use {watch.source.replace('resid_mid', 'attn_out')}, whose Jacobian is the same"
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
        sizes = Sizes(n_prompts, n_pos, outputs, self.d_vocab, self.model.W_U.element_size())
        return footprint(self.cfg, sizes, self._habits(), taps)

    def available_memory(self) -> int:
        return available({p.device for p in self._parameters()})

    def anatomy(self, affine: NormAffine | None) -> Anatomy:
        return TransformerLensAnatomy(self.model, affine)

    def patched(
        self, clean: list[int], corrupted: list[int], kind: str, metric: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "layers places"]:
        good, bad = (torch.tensor([ids], device=self.cfg.device) for ids in (clean, corrupted))
        return measure(self.model, good, bad, kind, lambda logits: metric(logits[0, -1]))

    def facts(self) -> Mapping[str, Any]:
        return {
            "host": self.name,
            "model": Path(str(getattr(self.cfg, "model_name", "unknown"))).name,
            "architecture": str(self._architecture()),
            "dtype": str(self.model.W_U.dtype).removeprefix("torch."),
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
