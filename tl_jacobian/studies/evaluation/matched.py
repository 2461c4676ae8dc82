"""What a method knows beyond recency: its removals against others at places drawn from its own.

A language model leans on what stands last, and a method that ranks late tokens first looks good for that alone. So
each prompt is also run without tokens whose *places* come from the same method's ranking of *another* prompt of about
the same length: counted from the end, and the first token apart. Such a ranking has the method's distribution of
places and knows nothing of this prompt. A ranking by recency alone gains nothing over it, whatever the prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from tl_jacobian.errors import ArgumentError

# Of so many neighbours in length rankings are drawn: prompts of a corpus differ by a few tokens there.
NEIGHBOURS = 10


def donors(lengths: Mapping[int, int], prompt: int, draws: int, generator: torch.Generator) -> list[int]:
    """Other prompts, drawn from those nearest in length, each once as long as there are enough.

    Args:
        lengths: of each prompt, by its number.
        prompt: the number of the one that is judged.
        draws: how many.
        generator: of the draws.

    Raises:
        ArgumentError: there is no other prompt.

    >>> donors({0: 5, 1: 6, 2: 50}, 0, 1, torch.Generator().manual_seed(0)) in ([1], [2])
    True
    """
    others = sorted((p for p in lengths if p != prompt), key=lambda p: (abs(lengths[p] - lengths[prompt]), p))
    if not others:
        raise ArgumentError("a single prompt has no other's places to be matched with, expected two or more")
    near = others[: max(NEIGHBOURS, draws)]
    at = torch.randperm(len(near), generator=generator).tolist()
    return [near[at[i % len(near)]] for i in range(draws)]


def transferred(order: Sequence[int], length: int, to: int) -> list[int]:
    """A ranking of places, in a prompt of another length: counted from the end, and the first token apart.

    Places before the beginning are left out; those that a shorter prompt doesn't have come last, later ones first. The
    first token stays the first, as far up in the ranking as it was.

    Args:
        order: places in the order of their scores, highest first; without the first token where that is never removed.
        length: of the prompt that was ranked.
        to: length of the other.

    >>> transferred([4, 0, 2, 3, 1], length=5, to=7)
    [6, 4, 0, 5, 3, 2, 1]
    """
    late = [to - length + place for place in order if place and to - length + place > 0]
    late += sorted(set(range(1, to)) - set(late), reverse=True)
    if 0 in order:
        late.insert(round(order.index(0) / max(1, len(order) - 1) * (to - 1)), 0)
    return late


def matched_sets(order: Sequence[int], length: int, to: int, sizes: Sequence[int], total: int) -> Bool[Tensor, "k pos"]:
    """The sets that such a ranking removes: as many tokens as the method's own.

    Args:
        order, length: the other prompt's ranking, and its length.
        to: how many tokens of this prompt may be removed.
        sizes: of the sets.
        total: tokens of this prompt in all, with those of an answer.
    """
    ranked = transferred(order, length, to)
    sets = torch.zeros(len(sizes), total, dtype=torch.bool)
    for row, size in zip(sets, sizes, strict=True):
        row[ranked[:size]] = True
    return sets


def with_matched(records: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Records with what a second run found at matched places."""
    joined = []
    for record, other in zip(records, found, strict=True):
        if record.get("error") or other.get("error"):
            joined.append({**other, **record})
            continue
        methods = {name: {**own, "matched": other["matched"][name]} for name, own in record["methods"].items()}
        joined.append({**record, "methods": methods})
    return joined


def n_removed(k: Sequence[float | int], n: int) -> list[int]:
    """k% of n units, rounded up.

    >>> n_removed([5, 7, 20], 100)
    [5, 7, 20]
    """
    return [math.ceil(round(share / 100 * n, 9)) for share in k]  # 7% of 100 is 7, not 7.000000000000001
