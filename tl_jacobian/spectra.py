"""Spectra of the Jacobian and of the Fisher information, and the tokens that their directions move.

The paper's future work: "studying the spectral structure of the Jacobian and Fisher matrices".
"""

from __future__ import annotations

from typing import Any, SupportsIndex

import torch

from tl_jacobian.errors import ArgumentError, PromptError
from tl_jacobian.jacobian_block import JacobianBlock
from tl_jacobian.linalg.fisher import FisherFactor, signs
from tl_jacobian.linalg.moments import moments, participation
from tl_jacobian.linalg.spectrum import Eigenpairs, eigenpairs
from tl_jacobian.linearization import Linearization
from tl_jacobian.movers import movers
from tl_jacobian.plain import is_id
from tl_jacobian.precision import exact
from tl_jacobian.scopes.apply import one_of
from tl_jacobian.spectrum_values import FisherSpectrum, JacobianSpectrum

# Up to here all of F's eigenvalues are taken; beyond, their squares' sum is estimated.
_DENSE = 256
_PROBES = 64


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
    Else the leading part is found without it (:mod:`tl_jacobian.linalg.singular`), and its norm and
    effective rank are that part plus an estimate of the rest (:mod:`tl_jacobian.linalg.moments`).
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
    block = JacobianBlock(lin, _index(lin, position))
    if k > min(block.shape):
        raise ArgumentError(f"k={k}, expected at most {min(block.shape)}, the smaller side of J_t")
    if not 0 < rtol < 1:
        raise ArgumentError(f"rtol={rtol}, expected a relative residual between 0 and 1, such as 1e-4")
    generator = generator or torch.Generator().manual_seed(0)
    found = block.decompose(k, max(rtol, 8 * torch.finfo(lin.graph.x.dtype).eps), generator)
    squares, squares_stderr, rank, rank_stderr = moments(found, block.pull, generator)
    left, right = found.triples.left.to(lin.y), found.triples.right.to(lin.y)
    turn, moved = movers(lin, left)
    return JacobianSpectrum(
        position=block.position,
        text=lin.str_tokens[block.position],
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


def fisher_spectrum(lin: Linearization, k: int = 16, *, generator: torch.Generator | None = None) -> FisherSpectrum:
    """Leading eigenvalues and directions of the Fisher information F = W^T (diag p - p p^T) W (sec. 3.2).

    It takes no product with the Jacobian. The trace is exact; the effective rank
    (tr F)^2 / tr F^2 is exact up to d_model 256, and beyond it the part of tr F^2 that the leading
    directions leave over is estimated with random probes.

    Which input tokens drive a direction is one backward pass more: ``direction_scope(lin,
    s.directions[i])``, and all of them together ``fisher_scope(lin, method="low_rank", rank=k)``.
    The directions are those of y: folding the final norm into the unembedding changes them, so
    give ``linearize`` the ``final_norm`` of a folded model.

    Args:
        lin: one linearization.
        k: how many eigenvalues.
        generator: of the probes (on the CPU); default one of its own, seeded with 0.

    Raises:
        ArgumentError: k is out of range, or lin isn't a single linearization.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> s = tj.fisher_spectrum(lin, k=2)
    >>> s.moves(0, 1).rises[0].text, tj.direction_scope(lin, s.directions[0]).top(1, skip_first=True)[0].text
    (' Paris', ' capital')
    """
    _check(lin, k)
    if k > lin.d_model:
        raise ArgumentError(f"k={k}, expected at most d_model={lin.d_model}")
    factor = FisherFactor(lin.unembedding, lin.logits)
    whole = lin.d_model <= _DENSE or k == lin.d_model
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
        metadata=_facts(lin, "dense" if whole else "leading eigenpairs"),
    )


def _squares(factor: FisherFactor, pairs: Eigenpairs, generator: torch.Generator) -> tuple[float, float]:
    """tr F^2 = sum of the known lambda^2 + E ||F P g||^2 over signs g, P what they leave out; and its error."""
    known = pairs.values.double().square().sum().item()
    if len(pairs.values) == factor.head.d_model:
        return known, 0.0
    g = signs((_PROBES, factor.head.d_model), generator).to(pairs.vectors)
    rest = factor.matvec(g - (g @ pairs.vectors.T) @ pairs.vectors).double().square().sum(dim=1)
    return known + rest.mean().item(), rest.std().item() / _PROBES**0.5


def _facts(lin: Linearization, method: str, **more: Any) -> dict[str, Any]:
    return {"method": method, **more, **lin.facts}


def _check(lin: Linearization, k: int) -> None:
    one_of(lin)
    if not is_id(k) or k < 1:
        raise ArgumentError(f"k={k!r}, expected a positive number of directions")


def _index(lin: Linearization, position: SupportsIndex) -> int:
    n = len(lin.tokens)
    if not is_id(position):
        raise PromptError(f"position {position!r} is a {type(position).__name__}, expected an integer")
    if not -n <= int(position) < n:
        raise PromptError(f"position {int(position)} is outside the linearised prompt, expected -{n} to {n - 1}")
    return int(position) % n
