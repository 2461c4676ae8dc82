"""Metadata as JSON knows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import INTEGERS as INTEGERS
from tl_jacobian.results.arguments import is_id as is_id


def plain(value: Any) -> Any:
    """Metadata as JSON knows it, so that a saved attribution comes back equal."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise ArgumentError(f"metadata holds a {type(value).__name__}, expected numbers, text, lists and dicts")
