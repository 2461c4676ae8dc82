"""Ctrl-C ends the command line with exit code 130 and no traceback, whenever it comes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130


@contextmanager
def at_once() -> Iterator[None]:
    """While modules load nothing is under way, and their C code may lose an exception: the process just ends."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # ignored, as by nohup; or the handler of whoever runs us
        yield
        return
    signal.signal(signal.SIGINT, _end)
    yield
    signal.signal(signal.SIGINT, before)


def _end(signum: int, frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


def never_more() -> None:
    """All is done: an interrupt while Python takes itself apart could only print a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
