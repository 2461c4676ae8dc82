"""How far removing tokens can get: the best and the worst order of removal that a beam search finds for a prompt.

AOPC depends on the model and the prompt as much as on the method: some predictions hang on every token, some on none.
Between a prompt's own bounds, (AOPC - lowest) / (highest - lowest), methods can be compared across models (Edin et al.,
2024, arXiv:2408.08137).
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from tl_jacobian.analyses.baselines.runs import BATCH, prompt_length
from tl_jacobian.analyses.scopes.apply import attribution, one_of
from tl_jacobian.core.linearization import Linearized
from tl_jacobian.core.prompts import Target
from tl_jacobian.results.arguments import checked, number, whole
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.studies.evaluation.curves import Perturbation, removed_from, scored_tokens

Bound = Literal["highest", "lowest"]


class Beam(NamedTuple):
    """Tokens in the order in which they are removed, and the sum of the drops on the way."""

    order: tuple[int, ...]
    total: float


@checked
def beam_search(
    lin: Linearized,
    target: Target | None = None,
    *,
    bound: Bound = "highest",
    k: float | int = 20.0,
    width: int = 1,
    perturbation: Perturbation = "zero",
    others: Int[Tensor, " pos"] | None = None,
    skip_first: bool = False,
    batch_size: int = BATCH,
) -> Attribution:
    """The order of removal with the highest, or the lowest, mean drop of the log-probability, as a ranking.

    One token after the other is removed: of all ways to go on from the ``width`` best orders so far, the ``width``
    best are kept. ``width`` = 1 is greedy; about n^2 k / 100 runs for n tokens, times the width.

    Args:
        lin: one linearization; of an answer the prompt's tokens are removed.
        target: whose log-probability; default the most probable next token, or the answer.
        bound: ``"highest"`` drops or ``"lowest"`` ones.
        k: percentage of the tokens to order, rounded up; the rest isn't ranked.
        width: of the beam.
        perturbation, others, skip_first: how a token is removed; see :func:`perturbation_curves`.
        batch_size: runs in one forward pass.

    Returns:
        Scores 1 for the first that is removed, down to 0 for those that aren't.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> int((beam_search(lin, " Paris", k=40).scores > 0).sum())
    2
    """
    whole("width", width)
    number("k", k, above=0.0)
    tokens = scored_tokens(one_of(lin), [], target)
    places = list(range(int(skip_first), prompt_length(lin)))
    depth = min(len(places), math.ceil(round(k / 100 * len(places), 9)))
    sign = 1.0 if bound == "highest" else -1.0
    beams = [Beam((), 0.0)]
    for _ in range(depth):
        ways = [(beam, place) for beam in beams for place in places if place not in beam.order]
        sets = torch.zeros(len(ways), len(lin.tokens), dtype=torch.bool)
        for row, (beam, place) in zip(sets, ways, strict=True):
            row[[*beam.order, place]] = True
        found = removed_from(lin, sets, tokens, perturbation, others, batch_size)
        # Of orders of one set the best alone can lead anywhere: what comes after depends on the set.
        best: dict[frozenset[int], Beam] = {}
        for (beam, place), log_prob in zip(ways, found.log_prob.tolist(), strict=True):
            now = Beam((*beam.order, place), beam.total - sign * log_prob)
            key = frozenset(now.order)
            if key not in best or now.total > best[key].total:
                best[key] = now
        beams = sorted(best.values(), key=lambda one: -one.total)[:width]
    scores = torch.zeros(len(lin.tokens), dtype=torch.float64)
    scores[list(beams[0].order)] = torch.arange(depth, 0, -1, dtype=torch.float64) / depth
    name = f"beam_{bound}"
    details = {"score": "place in the order", "width": width, "k": float(k), "perturbation": perturbation}
    return attribution(lin, name, f"the {bound} drops that were found", scores, "sum", details)
