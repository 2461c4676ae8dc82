"""Autograd modes: ours inside, the caller's untouched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def recording() -> Iterator[None]:
    """Record a graph even inside the caller's ``no_grad()`` or ``inference_mode()``."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def forgetting() -> Iterator[None]:
    """Record no graph, and make ordinary tensors even inside the caller's ``inference_mode()``."""
    with torch.inference_mode(False), torch.no_grad():
        yield
