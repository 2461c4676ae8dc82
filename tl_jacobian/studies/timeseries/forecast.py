"""The predicted distribution of the next *number* of a series, and the influence of each number before it.

    P(number) = P(first token | series) P(second token | series, first token) …

so for two digits of a token each, ten forward passes give all ninety numbers exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from tl_jacobian.core.host.base import Host
from tl_jacobian.core.host.hosts import resolve
from tl_jacobian.core.host.precision import Precision
from tl_jacobian.core.progress import progress
from tl_jacobian.core.rerun import last_logits
from tl_jacobian.core.unembedding import exact
from tl_jacobian.errors import ArgumentError, PromptError
from tl_jacobian.results.arguments import checked, number, warn, whole
from tl_jacobian.results.attribution import COMBINE, Attribution
from tl_jacobian.results.numbers import NumberDistribution, NumberInfluence
from tl_jacobian.studies.timeseries.serialize import Ids, SerializedSeries


@checked
def predict_number(
    model: Any,
    series: SerializedSeries,
    *,
    truth: float | None = None,
    beam: int | None = None,
    batch_size: int = 16,
    precision: Precision = None,
) -> NumberDistribution:
    """What the model predicts to come after a series, as probabilities of numbers.

    A number counts as soon as its digits are there; whether the model goes on with a separator isn't asked.

    Args:
        model: the model whose tokenizer wrote the series.
        series: from :func:`serialize`.
        truth: the value that really comes next, in the data's units, for the scores. One that the series' range has
            no number for is warned of: its ``log_score`` is -inf, whatever the model; ``crps`` still says how far off
            the forecast is.
        beam: keep only so many of the most probable beginnings of a number; default: all, which is exact and takes
            1 + 10 + 100 + … forward passes where each digit is a token, and one where a number is.
        batch_size: sequences in one forward pass.
        precision: as for :func:`linearize`.

    Warns:
        UserWarning: the truth can't be written in the series' range.

    Raises:
        PromptError: the model's context or vocabulary is too small for the series.

    >>> import tl_jacobian as tj
    >>> model = tj.load_demo_model()
    >>> d = predict_number(model, tj.timeseries.serialize([1, 2, 3] * 6, model), truth=1.0)
    >>> len(d), round(d.mode), d.mass > 0.9
    (90, 1, True)
    """
    beam, batch_size = None if beam is None else whole("beam", beam), whole("batch_size", batch_size)
    host = resolve(model, precision)
    _check_model(host, series)
    truth = None if truth is None else number("truth", truth)
    if truth is not None:
        _warn_outside(series, truth)
    logs: dict[Ids, float] = {(): 0.0}  # of beginnings of numbers
    passes = 0
    for depth in range(1, series.codec.width + 1):
        kept = sorted(logs, key=lambda ids: -logs[ids])[:beam]
        passes += len(kept)
        longer = {ids[:depth] for ids in series.codec.numbers}
        logs = _extended(host, series.tokens, {ids: logs[ids] for ids in kept}, longer, batch_size)
    numbers, probabilities = _sorted(series, logs)
    return NumberDistribution(
        numbers=numbers,
        probabilities=probabilities,
        offset=series.offset,
        scale=series.scale,
        exact=len(numbers) == len(series.codec.numbers),
        truth=truth,
        metadata={**host.facts(), "forward_passes": passes, "beam": beam, "after": len(series)},
    )


def _warn_outside(series: SerializedSeries, truth: float) -> None:
    """A truth that no number stands for has no probability, which is the range's fault, not the forecast's."""
    written, codec = np.rint((truth - series.offset) / series.scale), series.codec
    if not codec.low <= written <= codec.high:
        warn(
            f"truth={truth:g} would be written {written:g}, but the series' range has numbers from {codec.low} to "
            f"{codec.high} alone, so its log_score is -inf: make room for it with data_range= or a larger margin= of "
            "serialize"
        )


def _extended(host: Host, context: Ids, logs: dict[Ids, float], longer: set[Ids], batch_size: int) -> dict[Ids, float]:
    """Log-probabilities of beginnings that are one token longer than those known."""
    after = dict(zip(logs, _next_logs(host, context, list(logs), batch_size), strict=True))
    return {ids: logs[ids[:-1]] + float(after[ids[:-1]][ids[-1]]) for ids in sorted(longer) if ids[:-1] in logs}


def _next_logs(
    host: Host, context: Ids, prefixes: Sequence[Ids], batch_size: int
) -> Float64[np.ndarray, "prefixes d_vocab"]:
    """Log-probabilities of the token after the context and each prefix; prefixes have one length."""
    tokens = [[*context, *prefix] for prefix in prefixes]
    found = []
    with progress(len(tokens), "beginnings of numbers") as bar:
        for start in range(0, len(tokens), batch_size):
            part = tokens[start : start + batch_size]
            found.append(exact(last_logits(host, part)).log_softmax(-1).numpy())
            bar.update(len(part))
    return np.concatenate(found)


def _sorted(series: SerializedSeries, found: dict[Ids, float]) -> tuple[np.ndarray, np.ndarray]:
    pairs = sorted((series.codec.decode(ids)[0], log) for ids, log in found.items())
    numbers, logs = zip(*pairs, strict=True)
    return np.array(numbers), np.exp(np.array(logs))


def _check_model(host: Host, series: SerializedSeries) -> None:
    """The series must be of this model's tokens, and fit with all tokens of a number but the last."""
    need = len(series.tokens) + series.codec.width - 1
    if host.n_ctx is not None and need > host.n_ctx:
        raise PromptError(
            f"the series' {len(series.tokens)} tokens, and {need - len(series.tokens)} of the next number's, are more "
            f"than the model's context, n_ctx={host.n_ctx}: serialize(values, model) says how many numbers fit"
        )
    largest = max(max(series.tokens), max(max(ids) for ids in series.codec.numbers))
    if largest >= host.d_vocab or host.encode(series.text) != [*series.codec.lead, *_without_bos(series)]:
        raise PromptError(
            "the series was serialised with another tokenizer than this model's: serialize(values, model)"
        )


def _without_bos(series: SerializedSeries) -> Ids:
    return series.tokens[series.groups[0][0] :]


@checked
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
    if not attribution.per_token:
        raise ArgumentError("this attribution is per word, expected one score for each token: leave out .words()")
    _check_tokens(attribution.tokens, series.tokens)
    groups = [group for group in series.groups if group[1] <= len(attribution.tokens)]
    if not groups:
        raise ArgumentError(
            f"the attribution ends at token {len(attribution.tokens) - 1}, before the first number does; "
            "explain a later position"
        )
    positions = tuple(tuple(range(*group)) for group in groups)
    grouped = attribution.grouped_by(positions)
    inside = [at for group in positions for at in group]
    outside = np.delete(attribution.scores.double().numpy(), inside)
    rest = COMBINE[attribution.combine](torch.from_numpy(outside)).item()
    return NumberInfluence(
        values=series.values[: len(groups)],
        influence=grouped.scores.double().numpy(),
        stderr=None if grouped.stderr is None else grouped.stderr.double().numpy(),
        scope=attribution.scope,
        target=attribution.target,
        positions=positions,
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
