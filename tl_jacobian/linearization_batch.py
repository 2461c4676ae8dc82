"""Several prompts, or several positions of one, linearised in one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from tl_jacobian.linearization import Linearization


@dataclass(frozen=True, eq=False)
class LinearizationBatch(Sequence[Linearization]):
    """Several prompts linearised in one forward pass; a sequence of :class:`Linearization`.

    Scopes take a batch as they take a single linearization and share one backward pass
    among its prompts. Each prompt's scores are those it gets alone.
    """

    members: tuple[Linearization, ...]

    @overload
    def __getitem__(self, index: int) -> Linearization: ...
    @overload
    def __getitem__(self, index: slice) -> LinearizationBatch: ...
    def __getitem__(self, index: int | slice) -> Linearization | LinearizationBatch:
        if isinstance(index, slice):
            return LinearizationBatch(self.members[index])
        return self.members[index]

    def __len__(self) -> int:
        return len(self.members)
