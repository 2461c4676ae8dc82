"""Baselines that take at most the one backward pass of a scope."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.attribution import Attribution
from tl_jacobian.baselines.runs import inputs_of
from tl_jacobian.errors import ArgumentError, HookPointError
from tl_jacobian.linearization import Linearization
from tl_jacobian.precision import exact
from tl_jacobian.products import pulled
from tl_jacobian.scopes.apply import Explained, attribution, one_of
from tl_jacobian.scopes.semantic import explain_logit
from tl_jacobian.targets import Target


def input_x_gradient(lin: Linearization, target: Target | None = None, *, minus: Target | None = None) -> Attribution:
    """Input x gradient of one logit: ||x_t * grad_t z||_2, one backward pass.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> len(tj.input_x_gradient(lin, " Paris"))
    5
    """
    return input_x_gradients([lin], [explain_logit(one_of(lin), target, minus)])[0]


def input_x_gradients(lins: Sequence[Linearization], explained: Sequence[Explained]) -> list[Attribution]:
    """:func:`input_x_gradient` of several linearizations of one forward pass, which share backward passes."""
    scores: dict[int, Float[Tensor, " pos"]] = {}
    for slots, grads in pulled(lins, torch.stack([e.v for e in explained], dim=1)):
        for at, _, member in slots:
            x = inputs_of(lins[member])
            product = x.double() * grads[at, lins[member].prompt_row, : len(x)].double()
            scores[member] = product.norm(dim=-1).cpu()
    return [
        attribution(lin, "input_x_gradient", e.target, scores[i], "root_sum_squares", {**e.details, "score": "logits"})
        for i, (lin, e) in enumerate(zip(lins, explained, strict=True))
    ]


def random_attribution(lin: Linearization, *, generator: torch.Generator) -> Attribution:
    """Uniform random scores: what any attribution must beat."""
    one_of(lin)
    if not isinstance(generator, torch.Generator):
        raise ArgumentError(f"generator={generator!r}, expected a torch.Generator: torch.Generator().manual_seed(0)")
    scores = torch.rand(len(lin.tokens), generator=generator, device=generator.device).cpu()
    return attribution(lin, "random", "nothing: random scores", scores, "sum", {"score": "uniform random numbers"})


def attention_rollout(lin: Linearization) -> Attribution:
    """Attention rollout (Abnar and Zuidema, 2020): (A + 1)/2 multiplied over the layers, A the mean over heads.

    Args:
        lin: made with ``linearize(..., record="sources")`` or ``record=True``.

    Raises:
        HookPointError: the attention patterns weren't recorded.
    """
    names = [name for name in one_of(lin).taps if name.endswith("hook_pattern")]
    if lin.anatomy is None or len(names) != lin.anatomy.n_layers:
        raise HookPointError(
            f"attention rollout needs every layer's pattern and found {len(names)}: linearize(model, prompt, "
            'record="sources")'
        )
    row = torch.zeros(len(lin.tokens), dtype=torch.float64)
    row[-1] = 1.0
    for name in reversed(names):
        mean = exact(lin.taps[name]).mean(0)
        row = (row @ mean + row) / 2
    details = {"score": "share of attention, all layers multiplied"}
    return attribution(lin, "attention_rollout", "attention rollout", row, "sum", details)
