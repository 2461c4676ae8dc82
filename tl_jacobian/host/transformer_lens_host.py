"""What HookedTransformer and TransformerBridge have in common, which is nearly everything."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Int
from torch import Tensor, nn

from tl_jacobian.errors import ContractError, PromptError, UnsupportedModelError
from tl_jacobian.host.available import available
from tl_jacobian.host.base import Trace
from tl_jacobian.host.checks import check_dropout, check_weights
from tl_jacobian.host.footprint import Habits, Sizes, footprint
from tl_jacobian.host.original_norm import read_original_norm
from tl_jacobian.host.recompute import recomputed
from tl_jacobian.host.texts import token_texts
from tl_jacobian.host.untouched import frozen, hooked
from tl_jacobian.memory import Footprint
from tl_jacobian.unembedding import Unembedding

Cut = Literal["norm", "unembed", "never"]


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
        recompute: bool = False,
    ) -> Trace:
        parameters = self._parameters()
        check_dropout(self.model)
        check_weights(parameters)
        recorder = _Recorder(rows, positions, self._where_to_cut())
        pre = [(self.model.unembed, recorder.unembed)]
        if (norm := getattr(self.model, "ln_final", None)) is not None:
            pre.append((norm, recorder.final_norm))
        post = [(self.model.hook_embed, recorder.embed)]
        blocks = [(block, recorder.block) for block in self.model.blocks]
        again = recomputed(self.model.blocks) if recompute else nullcontext()
        with frozen(parameters), hooked(pre, post, blocks), again:
            logits = self._run(tokens.to(self.cfg.device))
        return recorder.trace(logits)

    def footprint(self, n_prompts: int, n_pos: int, n_outputs: int) -> Footprint:
        # Hooks on the unembedding are shown every position, so every position has logits.
        outputs = n_prompts * n_pos if self._where_to_cut() == "never" else n_outputs
        sizes = Sizes(n_prompts, n_pos, outputs, self.d_vocab, self.model.W_U.element_size())
        return footprint(self.cfg, sizes, self._habits())

    def available_memory(self) -> int:
        return available({p.device for p in self._parameters()})

    def facts(self) -> Mapping[str, Any]:
        return {
            "host": self.name,
            "model": Path(str(getattr(self.cfg, "model_name", "unknown"))).name,
            "architecture": str(self._architecture()),
            "dtype": str(self.model.W_U.dtype).removeprefix("torch."),
        }

    def original_norm(self) -> tuple[Tensor, Tensor | None]:
        return read_original_norm(str(getattr(self.cfg, "model_name", "")), str(self._architecture()))

    # -- where the two hosts differ ------------------------------------------------

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


class _Recorder:
    """Hooks of one forward pass, and what they saw.

    Args:
        rows, positions: the explained positions, and the prompts they are in.
        cut: before which module the other positions are dropped.
    """

    def __init__(self, rows: Int[Tensor, " outputs"], positions: Int[Tensor, " outputs"], cut: Cut) -> None:
        self.rows = rows
        self.positions = positions
        self.cut = cut
        self.x: Tensor | None = None
        self.resid: Tensor | None = None
        self.y: Tensor | None = None
        self.between: list[Tensor] = []

    def embed(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        self.x = output.detach().requires_grad_()
        return self.x.clone()  # a hook may change it in place, which a leaf forbids

    def block(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        stream = (v for v in (*args, *kwargs.values()) if isinstance(v, Tensor) and v.requires_grad)
        if (first := next(stream, None)) is not None:
            self.between.append(first)

    def final_norm(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        chosen = self._choose(args[0])
        self.resid = chosen[:, 0].detach()
        return (chosen, *args[1:]) if self.cut == "norm" else None

    def unembed(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        done = self.cut == "norm" and self.resid is not None
        chosen = args[0] if done else self._choose(args[0])
        self.y = chosen[:, 0]
        return (chosen, *args[1:]) if self.cut != "never" else None

    def _choose(self, hidden: Tensor) -> Tensor:
        return hidden[self.rows.to(hidden.device), self.positions.to(hidden.device)][:, None]

    def trace(self, logits: Tensor) -> Trace:
        if self.x is None or self.y is None:
            missing = "hook_embed" if self.x is None else "the unembedding"
            raise ContractError(f"the forward pass never reached {missing}; can't linearise this model")
        if self.cut == "never":
            logits = self._choose(logits)
        return Trace(self.x, self.resid, self.y, logits[:, 0].detach(), tuple(self.between))


def _has_hooks(module: nn.Module | None) -> bool:
    """Whether the caller put hooks on a module or on any hook point inside it."""
    if module is None:
        return False
    return any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
