"""Progress bars that stay away unless the work takes long."""

from __future__ import annotations

from tqdm.auto import tqdm


def progress(total: int, what: str) -> tqdm:
    """A bar that shows up after two seconds and leaves nothing behind; none for a single step."""
    return tqdm(total=total, desc=what, delay=2, leave=False, disable=total < 2)
