"""Amounts of memory: from what a user writes to bytes, and back."""

from __future__ import annotations

import math
import re

from tl_jacobian.errors import ArgumentError

_UNITS = {"": 1, "B": 1} | {
    f"{prefix}{suffix}": base**power
    for power, prefix in enumerate("KMGT", start=1)
    for suffix, base in (("iB", 1024), ("B", 1000))
}
_WRITTEN = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)\s*", re.IGNORECASE)


def n_bytes(size: int | str) -> int:
    """Bytes of a size.

    Args:
        size: a number of bytes, or text: ``"8GiB"`` is 8 x 1024^3, ``"8GB"`` is 8 x 1000^3.

    Raises:
        ArgumentError: not a size, or not a positive one.

    >>> n_bytes("1.5 KiB"), n_bytes("2MB"), n_bytes(4096)
    (1536, 2000000, 4096)
    """
    if isinstance(size, str):
        number, unit = _split(size)
        return _positive(math.floor(float(number) * unit), size)
    if isinstance(size, bool) or not isinstance(size, int):
        raise ArgumentError(f"{size!r} is a {type(size).__name__}, expected bytes as an int, or text like '8GiB'")
    return _positive(size, size)


def _split(text: str) -> tuple[str, int]:
    match = _WRITTEN.fullmatch(text)
    known = {name.upper(): unit for name, unit in _UNITS.items()}
    if match is None or match[2].upper() not in known:
        raise ArgumentError(
            f"{text!r} isn't an amount of memory; expected a number and a unit, like '8GiB' or '500 MB' (units: "
            f"{', '.join(name for name in _UNITS if name)})"
        )
    return match[1], known[match[2].upper()]


def _positive(size: int, given: int | str) -> int:
    if size < 1:
        raise ArgumentError(f"{given!r} is {size} bytes, expected at least one")
    return size


def text_of(size: int) -> str:
    """Bytes as text, rounded up: what it says is never too little.

    >>> text_of(3 * 2**30), text_of(1), text_of(2**20 + 1)
    ('3.0GiB', '1B', '1.1MiB')
    """
    for name in ("TiB", "GiB", "MiB", "KiB"):
        if size >= _UNITS[name]:
            return f"{math.ceil(10 * size / _UNITS[name]) / 10:.1f}{name}"
    return f"{size}B"
