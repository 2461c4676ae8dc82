"""How far first-order predictions reach: the change that a score promises, and the true one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.analyses.baselines.runs import BATCH, batches, checked_rerun_of, inputs_of, quantity, unit_of
from tl_jacobian.core.linearization import Linearized
from tl_jacobian.core.prompts import Target
from tl_jacobian.core.unembedding import exact
from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import checked, whole
from tl_jacobian.results.arguments import positions as places
from tl_jacobian.results.linearity import Linearity

Way = Literal["steepest", "away"]
EPSILONS = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0)


@checked
def linearity(
    lin: Linearized,
    target: Target | None = None,
    *,
    minus: Target | None = None,
    epsilons: Sequence[float | int] = EPSILONS,
    way: Way = "steepest",
    positions: Sequence[int] | None = None,
    batch_size: int = BATCH,
) -> Linearity:
    """Move one embedding at a time by epsilon ||x_t||, and compare the logit's change with Semantic Scope's promise.

    For an answer, the change of its log-probability; tokens of it that come before others move like the prompt's.

    Along ``"steepest"``, the direction of J_t^T v, that promise is epsilon ||x_t|| score_t, the most that
    first order allows. ``"away"`` is the way of AOPC and leave-one-out: towards zero, which is reached at epsilon 1.

    Args:
        lin: one linearization.
        target, minus: as for :func:`semantic_scope`.
        epsilons: shares of the embedding's norm.
        way: ``"steepest"`` or ``"away"``.
        positions: the tokens to move; default: the five with the largest scores.
        batch_size: runs in one forward pass.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> near, far = tj.linearity(lin, " Paris", epsilons=[0.001, 1.0]).relative_error.tolist()
    >>> near < 0.05 < far
    True
    """
    whole("batch_size", batch_size)
    _check(epsilons)
    rerun, x, what = checked_rerun_of(lin), inputs_of(lin), quantity(lin, target, minus)
    explained = what.explained(lin)
    gradient = lin.vjp(explained.v[0])
    at = _positions(positions, gradient)
    size = x[at].norm(dim=-1, keepdim=True)
    step = size * torch.nn.functional.normalize(gradient[at], dim=-1) if way == "steepest" else -x[at]
    scale = torch.tensor(list(epsilons), dtype=torch.float64)
    steps = (scale.to(x)[:, None, None] * step).flatten(0, 1)
    where = at.repeat(len(scale))

    def moved(part: Tensor) -> Tensor:
        values = x.repeat(len(part), 1, 1)
        values[torch.arange(len(part)), where[part]] += steps[part]
        return values

    runs = [what.of(rerun.logits(v)) for v in batches(len(steps), moved, batch_size, "moved embeddings")]
    before = what.of(lin.logits[None])
    predicted = (exact(step) * exact(gradient[at])).sum(-1)
    return Linearity(
        epsilons=tuple(scale.tolist()),
        positions=tuple(at.tolist()),
        str_tokens=tuple(lin.str_tokens[i] for i in at.tolist()),
        predicted=scale[:, None] * predicted,
        actual=(torch.cat(runs) - before).reshape(len(scale), len(at)),
        metadata={**explained.details, "target": explained.target, "unit": unit_of(lin), "way": way, **lin.facts},
    )


def _positions(positions: Sequence[int] | None, gradient: Float[Tensor, "pos d_in"]) -> Tensor:
    n = len(gradient)
    if positions is None:
        return gradient.norm(dim=-1).topk(min(5, n)).indices.cpu()
    return torch.tensor(places(positions, n))


def _check(epsilons: Sequence[float | int]) -> None:
    if not len(epsilons) or not all(0 < e < math.inf for e in epsilons):
        raise ArgumentError(f"epsilons={epsilons!r}, expected positive shares of the embedding's norm")
