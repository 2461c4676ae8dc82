"""Spectra of the Jacobian and of the Fisher information, and the tokens that their directions move.

The paper's future work: "studying the spectral structure of the Jacobian and Fisher matrices". One token's
J_t = dy/dx_t is had as products only; directions in y are shown as the tokens of the vocabulary that they move.

Pulled back to the embeddings, Fisher's information is the metric J_t^T F J_t: its directions are those in which the
prediction is most sensitive to one token, or to several tokens moving together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.analyses.scopes.apply import one_of
from tl_jacobian.core.hooks import EMBED
from tl_jacobian.core.linalg.eigen import Eigenpairs, eigenpairs
from tl_jacobian.core.linalg.fisher import BLOCK, FisherFactor, signs
from tl_jacobian.core.linalg.singular import SPARE, Decomposition, dense, krylov, moments, participation
from tl_jacobian.core.linearization import Linearization
from tl_jacobian.core.progress import progress
from tl_jacobian.core.unembedding import exact, precise
from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import checked, whole
from tl_jacobian.results.arguments import position as place
from tl_jacobian.results.arguments import positions as places
from tl_jacobian.results.spectra import (
    KEPT,
    NEIGHBOURS,
    FisherSpectrum,
    JacobianSpectrum,
    Move,
    Moves,
    Neighbour,
    Toward,
)

# Up to here all of J_t is no dearer. Beyond, its leading part takes some 10 (k + SPARE) products
# instead of d_model: for d_model 576 and k 16 0.4 of the time (benchmarks/jacobian_spectrum.py).
_DENSE_JACOBIAN = 256
_PRODUCTS = 10


@dataclass(eq=False)
class JacobianBlock:
    """Products with J_t, or S J_t for a matrix S, from either side, in float64 on the CPU; and how many there were.

    Attributes:
        positions: t; of several tokens the Jacobians stand side by side.
        root: S, float64 on the CPU; None: the identity.
        n_products: directions pulled back or pushed forward so far.
    """

    lin: Linearization
    positions: tuple[int, ...]
    root: Float[Tensor, "d_model d_model"] | None = None
    n_products: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """(d_model, d_in), d_in of all tokens together."""
        return self.lin.d_model, len(self.positions) * self.lin.graph.x.shape[-1]

    def pull(self, u: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_in"]:
        """u S J_t, a memory-bounded chunk of directions at a time."""
        parts, u = [], u if self.root is None else exact(u) @ self.root
        with progress(len(u), "rows of the Jacobian") as bar:
            for part in u.to(self.lin.y).split(self.lin.graph.chunk):
                parts.append(self.lin.vjp(part)[:, list(self.positions)].flatten(1))
                bar.update(len(part))
        return self._counted(torch.cat(parts))

    def push(self, v: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_model"]:
        """S J_t v."""
        x = self.lin.graph.x
        dx = x.new_zeros(len(v), len(self.lin.tokens), x.shape[-1])
        dx[:, list(self.positions)] = v.unflatten(1, (len(self.positions), -1)).to(x)
        dy = self._counted(self.lin.jvp(dx))
        return dy if self.root is None else dy @ self.root.T

    def _counted(self, products: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        self.n_products += len(products)
        return exact(products)

    def decompose(self, k: int, rtol: float, generator: torch.Generator) -> Decomposition:
        """The k leading singular triples, by the method that takes fewer products."""
        few = min(self.shape) > _DENSE_JACOBIAN and _PRODUCTS * (k + SPARE) <= min(self.shape)
        try:
            if few:
                return krylov(self.pull, self.push, self.shape, k, rtol, generator)
        except RuntimeError as error:
            if "not implemented" not in str(error):  # fused attention kernels have no second derivative
                raise
        return dense(self.pull, self.shape[0], k)


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


# Up to here all of F's eigenvalues are taken; beyond, their squares' sum is estimated.
_DENSE_FISHER = 256
_PROBES = 64


@checked
def jacobian_spectrum(
    lin: Linearization,
    position: SupportsIndex,
    k: int = 16,
    *,
    rtol: float = 1e-4,
    generator: torch.Generator | None = None,
) -> JacobianSpectrum:
    """Leading singular values and directions of J_t = dy/dx_t, the Jacobian of one token (eq. 1).

    A small step of the token's embedding along v_i moves the final hidden state along u_i, s_i
    times as far. Small models, and large k, take all of J_t: ``d_model`` backward passes, batched.
    Else the leading part is found without it (:mod:`tl_jacobian.core.linalg.singular`), and its norm and
    effective rank are that part plus an estimate of the rest (:mod:`tl_jacobian.core.linalg.moments`).
    Like y itself, all this depends on whether the final norm is folded into the unembedding.

    Args:
        lin: one linearization.
        position: the token t; negative ones count from the end.
        k: how many singular values.
        rtol: largest residual ||J v - s u|| over s_1; eight roundings at least, in half precision.
        generator: of the random start and probes (on the CPU); default one of its own, seeded with 0.

    Raises:
        PromptError: the position is no integer, or outside the prompt.
        ArgumentError: k or rtol is out of range, or lin isn't a single linearization.
        ContractError: J_t isn't finite.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> s = tj.jacobian_spectrum(lin, 3, k=2)
    >>> s.text, len(s.singular_values), bool((s.bound < 1e-3 * s.singular_values).all())
    (' France', 2, True)
    """
    _check(lin, k)
    block = JacobianBlock(lin, (at := place(position, len(lin.tokens)),))
    _check_size(k, rtol, block)
    generator = generator or torch.Generator().manual_seed(0)
    found = block.decompose(k, max(rtol, 8 * torch.finfo(lin.graph.x.dtype).eps), generator)
    squares, squares_stderr, rank, rank_stderr = moments(found, block.pull, generator)
    left, right = found.triples.left.to(lin.y), found.triples.right.to(lin.y)
    turn, moved = movers(lin, left)
    return JacobianSpectrum(
        position=at,
        text=lin.str_tokens[at],
        singular_values=found.triples.values,
        left=turn[:, None] * left,
        right=turn[:, None] * right,
        bound=found.triples.bound,
        squared_norm=squares,
        squared_norm_stderr=squares_stderr,
        effective_rank=rank,
        effective_rank_stderr=rank_stderr,
        moved=moved,
        metadata=_facts(lin, "dense" if found.complete else "block Lanczos", n_products=block.n_products),
    )


@checked
def fisher_spectrum(
    lin: Linearization,
    k: int = 16,
    *,
    at: SupportsIndex | Sequence[int] | None = None,
    rtol: float = 1e-4,
    generator: torch.Generator | None = None,
) -> FisherSpectrum:
    """Leading eigenvalues and directions of the Fisher information F = W^T (diag p - p p^T) W (sec. 3.2).

    With ``at=`` of F pulled back to the embeddings, J_t^T F J_t: a small step epsilon of the token's embedding along
    the i-th direction r_i changes the prediction by a KL divergence of epsilon^2 lambda_i / 2, and none of that size
    changes it more than one along r_0. Of several tokens the embeddings move together, each its own part of r_i
    (``embeddings``); ``toward`` says which tokens of the vocabulary lie that way from the one that stands there. The
    trace is the tokens' Fisher score, the effective rank how many independent ways there are to change the prediction
    there. ``directions`` are then where r_i leads in y. It takes as many products as :func:`jacobian_spectrum`.

    Without ``at=`` it takes no product with the Jacobian. The trace is exact; the effective rank
    (tr F)^2 / tr F^2 is exact up to d_model 256, and beyond it the part of tr F^2 that the leading
    directions leave over is estimated with random probes.

    Which input tokens drive a direction is one backward pass more: ``direction_scope(lin,
    s.directions[i])``, and all of them together ``fisher_scope(lin, method="low_rank", rank=k)``.
    The directions are those of y: folding the final norm into the unembedding changes them, so
    give ``linearize`` the ``final_norm`` of a folded model.

    Args:
        lin: one linearization.
        k: how many eigenvalues.
        at: a token, or several that move together (negative ones count from the end).
        rtol: with ``at=``: as for :func:`jacobian_spectrum`, of the roots of the eigenvalues.
        generator: of the probes (on the CPU); default one of its own, seeded with 0.

    Raises:
        ArgumentError: k or rtol is out of range, or lin isn't a single linearization.
        PromptError: a position is outside the prompt.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> s = tj.fisher_spectrum(lin, k=2)
    >>> s.moves(0, 1).rises[0].text, tj.direction_scope(lin, s.directions[0]).top(1, skip_first=True)[0].text
    (' Paris', ' capital')
    >>> s = tj.fisher_spectrum(lin, k=1, at=3)
    >>> s.texts, s.moves(0, 1).rises[0].text
    ((' France',), ' Paris')
    """
    _check(lin, k)
    if at is not None:
        return _pulled_back(lin, k, at, rtol, generator or torch.Generator().manual_seed(0))
    if k > lin.d_model:
        raise ArgumentError(f"k={k}, expected at most d_model={lin.d_model}")
    factor = FisherFactor(lin.unembedding, lin.logits)
    whole = lin.d_model <= _DENSE_FISHER or k == lin.d_model
    pairs = eigenpairs(factor, lin.d_model if whole else k)
    squares, error = _squares(factor, pairs, generator or torch.Generator().manual_seed(0))
    values, vectors = exact(pairs.values[:k]), pairs.vectors[:k]
    turn, moved = movers(lin, vectors)
    return FisherSpectrum(
        eigenvalues=values,
        directions=(turn[:, None] * vectors).to(lin.y),
        bound=torch.full_like(values, pairs.bound),
        trace=factor.trace,
        effective_rank=participation(factor.trace, squares),
        effective_rank_stderr=participation(factor.trace, squares) * error / (squares or 1.0),
        moved=moved,
        metadata={"method": "dense" if whole else "leading eigenpairs", **lin.facts_without_rule},
    )


def _pulled_back(lin: Linearization, k: int, at: Any, rtol: float, generator: torch.Generator) -> FisherSpectrum:
    """With F = S^T S, J^T F J = (S J)^T (S J): eigenvalues are the squares of the singular values of S J."""
    n = len(lin.tokens)
    where = tuple(places(at, n, "at")) if isinstance(at, Sequence) else (place(at, n),)
    if not where or len(set(where)) < len(where):
        raise ArgumentError(f"at={at!r}, expected a token, or several different ones")
    pairs = eigenpairs(FisherFactor(lin.unembedding, lin.logits), lin.d_model)
    block = JacobianBlock(lin, where, exact(pairs.scaled()))
    _check_size(k, rtol, block)
    found = block.decompose(k, max(rtol, 8 * torch.finfo(lin.graph.x.dtype).eps), generator)
    squares, squares_stderr, rank, rank_stderr = moments(found, block.pull, generator)
    values, left, right, bound = found.triples
    y = _led_to(values[:, None] * left, pairs)
    turn, moved = movers(lin, y.to(lin.y))
    right = (exact(turn)[:, None] * right).unflatten(1, (len(where), -1))
    return FisherSpectrum(
        eigenvalues=values.square(),
        directions=exact(turn)[:, None] * y,
        bound=2 * values * bound + bound.square(),
        trace=squares,
        trace_stderr=squares_stderr,
        effective_rank=rank,
        effective_rank_stderr=rank_stderr,
        moved=moved,
        positions=where,
        texts=tuple(lin.str_tokens[i] for i in where),
        embeddings=right,
        toward=tuple(_toward(lin, where, one) for one in right),
        metadata=_facts(lin, "dense" if found.complete else "block Lanczos", n_products=block.n_products),
    )


def _led_to(image: Float[Tensor, "k d_model"], pairs: Eigenpairs) -> Float[Tensor, "k d_model"]:
    """J r as unit vectors, from S J r; what F doesn't see of them is left out."""
    values, vectors = exact(pairs.values), exact(pairs.vectors)
    seen = values > 1e-10 * values[0].clamp(min=torch.finfo(torch.float64).tiny)
    y = (image[:, seen] / values[seen].sqrt()) @ vectors[seen]
    return y / y.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)


def _toward(lin: Linearization, at: Sequence[int], r: Float[Tensor, "positions d_in"]) -> tuple[Toward, ...]:
    """Tokens of the vocabulary whose embeddings lie along each token's part of a direction, seen from its own.

    Nothing where x isn't a row of the embedding matrix, up to a scale.
    """
    rows = None if lin.anatomy is None or lin.input_hook != EMBED else lin.anatomy.embedding()
    if rows is None or rows.shape[1] != r.shape[1]:
        return ()
    found, text = [], cache(lin.decode)
    for position, way in zip(at, r, strict=True):
        x, own = (exact(t) for t in (lin.graph.x[lin.prompt_row, position], rows[lin.tokens[position]]))
        scale = (own @ x / own.square().sum().clamp(min=torch.finfo(torch.float64).tiny)).item()
        if (x - scale * own).norm() > 1e-3 * x.norm() or not way.any():
            return ()
        along, apart = _steps(rows, scale, x, way / way.norm())
        cosines = torch.where(apart > 0, along / apart, 0.0)
        cosines[lin.tokens[position]] = 0.0
        k = min(NEIGHBOURS, len(cosines))
        ends = [cosines.topk(k, largest=largest).indices.tolist() for largest in (True, False)]
        found.append(
            Toward(*(tuple(Neighbour(t, text(t), cosines[t].item(), along[t].item()) for t in end) for end in ends))
        )
    return tuple(found)


def _steps(rows: Tensor, scale: float, x: Tensor, way: Tensor) -> tuple[Tensor, Tensor]:
    """Of each token of the vocabulary: how far its embedding lies along the way from x, and how far in all."""
    along, apart = [], []
    for part in rows.split(BLOCK):  # never all of it in another precision
        step = scale * precise(part) - x.to(part.device, precise(part[:1]).dtype)
        along.append(exact(step @ way.to(step)))
        apart.append(exact(step.norm(dim=1)))
    return torch.cat(along), torch.cat(apart)


def _squares(factor: FisherFactor, pairs: Eigenpairs, generator: torch.Generator) -> tuple[float, float]:
    """tr F^2 = sum of the known lambda^2 + E ||F P g||^2 over signs g, P what they leave out; and its error."""
    known = exact(pairs.values).square().sum().item()
    if len(pairs.values) == factor.head.d_model:
        return known, 0.0
    g = signs((_PROBES, factor.head.d_model), generator).to(pairs.vectors)
    rest = exact(factor.matvec(g - (g @ pairs.vectors.T) @ pairs.vectors)).square().sum(dim=1)
    return known + rest.mean().item(), rest.std().item() / _PROBES**0.5


def _facts(lin: Linearization, method: str, **more: Any) -> dict[str, Any]:
    return {"method": method, **more, **lin.facts}


def _check_size(k: int, rtol: float, block: JacobianBlock) -> None:
    if k > min(block.shape):
        raise ArgumentError(f"k={k}, expected at most {min(block.shape)}, the smaller side of J_t")
    if not 0 < rtol < 1:
        raise ArgumentError(f"rtol={rtol}, expected a relative residual between 0 and 1, such as 1e-4")


def _check(lin: Linearization, k: int) -> None:
    one_of(lin)
    whole("k", k, what="a number of directions")
