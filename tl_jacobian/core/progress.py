"""Progress bars that stay away unless the work takes long."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm  # the plain one: tqdm.auto warns on import where widgets are missing

from tl_jacobian.core.cancel import stop_if_asked

_PATIENCE = 5.0  # seconds
_quiet = ContextVar("quiet", default=False)
Told = Callable[[str, int, int], None]  # what is done, how many steps of it, of how many
_told: ContextVar[Told | None] = ContextVar("told", default=None)


class _Bar(tqdm):
    """A bar that also tells who listens, and stops where nobody waits any more."""

    def update(self, n: int | float | None = 1) -> bool | None:
        stop_if_asked()
        shown = super().update(n)
        self.n = self.n if not self.disable else self.n + (n or 0)
        if (told := _told.get()) is not None:
            told(self.what, int(self.n), int(self.total))
        return shown

    what = ""


@contextmanager
def telling(told: Told) -> Iterator[None]:
    """Progress is told to a function instead of being drawn.

    >>> with telling(lambda *step: print(step)), progress(2, "products") as bar:
    ...     _ = bar.update()
    ('products', 1, 2)
    """
    token, silence = _told.set(told), _quiet.set(True)
    try:
        yield
    finally:
        _told.reset(token)
        _quiet.reset(silence)


def progress(total: int, what: str, *, hidden: bool = False) -> tqdm:
    """A bar that shows up after some seconds and leaves nothing behind; none for a single step, or where nobody looks.

    ``TQDM_DISABLE=1`` in the environment switches all of them off.
    """
    off: dict[str, Any] = {"disable": True} if total < 2 or hidden or _quiet.get() or not is_watched() else {}
    bar = _Bar(total=total, desc=what, delay=_PATIENCE, leave=False, **off)
    bar.total, bar.what = total, what  # which a hidden one forgets
    return bar


def is_watched() -> bool:
    """Whether a terminal or a notebook would show a bar; a pipe or a file would fill with it."""
    in_notebook = type(sys.stderr).__module__.partition(".")[0] == "ipykernel"
    return sys.stderr is not None and (sys.stderr.isatty() or in_notebook)


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

    ``done`` of ``total`` were done before.
    """
    off = hidden or not is_watched()
    options: dict[str, Any] = {"mininterval": 0.2, "dynamic_ncols": True}
    return tqdm(total=total, initial=done, desc=what, unit=f" {unit}", disable=off, **options)
