"""Products with the Jacobians of several linearizations of one forward pass, packed into few backward passes.

A backward pass carries one direction for each prompt. Explained positions of *different*
prompts therefore share it; those of the same prompt take turns.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.core.graph import scaled, unit
from tl_jacobian.core.linearization import Linearization
from tl_jacobian.core.progress import progress
from tl_jacobian.core.unembedding import exact, precise


class Slot(NamedTuple):
    """Where one direction of one linearization travels: backward pass ``at`` of a chunk."""

    at: int
    direction: int
    member: int


def packed(lins: Sequence[Linearization], k: int) -> Iterator[list[Slot]]:
    """All (direction, member) pairs, in chunks of backward passes that fit into memory."""
    seen: Counter[int] = Counter()
    turns: dict[int, list[int]] = {}  # members that can share a pass
    for member, lin in enumerate(lins):
        turns.setdefault(seen[lin.prompt_row], []).append(member)
        seen[lin.prompt_row] += 1
    passes = [(i, members) for members in turns.values() for i in range(k)]
    size = lins[0].graph.chunk
    for start in range(0, len(passes), size):
        chunk = passes[start : start + size]
        yield [Slot(at, i, member) for at, (i, members) in enumerate(chunk) for member in members]


def pulled(
    lins: Sequence[Linearization], v: Float[Tensor, "k members d_model"], what: str = "vector-Jacobian products"
) -> Iterator[tuple[list[Slot], Float[Tensor, "chunk batch pos d_in"]]]:
    """v_i^T J for k directions of each member, a chunk at a time; a progress bar when it takes long."""
    graph = lins[0].graph
    with progress(len(v) * len(lins), what) as bar:
        for slots in packed(lins, len(v)):
            at, direction, member = map(list, zip(*slots, strict=True))
            spread = v.new_zeros(at[-1] + 1, *graph.y.shape)
            spread[at, [lins[m].row for m in member]] = v[direction, member]
            yield slots, graph.pull(spread)
            bar.update(len(slots))


def squares(lins: Sequence[Linearization], v: Float[Tensor, "k members d_model"]) -> list[Float[Tensor, "k _"]]:
    """||v_i^T J_t||^2 for every direction and token, a ``(k, pos)`` float64 tensor a member.

    Never holds more than one chunk of products.

    Args:
        lins: linearizations of one forward pass.
        v: k directions for each of them.
    """
    out = [torch.empty(len(v), len(lin.tokens), dtype=torch.float64) for lin in lins]
    v, powers = unit(rearrange(v, "k members d_model -> (k members) d_model"))  # their squares have twice the range
    v = rearrange(v, "(k members) d_model -> k members d_model", members=len(lins))
    for slots, grads in pulled(lins, v):
        norms = squared_norms(grads)
        for at, i, member in slots:
            lin = lins[member]
            found = norms[at, lin.prompt_row, : len(lin.tokens)]
            out[member][i] = scaled(found[None], [2 * powers[i * len(lins) + member]])[0]
    return out


def squared_norms(grads: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch"]:
    """Sums of squares on the CPU; sums over many half-precision numbers need float32, and extreme ones float64."""
    squares = precise(grads).square().sum(dim=-1)
    if ((squares > _TINY) & (squares < math.inf) | (squares == 0) & ~grads.any(dim=-1)).all():
        return exact(squares)
    return exact(grads).square().sum(dim=-1)


# Below it, squares of float32 numbers lose digits.
_TINY = 1e-30
