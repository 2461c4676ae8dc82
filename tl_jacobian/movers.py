"""Directions in y as a reader sees them: the tokens of the vocabulary that they move."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.linalg.fisher import FisherFactor
from tl_jacobian.linearization import Linearization
from tl_jacobian.spectrum_values import KEPT, Move, Moves


class Movers(NamedTuple):
    """What directions move, once they are turned.

    Attributes:
        signs: 1 or -1, by which to turn each direction, so that the token whose probability
            changes most rises.
        moved: for each ranking, the tokens that each turned direction moves.
    """

    signs: Float[Tensor, " k"]
    moved: dict[str, tuple[Moves, ...]]


def movers(lin: Linearization, directions: Float[Tensor, "k d_model"]) -> Movers:
    """d log p for each token of the vocabulary along each direction, and what leads it."""
    log_change = FisherFactor(lin.unembedding, lin.logits).log_change(directions)
    change = lin.probs * log_change
    most = change.gather(1, change.abs().argmax(dim=1, keepdim=True))
    signs = torch.where(most < 0, -1.0, 1.0).to(most)
    log_change, change = signs * log_change, signs * change
    text = cache(lin.decode)
    moved = {}
    for name, by in (("probability", change), ("log_probability", log_change)):
        rises, falls = (by.topk(min(KEPT, by.shape[1]), largest=largest) for largest in (True, False))
        pairs = zip(_kept(rises.indices, rises.values > 0), _kept(falls.indices, falls.values < 0), strict=True)
        moved[name] = tuple(
            Moves(*(tuple(Move(t, text(t), lin.probs[t].item(), row[t].item()) for t in tokens) for tokens in pair))
            for row, pair in zip(log_change.cpu(), pairs, strict=True)
        )
    return Movers(signs[:, 0], moved)


def _kept(tokens: Tensor, really: Tensor) -> list[list[int]]:
    """Ids of the tokens that really move that way."""
    return [row[some].tolist() for row, some in zip(tokens.cpu(), really.cpu(), strict=True)]
