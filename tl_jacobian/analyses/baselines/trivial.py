"""Baselines that know nothing of the model's computation: where a token stands, how rare it is, how long its embedding.

What a scope finds is worth something where it beats these, and not a random ranking alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from tl_jacobian.analyses.baselines.runs import inputs_of
from tl_jacobian.analyses.scopes.apply import attribution, one_of
from tl_jacobian.core.linearization import Linearized
from tl_jacobian.core.unembedding import exact
from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import checked, excerpt, is_id
from tl_jacobian.results.attribution import Attribution


@checked
def recency(lin: Linearized, *, first: bool = False) -> Attribution:
    """The later a token, the higher its score: place / number of tokens, the last one's is 1.

    Language models lean on what stands last. On the paper's corpora, with the real last word as the answer, no
    attribution beats this ranking (``benchmarks/results/aopc.md``).

    Args:
        lin: one linearization.
        first: the first token, on which models rest their attention (an attention sink), before all others.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> [round(score, 1) for score in tj.baselines.recency(lin, first=True).scores.tolist()]
    [2.0, 0.4, 0.6, 0.8, 1.0]
    """
    n = len(one_of(lin).tokens)
    scores = torch.arange(1, n + 1, dtype=torch.float64) / n
    if first:
        scores[0] = 2.0
    name = "first_and_recency" if first else "recency"
    return attribution(lin, name, "nothing: where tokens stand", scores, "sum", {"score": "place in the prompt"})


@checked
def token_frequency(lin: Linearized, counts: Mapping[int, int]) -> Attribution:
    """Rare tokens first: -log((count + 1) / (all + distinct + 1)) of a corpus (Laplace's rule), in nats.

    Args:
        lin: one linearization.
        counts: how often each token id occurs in the corpus; one that isn't there counts as 0. :func:`evaluate`
            counts its own prompts.

    Raises:
        ArgumentError: counts that aren't whole numbers of ids, or are empty.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> common = {int(lin.tokens[i]): 100 for i in (0, 2, 4)}
    >>> tj.baselines.token_frequency(lin, common).top(1)[0].text
    ' capital'
    """
    one_of(lin)
    check_counts(counts)
    total = sum(counts.values()) + len(counts) + 1
    seen = torch.tensor([counts.get(token, 0) + 1 for token in lin.tokens.tolist()], dtype=torch.float64)
    details = {"score": "nats", "counted_tokens": sum(counts.values())}
    return attribution(lin, "token_frequency", "nothing: how rare tokens are", -(seen / total).log(), "sum", details)


@checked
def embedding_norm(lin: Linearized) -> Attribution:
    """||x_t||_2, the size of each token's embedding: what input x gradient has of the input alone.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> len(tj.baselines.embedding_norm(lin))
    5
    """
    scores = exact(inputs_of(one_of(lin))).norm(dim=-1)
    details = {"score": lin.per}
    return attribution(lin, "embedding_norm", "nothing: the size of embeddings", scores, "root_sum_squares", details)


def check_counts(counts: Mapping[int, int]) -> None:
    """Raise ArgumentError unless these are counts of token ids, one of them above 0."""
    bad = [(token, n) for token, n in counts.items() if not (is_id(token) and is_id(n) and min(token, n) >= 0)]
    if bad or not any(counts.values()):
        raise ArgumentError(
            f"counts={excerpt(dict(bad[:1])) if bad else '{}'}, expected how often each token id occurs: "
            "collections.Counter(ids)"
        )
