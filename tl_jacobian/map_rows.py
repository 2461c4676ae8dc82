"""The rows of an :class:`~tl_jacobian.attribution_map.AttributionMap`: what fits together, and how rows merge."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, pairwise
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.attribution import COMBINE, Attribution
from tl_jacobian.errors import ArgumentError
from tl_jacobian.tokens import Word

T = TypeVar("T")


def matrix(rows: Sequence[Float[Tensor, " _"]]) -> Float[Tensor, "targets sources"]:
    """Rows of growing length as one matrix, zero where they end."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def split(items: Iterable[T], sizes: Iterable[int]) -> list[list[T]]:
    """Consecutive groups of the given sizes."""
    rest = iter(items)
    return [list(islice(rest, size)) for size in sizes]


def cut_words(words: Sequence[Word], a: Attribution) -> tuple[list[int], list[str]]:
    """The text's words as far as one target sees them: its last word may be a beginning only."""
    sizes: list[int] = []
    for word in words:
        if (left := len(a) - sum(sizes)) > 0:
            sizes.append(min(word.size, left))
    texts = [word.text for word in words[: len(sizes)]]
    if sizes and sizes[-1] < words[len(sizes) - 1].size:
        texts[-1] = "".join(a.str_tokens[-sizes[-1] :])
    return sizes, texts


def merged(rows: Sequence[Attribution]) -> Attribution:
    """Targets that predict parts of one word, as one."""
    last = rows[-1]
    if len(rows) == 1:
        return last
    errors = [a.stderr for a in rows if a.stderr is not None]
    known = last.combine == "sum" and len(errors) == len(rows)  # they add up at most: see Attribution.grouped
    details = {k: v for k, v in last.metadata.items() if k not in ("value", "target_token", "target_rule")}
    return dataclasses.replace(
        last,
        scores=_columns([a.scores for a in rows], COMBINE[last.combine]),
        stderr=_columns(errors, COMBINE["sum"]) if known else None,
        target=", ".join(dict.fromkeys(a.target for a in rows)),
        predictions=(),
        metadata={**details, "merged_positions": [a.position for a in rows]},
    )


def _columns(rows: Sequence[Float[Tensor, " _"]], combine: Callable[[Tensor], Tensor]) -> Float[Tensor, " units"]:
    """Each column of a matrix as one number."""
    return torch.stack([combine(column) for column in matrix([row.double() for row in rows]).T]).float()


def check_rows(rows: Sequence[Attribution]) -> None:
    """Refuse attributions that aren't rows of one map: of one text, in reading order, by one scope."""
    if not rows:
        raise ArgumentError("a map of no targets, expected at least one attribution")
    for before, after in pairwise(rows):
        if before.position >= after.position:
            raise ArgumentError(f"targets at positions {before.position}, {after.position}: expected increasing ones")
        if after.tokens[: len(before.tokens)] != before.tokens:
            raise ArgumentError(
                f"the targets at positions {before.position} and {after.position} are of different texts, expected one"
            )
        if (before.scope, before.combine) != (after.scope, after.combine):
            raise ArgumentError(
                f"targets of scopes {before.scope!r} and {after.scope!r} in one map, expected one scope"
            )
    for a in rows:
        if not _fits(a.sizes, rows[-1].sizes):
            raise ArgumentError(f"the target at position {a.position} has other units than the last target")


def _fits(sizes: Sequence[int], widest: Sequence[int]) -> bool:
    """Whether these units begin the widest row; the last may be the beginning of a word."""
    whole = len(sizes) - 1
    return 0 <= whole < len(widest) and sizes[:whole] == widest[:whole] and sizes[-1] <= widest[whole]
