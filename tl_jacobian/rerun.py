"""The same model, hooks and prompt again, on other values of x: what baselines and interventions need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Rerun(Protocol):
    """Runs of one prompt with the values at its input hook replaced, explained at the same position."""

    def linearized(self, values: Float[Tensor, "n pos d_in"]) -> Sequence[Any]:
        """Linearizations at each of n values of x, from one forward pass."""
        ...

    def logits(self, values: Float[Tensor, "n pos d_in"]) -> Float[Tensor, "n d_vocab"]:
        """Logits at the explained position for each of n values of x; nothing is recorded."""
        ...

    def prompts(self, tokens: Sequence[Sequence[int]]) -> Float[Tensor, "n d_vocab"]:
        """Logits after the last token of n other prompts; nothing is recorded."""
        ...
