"""What is computed together: a pure function of the prompts' lengths, so that every run makes the same batches.

Prompts of like length go together, because a batch is padded to its longest. The shard with the
longest comes first: what doesn't fit into memory shows at once. The others follow in an order
that has nothing to do with length, so that the time left can be told from the time so far.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from tl_jacobian.errors import ArgumentError
from tl_jacobian.plain import is_id


class Shard(NamedTuple):
    """Prompts whose records are written together, by their places, longest first."""

    number: int
    places: tuple[int, ...]


def make_plan(lengths: Sequence[int], shard_size: int) -> tuple[Shard, ...]:
    """Shards in the order of work, each prompt in exactly one.

    >>> make_plan([1, 5, 3, 4, 0], 2)
    (Shard(number=0, places=(1, 3)), Shard(number=1, places=(4,)), Shard(number=2, places=(2, 0)))
    """
    check_size("shard_size", shard_size)
    by_length = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    first, *rest = [tuple(by_length[at : at + shard_size]) for at in range(0, len(by_length), shard_size)] or [()]
    order = sorted(rest, key=lambda places: hashlib.sha256(str(places[0]).encode()).digest())
    return tuple(Shard(number, places) for number, places in enumerate([first, *order]))


def check_size(name: str, size: int) -> None:
    """Raise ArgumentError unless it is a positive integer."""
    if not is_id(size) or size < 1:
        raise ArgumentError(f"{name}={size!r}, expected a number of prompts, at least 1")
