"""What a host must offer, and nothing more. Above this package nobody knows which host it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from tl_jacobian.memory import Footprint
from tl_jacobian.unembedding import Unembedding


class Trace(NamedTuple):
    """One recorded forward pass, normalised and unembedded at the explained positions alone.

    Attributes:
        x: value at ``hook_embed``, a leaf that requires grad.
        resid: input of the final norm at the explained positions; None without such a norm.
        y: input of the unembedding there, attached to x.
        logits: what the model made of y, detached.
        between: the residual stream before each block, attached to x; in the model's order.
    """

    x: Float[Tensor, "batch pos d_model"]
    resid: Float[Tensor, "outputs d_model"] | None
    y: Float[Tensor, "outputs d_model"]
    logits: Float[Tensor, "outputs d_vocab"]
    between: tuple[Float[Tensor, "batch pos d_model"], ...] = ()


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

    def tokenize(self, text: str, prepend_bos: bool | None) -> list[int]:
        """Token ids of a prompt, by the model's own rules for the BOS token (None) or as told."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a piece of text, nothing added."""
        ...

    def decode(self, tokens: list[int]) -> str: ...

    def token_texts(self, tokens: list[int]) -> tuple[str, ...]: ...

    def is_bos(self, token: int) -> bool: ...

    def is_eos(self, token: int) -> bool: ...

    def unembedding(self) -> Unembedding: ...

    def forward(
        self,
        tokens: Int[Tensor, "batch pos"],
        rows: Int[Tensor, " outputs"],
        positions: Int[Tensor, " outputs"],
        recompute: bool = False,
    ) -> Trace:
        """Run the model once, recording; only ``positions`` (of ``rows``) are normalised and unembedded.

        With ``recompute`` a block's activations are computed again in every backward pass, not kept.
        """
        ...

    def footprint(self, n_prompts: int, n_pos: int, n_outputs: int) -> Footprint:
        """What linearizing so many prompts, right-padded to n_pos tokens, will take."""
        ...

    def available_memory(self) -> int:
        """Bytes that are free on the model's devices."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """Name, architecture, precision and processing state, for metadata."""
        ...

    def original_norm(self) -> tuple[Tensor, Tensor | None]:
        """Gain and bias of the final norm as published, read from the model's safetensors."""
        ...
