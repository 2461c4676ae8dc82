"""What frozen values have in common: they own what they hold, and their metadata is read-only."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from tl_jacobian.results.plain import plain


class Frozen:
    """Base of frozen dataclasses with a ``metadata`` field."""

    metadata: Mapping[str, Any]

    def _set(self, name: str, value: Any) -> None:
        """While the value is being made."""
        object.__setattr__(self, name, value)

    def _protect_metadata(self) -> None:
        """JSON values only, in a view that can't be written to."""
        self._set("metadata", MappingProxyType(plain(self.metadata)))

    def __getstate__(self) -> dict[str, Any]:
        """For copies and other processes, which a read-only view of a dict can't go to."""
        return {**self.__dict__, "metadata": dict(self.metadata)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, metadata=MappingProxyType(state["metadata"]))


def owned(values: Any, dtype: Any = np.float64) -> Any:
    """A copy of an array that can't be written to, for a frozen value to own."""
    array = np.array(values, dtype=dtype)
    array.setflags(write=False)
    return array
