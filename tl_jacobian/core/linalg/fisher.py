"""The Fisher information of the predicted distribution, in the final hidden state.

F = W^T (diag p - p p^T) W (paper, sec. 3.2), with W the derivative of the logits in y:
the unembedding, times the slope of a logit scale and a soft-cap. Factored as F = A^T A with
A = diag(sqrt p) (W - 1 mu^T), mu = W^T p, one row of A a token of the vocabulary: nothing of
size d_model x d_model is needed, and a product with F costs two passes over the unembedding.

All rows are taken relative to that of the most probable token, which changes no difference
W - 1 mu^T: where the model is nearly certain, mu is nearly that row, and would cancel it.

A part of F can be taken out exactly (:class:`Deflation`), so that random probes see only the rest.
For coefficients C (rows c_j) with C F C^T = I, let b_j = F c_j. Then for any G

    tr(F G) = sum_j b_j^T G b_j + tr(R G),   R = F - B^T B,

and g - B^T (C g) has covariance R wherever g has covariance F.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_jacobian.core.linalg.product import unrounded

# Columns of the unembedding that are converted or centred at once: bounds the copy, whatever the vocabulary.
BLOCK = 4096


@runtime_checkable
class Head(Protocol):
    """What is asked of an unembedding, ``logits = cap(scale (W^T ((y - shift) / gain) + b))``."""

    @property
    def weight(self) -> Float[Tensor, "d_model d_vocab"]: ...

    @property
    def gain(self) -> Float[Tensor, " d_model"] | None: ...

    @property
    def d_model(self) -> int: ...

    @property
    def d_vocab(self) -> int: ...

    def slope(self, logits: Float[Tensor, " d_vocab"]) -> Float[Tensor, " d_vocab"]:
        """Derivative of each logit in its own sum over y, before it is scaled and capped."""
        ...

    def fold(self, v: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Directions that W reads, as directions in y."""
        ...


@dataclass(frozen=True, eq=False)
class FisherFactor:
    """A, with F = A^T A, as an operator.

    Attributes:
        head: the unembedding, :class:`~tl_jacobian.core.unembedding.Unembedding`.
        logits: the model's logits, soft-cap applied, float32 or better; sets the precision.

    >>> from tl_jacobian.core.unembedding import Unembedding
    >>> factor = FisherFactor(Unembedding(torch.eye(2)), torch.zeros(2))
    >>> factor.dense()
    tensor([[ 0.2500, -0.2500],
            [-0.2500,  0.2500]])
    >>> factor.matvec(torch.tensor([[1.0, 0.0]]))
    tensor([[ 0.2500, -0.2500]])
    """

    head: Head
    logits: Float[Tensor, " d_vocab"]

    @cached_property
    def _root(self) -> Float[Tensor, " d_vocab"]:
        return self.logits.softmax(dim=-1).sqrt()

    @cached_property
    def _slope(self) -> Float[Tensor, " d_vocab"]:
        return self.head.slope(self.logits)

    @cached_property
    def _best(self) -> int:
        return int(self.logits.argmax())

    @cached_property
    def _reference(self) -> Float[Tensor, " d_model"]:
        """The most probable token's row of W."""
        return self.head.weight[:, self._best].to(self.logits) * self._slope[self._best]

    @cached_property
    @unrounded()
    def _mean(self) -> Float[Tensor, " d_model"]:
        """mu relative to the reference row, as the unembedding reads it (not folded)."""
        return self._combine(self._root.square()[None])[0]

    def _combine(self, q: Float[Tensor, "k d_vocab"]) -> Float[Tensor, "k d_model"]:
        """sum_i q_i (row i of W - reference row)."""
        others = q.clone()
        others[:, self._best] = 0
        scaled = others * self._slope
        parts = [scaled[:, at : at + w.shape[1]] @ w.T for at, w in self._blocks()]
        return torch.stack(parts).sum(0) - others.sum(dim=1)[:, None] * self._reference

    def _blocks(self) -> Iterator[tuple[int, Float[Tensor, "d_model block"]]]:
        """The unembedding in the logits' precision, a block of tokens at a time; never all of it copied."""
        weight = self.head.weight
        if weight.dtype == self.logits.dtype:
            yield 0, weight
            return
        for at in range(0, self.head.d_vocab, BLOCK):
            yield at, weight[:, at : at + BLOCK].to(self.logits.dtype)

    # -- products ------------------------------------------------------------------

    @unrounded()
    def log_change(self, y: Float[Tensor, "k d_model"]) -> Float[Tensor, "k d_vocab"]:
        """How k changes of y change the log-probabilities, to first order."""
        y = self.head.fold(y.to(self.logits))
        z = self._slope * torch.cat([y @ w for _, w in self._blocks()], dim=1)
        return z - z[:, self._best, None] - (y @ self._mean)[:, None]

    def push(self, y: Float[Tensor, "k d_model"]) -> Float[Tensor, "k d_vocab"]:
        """A y: the same, each log-probability weighted by sqrt(p)."""
        return self._root * self.log_change(y)

    @unrounded()
    def pull(self, q: Float[Tensor, "k d_vocab"]) -> Float[Tensor, "k d_model"]:
        """A^T q: directions in y."""
        q = q.to(self.logits) * self._root
        return self.head.fold(self._combine(q) - q.sum(dim=1, keepdim=True) * self._mean)

    def matvec(self, v: Float[Tensor, "k d_model"]) -> Float[Tensor, "k d_model"]:
        """F v for k directions."""
        return self.pull(self.push(v))

    @property
    def size(self) -> int:
        """Length of a direction."""
        return self.head.d_model

    @property
    def n_signs(self) -> tuple[int, ...]:
        """How many random signs one probe takes, for each position."""
        return (self.head.d_vocab,)

    def probe(self, signs: Sequence[Float[Tensor, "n d_vocab"]]) -> Float[Tensor, "n d_model"]:
        """Directions A^T s: for independent signs mean zero, covariance exactly F."""
        return self.pull(signs[0].to(self.logits.device))

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n d_model"]:
        """Random directions A^T s with signs s: mean zero, covariance exactly F."""
        return self.pull(signs((n, self.head.d_vocab), generator).to(self.logits.device))

    # -- the whole of F ------------------------------------------------------------

    @cached_property
    @unrounded()
    def row_weights(self) -> Float[Tensor, " d_vocab"]:
        """||a_i||^2, what each token of the vocabulary adds to the trace."""
        mean, out = self.head.fold(self._mean + self._reference), []
        for at, w in self._blocks():
            w = w if self.head.gain is None else self.head.fold(w.T).T
            slope = self._slope[at : at + w.shape[1]]
            out.append(slope.square() * _column_squares(w) - 2 * slope * (mean @ w) + mean @ mean)
        weights = self._root.square() * torch.cat(out).clamp(min=0)
        best = self.logits.argmax()[None]  # the one row that may be close to the mean
        weights[best] = self.rows(best).square().sum(dim=1)
        return weights

    @cached_property
    def trace(self) -> float:
        return self.row_weights.cpu().double().sum().item()

    @unrounded()
    def rows(self, tokens: Int[Tensor, " n"]) -> Float[Tensor, "n d_model"]:
        """Rows of A for some tokens of the vocabulary."""
        w = self.head.weight[:, tokens].to(self.logits) * self._slope[tokens] - self._reference[:, None]
        return self.head.fold(((w - self._mean[:, None]) * self._root[tokens]).T)

    @unrounded()
    def dense(self) -> Float[Tensor, "d_model d_model"]:
        """F itself: d_model^2 d_vocab operations."""
        fisher = self.logits.new_zeros(self.head.d_model, self.head.d_model)
        for tokens in torch.arange(self.head.d_vocab, device=self.logits.device).split(BLOCK):
            a = self.rows(tokens)
            fisher += a.T @ a
        return fisher


def _column_squares(w: Float[Tensor, "d_model block"]) -> Float[Tensor, " block"]:
    """Squared norms of the columns, read in the order in which they lie in memory (four times quicker)."""
    if w.stride(0) == 1:
        return torch.linalg.vector_norm(w, dim=0).square()
    total = torch.zeros_like(w[0])
    for row in w:
        total.addcmul_(row, row)
    return total


def signs(shape: tuple[int, ...], generator: torch.Generator) -> Float[Tensor, "*shape"]:
    """Independent random signs, on the generator's device."""
    return torch.randint(0, 2, shape, generator=generator, device=generator.device, dtype=torch.int8).float() * 2 - 1


@dataclass(frozen=True, eq=False)
class AnswerFactor:
    """F of several positions together, one block each: directions are stacked, ``(k, positions * d_model)``.

    tr(J_t^T F J_t) with the Jacobians stacked likewise is the sum over positions. Signs drawn independently at each
    make the cross terms vanish in the mean, so that one product probes all positions.
    """

    factors: tuple[FisherFactor, ...]

    @property
    def logits(self) -> Float[Tensor, " d_vocab"]:
        """Of one position; sets precision and device."""
        return self.factors[0].logits

    @property
    def size(self) -> int:
        return len(self.factors) * self.factors[0].size

    @property
    def n_signs(self) -> tuple[int, ...]:
        return tuple(n for factor in self.factors for n in factor.n_signs)

    def probe(self, signs: Sequence[Float[Tensor, "n d_vocab"]]) -> Float[Tensor, "n stacked"]:
        return torch.cat([f.probe([s]) for f, s in zip(self.factors, signs, strict=True)], dim=1)

    def matvec(self, v: Float[Tensor, "k stacked"]) -> Float[Tensor, "k stacked"]:
        """F v for k directions."""
        parts = v.split(self.factors[0].size, dim=1)
        return torch.cat([f.matvec(part) for f, part in zip(self.factors, parts, strict=True)], dim=1)


Factor = FisherFactor | AnswerFactor

# Directions whose Fisher norm is below this part of the block's largest add rounding, not accuracy.
_NEGLIGIBLE = 1e-5


@dataclass(frozen=True, eq=False)
class Deflation:
    """The directions taken out of F.

    Attributes:
        factor: of F.
        coefficients: C; orthonormal in the inner product of F.
        directions: B = C F, to be pulled back exactly.
    """

    factor: Factor
    coefficients: Float[Tensor, "n d_model"]
    directions: Float[Tensor, "n d_model"]

    @staticmethod
    def none(factor: Factor) -> Deflation:
        empty = factor.logits.new_empty(0, factor.size)
        return Deflation(factor, empty, empty)

    def __len__(self) -> int:
        return len(self.directions)

    @unrounded()
    def extended(self, y: Float[Tensor, "k d_model"]) -> Deflation:
        """The span of ``y`` taken out as well: up to k directions more.

        Orthogonalised twice: once leaves rounding that the small directions would amplify.
        """
        fresh = y.to(self.factor.logits)
        fresh = fresh / torch.linalg.vector_norm(fresh, dim=1, keepdim=True).clamp(min=torch.finfo(fresh.dtype).tiny)
        image = fresh
        for _ in range(2):
            fresh = fresh - (fresh @ self.directions.T) @ self.coefficients
            image = self.factor.matvec(fresh)
            scale = _whitening(fresh @ image.T)
            fresh, image = scale @ fresh, scale @ image
        return Deflation(self.factor, torch.cat([self.coefficients, fresh]), torch.cat([self.directions, image]))

    @unrounded()
    def remainder(self, g: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        """Directions of covariance F as directions of covariance R."""
        return g - (g @ self.coefficients.T) @ self.directions


def _whitening(gram: Float[Tensor, "k k"]) -> Float[Tensor, "n k"]:
    """Rows that make a Gram matrix the identity, negligible directions dropped.

    Where none is, the symmetric ones, which leave the basis closest to what it was: eigenvectors of a Gram
    matrix that is the identity already are rounding's choice, and what is found next would hang on it.
    """
    values, vectors = torch.linalg.eigh(gram.cpu().double())
    kept = values > _NEGLIGIBLE * values.max().clamp(min=torch.finfo(gram.dtype).tiny) if len(values) else values > 0
    rows = (vectors[:, kept] / values[kept].sqrt()).T
    return (vectors @ rows if kept.all() else rows).to(gram)
