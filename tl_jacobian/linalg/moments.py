"""The sums of squares and of fourth powers of all singular values, of which only some are known.

With M = J J^T they are tr M and tr M^2, and with the orthonormal basis Q of a decomposition,
B = Q J, the projector P on what Q leaves out, and random signs g, w = g P J:

    tr M   = ||B||^2 + E ||w||^2
    tr M^2 = ||B B^T||^2 + 2 E ||B w||^2 + E (w . w')^2        (w, w' of independent signs)

The basis takes out what is large, so few signs do. The participation ratio (tr M)^2 / tr M^2
is the *effective rank*: k for k equal values and zeros.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.linalg.fisher import signs
from tl_jacobian.linalg.singular import Decomposition, Product

_PROBES = 32  # as many as travel together through one backward pass


class Moments(NamedTuple):
    """The sum of squares of the singular values, the effective rank, and their standard errors."""

    squares: float
    squares_stderr: float
    effective_rank: float
    effective_rank_stderr: float


def moments(found: Decomposition, pull: Product, generator: torch.Generator) -> Moments:
    """Exact for a complete decomposition; else from 32 random probes that are independent of it."""
    if found.complete:
        squares = found.image.square().sum().item()
        return Moments(squares, 0.0, participation(squares, _fourth(found.image)), 0.0)
    g = signs((_PROBES, found.basis.shape[1]), generator).double()
    w = pull(g - (g @ found.basis.T) @ found.basis)
    squares, fourth = _estimate(found.image, w, torch.ones(1, _PROBES))
    fewer_squares, fewer_fourth = _estimate(found.image, w, 1 - torch.eye(_PROBES))  # one probe left out
    ratios = torch.tensor(list(map(participation, fewer_squares.tolist(), fewer_fourth.tolist())), dtype=torch.float64)
    rank = participation(squares.item(), fourth.item())
    return Moments(squares.item(), _jackknife(fewer_squares), rank, _jackknife(ratios))


def participation(squares: float, fourth: float) -> float:
    """(sum of s^2)^2 / sum of s^4; zero where all s are zero.

    >>> participation(3.0, 3.0)  # three values of one
    3.0
    """
    return squares**2 / fourth if fourth > 0 else 0.0


def _estimate(
    image: Float[Tensor, "n d_in"], w: Float[Tensor, "probes d_in"], kept: Float[Tensor, "sets probes"]
) -> tuple[Float[Tensor, " sets"], Float[Tensor, " sets"]]:
    """tr M and tr M^2 from each of several sets of probes, the rows of ``kept``."""
    kept = kept.double()
    n = kept.sum(1)
    pairs = (w @ w.T).square().fill_diagonal_(0)
    squares = image.square().sum() + kept @ w.square().sum(1) / n
    cross = kept @ (image @ w.T).square().sum(0) / n
    rest = ((kept @ pairs) * kept).sum(1) / (n * (n - 1))
    return squares, _fourth(image) + 2 * cross + rest


def _fourth(image: Float[Tensor, "n d_in"]) -> float:
    gram = image @ image.T if len(image) <= image.shape[1] else image.T @ image
    return gram.square().sum().item()


def _jackknife(left_out: Float[Tensor, " n"]) -> float:
    """Standard error of a statistic from its values with one probe left out each."""
    n = len(left_out)
    return math.sqrt((n - 1) / n * (left_out - left_out.mean()).square().sum().item())
