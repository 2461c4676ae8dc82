"""Path-integrated Semantic Scope: Integrated Gradients (paper A.5), converged and with its completeness gap.

Near the zero baseline a model of RMSNorms bends on ever smaller scales: each norm magnifies what is
smaller than its eps, and the next one magnifies that again. Most of the difference between the prompt and
the baseline may lie within 10^-10 of the way, where evenly spread nodes see nothing. So the default
nodes are spread evenly in the *logarithm* of the distance, and reach further down as they double.
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
    batches,
    checked_rerun_of,
    inputs_of,
    logit_gradients,
    pair,
    value_of,
)
from tl_jacobian.analyses.scopes.apply import attribution
from tl_jacobian.analyses.scopes.simple import explain_logit
from tl_jacobian.core.linearization import Linearization
from tl_jacobian.core.prompts import Target
from tl_jacobian.core.rerun import Rerun
from tl_jacobian.core.unembedding import exact
from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import checked, number, warn, whole
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.grid import Grid

Nodes = Literal["logarithmic", "gauss_legendre", "trapezoid"]


class Path(NamedTuple):
    """A straight line from a baseline to x, and what is explained along it."""

    x: Float[Tensor, "pos d_in"]
    baseline: Float[Tensor, "pos d_in"]
    token: int
    other: int | None

    def at(self, alphas: Float[Tensor, " n"]) -> Float[Tensor, "n pos d_in"]:
        return self.baseline + rearrange(alphas.to(self.x), "n -> n 1 1") * (self.x - self.baseline)


@checked
def path_integrated_scope(
    lin: Linearization,
    target: Target | None = None,
    *,
    minus: Target | None = None,
    baseline: Literal["zero"] | Float[Tensor, "pos d_in"] = "zero",
    nodes: Nodes = "logarithmic",
    steps: int = 32,
    tol: float = 0.01,
    max_steps: int = 1024,
    batch_size: int = BATCH,
) -> Attribution:
    """Integrated Gradients of one logit: ||(x_t - x'_t) * integral of its gradient from x' to x||_2 (eq. 9 and 10).

    The attributions of all entries of x add up to z(x) - z(x'). How far they are from it, relatively, is the
    completeness gap; steps are doubled until it is below ``tol``.

    Args:
        lin: one linearization.
        target, minus: as for :func:`semantic_scope`.
        baseline: x'; zeros as in the paper, or a tensor like x.
        nodes: of the quadrature: Gauss and Legendre's, spread over the logarithm of the distance from the baseline or
            over the distance itself; or evenly spaced ones.
        steps: how many to begin with.
        tol: largest completeness gap.
        max_steps: where to stop; then the result is returned with a warning.
        batch_size: runs in one forward pass.

    Returns:
        Scores in logits. ``metadata``: ``steps``, ``completeness_gap``, ``value`` and ``baseline_value``.

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
    rerun, path = checked_rerun_of(lin), _path(lin, target, minus, baseline)
    ends = exact(value_of(rerun.logits(torch.stack([path.x, path.baseline])), path.token, path.other))
    change = (ends[0] - ends[1]).item()
    while True:
        integral = _integral(rerun, path, nodes, steps, batch_size)
        parts = exact(path.x - path.baseline) * integral
        gap = abs(parts.sum().item() - change) / max(abs(change), 1e-12)
        if gap <= tol or 2 * steps > max_steps:
            break
        steps *= 2
    if gap > tol:
        warn(
            f"path_integrated_scope: with {steps} steps the parts add up to {parts.sum().item():.4g} instead of "
            f"{change:.4g} (gap {gap:.1%}, tol={tol:g}); pass a larger max_steps="
        )
    explained = explain_logit(lin, path.token, path.other)
    details = {
        **explained.details,
        "score": "logits",
        "baseline": baseline if isinstance(baseline, str) else "given by the caller",
        "baseline_value": ends[1].item(),
        "nodes": nodes,
        "steps": steps,
        "completeness_gap": gap,
    }
    return attribution(lin, "path_integrated", explained.target, parts.norm(dim=-1), "root_sum_squares", details)


@checked
def path_integrand(
    lin: Linearization,
    target: Target | None = None,
    *,
    alphas: Sequence[float] = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0),
    minus: Target | None = None,
    baseline: Literal["zero"] | Float[Tensor, "pos d_in"] = "zero",
) -> Grid:
    """The integrand's norms ||grad_t z|| at points between the baseline and x (paper, Fig. 15): alphas x tokens."""
    rerun, path = checked_rerun_of(lin), _path(lin, target, minus, baseline)
    if not len(alphas):
        raise ArgumentError("alphas=[], expected at least one share of the way from the baseline to x")
    at = torch.tensor([number("alphas", alpha) for alpha in alphas], dtype=torch.float64)
    grads = logit_gradients(rerun, path.at(at), path.token, path.other)
    explained = explain_logit(lin, path.token, path.other)
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


def _integral(rerun: Rerun, path: Path, nodes: Nodes, steps: int, batch_size: int) -> Float[Tensor, "pos d_in"]:
    """The mean of the gradient along the path."""
    alphas, weights = _quadrature(nodes, steps, path.x.dtype)
    total = torch.zeros(path.x.shape, dtype=torch.float64)
    start = 0
    for values in batches(steps, lambda part: path.at(alphas[part]), batch_size, "points of the path"):
        grads = exact(logit_gradients(rerun, values, path.token, path.other))
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
    x, w = np.polynomial.legendre.leggauss(steps)
    u, weights = torch.from_numpy((x + 1) / 2), torch.from_numpy(w / 2)
    if nodes == "gauss_legendre":
        return u, weights
    # alpha = exp(-depth u), so d alpha = -depth alpha du; what lies closer to the baseline is left out.
    closest = max(10 ** (-steps / 8), torch.finfo(dtype).tiny ** 0.75)
    depth = -math.log(closest)
    alphas = torch.exp(-depth * u)
    return alphas, depth * alphas * weights


def _path(lin: Linearization, target: Target | None, minus: Target | None, baseline: Any) -> Path:
    x = inputs_of(lin)
    if isinstance(baseline, Tensor):
        if baseline.shape != x.shape:
            raise ArgumentError(f"baseline has shape {tuple(baseline.shape)}, expected that of x, {tuple(x.shape)}")
        start = baseline.detach().to(x)
    else:
        start = torch.zeros_like(x)
    return Path(x, start, *pair(lin, target, minus))


def _check(steps: int, tol: float, max_steps: int, batch_size: int) -> None:
    whole("steps", steps, 2)
    whole("max_steps", max_steps, steps)
    whole("batch_size", batch_size)
    if not 0 < tol < 1:
        raise ArgumentError(f"tol={tol!r}, expected a relative gap between 0 and 1, such as 0.01")
