"""Leave one out: what really happens to the prediction when a token's embedding is taken away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.analyses.baselines.runs import (
    BATCH,
    batches,
    checked_rerun_of,
    explained_tokens,
    inputs_of,
    prompt_length,
    rerun_of,
)
from tl_jacobian.analyses.scopes.apply import along, attribution
from tl_jacobian.core.answer import AnswerLinearization
from tl_jacobian.core.linearization import Linearized
from tl_jacobian.core.prompts import Target, name_of
from tl_jacobian.core.unembedding import exact, log_prob, wide
from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import checked, excerpt, whole
from tl_jacobian.results.attribution import Attribution

Measure = Literal["log_prob", "kl"]
Replacement = Literal["zero", "mean"] | Float[Tensor, " d_in"]


@checked
def leave_one_out(
    lin: Linearized,
    target: Target | None = None,
    *,
    measure: Measure = "log_prob",
    replacement: Replacement = "zero",
    batch_size: int = BATCH,
) -> Attribution:
    """An intervention on each token: its embedding replaced, the model run again; as many runs as tokens.

    An answer stays as it is: tokens of the prompt are left out, one after the other, and the same answer is asked for,
    whose own tokens have no score.

    Args:
        lin: one linearization.
        target: whose log-probability; default the most probable next token. Not for ``"kl"``. An answer is its own.
        measure: ``"log_prob"`` by how much the target's log-probability falls (negative: it rises);
            ``"kl"`` how far the new distribution is from the old (Kullback-Leibler divergence), summed along an answer.
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
    tokens = explained_tokens(lin, target)
    return left_out(lin, without_each(lin, tokens, replacement, batch_size), measure, tokens, replacement)


class WithoutEach(NamedTuple):
    """What leaving out each token of the prompt does to the prediction, in nats; ``(pos,)`` each, float64.

    Attributes:
        log_prob: by how much the log-probability of the target, or of the answer, falls.
        kl: the divergence of the new distribution from the old.
    """

    log_prob: Float[Tensor, " pos"]
    kl: Float[Tensor, " pos"]


def without_each(
    lin: Linearized, tokens: Sequence[int], replacement: Replacement = "zero", batch_size: int = BATCH
) -> WithoutEach:
    """Both measures, from the same runs; logits, as many as the vocabulary is large, are held for a batch alone."""
    whole("batch_size", batch_size)
    rerun, x, old = checked_rerun_of(lin), inputs_of(lin), wide(lin.logits).log_softmax(-1)
    before = log_prob(old, tokens)
    left = _replacement(x, replacement)

    def without(part: Tensor) -> Tensor:
        values = repeat(x, "pos d_in -> n pos d_in", n=len(part)).clone()
        values[torch.arange(len(part)), part] = left
        return values

    falls, divergences = [], []
    run, start = rerun.continued(x, lin.logits), 0  # of a causal model what comes before the first is the same
    for values in batches(prompt_length(lin), without, batch_size, "tokens left out"):
        start, first = start + len(values), start
        for logits in run(values, first):  # one at a time: an answer's are as many as its tokens
            new = wide(logits).log_softmax(-1)
            falls.append(before - log_prob(new, tokens))
            divergences.append((old.exp() * (old - new)).sum(-1).clamp_min(0.0).sum())
    return WithoutEach(torch.stack(falls).cpu(), torch.stack(divergences).cpu())


def left_out(
    lin: Linearized, found: WithoutEach, measure: Measure, tokens: Sequence[int], replacement: Replacement
) -> Attribution:
    """One of the measures as an attribution."""
    how = replacement if isinstance(replacement, str) else "given by the caller"
    details: dict[str, Any] = {"score": "nats", "measure": measure, "replacement": how}
    if isinstance(lin, AnswerLinearization):
        details["answer_tokens"] = list(tokens)
    if measure == "kl":
        words = "predicted distribution" + along(lin)
        return attribution(lin, "leave_one_out", words, found.kl, "sum", details)
    if isinstance(lin, AnswerLinearization):
        words = f"log-probability of the answer {excerpt(lin.text)}"
    else:
        words = f"log-probability of {name_of(lin, tokens[0])}"  # type: ignore[arg-type]
        details["target_token"] = tokens[0]
    details["value"] = log_prob(exact(lin.logits), tokens).item()
    return attribution(lin, "leave_one_out", words, found.log_prob, "sum", details)


def _replacement(x: Float[Tensor, "pos d_in"], replacement: Replacement) -> Float[Tensor, " d_in"]:
    if isinstance(replacement, Tensor):
        if replacement.shape != x.shape[1:]:
            raise ArgumentError(f"replacement has shape {tuple(replacement.shape)}, expected {tuple(x.shape[1:])}")
        if not replacement.isfinite().all():
            raise ArgumentError("replacement isn't finite, expected a vector of finite numbers")
        return replacement.detach().to(x)
    return torch.zeros_like(x[0]) if replacement == "zero" else x.mean(0)
