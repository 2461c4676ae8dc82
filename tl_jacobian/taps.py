"""Activations recorded on the way from x to y, as one prompt sees them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tl_jacobian.errors import HookPointError
from tl_jacobian.record import full_name, is_square


@dataclass(frozen=True, eq=False)
class Taps(Mapping[str, Tensor]):
    """A mapping from hook points to activations, ``(pos, ...)``; attention patterns are ``(head, pos, pos)``.

    Labels of grids' rows (``"3.resid_pre"``) are as good as full names.

    Attributes:
        recorded: the whole batch's activations, attached to the graph.
        row: this prompt's.
        n_pos: how many of its tokens can matter.
    """

    recorded: Mapping[str, Tensor] = field(repr=False)
    row: int = 0
    n_pos: int = 0

    def __getitem__(self, name: str) -> Float[Tensor, "*activation"]:
        return self.cut(name, self.tensor(name).detach())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.full_name(name) in self.recorded

    def __iter__(self) -> Iterator[str]:
        return iter(self.recorded)

    def __len__(self) -> int:
        return len(self.recorded)

    def get(self, name: str, default: Any = None) -> Any:
        """The activation, or ``default`` where it wasn't recorded."""
        try:
            return self[name]
        except HookPointError:
            return default

    def full_name(self, name: str) -> str:
        """The recorded hook point that a label stands for; other names as they are."""
        return full_name(self.recorded, name)

    def tensor(self, name: str) -> Tensor:
        """The whole batch's activation, attached to the graph.

        Raises:
            HookPointError: it wasn't recorded.
        """
        if (found := self.recorded.get(self.full_name(name))) is not None:
            return found
        near = difflib.get_close_matches(str(name), list(self.recorded), n=1, cutoff=0.0)
        hint = f" (the nearest that was: {near[0]!r})" if near else ""
        raise HookPointError(
            f"{name!r} wasn't recorded{hint}; ask for it: linearize(model, prompt, record=[{str(name)!r}]), or "
            "record=True for all that the drill-down uses"
        )

    def cut(self, name: str, batch: Tensor) -> Float[Tensor, "*activation"]:
        """This prompt's part of an activation, or of its gradient: ``(*k, batch, ...)`` to ``(*k, ...)``."""
        lead = batch.ndim - self.tensor(name).ndim
        mine = batch.select(lead, self.row)
        if is_square(self.full_name(name)):
            return mine.narrow(lead + 1, 0, self.n_pos).narrow(lead + 2, 0, self.n_pos)
        return mine.narrow(lead, 0, self.n_pos)
