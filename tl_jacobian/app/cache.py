"""What was computed before, up to so many bytes: what was used longest ago goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Cache(Generic[T]):
    """Values by key, each with a size.

    Args:
        limit: bytes that all of them may take; a value that alone is larger isn't kept.

    >>> cache = Cache[str](limit=3)
    >>> cache.put("a", "x", 2); cache.put("b", "y", 2)
    >>> cache.get("a"), cache.get("b"), cache.size
    (None, 'y', 2)
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()

    def get(self, key: Hashable) -> T | None:
        with self._lock:
            if (found := self._kept.get(key)) is None:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: T, size: int) -> None:
        with self._lock:
            self._forget(key)
            if size > self.limit:
                return
            while self._kept and self.size + size > self.limit:
                self._forget(next(iter(self._kept)))
            self._kept[key] = value, size
            self.size += size

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()
            self.size = 0

    def items(self) -> list[tuple[Hashable, T]]:
        """All that is kept, what was used longest ago first."""
        with self._lock:
            return [(key, value) for key, (value, _) in self._kept.items()]

    def __len__(self) -> int:
        return len(self._kept)

    def _forget(self, key: Hashable) -> None:
        if (old := self._kept.pop(key, None)) is not None:
            self.size -= old[1]
