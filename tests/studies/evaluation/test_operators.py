"""Ways to remove tokens, what they do to the whole distribution, and the best and worst orders: against naive twins."""

from __future__ import annotations

import math
from itertools import combinations, permutations

import pytest
import torch
from cases import cases, shared
from toys import KEY, read_squared, toy

import tl_jacobian as tj
from tl_jacobian.errors import ArgumentError
from tl_jacobian.studies.evaluation.bounds import beam_search
from tl_jacobian.studies.evaluation.curves import other_tokens, removed_from

hosts = pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge"))
OPERATORS = ("zero", "mean", "delete", "resample")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# -- replacement by other tokens, and the divergence ---------------------------------------


@hosts
def test_other_tokens_take_the_removed_ones_places(architecture, state):
    model = shared(architecture, state)
    lin = tj.linearize(model, "Rome is it")
    others = other_tokens(lin.tokens.tolist(), dict.fromkeys(range(60, 100), 1), generator())
    assert (others != lin.tokens).all()
    sets = torch.zeros(3, len(lin.tokens), dtype=torch.bool)
    sets[1, 2], sets[2, 3:6] = True, True
    found = removed_from(lin, sets, 101, "resample", others, batch_size=2)
    before = lin.logits.double().log_softmax(-1)
    for i, one in enumerate(sets):
        with torch.no_grad():
            now = model(torch.where(one, others, lin.tokens)[None])[0, -1].double().log_softmax(-1)
        assert found.log_prob[i].item() == pytest.approx(now[101].item(), abs=1e-5)
        assert found.divergence[i].item() == pytest.approx((before.exp() * (before - now)).sum().item(), abs=1e-5)


@hosts
def test_the_divergence_of_an_answer_is_the_sum_over_its_tokens(architecture, state):
    model = shared(architecture, state)
    lin = tj.linearize(model, "Rome is", answer=" it no", prepend_bos=False)
    sets = torch.zeros(1, len(lin.tokens), dtype=torch.bool)
    sets[0, 2] = True
    found = removed_from(lin, sets, lin.answer, "delete")
    with torch.no_grad():
        ids = lin.tokens[~sets[0]]
        now = model(ids[None])[0, -len(lin.answer) :].double().log_softmax(-1)
    before = lin.logits.double().log_softmax(-1)
    assert found.divergence.item() == pytest.approx((before.exp() * (before - now)).sum().item(), abs=1e-5)
    assert found.log_prob.item() == pytest.approx(sum(now[i, t].item() for i, t in enumerate(lin.answer)), abs=1e-5)


def test_tokens_are_drawn_as_often_as_they_occur_and_never_the_token_itself():
    counts = {1: 60, 2: 30, 3: 10}
    drawn = other_tokens([1] * 3000 + [9] * 3000, counts, generator())
    own, foreign = drawn[:3000], drawn[3000:]
    assert (own != 1).all()
    for token, share in ((2, 0.75), (3, 0.25)):
        assert ((own == token).double().mean() - share).abs() < 4 * math.sqrt(share * (1 - share) / 3000)
    assert ((foreign == 1).double().mean() - 0.6).abs() < 4 * math.sqrt(0.6 * 0.4 / 3000)


def test_what_resampling_needs(unchecked):
    lin = toy([1, KEY, 2])
    sets = torch.ones(1, 3, dtype=torch.bool)
    with pytest.raises(ArgumentError, match="counts of 1 tokens hold no other one to draw"):
        other_tokens([5], {5: 3}, generator())
    with pytest.raises(ArgumentError, match="perturbation='resample' with others=None"):
        removed_from(lin, sets, 0, "resample")
    with pytest.raises(ArgumentError, match="perturbation='zero' with others="):
        removed_from(lin, sets, 0, "zero", torch.tensor([1, 1, 1]))
    with pytest.raises(ArgumentError, match="others are 2 tokens, expected one for each of the 3"):
        removed_from(lin, sets, 0, "resample", torch.tensor([1, 1]))


# -- controls that must fail do -------------------------------------------------------------

PROMPT = [1, KEY, 2, KEY, 5, 0]


def operator(name):
    return {"perturbation": name, **({"others": torch.tensor([2, 3, 4, 5, 6, 8])} if name == "resample" else {})}


@pytest.mark.parametrize("name", OPERATORS)
def test_a_random_ranking_scores_at_chance(name):
    """Its mean drop is that of all sets of its size, whatever the operator."""
    lin, target = toy(PROMPT, read_squared), 4
    every = torch.zeros(15, 6, dtype=torch.bool)
    for row, pair in zip(every, combinations(range(6), 2), strict=True):
        row[list(pair)] = True
    runs = removed_from(lin, every, target, **operator(name))
    rankings = [tj.baselines.random_attribution(lin, generator=generator(seed)) for seed in range(40)]
    curves = tj.perturbation_curves(lin, rankings, k=[33], target=target, sufficiency=False, **operator(name))
    for each, chance in (("removed", runs.log_prob), ("divergence", runs.divergence)):
        mean = torch.stack([getattr(c, each) for c in curves]).mean()
        assert (mean - chance.mean()).abs() < 4 * chance.std() / math.sqrt(40)


# -- the best and the worst order -----------------------------------------------------------


def mean_drop(lin, order, target, **how):
    sets = torch.zeros(len(order), len(lin.tokens), dtype=torch.bool)
    for i in range(len(order)):
        sets[i, list(order[: i + 1])] = True
    runs = removed_from(lin, sets, target, **how)
    return (lin.logits.log_softmax(-1)[target] - runs.log_prob).mean().item()


@pytest.mark.parametrize("name", OPERATORS)
def test_a_wide_beam_finds_the_best_and_the_worst_of_all_orders(name):
    lin, target, depth = toy(PROMPT, read_squared), 4, 3
    every = {order: mean_drop(lin, order, target, **operator(name)) for order in permutations(range(6), depth)}
    for bound, best in (("highest", max(every.values())), ("lowest", min(every.values()))):
        a = beam_search(lin, target, bound=bound, k=50, width=20, **operator(name))
        order = tuple(a.scores.argsort(descending=True)[:depth].tolist())
        assert (a.scores > 0).sum() == depth
        assert every[order] == pytest.approx(best, abs=1e-12)


def test_a_narrow_beam_is_greedy_and_can_spare_the_first_token():
    lin, target = toy(PROMPT, read_squared), 4
    a = beam_search(lin, target, k=40, width=1, skip_first=True)
    first, second = a.scores.argsort(descending=True)[:2].tolist()
    alone = {i: mean_drop(lin, (i,), target) for i in range(1, 6)}
    assert alone[first] == max(alone.values())
    after = {i: mean_drop(lin, (first, i), target) for i in range(1, 6) if i != first}
    assert after[second] == max(after.values())
    assert a.scores[0] == 0
    assert a.scope == "beam_highest"


def test_an_answers_own_tokens_are_never_removed():
    lin = tj.linearize(shared("llama", "bridge"), "Rome", answer=" is it", prepend_bos=False)
    a = beam_search(lin, k=100)
    assert (a.scores[: lin.answer_start] > 0).all()
    assert (a.scores[lin.answer_start :] == 0).all()
