"""Leading singular triples of a matrix J that is known only by its products, in blocks, from either side.

Block Lanczos bidiagonalisation as Rayleigh-Ritz on a growing basis Q of output directions:
with B = Q J and its singular value decomposition B = R S V, the rows of U = R^T Q satisfy
U J = S V exactly, and what is missing shows in the residuals J v - s u. These extend Q, until
they are small. So an approximate value is never above the true one.

All arithmetic but the products is done here in float64 on the CPU: it is tiny next to them.

Of the values that stay unknown the sums of squares and of fourth powers are estimated (``moments``).
With M = J J^T they are tr M and tr M^2, and with the orthonormal basis Q of a decomposition,
B = Q J, the projector P on what Q leaves out, and random signs g, w = g P J:

    tr M   = ||B||^2 + E ||w||^2
    tr M^2 = ||B B^T||^2 + 2 E ||B w||^2 + E (w . w')^2        (w, w' of independent signs)

The basis takes out what is large, so few signs do. The participation ratio (tr M)^2 / tr M^2
is the *effective rank*: k for k equal values and zeros.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.core.linalg.eigen import orthonormal
from tl_jacobian.core.linalg.fisher import signs

Product = Callable[[Tensor], Tensor]
# Directions beyond those wanted: the last wanted one converges at the pace of those after it.
SPARE = 8


class Triples(NamedTuple):
    """Leading singular triples, largest first: J v = s u up to the bound, u J = s v up to rounding.

    Attributes:
        values: s.
        left, right: unit u and v, one a row.
        bound: ||J v - s u||: a singular value of J lies this close to s.
    """

    values: Float[Tensor, " k"]
    left: Float[Tensor, "k d_out"]
    right: Float[Tensor, "k d_in"]
    bound: Float[Tensor, " k"]


@dataclass(frozen=True, eq=False)
class Decomposition:
    """What is known of J: its products with an orthonormal basis from the left.

    Attributes:
        basis: Q, orthonormal rows; all of the output space if ``complete``.
        image: B = Q J.
        triples: the leading ones.
    """

    basis: Float[Tensor, "n d_out"]
    image: Float[Tensor, "n d_in"]
    triples: Triples

    @property
    def complete(self) -> bool:
        """Whether nothing is unknown: every singular value is one of ``image``'s."""
        return len(self.basis) == self.basis.shape[1]


def dense(pull: Product, d_out: int, k: int) -> Decomposition:
    """All of J, a product for each row of it."""
    return _completed(pull, torch.empty(0, d_out, dtype=torch.float64), None, k)


def krylov(
    pull: Product, push: Product, shape: tuple[int, int], k: int, rtol: float, generator: torch.Generator
) -> Decomposition:
    """The k leading triples, from a random start.

    Where the values are so close that a basis of a third of all directions doesn't separate
    them, the rest of the directions is taken too: then nothing is approximate, and no product
    with the basis was wasted.

    Args:
        pull: ``(n, d_out) -> (n, d_in)``, u J for each row u.
        push: ``(n, d_in) -> (n, d_out)``, J v for each row v.
        shape: ``(d_out, d_in)``.
        k: how many triples.
        rtol: of the residuals, relative to the largest singular value.
        generator: of the start, on the CPU.
    """
    d_out, d_in = shape
    block = min(k + SPARE, d_out, d_in)
    basis = orthonormal(push(torch.randn(block, d_in, generator=generator, dtype=torch.float64)))
    image = pull(basis)
    while True:
        found = _ritz(basis, image, block)
        residual = push(found.right) - found.values[:, None] * found.left
        bound = torch.linalg.vector_norm(residual, dim=1)
        if bound[:k].max() <= rtol * found.values[0]:
            return Decomposition(basis, image, _first(found._replace(bound=bound), k))
        residual = residual[bound > rtol * found.values[0]]  # of the others only rounding is left
        if 3 * (len(basis) + len(residual)) > min(shape):
            return _completed(pull, basis, image, k)
        fresh = orthonormal(residual, basis)
        basis, image = torch.cat([basis, fresh]), torch.cat([image, pull(fresh)])


def _completed(
    pull: Product, basis: Float[Tensor, "n d_out"], image: Float[Tensor, "n d_in"] | None, k: int
) -> Decomposition:
    """The basis extended to the whole output space."""
    rest = torch.linalg.qr(basis.T, mode="complete")[0].T[len(basis) :]
    image = pull(rest) if image is None else torch.cat([image, pull(rest)])
    basis = torch.cat([basis, rest])
    return Decomposition(basis, image, _ritz(basis, image, k))


def _ritz(basis: Float[Tensor, "n d_out"], image: Float[Tensor, "n d_in"], k: int) -> Triples:
    rotation, values, right = torch.linalg.svd(image, full_matrices=False)
    return _first(Triples(values, rotation.T @ basis, right, torch.zeros_like(values)), k)


def _first(t: Triples, k: int) -> Triples:
    return Triples(*(part[:k] for part in t))


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
