"""Leave one out: what really happens to the prediction when a token's embedding is taken away."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.analyses.baselines.runs import BATCH, batches, checked_rerun_of, inputs_of, rerun_of
from tl_jacobian.analyses.scopes.apply import attribution
from tl_jacobian.core.linearization import Linearization
from tl_jacobian.core.prompts import Target, name_of, resolve_target
from tl_jacobian.core.unembedding import exact
from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import checked, whole
from tl_jacobian.results.attribution import Attribution

Measure = Literal["log_prob", "kl"]
Replacement = Literal["zero", "mean"] | Float[Tensor, " d_in"]


@checked
def leave_one_out(
    lin: Linearization,
    target: Target | None = None,
    *,
    measure: Measure = "log_prob",
    replacement: Replacement = "zero",
    batch_size: int = BATCH,
) -> Attribution:
    """An intervention on each token: its embedding replaced, the model run again; as many runs as tokens.

    Args:
        lin: one linearization.
        target: whose log-probability; default the most probable next token. Not for ``"kl"``.
        measure: ``"log_prob"`` by how much the target's log-probability falls (negative: it rises);
            ``"kl"`` how far the new distribution is from the old (Kullback-Leibler divergence).
        replacement: of the embedding: ``"zero"``, the ``"mean"`` of the prompt's embeddings, or a vector.
        batch_size: runs in one forward pass.

    Returns:
        Scores in nats.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> tj.baselines.leave_one_out(lin, " Paris").top(1)[0].text
    ' France'
    """
    if measure == "kl" and target is not None:
        raise ArgumentError(f'target={target!r} is for measure="log_prob"; the divergence is of all tokens')
    rerun_of(lin)  # one linearization, which can be run again
    token = resolve_target(lin, target)
    return left_out(lin, without_each(lin, token, replacement, batch_size), measure, token, replacement)


class WithoutEach(NamedTuple):
    """What leaving out each token does to the prediction, in nats; ``(pos,)`` each, float64.

    Attributes:
        log_prob: by how much one token's log-probability falls.
        kl: the divergence of the new distribution from the old.
    """

    log_prob: Float[Tensor, " pos"]
    kl: Float[Tensor, " pos"]


def without_each(
    lin: Linearization, token: int, replacement: Replacement = "zero", batch_size: int = BATCH
) -> WithoutEach:
    """Both measures, from the same runs; logits, as many as the vocabulary is large, are held for a batch alone."""
    whole("batch_size", batch_size)
    rerun, x, old = checked_rerun_of(lin), inputs_of(lin), exact(lin.logits).log_softmax(-1)
    left = _replacement(x, replacement)

    def without(part: Tensor) -> Tensor:
        values = repeat(x, "pos d_in -> n pos d_in", n=len(part)).clone()
        values[torch.arange(len(part)), part] = left
        return values

    falls, divergences = [], []
    for values in batches(len(x), without, batch_size, "tokens left out"):
        new = exact(rerun.logits(values)).log_softmax(-1)
        falls.append(old[token] - new[:, token])
        divergences.append((old.exp() * (old - new)).sum(-1).clamp_min(0.0))
    return WithoutEach(torch.cat(falls), torch.cat(divergences))


def left_out(
    lin: Linearization, found: WithoutEach, measure: Measure, token: int, replacement: Replacement
) -> Attribution:
    """One of the measures as an attribution."""
    how = replacement if isinstance(replacement, str) else "given by the caller"
    details = {"score": "nats", "measure": measure, "replacement": how}
    if measure == "kl":
        return attribution(lin, "leave_one_out", "predicted distribution", found.kl, "sum", details)
    details |= {"target_token": token, "value": exact(lin.logits).log_softmax(-1)[token].item()}
    words = f"log-probability of {name_of(lin, token)}"
    return attribution(lin, "leave_one_out", words, found.log_prob, "sum", details)


def _replacement(x: Float[Tensor, "pos d_in"], replacement: Replacement) -> Float[Tensor, " d_in"]:
    if isinstance(replacement, Tensor):
        if replacement.shape != x.shape[1:]:
            raise ArgumentError(f"replacement has shape {tuple(replacement.shape)}, expected {tuple(x.shape[1:])}")
        if not replacement.isfinite().all():
            raise ArgumentError("replacement isn't finite, expected a vector of finite numbers")
        return replacement.detach().to(x)
    return torch.zeros_like(x[0]) if replacement == "zero" else x.mean(0)
