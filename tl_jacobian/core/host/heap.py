"""Memory that was freed, given back to the system: the C library keeps it otherwise, between what is still in use.

A run that keeps nothing but its blocks' inputs makes and frees everything else, and the heap grows to several times
of what is ever in use: 576 MiB beyond the model for 219 (demo model on HookedTransformer, 1,024 tokens). glibc's
``malloc_trim`` gives free pages back wherever they lie, and whoever needs them again has to ask the system for them,
which takes a tenth of such a run's time if it is done for every block; so it is done where enough has gathered.
Elsewhere than with glibc nothing happens: other C libraries have no such function.
"""

from __future__ import annotations

import ctypes
from functools import cache

import psutil


class _Usage(ctypes.Structure):
    """glibc's ``struct mallinfo2``; ``hblkhd`` and ``uordblks`` are bytes in use, large blocks and all others."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


@cache
def _library() -> ctypes.CDLL | None:
    """The C library, where it tells what is in use (glibc 2.33) and gives the rest back."""
    try:
        found = ctypes.CDLL(None)
        found.mallinfo2.restype = _Usage
        found.malloc_trim.argtypes = [ctypes.c_size_t]
    except (OSError, TypeError, AttributeError):
        return None
    return found


def give_back() -> None:
    """Give all free memory back, where the C library can."""
    if (library := _library()) is not None:
        library.malloc_trim(0)


_WORTH_IT = 1 << 24


class Heap:
    """The process's heap; may hold so many bytes that are free more than it does now (and 16 MiB in any case).

    Attributes:
        allowed: how many.
        given_back: how often free memory was given back.
    """

    def __init__(self, allowed: int) -> None:
        self.allowed = max(allowed, _WORTH_IT)
        self.given_back = 0
        self._unused = _unused()

    def tidy(self) -> None:
        """Give free memory back if it has become too much."""
        if _library() is None or _unused() - self._unused <= self.allowed:
            return
        give_back()
        self.given_back += 1
        self._unused = _unused()  # without what was never the heap's, such as weights read from a file meanwhile


def _unused() -> int:
    """Bytes in memory that no allocation holds: the heap's free ones, and what isn't the heap's."""
    if (library := _library()) is None:
        return 0
    usage = library.mallinfo2()
    return int(psutil.Process().memory_info().rss) - usage.uordblks - usage.hblkhd
