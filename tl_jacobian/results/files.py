"""Files that are whole or absent, never half-written."""

from __future__ import annotations

import os
import secrets
import stat
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
    handle, name = new_file(target.parent, ".tlj-")
    try:
        with os.fdopen(handle, mode, encoding=encoding) as file:
            yield file
        if before is not None:
            os.chmod(name, stat.S_IMODE(before.st_mode))
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _stat(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


# What tempfile opens its files with, where the system has it.
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def new_file(folder: Path, prefix: str, suffix: str = "") -> tuple[int, str]:
    """A file that wasn't there, open for reading and writing, and its name.

    ``tempfile`` makes files that only their owner can read. Here the system itself applies the umask, which can't be
    read without changing it, and with it the files that other threads create meanwhile.
    """
    while True:
        name = str(folder / f"{prefix}{secrets.token_hex(6)}{suffix}")
        try:
            return os.open(name, _NEW, 0o666), name
        except FileExistsError:
            continue
