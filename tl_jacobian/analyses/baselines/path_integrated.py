"""Path-integrated Semantic Scope: Integrated Gradients (paper A.5), and whether they have converged.

Near the zero baseline a model of RMSNorms bends on ever smaller scales: each norm magnifies what is
smaller than its eps, and the next one magnifies that again. Most of the difference between the prompt and
the baseline may lie within 10^-10 of the way, where evenly spread nodes see nothing. So the default
nodes are spread evenly in the *logarithm* of the distance, and reach further down as they double.

A trained model may bend all along the way too. Where its first token is an attention sink, moving that embedding
switches the sink off and on, and no number of nodes that anyone would pay for sees every turn: then the steps stop
doubling, and a warning says so. With the first token as it is the way is smoother.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.analyses.baselines.runs import (
    BATCH,
    Quantity,
    batches,
    checked_rerun_of,
    gradients,
    inputs_of,
    quantity,
    unit_of,
)
from tl_jacobian.analyses.scopes.apply import attribution
from tl_jacobian.core.linearization import Linearized
from tl_jacobian.core.prompts import Target
from tl_jacobian.core.rerun import Rerun
from tl_jacobian.core.unembedding import exact
from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import checked, number, warn, whole
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.grid import Grid

Nodes = Literal["logarithmic", "gauss_legendre", "trapezoid", "riemann"]
Baseline = Literal["zero", "zero_after_first"] | Float[Tensor, "pos d_in"]
# Doublings in a row that may fail to halve the gap before more are given up: a smooth integrand's falls faster.
_PATIENCE = 2
# So many logarithmic nodes reach down to 10^-32 of the way, where the suite's models have converged (gaps below 0.8%,
# from up to 280% with half of them); a gap of more than a half is the way's own then.
_REACH = 256
# How much the parts may still move when the nodes double, in units of tol: a small gap alone can be chance.
_STILL = 10


class Path(NamedTuple):
    """A straight line from a baseline to x, and what is explained along it."""

    x: Float[Tensor, "pos d_in"]
    baseline: Float[Tensor, "pos d_in"]
    what: Quantity

    def at(self, alphas: Float[Tensor, " n"]) -> Float[Tensor, "n pos d_in"]:
        return self.baseline + rearrange(alphas.to(self.x), "n -> n 1 1") * (self.x - self.baseline)


@checked
def path_integrated_scope(
    lin: Linearized,
    target: Target | None = None,
    *,
    minus: Target | None = None,
    baseline: Baseline = "zero",
    nodes: Nodes = "logarithmic",
    steps: int = 32,
    tol: float = 0.01,
    max_steps: int = 1024,
    batch_size: int = BATCH,
) -> Attribution:
    """Integrated Gradients of one logit: ||(x_t - x'_t) * integral of its gradient from x' to x||_2 (eq. 9 and 10).

    Of an answer, whose log-probability is z, the way of its own tokens' embeddings is integrated along too.

    The attributions of all entries of x add up to z(x) - z(x'). How far they are from it, relatively, is the
    completeness gap; steps are doubled until it is below ``tol`` and the attributions are still. Where more
    steps don't help, that ends early: the result comes with a warning, and nothing should be read from it.

    Args:
        lin: one linearization.
        target, minus: as for :func:`semantic_scope`.
        baseline: x'; ``"zero"`` as in the paper; ``"zero_after_first"``, which leaves the first token as it is: the way
            from there is smoother in trained models; or a tensor like x.
        nodes: of the quadrature: Gauss and Legendre's, spread over the logarithm of the distance from the baseline or
            over the distance itself; or evenly spaced ones, with the baseline (``"trapezoid"``) or without it
            (``"riemann"``, the sum that Integrated Gradients was published with).
        steps: how many to begin with.
        tol: largest completeness gap.
        max_steps: where to stop; then the result is returned with a warning. As many as ``steps``: nothing is doubled.
        batch_size: runs in one forward pass.

    Returns:
        Scores in logits, or nats for an answer. ``metadata``: ``converged``, ``steps``, ``completeness_gap``,
        ``value``, ``baseline_value``.

    Raises:
        ArgumentError: an option is out of range, or lin can't be run again.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> half = lin.graph.x.detach()[0] / 2
    >>> a = tj.baselines.path_integrated_scope(lin, " Paris", baseline=half, steps=8, tol=0.1)
    >>> a.metadata["completeness_gap"] < 0.1
    True
    """
    _check(steps, tol, max_steps, batch_size)
    if (rule := lin.facts.get("rule")) is not None:
        raise ArgumentError(
            f"under the backward rule {rule!r} gradients are no derivatives of the model, so what is integrated along "
            "a path doesn't add up to its change; linearize without rule="
        )
    rerun, path = checked_rerun_of(lin), _path(lin, target, minus, baseline)
    ends = path.what.of(rerun.logits(torch.stack([path.x, path.baseline])))
    change = (ends[0] - ends[1]).item()
    rounding = 16 * torch.finfo(path.x.dtype).eps * ends.abs().max().item()
    if torch.equal(path.x, path.baseline):  # nothing to integrate
        change = rounding = 0.0
    tries: list[Quadrature] = []
    while not tries or _goes_on(tries, nodes, tol, max_steps):
        n = 2 * tries[-1].steps if tries else steps
        tries.append(_integrated(rerun, path, nodes, n, batch_size, change, rounding))
        if len(tries) == 1 and tries[0].gap <= tol and 2 * n <= max_steps and n >= 4:  # with half of them to compare
            tries.insert(0, _integrated(rerun, path, nodes, n // 2, batch_size, change, rounding))
    converged = tries[-1].gap <= tol and _is_still(tries, tol)
    best = tries[-1] if converged else min(tries, key=lambda one: one.gap)
    if not converged:
        warn(_unconverged(tries, nodes, best, change, tol, baseline))
    explained = path.what.explained(lin)
    details = {
        **explained.details,
        "score": unit_of(lin),
        "baseline": baseline if isinstance(baseline, str) else "given by the caller",
        "baseline_value": ends[1].item(),
        "nodes": nodes,
        "steps": best.steps,
        "completeness_gap": best.gap,
        "converged": converged,
    }
    scores = best.parts.norm(dim=-1)
    return attribution(lin, "path_integrated", explained.target, scores, "root_sum_squares", details)


@checked
def path_integrand(
    lin: Linearized,
    target: Target | None = None,
    *,
    alphas: Sequence[float] = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0),
    minus: Target | None = None,
    baseline: Baseline = "zero",
) -> Grid:
    """The integrand's norms ||grad_t z|| at points between the baseline and x (paper, Fig. 15): alphas x tokens."""
    rerun, path = checked_rerun_of(lin), _path(lin, target, minus, baseline)
    if not len(alphas):
        raise ArgumentError("alphas=[], expected at least one share of the way from the baseline to x")
    at = torch.tensor([number("alphas", alpha) for alpha in alphas], dtype=torch.float64)
    grads = gradients(rerun, path.at(at), path.what)
    explained = path.what.explained(lin)
    return Grid(
        values=exact(grads).norm(dim=-1).float(),
        rows=tuple(f"{alpha:g}" for alpha in alphas),
        columns=lin.str_tokens,
        title=f"gradient of {explained.target} between the baseline and the prompt",
        quantity=explained.details["score"],
        row_axis="alpha",
        column_axis="token",
        signed=False,
        tokens=tuple(lin.tokens.tolist()),
        metadata={**explained.details, **lin.facts},
    )


class Quadrature(NamedTuple):
    """One try: its nodes, the attributions of all entries of x, and how far they are from adding up, relatively."""

    steps: int
    parts: Float[Tensor, "pos d_in"]
    gap: float


def _integrated(
    rerun: Rerun, path: Path, nodes: Nodes, steps: int, batch_size: int, change: float, rounding: float
) -> Quadrature:
    way = exact(path.x - path.baseline)
    if not way.any():
        return Quadrature(steps, way, 0.0)
    parts = way * _integral(rerun, path, nodes, steps, batch_size)
    error = max(abs(parts.sum().item() - change) - rounding, 0.0)
    return Quadrature(steps, parts, error / max(abs(change), rounding))


def _is_still(tries: Sequence[Quadrature], tol: float) -> bool:
    """Whether the attributions are what half of the nodes made of them; of a single try nobody knows."""
    if len(tries) < 2:
        return True
    before, now = (one.parts for one in tries[-2:])
    return bool((now - before).norm() <= _STILL * tol * now.norm())


def _goes_on(tries: Sequence[Quadrature], nodes: Nodes, tol: float, max_steps: int) -> bool:
    """Whether twice the nodes are allowed, needed, and promise anything."""
    now = tries[-1]
    converged = now.gap <= tol and _is_still(tries, tol)
    return 2 * now.steps <= max_steps and not converged and not _is_hopeless(tries, nodes)


def _is_hopeless(tries: Sequence[Quadrature], nodes: Nodes) -> bool:
    """Whether more nodes have not helped.

    Logarithmic ones don't lie closer when they double, but reach further down: until they have, a gap says nothing.
    """
    if nodes == "logarithmic":
        return tries[-1].steps >= _REACH and tries[-1].gap > 0.5
    earlier, later = tries[:-_PATIENCE], tries[-_PATIENCE:]
    return bool(earlier) and min(one.gap for one in later) > min(one.gap for one in earlier) / 2


def _unconverged(
    tries: Sequence[Quadrature], nodes: Nodes, best: Quadrature, change: float, tol: float, baseline: Any
) -> str:
    gaps = ", ".join(f"{one.gap:.1%} with {one.steps}" for one in tries)
    more = "pass a larger max_steps="
    if _is_hopeless(tries, nodes):
        is_zero = isinstance(baseline, str) and baseline == "zero"
        other = 'baseline="zero_after_first"' if is_zero else "another baseline="
        more = f"more steps don't help, so nothing should be read from it; from {other} the way may be smoother"
    return (
        f"path_integrated_scope: not converged; with {best.steps} steps the parts add up to "
        f"{best.parts.sum().item():.4g} instead of {change:.4g} (gap {gaps}; tol={tol:g}); {more}"
    )


def _integral(rerun: Rerun, path: Path, nodes: Nodes, steps: int, batch_size: int) -> Float[Tensor, "pos d_in"]:
    """The mean of the gradient along the path."""
    alphas, weights = _quadrature(nodes, steps, path.x.dtype)
    total = torch.zeros(path.x.shape, dtype=torch.float64)
    start = 0
    for values in batches(steps, lambda part: path.at(alphas[part]), batch_size, "points of the path"):
        grads = exact(gradients(rerun, values, path.what))
        share = weights[start : start + len(values)]
        total += einsum(share, grads, "n, n pos d_in -> pos d_in")
        start += len(values)
    return total


def _quadrature(
    nodes: Nodes, steps: int, dtype: torch.dtype
) -> tuple[Float[Tensor, " steps"], Float[Tensor, " steps"]]:
    """Nodes and weights on [0, 1]."""
    if nodes == "trapezoid":
        weights = torch.full((steps,), 1 / (steps - 1), dtype=torch.float64)
        weights[[0, -1]] /= 2
        return torch.linspace(0, 1, steps, dtype=torch.float64), weights
    if nodes == "riemann":
        weights = torch.full((steps,), 1 / steps, dtype=torch.float64)
        return weights.cumsum(0), weights
    x, w = np.polynomial.legendre.leggauss(steps)
    u, weights = torch.from_numpy((x + 1) / 2), torch.from_numpy(w / 2)
    if nodes == "gauss_legendre":
        return u, weights
    # alpha = exp(-depth u), so d alpha = -depth alpha du; what lies closer to the baseline is left out.
    closest = max(10 ** (-steps / 8), torch.finfo(dtype).tiny ** 0.75)
    depth = -math.log(closest)
    alphas = torch.exp(-depth * u)
    return alphas, depth * alphas * weights


def _path(lin: Linearized, target: Target | None, minus: Target | None, baseline: Any) -> Path:
    x = inputs_of(lin)
    if isinstance(baseline, Tensor):
        if baseline.shape != x.shape:
            raise ArgumentError(f"baseline has shape {tuple(baseline.shape)}, expected that of x, {tuple(x.shape)}")
        start = baseline.detach().to(x)
    else:
        start = torch.zeros_like(x)
        if baseline == "zero_after_first":
            start[0] = x[0]
    return Path(x, start, quantity(lin, target, minus))


def _check(steps: int, tol: float, max_steps: int, batch_size: int) -> None:
    whole("steps", steps, 2)
    whole("max_steps", max_steps, steps)
    whole("batch_size", batch_size)
    if not 0 < tol < 1:
        raise ArgumentError(f"tol={tol!r}, expected a relative gap between 0 and 1, such as 0.01")
