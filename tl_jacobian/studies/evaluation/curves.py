"""Removing tokens in an attribution's order: AOPC, comprehensiveness, sufficiency, MoRF and LeRF curves.

One set of runs gives them all. Where an answer is explained, it stays: tokens of the prompt are removed, and the same
answer is asked for. ``removed``: the target's log-probability without the k% of tokens that score
highest ("most relevant first", MoRF). ``kept``: with nothing but those, which is the same as removing the other
100% - k, lowest first ("least relevant first", LeRF).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tl_jacobian.analyses.baselines.runs import (
    BATCH,
    checked_rerun_of,
    explained_tokens,
    inputs_of,
    prompt_length,
)
from tl_jacobian.analyses.baselines.trivial import check_counts
from tl_jacobian.core.answer import AnswerLinearization
from tl_jacobian.core.linearization import Linearized
from tl_jacobian.core.progress import progress
from tl_jacobian.core.prompts import Target
from tl_jacobian.core.rerun import Rerun
from tl_jacobian.core.unembedding import log_prob, wide
from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import checked, excerpt, whole
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.curves import PerturbationCurves
from tl_jacobian.results.words import check_finite

Perturbation = Literal["zero", "mean", "delete", "resample"]


class Removed(NamedTuple):
    """What removing sets of tokens does; ``(runs,)`` each, in nats, float64.

    Attributes:
        log_prob: log-probability of the token, or the answer, that is watched.
        divergence: KL(p || p without them) of the whole predicted distribution; for an answer the sum over its tokens,
            each given those before it.
    """

    log_prob: Float[Tensor, " runs"]
    divergence: Float[Tensor, " runs"]


def other_tokens(tokens: Sequence[int], counts: Mapping[int, int], generator: torch.Generator) -> Int[Tensor, " pos"]:
    """For each token another one, drawn as often as it occurs in a corpus: what ``"resample"`` puts in its place.

    Args:
        tokens: of a prompt.
        counts: how often each token id occurs.
        generator: of the draws.

    Raises:
        ArgumentError: there is no other token to draw.

    >>> other_tokens([7, 8], {7: 10, 8: 1}, torch.Generator().manual_seed(0)).tolist()
    [8, 7]
    """
    check_counts(counts)
    ids = torch.tensor(list(counts))
    own = torch.tensor(list(tokens))
    weights = torch.tensor(list(counts.values()), dtype=torch.float64).repeat(len(own), 1) * (ids != own[:, None])
    if not weights.any(1).all():
        raise ArgumentError(f"counts of {len(ids)} tokens hold no other one to draw, expected two or more above 0")
    return ids[torch.multinomial(weights, 1, generator=generator)[:, 0]]


def log_probs_without(
    lin: Linearized,
    removed: Bool[Tensor, "runs pos"],
    target: int | Sequence[int],
    perturbation: Perturbation = "zero",
    batch_size: int = BATCH,
) -> Float[Tensor, " runs"]:
    """The log-probability of :func:`removed_from`."""
    return removed_from(lin, removed, target, perturbation, batch_size=batch_size).log_prob


@checked
def removed_from(
    lin: Linearized,
    removed: Bool[Tensor, "runs pos"],
    target: int | Sequence[int],
    perturbation: Perturbation = "zero",
    others: Int[Tensor, " pos"] | None = None,
    batch_size: int = BATCH,
) -> Removed:
    """What removing sets of tokens does to a token or an answer, and to the distribution: one run a set.

    Equal sets are run once.

    Args:
        lin: one linearization.
        removed: which tokens each run goes without; none of an answer's own.
        target: id of the token that is scored; those of an answer.
        perturbation: ``"zero"`` puts zeros in the place of the embedding, ``"mean"`` the mean of the prompt's
            embeddings, ``"delete"`` takes the token out of the prompt, so that later ones move up, ``"resample"``
            puts another token in its place.
        others: for ``"resample"``: id of the token that comes into each place; see :func:`other_tokens`.
        batch_size: runs in one forward pass.

    Raises:
        ArgumentError: an unknown perturbation, nothing would be left to delete from, or no tokens to put in places.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> france = torch.tensor([[False] * 5, [False, False, False, True, False]])
    >>> before, after = removed_from(lin, france, int(lin.logits.argmax())).log_prob.exp().tolist()
    >>> before > 0.7, after < 0.1
    (True, True)
    """
    rerun, tokens = checked_rerun_of(lin), list(target) if isinstance(target, Sequence) else [target]
    if removed[:, prompt_length(lin) :].any():
        raise ArgumentError(
            "removed has tokens of the answer, expected those of the prompt: the answer is what is asked for"
        )
    if (perturbation == "resample") != (others is not None):
        raise ArgumentError(
            f"perturbation={perturbation!r} with others={excerpt(others)}: tokens to put in places are for 'resample', "
            "which needs them: other_tokens(lin.tokens, counts, generator)"
        )
    sets, which = torch.unique(removed, dim=0, return_inverse=True)
    found = torch.zeros(len(sets), 2, dtype=torch.float64)
    touched = sets.any(1)
    old = wide(lin.logits).reshape(len(tokens), -1).log_softmax(-1)
    found[~touched, 0] = log_prob(old, tokens).cpu()
    run = _runs(lin, rerun, sets, perturbation, others)
    found[touched] = _each_batch(run, sets[touched], old, tokens, batch_size)
    return Removed(*found[which].unbind(1))


def _runs(
    lin: Linearized, rerun: Rerun, sets: Tensor, perturbation: Perturbation, others: Tensor | None
) -> Callable[[Tensor], Tensor]:
    """From a batch of sets to the logits without them."""
    if perturbation in ("zero", "mean"):
        x = inputs_of(lin)
        left = x.mean(0) if perturbation == "mean" else torch.zeros_like(x[0])
        return lambda part: rerun.logits(torch.where(part.to(x.device)[..., None], left, x))
    ids = lin.tokens.cpu()
    if perturbation == "resample":
        put = ids.clone() if others is None else others.cpu()
        if len(put) != len(ids):
            raise ArgumentError(f"others are {len(put)} tokens, expected one for each of the {len(ids)} of the prompt")
        return lambda part: rerun.prompts(torch.where(part, put, ids).tolist())
    if sets[:, : (n := prompt_length(lin))].all(1).any():
        raise ArgumentError(f"deleting all {n} tokens leaves no prompt; take a smaller k, or perturbation='zero'")
    return lambda part: rerun.prompts([ids[keep].tolist() for keep in ~part])


def _each_batch(
    run: Callable[[Tensor], Tensor], sets: Tensor, old: Tensor, tokens: Sequence[int], batch_size: int
) -> Float[Tensor, "runs 2"]:
    found = []
    with progress(len(sets), "prompts with tokens removed") as bar:
        for part in sets.split(batch_size):
            for logits in run(part):
                new = wide(logits).reshape(len(tokens), -1).log_softmax(-1)
                # A token that the model rules out has no part in the divergence, whatever rules it out now.
                apart = torch.where(old.isfinite(), old.exp() * (old - new), 0.0).sum()
                found.append(torch.stack([log_prob(new, tokens), apart.clamp_min(0.0)]))
            bar.update(len(part))
    return torch.stack(found).cpu() if found else torch.empty(0, 2, dtype=torch.float64)


PERCENTAGES = (5.0, 10.0, 20.0)


@checked
def perturbation_curves(
    lin: Linearized,
    attributions: Attribution | Sequence[Attribution],
    *,
    k: Sequence[float | int] = PERCENTAGES,
    target: Target | None = None,
    perturbation: Perturbation = "zero",
    others: Int[Tensor, " pos"] | None = None,
    skip_first: bool = False,
    sufficiency: bool = True,
    batch_size: int = BATCH,
) -> list[PerturbationCurves]:
    """Remove tokens in the order of each attribution, and watch the token, or the answer, that they explain.

    Positions after the explained one can't matter: they are neither removed nor counted. Nor are those of an answer,
    which stays as it is, whatever their scores. Runs that several attributions ask for are made once.

    Args:
        lin: the linearization that the attributions explain.
        attributions: of any scope or baseline, per token or per word.
        k: percentages; k% of n tokens is rounded up.
        target: whose log-probability is watched; default: the attributions' own target, and the most probable
            next token where none of them has one. An answer is its own.
        perturbation: how a token is removed: ``"zero"`` puts zeros in the place of its embedding, ``"mean"`` the mean
            of the prompt's embeddings, ``"delete"`` takes it out, so that later ones move up, ``"resample"`` puts
            another token in its place.
        others: for ``"resample"``, ids of the tokens that come into each place.
        skip_first: never remove the first token, and don't count it.
        sufficiency: whether to run the prompt with nothing but the top k% too; half of all runs.
        batch_size: runs in one forward pass.

    Returns:
        One for each attribution, in nats.

    Raises:
        ArgumentError: no attribution, one of another prompt or of another target or with scores that aren't finite, or
            an option out of range.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
    >>> tj.perturbation_curves(lin, [tj.semantic_scope(lin, " Paris")], k=[20, 40])[0].n
    (1, 2)
    """
    if isinstance(attributions, Attribution):
        attributions = [attributions]
    if not attributions:
        raise ArgumentError("attributions=[], expected one or more: [semantic_scope(lin), ...]")
    ks = percentages(k)
    whole("batch_size", batch_size)
    for a in attributions:
        _check_prompt(a, lin)
    tokens = scored_tokens(lin, attributions, target)
    attributions = [a.prompt for a in attributions]
    tops = [_tops(a, ks, skip_first) for a in attributions]
    # Nothing removed comes first: the whole prompt.
    asked = [torch.zeros(1, len(lin.tokens), dtype=torch.bool)]
    for a, top in zip(attributions, tops, strict=True):
        asked += [_per_token(top, a), *([_rest(top, a, skip_first)] if sufficiency else [])]
    runs = removed_from(lin, torch.cat(asked), tokens, perturbation, others, batch_size)
    found, moved = (column.split([len(x) for x in asked]) for column in runs)
    each = 2 if sufficiency else 1
    facts = {**_facts(lin, tokens), "perturbation": perturbation, "skip_first": skip_first}
    return [
        PerturbationCurves(
            k=ks,
            n=tuple(top.sum(1).tolist()),
            clean=found[0].item(),
            removed=found[1 + each * i],
            kept=found[2 + each * i] if sufficiency else None,
            divergence=moved[1 + each * i],
            scope=a.scope,
            metadata={**facts, "attribution": dict(a.metadata)},
        )
        for i, (a, top) in enumerate(zip(attributions, tops, strict=True))
    ]


def scored_tokens(lin: Linearized, attributions: Sequence[Attribution], target: Target | None) -> tuple[int, ...]:
    """The token whose log-probability is watched, or the answer's: what is explained.

    Raises:
        ArgumentError: it isn't the same for all.
    """
    explained = (a.metadata.get("answer_tokens") or a.metadata.get("target_token") for a in attributions)
    own = {(one,) if isinstance(one, int) else tuple(one) for one in explained if one is not None}
    single = next((one for one in own if len(one) == 1), None)
    asked = single if single and target is None and lin.y.ndim == 1 else explained_tokens(lin, target)
    if own - {asked}:
        other = ", ".join(f"{''.join(map(lin.decode, t))!r} ({', '.join(map(str, t))})" for t in sorted(own | {asked}))
        raise ArgumentError(
            f"the explained token and the scored one must be the same, got {other}; explain one token, or one answer"
        )
    return asked


def _facts(lin: Linearized, tokens: Sequence[int]) -> dict[str, Any]:
    if isinstance(lin, AnswerLinearization):
        return {"answer_tokens": list(tokens), "target": lin.text}
    return {"target_token": tokens[0], "target": lin.decode(tokens[0])}


def removal_order(scores: Float[Tensor, " units"]) -> list[int]:
    """Units from the highest score to the lowest; of equal ones the earlier first."""
    return torch.argsort(scores, descending=True, stable=True).tolist()


def _tops(a: Attribution, ks: Sequence[float], skip_first: bool) -> Bool[Tensor, "k units"]:
    """The units that score highest, for each percentage."""
    check_finite(a.scores.tolist(), "ranked")
    kept = torch.tensor([i for i, unit in enumerate(a.units) if not (skip_first and 0 in unit)], dtype=torch.long)
    order = kept[removal_order(a.scores[kept])]
    tops = torch.zeros(len(ks), len(a), dtype=torch.bool)
    for row, k in zip(tops, ks, strict=True):
        row[order[: math.ceil(round(k / 100 * len(order), 9))]] = True  # 7% of 100 is 7, not 7.000000000000001
    return tops


def _per_token(units: Bool[Tensor, "k units"], a: Attribution) -> Bool[Tensor, "k pos"]:
    tokens = torch.zeros(len(units), len(a.tokens), dtype=torch.bool)
    for i, unit in enumerate(a.units):
        tokens[:, list(unit)] = units[:, i, None]
    return tokens


def _rest(units: Bool[Tensor, "k units"], a: Attribution, skip_first: bool) -> Bool[Tensor, "k pos"]:
    """All other tokens that may be removed."""
    rest = _per_token(~units, a)
    rest[:, 0] &= not skip_first
    return rest


def _check_prompt(a: Attribution, lin: Linearized) -> None:
    if a.tokens != tuple(lin.tokens.tolist()):
        raise ArgumentError(
            f"the {a.scope} attribution is of another prompt: {''.join(a.str_tokens)[:60]!r} instead of "
            f"{''.join(lin.str_tokens)[:60]!r}; explain the linearization that is given"
        )


def percentages(k: Sequence[float | int]) -> tuple[float, ...]:
    """Percentages of tokens, checked.

    Raises:
        ArgumentError: they don't rise, aren't between 0 and 100, or are shares in the place of percentages.
    """
    try:
        values = tuple(map(float, k)) if isinstance(k, Sequence) and not isinstance(k, str) else ()
    except (TypeError, ValueError):  # of something that is no number
        values = ()
    if not values or not all(0 <= x <= 100 for x in values) or sorted(set(values)) != list(values):
        raise ArgumentError(f"k={k!r}, expected rising percentages between 0 and 100, such as (5, 10, 20)")
    if values[-1] <= 1 and any(0 < x < 1 for x in values):
        meant = ", ".join(f"{100 * x:g}" for x in values)
        raise ArgumentError(f"k={k!r}: percentages; did you mean {meant}?")
    return values
