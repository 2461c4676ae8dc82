"""What a host must offer, and nothing more. Above this package nobody knows which host it is.

That includes the weights and norms through which a component's output reaches y: its model's anatomy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from tl_jacobian.core.hooks import EMBED
from tl_jacobian.core.host.conditions import Conditions
from tl_jacobian.core.host.past import Past
from tl_jacobian.core.host.weights import Weights
from tl_jacobian.core.memory import Footprint
from tl_jacobian.core.norms import NormAffine
from tl_jacobian.core.unembedding import Unembedding


class OutputProjection(NamedTuple):
    """How heads write into the residual stream: ``sum over heads of z_h W_h, + bias``."""

    weight: Float[Tensor, "heads d_head d_model"]
    bias: Float[Tensor, " d_model"] | None


@runtime_checkable
class Anatomy(Protocol):
    """Read from the model when it is asked."""

    @property
    def n_layers(self) -> int: ...

    def writers(self, layer: int) -> tuple[str, ...]:
        """Hook points of what a block writes into the residual stream, each once."""
        ...

    def output_projection(self, layer: int) -> OutputProjection | None:
        """None where a block's attention has none that heads' outputs go through."""
        ...

    def attention_post_norm(self, layer: int) -> NormAffine | None:
        """Gain and bias of the norm behind a block's attention (Gemma 2 and 3), or None."""
        ...

    def embedding(self) -> Float[Tensor, "d_vocab d_embed"] | None:
        """The embedding matrix, before any scale; None where there is none."""
        ...

    def final_norm(self) -> NormAffine | None:
        """Gain and bias of the norm before the unembedding, or None where there is no norm."""
        ...


class Trace(NamedTuple):
    """One recorded forward pass, normalised and unembedded at the explained positions alone.

    Attributes:
        x: value at the watched source, a leaf that requires grad; several heads side by side.
        resid: input of the final norm at the explained positions; None without such a norm.
        y: the watched output there, attached to x.
        logits: the model's, detached.
        between: the residual stream before each block, attached to x; in the model's order.
        final: input of the unembedding there, detached; y itself unless another output is watched.
        taps: the other activations watched, in the shape in which hooks see them.
        odd: shapes of those that were left out, because they don't have one value a token.
        in_blocks: whether attention was computed in blocks of queries.
    """

    x: Float[Tensor, "batch pos d_in"]
    resid: Float[Tensor, "outputs d_model"] | None
    y: Float[Tensor, "outputs d_out"]
    logits: Float[Tensor, "outputs d_vocab"]
    between: tuple[Float[Tensor, "batch pos d_model"], ...]
    final: Float[Tensor, "outputs d_model"]
    taps: Mapping[str, Tensor]
    odd: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    in_blocks: bool = False


class Lost(NamedTuple):
    """Gradient that gets lost on the way from x to y.

    Attributes:
        places: modules and hook points that give no gradient; empty: it is lost inside of one.
        gap: how much of the first-order change is missing, relatively; None where it can't be told.
        by_hooks: whether it is the caller's hooks that lose it.
    """

    places: tuple[str, ...]
    gap: float | None
    by_hooks: bool

    def __str__(self) -> str:
        more = f" and {len(self.places) - 5} more" if len(self.places) > 5 else ""
        where = f"at {', '.join(self.places[:5])}{more}" if self.places else "inside of a module"
        return where if self.gap is None else f"{where} (it misses {self.gap:.0%} of a change of the embeddings)"


@dataclass(frozen=True)
class Watch:
    """Which activations a forward pass records.

    Attributes:
        source: hook point whose activation is x.
        output: hook point whose activation is explained; None: the input of the unembedding.
        taps: hook points to keep on the way; those that never fire are left out.
        value: what takes the place of the activation at ``source``; None: nothing does.
        named: those of ``taps`` without which there is an error; None: all. Others are left out where odd.
    """

    source: str = EMBED
    output: str | None = None
    taps: tuple[str, ...] = ()
    value: Float[Tensor, "batch pos d_in"] | None = None
    named: frozenset[str] | None = None


END_TO_END = Watch()


@runtime_checkable
class Host(Protocol):
    """A causal language model that can be linearised."""

    @property
    def name(self) -> str:
        """``"HookedTransformer"`` or ``"TransformerBridge"``."""
        ...

    @property
    def n_ctx(self) -> int | None:
        """The longest prompt, or None where the model sets no limit."""
        ...

    @property
    def d_vocab(self) -> int: ...

    @property
    def prepends_bos(self) -> bool:
        """Whether text gets a BOS token where nobody says."""
        ...

    def tokenize(self, text: str, prepend_bos: bool | None) -> list[int]:
        """Token ids of a prompt, by the model's own rules for the BOS token (None) or as told."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a piece of text, nothing added."""
        ...

    def decode(self, tokens: list[int]) -> str: ...

    def token_texts(self, tokens: list[int]) -> tuple[str, ...]: ...

    def chat(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str:
        """A conversation as the tokenizer's chat template writes it.

        Raises:
            PromptError: there is no template, or it refuses these messages.
        """
        ...

    def chat_ids(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> list[int]:
        """Token ids of the same, as the tokenizer itself makes them."""
        ...

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of a piece of text, nothing added, and the characters that each one stands for.

        Raises:
            PromptError: the tokenizer can't tell.
        """
        ...

    def is_bos(self, token: int) -> bool: ...

    def is_eos(self, token: int) -> bool:
        """Whether a text ends with it; a model may have several such tokens."""
        ...

    @property
    def padding(self) -> int | None:
        """The token that a tokenizer fills up shorter texts with, or None."""
        ...

    def tokens_shown_as(self, text: str) -> list[int]:
        """The tokens whose text is this, of :meth:`token_texts`."""
        ...

    def unembedding(self) -> Unembedding: ...

    def forward(
        self,
        tokens: Int[Tensor, "batch pos"],
        rows: Int[Tensor, " outputs"],
        positions: Int[Tensor, " outputs"],
        watch: Watch = END_TO_END,
        recompute: bool = False,
        under: Conditions | None = None,
        past: Past | None = None,
    ) -> Trace:
        """Run the model once, recording; only ``positions`` (of ``rows``) are normalised and unembedded.

        With ``recompute`` a block's activations are computed again in every backward pass, not kept. The caller's
        hooks and modes are those of ``under``, or today's. With a ``past`` the tokens, and positions, are those that
        come after it, in every row; for runs that record nothing.

        Raises:
            HookPointError: a watched hook point doesn't exist, or has no activation for each position.
        """
        ...

    def past(self, tokens: Sequence[int], watch: Watch, under: Conditions | None = None) -> Past | None:
        """Keys and values of a prompt; None where the model has no such thing, or not of every position."""
        ...

    def conditions(self) -> Conditions:
        """The caller's hooks, and the model's modes, as they are now."""
        ...

    def weights(self) -> Weights:
        """The weights as they are now, to be compared with later ones."""
        ...

    def lost_gradient(self, tokens: Sequence[int], recompute: bool = False) -> Lost | None:
        """Where the model goes on without gradient under today's hooks; None: nowhere, as far as can be told."""
        ...

    def hook_points(self) -> tuple[str, ...]:
        """Names of the model's hook points."""
        ...

    def footprint(self, n_prompts: int, n_pos: int, n_outputs: int, taps: Sequence[str] = ()) -> Footprint:
        """What linearizing so many prompts, right-padded to n_pos tokens, will take."""
        ...

    def available_memory(self) -> int:
        """Bytes that are free on the model's devices."""
        ...

    def anatomy(self, affine: NormAffine | None) -> Anatomy:
        """The model's weights and norms; ``affine`` of the final norm, where the caller knows better."""
        ...

    def edited(
        self, tokens: list[int], edits: Mapping[str, Callable[[Tensor], Tensor]]
    ) -> Float[Tensor, "1 pos d_vocab"]:
        """Logits of one prompt whose activations at some hook points are replaced by functions of them.

        Each function sees the activation as hooks see it, ``(1, pos, ...)``; nothing is recorded.
        """
        ...

    def beside(self, name: str) -> bool:
        """Whether what is put in at a hook point reaches one component alone, and the residual stream passes by."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """Name, architecture, precision and processing state, for metadata."""
        ...

    def weights_digest(self) -> str:
        """Tells these weights from others, of a model that may have the same name."""
        ...

    def original_norm(self) -> tuple[Tensor, Tensor | None]:
        """Gain and bias of the final norm as published, read from the model's safetensors."""
        ...
