"""SmoothGrad: Semantic Scope's gradient, averaged over noisy embeddings."""

from __future__ import annotations

import torch

from tl_jacobian.attribution import Attribution
from tl_jacobian.baselines.runs import BATCH, batches, check_count, inputs_of, logit_gradients, pair, rerun_of
from tl_jacobian.errors import ArgumentError
from tl_jacobian.linearization import Linearization
from tl_jacobian.scopes.apply import attribution
from tl_jacobian.scopes.semantic import explain_logit
from tl_jacobian.targets import Target


def smoothgrad(
    lin: Linearization,
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
        lin: one linearization.
        target, minus: as for :func:`semantic_scope`.
        noise: standard deviation, as a share of the embeddings' root mean square.
        samples: how many noisy runs.
        generator: of the noise (on the CPU); default one of its own, seeded with 0.
        batch_size: runs in one forward pass.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> len(tj.smoothgrad(lin, " Paris", samples=2))
    5
    """
    check_count("samples", samples)
    check_count("batch_size", batch_size)
    if not isinstance(noise, (int, float)) or not noise > 0:
        raise ArgumentError(f"noise={noise!r}, expected a positive share of the embeddings' size, such as 0.1")
    generator = generator or torch.Generator().manual_seed(0)
    rerun, x, (token, other) = rerun_of(lin), inputs_of(lin), pair(lin, target, minus)
    size = noise * x.double().square().mean().sqrt().item()

    def noisy(part: torch.Tensor) -> torch.Tensor:
        return x + size * torch.randn(len(part), *x.shape, generator=generator, dtype=torch.float64).to(x)

    total = torch.zeros_like(x, dtype=torch.float64)
    for values in batches(samples, noisy, batch_size, "noisy runs"):
        total += logit_gradients(rerun, values, token, other).double().sum(0)
    explained = explain_logit(lin, token, other)
    details = {**explained.details, "noise": noise, "samples": samples}
    scores = (total / samples).norm(dim=-1).cpu()
    return attribution(lin, "smoothgrad", explained.target, scores, "root_sum_squares", details)
