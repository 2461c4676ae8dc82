"""Baselines that take a scope's gradient as it is, or averaged over noisy embeddings, or none at all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.analyses.baselines.runs import (
    BATCH,
    batches,
    checked_rerun_of,
    gradients,
    inputs_of,
    quantity,
    unit_of,
)
from tl_jacobian.analyses.scopes.apply import Explained, attribution, one_of
from tl_jacobian.analyses.scopes.simple import explain_logit
from tl_jacobian.core.hooks import PATTERN, parsed
from tl_jacobian.core.linearization import Linearized
from tl_jacobian.core.products import pulled
from tl_jacobian.core.prompts import Target
from tl_jacobian.core.unembedding import exact
from tl_jacobian.errors import HookPointError
from tl_jacobian.results.arguments import checked, number, whole
from tl_jacobian.results.attribution import Attribution


@checked
def input_x_gradient(
    lin: Linearized, target: Target | None = None, *, minus: Target | None = None, signed: bool = False
) -> Attribution:
    """Input x gradient of one logit, or of an answer's log-probability: ||x_t * grad_t z||_2, one backward pass.

    Args:
        lin: one linearization.
        target, minus: as for :func:`semantic_scope`.
        signed: x_t . grad_t z instead: does a token push the logit up or down? These add up exactly, over the tokens of
            a word or a passage too, where norms leave out that tokens may work against each other.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> len(tj.baselines.input_x_gradient(lin, " Paris"))
    5
    >>> signed = tj.baselines.input_x_gradient(lin, " Paris", signed=True)
    >>> both = signed.segments(["capital of France"], split_first=False)
    >>> bool((both.scores.sum() - signed.scores.sum()).abs() < 1e-4)
    True
    """
    return input_x_gradients([lin], [explain_logit(one_of(lin), target, minus)], signed=signed)[0]


def input_x_gradients(
    lins: Sequence[Linearized], explained: Sequence[Explained], *, signed: bool = False
) -> list[Attribution]:
    """:func:`input_x_gradient` of several linearizations; those of one forward pass share backward passes."""
    scores: dict[int, Float[Tensor, " pos"]] = {}
    for slots, grads in pulled(lins, [e.v for e in explained]):
        for at, _, member in slots:
            x = inputs_of(lins[member])
            product = exact(x) * exact(grads[at, lins[member].prompt_row, : len(x)])
            scores[member] = product.sum(dim=-1) if signed else product.norm(dim=-1)
    name, combine = ("input_x_gradient, signed", "sum") if signed else ("input_x_gradient", "root_sum_squares")
    return [
        attribution(lin, name, e.target, scores[i], combine, {**e.details, "score": unit_of(lin)})
        for i, (lin, e) in enumerate(zip(lins, explained, strict=True))
    ]


@checked
def random_attribution(lin: Linearized, *, generator: torch.Generator) -> Attribution:
    """Uniform random scores: what any attribution must beat."""
    one_of(lin)
    scores = torch.rand(len(lin.tokens), generator=generator, device=generator.device).cpu()
    return attribution(lin, "random", "nothing: random scores", scores, "sum", {"score": "uniform random numbers"})


@checked
def attention_rollout(lin: Linearized) -> Attribution:
    """Attention rollout (Abnar and Zuidema, 2020): (A + 1)/2 multiplied over the layers, A the mean over heads.

    From the explained position; for an answer the mean over its positions.

    Args:
        lin: made with ``linearize(..., record="sources")`` or ``record=True``.

    Raises:
        HookPointError: the attention patterns weren't recorded.
    """
    names = [name for name in one_of(lin).taps if parsed(name).path == PATTERN]
    if lin.anatomy is None or len(names) != lin.anatomy.n_layers:
        raise HookPointError(
            f"attention rollout needs every layer's pattern and found {len(names)}: linearize(model, prompt, "
            'record="sources")'
        )
    row = torch.zeros(len(lin.tokens), dtype=torch.float64)
    row[list(lin.positions)] = 1 / len(lin.rows)
    for name in reversed(names):
        mean = reduce(exact(lin.taps[name]), "head query key -> query key", "mean")
        row = (row @ mean + row) / 2
    details = {"score": "share of attention, all layers multiplied"}
    return attribution(lin, "attention_rollout", "attention rollout", row, "sum", details)


@checked
def smoothgrad(
    lin: Linearized,
    target: Target | None = None,
    *,
    minus: Target | None = None,
    noise: float = 0.1,
    samples: int = 16,
    generator: torch.Generator | None = None,
    batch_size: int = BATCH,
) -> Attribution:
    """SmoothGrad (Smilkov et al., 2017): ||mean over noisy x of grad_t z||_2.

    Args:
        lin: one linearization. Of an answer z is its log-probability; x is that of the prompt and of the answer.
        target, minus: as for :func:`semantic_scope`.
        noise: standard deviation, as a share of the embeddings' root mean square.
        samples: how many noisy runs.
        generator: of the noise (on the CPU); default one of its own, seeded with 0.
        batch_size: runs in one forward pass.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> len(tj.baselines.smoothgrad(lin, " Paris", samples=2))
    5
    """
    whole("samples", samples)
    whole("batch_size", batch_size)
    noise = number("noise", noise, above=0.0)
    generator = generator or torch.Generator().manual_seed(0)
    rerun, x, what = checked_rerun_of(lin), inputs_of(lin), quantity(lin, target, minus)
    size = noise * exact(x).square().mean().sqrt().item()

    def noisy(part: torch.Tensor) -> torch.Tensor:
        return x + size * torch.randn(len(part), *x.shape, generator=generator, dtype=torch.float64).to(x)

    total = torch.zeros(x.shape, dtype=torch.float64)
    for values in batches(samples, noisy, batch_size, "noisy runs"):
        grads = gradients(rerun, values, what)
        total += reduce(exact(grads), "n pos d_in -> pos d_in", "sum")
    explained = what.explained(lin)
    details = {**explained.details, "noise": noise, "samples": samples}
    scores = (total / samples).norm(dim=-1)
    return attribution(lin, "smoothgrad", explained.target, scores, "root_sum_squares", details)
