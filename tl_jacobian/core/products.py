"""Products with the Jacobians of several linearizations, packed into few backward passes.

A backward pass carries one direction for each prompt of a forward pass. Explained positions of *different*
prompts therefore share it; those of the same prompt take turns, and so do forward passes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.core.graph import scaled, unit
from tl_jacobian.core.linalg.gram import GramSums
from tl_jacobian.core.linearization import Linearized
from tl_jacobian.core.progress import progress
from tl_jacobian.core.unembedding import exact, precise


class Slot(NamedTuple):
    """Where one direction of one linearization travels: backward pass ``at`` of a chunk."""

    at: int
    direction: int
    member: int


def by_pass(lins: Sequence[Linearized]) -> list[list[int]]:
    """Places of linearizations, those of one forward pass together."""
    groups: dict[int, list[int]] = {}
    for place, lin in enumerate(lins):
        groups.setdefault(id(lin.graph), []).append(place)
    return list(groups.values())


def packed(lins: Sequence[Linearized], counts: Sequence[int]) -> Iterator[list[Slot]]:
    """All (direction, member) pairs, in chunks of backward passes that fit into memory; each of one forward pass.

    Args:
        lins: linearizations.
        counts: how many directions each of them has.
    """
    for group in by_pass(lins):
        yield from _packed(lins, group, counts)


def _packed(lins: Sequence[Linearized], group: Sequence[int], counts: Sequence[int]) -> Iterator[list[Slot]]:
    seen: Counter[int] = Counter()
    turns: dict[int, list[int]] = {}  # members that can share a pass
    for member in group:
        row = lins[member].prompt_row
        turns.setdefault(seen[row], []).append(member)
        seen[row] += 1
    passes = [
        (i, [m for m in members if i < counts[m]])
        for members in turns.values()
        for i in range(max(counts[m] for m in members))
    ]
    size = lins[group[0]].graph.chunk
    for start in range(0, len(passes), size):
        chunk = passes[start : start + size]
        yield [Slot(at, i, member) for at, (i, members) in enumerate(chunk) for member in members]


def pulled(
    lins: Sequence[Linearized],
    v: Sequence[Float[Tensor, "_ ..."]],
    what: str = "vector-Jacobian products",
) -> Iterator[tuple[list[Slot], Float[Tensor, "chunk batch pos d_in"]]]:
    """v_i^T J for the directions of each member, a chunk at a time; a progress bar when it takes long.

    Args:
        lins: linearizations.
        v: directions of each of them, ``(k, *lin.y.shape)``; a member may have more than another.
    """
    with progress(sum(map(len, v)), what) as bar:
        for slots in packed(lins, list(map(len, v))):
            y = lins[slots[0].member].graph.y
            spread = y.new_zeros(slots[-1].at + 1, *y.shape, dtype=v[0].dtype)
            for member, mine in groupby(sorted(slots, key=_member), key=_member):
                at, direction, _ = map(list, zip(*mine, strict=True))
                rows, own = list(lins[member].rows), v[member][direction]
                spread[torch.tensor(at)[:, None], rows] = own.reshape(len(at), len(rows), -1).to(spread)
            graph = lins[slots[0].member].graph
            yield slots, graph.pull(spread)
            bar.update(len(slots))


def _member(slot: Slot) -> int:
    return slot.member


def squares(
    lins: Sequence[Linearized], v: Sequence[Float[Tensor, "_ ..."]], pairs: Sequence[GramSums] | None = None
) -> list[Float[Tensor, " _ _"]]:
    """||v_i^T J_t||^2 for every direction and token, a ``(k, pos)`` float64 tensor a member.

    Never holds more than one chunk of products.

    Args:
        lins: linearizations.
        v: directions of each of them, as for :func:`pulled`.
        pairs: of each of them, to which the products for every two tokens are added, directions taken exactly.
    """
    out = [torch.empty(len(own), len(lin.tokens), dtype=torch.float64) for lin, own in zip(lins, v, strict=True)]
    units = [unit(own) for own in v]  # squares have twice the range
    v, powers = [own for own, _ in units], [power for _, power in units]
    for slots, grads in pulled(lins, v):
        norms = squared_norms(grads)
        for at, i, member in slots:
            lin = lins[member]
            found = norms[at, lin.prompt_row, : len(lin.tokens)]
            out[member][i] = scaled(found[None], [2 * powers[member][i]])[0]
            if pairs is not None:
                g = grads[at, lin.prompt_row, None, : len(lin.tokens)]
                pairs[member].take(g, 2 * powers[member][i])
    return out


def squared_norms(grads: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch"]:
    """Sums of squares on the CPU; sums over many half-precision numbers need float32, and extreme ones float64."""
    squares = precise(grads).square().sum(dim=-1)
    if ((squares > _TINY) & (squares < math.inf) | (squares == 0) & ~grads.any(dim=-1)).all():
        return exact(squares)
    return exact(grads).square().sum(dim=-1)


# Below it, squares of float32 numbers lose digits.
_TINY = 1e-30
