"""Plain values: what counts as an integer, and metadata as JSON knows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tl_jacobian.errors import ArgumentError

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def is_id(item: Any) -> bool:
    """An integer, or a scalar integer of torch or numpy; not a bool."""
    if isinstance(item, Tensor):
        return item.ndim == 0 and item.dtype in INTEGERS
    return hasattr(item, "__index__") and type(item).__name__ not in ("bool", "bool_")


def plain(value: Any) -> Any:
    """Metadata as JSON knows it, so that a saved attribution comes back equal."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise ArgumentError(f"metadata holds a {type(value).__name__}, expected numbers, text, lists and dicts")
