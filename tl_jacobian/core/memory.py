"""What a linearization will take, before it takes it, and how to stay within a budget.

A forward pass that is recorded keeps every block's activations; one that isn't keeps the
residual stream between blocks and computes a block's activations again when a backward pass
comes through. Either way one block at a time is worked on. A model's host knows the sizes
(:class:`Footprint`); here they are added up, compared with the budget (bytes, or text like
``"8GiB"``), and turned into a :class:`Plan`: recompute or not, and how many directions may travel together.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from tl_jacobian.errors import ArgumentError, MemoryBudgetError

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
        raise ArgumentError(
            f"max_memory={size!r} is a {type(size).__name__}, expected bytes as an int, or text like '8GiB'"
        )
    return _positive(size, size)


def _split(text: str) -> tuple[str, int]:
    match = _WRITTEN.fullmatch(text)
    known = {name.upper(): unit for name, unit in _UNITS.items()}
    if match is None or match[2].upper() not in known:
        raise ArgumentError(
            f"max_memory={text!r} isn't an amount of memory; expected a number and a unit, like '8GiB' or '500 MB' "
            f"(units: {', '.join(name for name in _UNITS if name)})"
        )
    return match[1], known[match[2].upper()]


def _positive(size: int, given: int | str) -> int:
    if size < 1:
        raise ArgumentError(f"max_memory={given!r} is {size} bytes, expected at least one")
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


# Blocks are recomputed rather than so few directions sent back together (benchmarks/fisher_cost.py).
_FEW = 4
# Without a budget from the caller: the part of what is available that may be used ...
_PART_OF_AVAILABLE = 0.9
# ... and what directions on their way may take. Beyond it they gain nothing.
DEFAULT_ROOM = 1 << 30


@dataclass(frozen=True)
class Footprint:
    """Bytes that the parts of one linearization take, beyond the model itself.

    Attributes:
        ends: everything outside the blocks: embeddings, masks, final norm, logits.
        stream: the residual stream between two blocks.
        block: what one block keeps for its backward pass.
        n_blocks: how many there are.
        run: what one block works with where nothing is recorded.
        again: what recording a block's backward pass adds, for Jacobian-vector products.
        direction: one direction on its way back through a block, results included.
        work: what a backward pass through a block works with beside that, however many directions there are.
        head: the most that a scope works with at the unembedding.
        holes: where blocks are run again, memory that was freed and is kept by the allocator.
    """

    ends: int
    stream: int
    block: int
    n_blocks: int
    run: int
    again: int
    direction: int
    work: int
    head: int
    holes: int

    def kept(self, recompute: bool) -> int:
        """What stays from ``linearize`` until the linearization is gone."""
        return self.ends + (self.holes + self.n_blocks * self.stream if recompute else self.n_blocks * self.block)

    @property
    def passing(self) -> int:
        """The most of a forward pass of which nothing is recorded."""
        return self.ends + 2 * self.stream + self.run

    def peak(self, recompute: bool, directions: int = 1, push: bool = True) -> int:
        """The most at any time, with so many directions at once.

        Args:
            push: whether Jacobian-vector products are taken too (:meth:`Linearization.jvp`,
                Fisher Scope's estimate).
        """
        block = (self.block if recompute else 0) + (self.again if push else 0) + self.work
        return self.kept(recompute) + max(block + directions * self.direction, self.head)


@dataclass(frozen=True)
class Plan:
    """How a linearization keeps to its budget.

    Attributes:
        recompute: whether blocks are computed again in each backward pass.
        room: bytes that directions on their way may take together.
        results: bytes that products handed out together may take.
        predicted: the most it will take at any time, in bytes, with one direction at a time.
        budget: bytes it may take.
    """

    recompute: bool
    room: int
    results: int
    predicted: int
    budget: int


def plan(
    footprint: Callable[[int], Footprint], n_prompts: int, n_pos: int, max_memory: int | None, available: int
) -> Plan:
    """Keep all activations where they fit, else recompute blocks, else refuse.

    Args:
        footprint: of so many prompts of a given length.
        n_prompts, n_pos: how many, and the length of the longest.
        max_memory: the caller's budget in bytes, or None.
        available: bytes that are free on the model's devices: most of it is the budget, without one from the caller.

    Raises:
        MemoryBudgetError: not even recomputing fits; says what would.
    """
    budget = int(_PART_OF_AVAILABLE * available) if max_memory is None else max_memory
    need = footprint(n_pos)
    recompute = need.peak(recompute=False, directions=_FEW) > budget
    predicted = need.peak(recompute)
    if predicted > budget:
        asked = _asked(n_prompts, n_pos, predicted)
        limit = _given(budget, predicted) if max_memory is not None else _free(budget, predicted)
        raise MemoryBudgetError(
            f"{asked}, {limit[0]}. What would fit: {_shorter(footprint, n_prompts, n_pos, budget)}{limit[1]}"
        )
    results = (budget - predicted) // 2
    room = results + need.direction
    return Plan(recompute, room if max_memory is not None else min(room, DEFAULT_ROOM), results, predicted, budget)


def _asked(n_prompts: int, n_pos: int, predicted: int) -> str:
    what = f"a prompt of {n_pos} tokens is" if n_prompts == 1 else f"{n_prompts} prompts of {n_pos} tokens are"
    return (
        f"{what} predicted to take {text_of(predicted)} beyond the model itself, even when the backward pass "
        "computes each block again"
    )


def _given(budget: int, predicted: int) -> tuple[str, str]:
    return f"more than max_memory={text_of(budget)!r} allows", f"max_memory={text_of(predicted)!r}"


def _free(budget: int, predicted: int) -> tuple[str, str]:
    return (
        f"more than the {text_of(budget)} that can be used now",
        f"freeing memory. max_memory={text_of(predicted)!r} tries it anyway",
    )


def _shorter(footprint: Callable[[int], Footprint], n_prompts: int, n_pos: int, budget: int) -> str:
    longest = _longest(footprint, n_pos, budget)
    fewer = "" if n_prompts == 1 else "fewer prompts at a time, or "
    return fewer + (f"at most {longest} tokens, or " if longest else "")


def at_once(
    footprint: Callable[[int], Footprint], most: int, left: int | None, available: int, held: int, record: bool
) -> int:
    """How many runs of a linearized prompt, at most ``most``, go into one forward pass beside it.

    Args:
        footprint: of so many of them.
        left: bytes that the caller's budget leaves, or None.
        available: bytes that are free on the model's devices: most of it is the budget, without one from the caller.
        held: what the linearization keeps, in the caller's budget.
        record: whether they are linearized too.

    Raises:
        MemoryBudgetError: not even one fits.
    """
    budget = int(_PART_OF_AVAILABLE * available) if left is None else left

    def size(n: int) -> int:
        return footprint(n).peak(recompute=True) if record else footprint(n).passing

    if size(1) > budget:
        needed = text_of(size(1))
        raise MemoryBudgetError(
            f"running the prompt once more is predicted to take {needed} beside its linearization, and "
            + (
                f"{text_of(budget)} can be used now; free memory, or shorten the prompt"
                if left is None
                else f"max_memory= leaves {text_of(budget)}: linearize with max_memory={text_of(held + size(1))!r}"
            )
        )
    return most if size(most) <= budget else _most(lambda n: size(n) <= budget, 1, most)


def _longest(footprint: Callable[[int], Footprint], n_pos: int, budget: int) -> int:
    """The longest prompt that fits; 0 if none does."""
    return _most(lambda n: footprint(n).peak(recompute=True) <= budget, 0, n_pos)


def _most(fits: Callable[[int], bool], least: int, too_many: int) -> int:
    """The largest number that fits, found by halving, between one that does and one that is too many."""
    while too_many - least > 1:
        middle = (least + too_many) // 2
        if fits(middle):
            least = middle
        else:
            too_many = middle
    return least
