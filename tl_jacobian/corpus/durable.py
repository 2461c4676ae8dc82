"""Files that are on the disk, whole, or not there at all, even when the process is killed or the power fails.

The bytes go to a hidden file, are flushed to the disk, and then the file gets its name, which is
flushed too. A killed process leaves its hidden file behind; the next run sweeps it away, knowing
from a lock that the kernel released with the process that nobody is writing to it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tl_jacobian.errors import CorpusError

try:
    import fcntl
except ImportError:  # Windows, where a file that someone has open can't be deleted anyway
    fcntl = None

_ENDING = ".tmp"


def write_durably(path: Path, data: bytes) -> None:
    """Write a file whole and flush it and its name to the disk, or raise OSError and leave everything as it was."""
    handle, name = _claimed(path)
    held = None if fcntl is None else os.dup(handle)  # keeps the claim until the file has its name
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    finally:
        if held is not None:
            os.close(held)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's names to the disk."""
    if os.name == "nt":  # no such thing there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path) -> int:
    """Delete hidden files that killed processes left behind, none of a living one; returns how many."""
    return sum(_swept(path) for path in folder.glob(f".*{_ENDING}"))


@contextmanager
def only_run(folder: Path) -> Iterator[bool]:
    """Hold a run's folder; a second run in it is refused, a killed one's hold ends with it.

    Gives whether the hold is certain: where there are no locks, nobody is refused.

    Raises:
        CorpusError: another run holds it.
    """
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        held = _flock(handle)
        if held is False:
            raise CorpusError(
                f"another run is at work in {str(folder)!r}: wait until it has ended, or write to another folder"
            )
        yield held is True
    finally:
        os.close(handle)


def _claimed(path: Path) -> tuple[int, str]:
    """A new hidden file beside ``path``, locked."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_ENDING)
        os.chmod(name, 0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        if _lock(handle, wait=True) and os.path.exists(name):
            return handle, name
        os.close(handle)  # swept away before it was locked


def _lock(handle: int, wait: bool = False) -> bool:
    """Whether the file is ours now; a file system without locks lets everyone have it."""
    return _flock(handle, wait) is not False


def _flock(handle: int, wait: bool = False) -> bool | None:
    """Whether the lock is ours; None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _swept(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDWR)
        try:
            mine = _lock(handle)
            if mine and fcntl is not None:
                path.unlink()
        finally:
            os.close(handle)
        if mine and fcntl is None:
            path.unlink()
    except OSError:  # gone meanwhile, or (Windows) open elsewhere
        return False
    return mine


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
