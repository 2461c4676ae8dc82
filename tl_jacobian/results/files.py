"""Files that are whole or absent, never half-written."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """A file beside ``path`` that takes its place when everything is written, and else vanishes.

    A symbolic link stays one: the file that it leads to is replaced, and keeps its permissions. What isn't a regular
    file (a pipe, a terminal, a device) can't be replaced by one: it is written into, as it stands.

    Args:
        path: the file; its folder must exist.
        mode: ``"w"`` for text (UTF-8), ``"wb"`` for bytes.

    Raises:
        OSError: it can't be written.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir() or not target.parent.is_dir():
        raise FileNotFoundError(f"can't write {str(path)!r}: expected a file in a folder that exists")
    encoding = None if "b" in mode else "utf-8"
    before = _stat(target)
    if before is not None and not stat.S_ISREG(before.st_mode):
        with open(target, mode, encoding=encoding) as file:
            yield file
        return
    # A short name of its own: that of the target may be as long as names can be.
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".tlj-")
    try:
        with os.fdopen(handle, mode, encoding=encoding) as file:
            yield file
        # mkstemp makes files that only their owner can read
        os.chmod(name, stat.S_IMODE(before.st_mode) if before is not None else 0o666 & ~umask())
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _stat(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def umask() -> int:
    """Permissions that new files don't get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
