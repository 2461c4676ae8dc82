"""Keys and values of a prompt's beginning: runs that change nothing of it go on from there and leave it out.

A causal model's later tokens see of the earlier ones their keys and values alone. Where only what comes after some
position changes from run to run, the beginning is run once; nothing is recorded then, so this is for runs without
gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

# What layers that take no such cache, or in ways of their own, may raise.
PAST_FAILS = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError)


@dataclass(frozen=True, eq=False)
class Past:
    """Of one prompt, each layer's keys and values.

    Attributes:
        layers: keys and values, of batch size 1.
        axis: their axis of positions.
        length: how many positions there are.
    """

    layers: Sequence[tuple[Float[Tensor, "1 ..."], Float[Tensor, "1 ..."]]]
    axis: int
    length: int

    @property
    def bytes(self) -> int:
        return sum(part.numel() * part.element_size() for layer in self.layers for part in layer)

    def before(self, n: int) -> Past:
        """Of the first n tokens."""
        layers = [(keys.narrow(self.axis, 0, n), values.narrow(self.axis, 0, n)) for keys, values in self.layers]
        return Past(layers, self.axis, n)

    def whole(self, n_layers: int) -> bool:
        """Whether every layer has every position; others keep a window, or a state, from which no run can start."""
        found = [part for layer in self.layers for part in layer]
        return len(self.layers) == n_layers and all(
            isinstance(part, Tensor) and part.ndim == 4 and len(part) == 1 and part.shape[self.axis] == self.length
            for part in found
        )

    def rows(self, n: int) -> list[tuple[Any, Any]]:
        """The same for n prompts, without a copy."""
        return [(keys.expand(n, -1, -1, -1), values.expand(n, -1, -1, -1)) for keys, values in self.layers]
