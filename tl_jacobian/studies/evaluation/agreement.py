"""Do two attributions rank tokens alike?"""

from __future__ import annotations

import math
from typing import NamedTuple

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import checked
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.statistics import correlation
from tl_jacobian.results.words import check_finite, four_digits


@four_digits
class Agreement(NamedTuple):
    """How alike two rankings of the same tokens are.

    Attributes:
        kendall: Kendall's tau-b, -1 to 1; 0 for unrelated rankings, NaN where all scores of one are equal.
        spearman: Spearman's rank correlation, likewise.
        overlap: share of the top k% that both have in common, 0 to 1.
        expected: what ``overlap`` would be for unrelated rankings.
    """

    kendall: float
    spearman: float
    overlap: float
    expected: float


@checked
def rank_agreement(a: Attribution, b: Attribution, *, k: float | int = 20, skip_first: bool = False) -> Agreement:
    """Rank agreement of two attributions of one prompt, by the size of their scores (a scope's have no sign).

    Args:
        a, b: attributions with the same units, such as a scope and :func:`leave_one_out`.
        k: percentage of the units for ``overlap``, rounded up.
        skip_first: leave the first unit out, which an attention sink often dominates in both.

    Raises:
        ArgumentError: they are of different prompts or units, have fewer than two units, or scores that aren't finite.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> a, b = tj.fisher_scope(lin, method="low_rank"), tj.baselines.leave_one_out(lin, measure="kl")
    >>> tj.rank_agreement(a, b, k=40).overlap
    0.5
    """
    if a.tokens != b.tokens or a.units != b.units:
        raise ArgumentError(
            f"the two attributions ({a.scope}, {b.scope}) are of different prompts or units; compare those of one "
            "prompt, both per token or both per word"
        )
    kept = [i for i, unit in enumerate(a.units) if not (skip_first and 0 in unit)]
    n = len(kept)
    if n < 2:
        raise ArgumentError(f"{n} units have no ranking, expected at least 2")
    if not 0 < k <= 100:
        raise ArgumentError(f"k={k!r}, expected a percentage above 0, up to 100")
    for x in (a, b):
        check_finite(x.scores.tolist(), "ranked")
    sizes = [x.scores[kept].double().abs() for x in (a, b)]
    top = math.ceil(k / 100 * n)
    best, also = (set(x.argsort(descending=True, stable=True)[:top].tolist()) for x in sizes)
    one, other = (x.numpy() for x in sizes)
    return Agreement(
        correlation(one, other, "kendall"),  # NaN for a constant
        correlation(one, other, "spearman"),
        len(best & also) / top,
        top / n,
    )
