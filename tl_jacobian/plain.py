"""Values as JSON knows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tl_jacobian.errors import ArgumentError


def plain(value: Any) -> Any:
    """Metadata as JSON knows it, so that a saved attribution comes back equal."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise ArgumentError(f"metadata holds a {type(value).__name__}, expected numbers, text, lists and dicts")
