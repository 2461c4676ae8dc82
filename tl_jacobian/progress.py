"""Progress bars that stay away unless the work takes long."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm  # the plain one: tqdm.auto warns on import where widgets are missing

_PATIENCE = 5.0  # seconds


def progress(total: int, what: str) -> tqdm:
    """A bar that shows up after some seconds and leaves nothing behind; none for a single step.

    ``TQDM_DISABLE=1`` in the environment switches all of them off.
    """
    single: dict[str, Any] = {"disable": True} if total < 2 else {}
    return tqdm(total=total, desc=what, delay=_PATIENCE, leave=False, **single)
