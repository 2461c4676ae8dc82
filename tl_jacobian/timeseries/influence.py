"""From token scores to the influence of each number of a series."""

from __future__ import annotations

import numpy as np

from tl_jacobian.attribution import Attribution
from tl_jacobian.errors import ArgumentError
from tl_jacobian.number_influence import NumberInfluence
from tl_jacobian.timeseries.serialize import SerializedSeries


def number_influence(attribution: Attribution, series: SerializedSeries) -> NumberInfluence:
    """The influence of each number: that of its tokens jointly; separators, and a BOS token, are left out.

    Scores combine by the attribution's own rule: the square root of the sum of squares for vector scopes (the
    tokens move inside one joint epsilon-ball), the sum for Fisher's traces.

    Args:
        attribution: of the series' tokens, one score a token. It may explain an earlier position (numbers
            after it are left out), or one after the first tokens of the *next* number.
        series: from :func:`serialize`.

    Raises:
        ArgumentError: the attribution is per word, of other tokens, or ends before the first number does.

    >>> import tl_jacobian as tj
    >>> model = tj.load_demo_model()
    >>> series = tj.timeseries.serialize(tj.timeseries.lorenz(12), model)
    >>> a = tj.temperature_scope(tj.linearize(model, list(series.tokens)))
    >>> len(a), len(number_influence(a, series))
    (36, 12)
    """
    if attribution.sizes != (1,) * len(attribution.tokens):
        raise ArgumentError("this attribution is per word, expected one score for each token: leave out .words()")
    _check_tokens(attribution.tokens, series.tokens)
    groups = [group for group in series.groups if group[1] <= len(attribution.tokens)]
    if not groups:
        raise ArgumentError(
            f"the attribution ends at token {len(attribution.tokens) - 1}, before the first number does; "
            "explain a later position"
        )
    sizes, places = _sizes(groups, len(attribution.tokens))
    grouped = attribution.grouped(sizes)
    outside = np.delete(grouped.scores.double().numpy(), places)
    rest = float(np.linalg.norm(outside) if attribution.combine == "root_sum_squares" else outside.sum())
    return NumberInfluence(
        values=series.values[: len(groups)],
        influence=grouped.scores.double().numpy()[places],
        stderr=None if grouped.stderr is None else grouped.stderr.double().numpy()[places],
        scope=attribution.scope,
        target=attribution.target,
        metadata={**attribution.metadata, "combine": attribution.combine, "influence_outside_numbers": rest},
    )


def _check_tokens(explained: tuple[int, ...], written: tuple[int, ...]) -> None:
    common = min(len(explained), len(written))
    if explained[:common] != written[:common]:
        at = next(i for i, (a, b) in enumerate(zip(explained, written, strict=False)) if a != b)
        raise ArgumentError(
            f"the attribution's token {at} is {explained[at]}, the series' {written[at]}: linearize the series' own "
            "tokens, linearize(model, list(series.tokens))"
        )


def _sizes(groups: list[tuple[int, int]], n: int) -> tuple[list[int], list[int]]:
    """Sizes of consecutive groups of tokens, each token outside a number alone; and which groups are numbers."""
    sizes: list[int] = []
    places: list[int] = []
    for start, stop in groups:
        sizes += [1] * (start - sum(sizes))
        places.append(len(sizes))
        sizes.append(stop - start)
    return sizes + [1] * (n - sum(sizes)), places
