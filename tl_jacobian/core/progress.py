"""Progress bars that stay away unless the work takes long."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm  # the plain one: tqdm.auto warns on import where widgets are missing

_PATIENCE = 5.0  # seconds
_quiet = ContextVar("quiet", default=False)


def progress(total: int, what: str, *, hidden: bool = False) -> tqdm:
    """A bar that shows up after some seconds and leaves nothing behind; none for a single step.

    ``TQDM_DISABLE=1`` in the environment switches all of them off.
    """
    off: dict[str, Any] = {"disable": True} if total < 2 or hidden or _quiet.get() else {}
    return tqdm(total=total, desc=what, delay=_PATIENCE, leave=False, **off)


def is_watched() -> bool:
    """Whether a terminal would show a bar."""
    return sys.stderr is not None and sys.stderr.isatty()


@contextmanager
def quiet() -> Iterator[None]:
    """No bars of the parts of some larger work, which has a bar of its own."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def counting(total: int, done: int, what: str, unit: str, *, hidden: bool = False) -> tqdm:
    """A bar for hours of work: shown at once, and left behind; rate and time left are of this run's share.

    ``done`` of ``total`` were done before. In a log file it writes a line every half minute.
    """
    pace = 0.2 if sys.stderr is not None and sys.stderr.isatty() else 30.0
    options: dict[str, Any] = {"mininterval": pace, "maxinterval": max(10.0, pace), "dynamic_ncols": True}
    return tqdm(total=total, initial=done, desc=what, unit=f" {unit}", disable=hidden, **options)
