"""Removing tokens: against runs with the model's own hooks, and on toys whose answer is known by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from cases import cases, shared
from toys import EMBED, KEY, UNEMBED, read_key, toy

import tl_jacobian as tj
from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.tokens import Word
from tl_jacobian.studies.evaluation.curves import log_probs_without, removal_order

hosts = pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge"))
PROMPT = [1, 4, 2, KEY, 5, 0, 3, 9, 2, 6]
SCOPES = {
    "semantic": tj.semantic_scope,
    "temperature": tj.temperature_scope,
    "fisher": lambda lin: tj.fisher_scope(lin, method="exact"),
    "rank 1": lambda lin: tj.fisher_scope(lin, method="low_rank"),
    "input x gradient": tj.baselines.input_x_gradient,
    "integrated": tj.baselines.path_integrated_scope,
    "leave one out": lambda lin: tj.baselines.leave_one_out(lin, measure="kl"),
}


# -- against the model ---------------------------------------------------------------------


@hosts
@pytest.mark.parametrize("perturbation", ["zero", "mean", "delete"])
def test_removed_tokens_are_gone_from_the_model(architecture, state, perturbation):
    model = shared(architecture, state)
    lin = tj.linearize(model, "Rome is it")
    sets = torch.zeros(3, len(lin.tokens), dtype=torch.bool)
    sets[1, 2], sets[2, 3:6] = True, True
    found = log_probs_without(lin, sets, 101, perturbation, batch_size=2)
    for one, log_prob in zip(sets, found, strict=True):
        assert log_prob.item() == pytest.approx(by_hand(model, lin, one, perturbation)[101].item(), abs=1e-5)


def by_hand(model, lin, removed, perturbation):
    """The model run by its own means, without those tokens."""
    x = lin.graph.x.detach()[0]

    def change(value, hook):
        value = value.clone()
        value[0, removed] = x.mean(0) if perturbation == "mean" else 0.0
        return value

    with torch.no_grad():
        if perturbation == "delete":
            return model(lin.tokens[~removed][None])[0, -1].double().log_softmax(-1)
        return model.run_with_hooks(lin.tokens[None], fwd_hooks=[("hook_embed", change)])[0, -1].log_softmax(-1)


@hosts
def test_curves_remove_the_highest_scores_first(architecture, state):
    model = shared(architecture, state)
    lin = tj.linearize(model, "Rome is it")
    a = tj.semantic_scope(lin, 101)
    (c,) = tj.perturbation_curves(lin, [a], k=[10, 50])
    order = sorted(range(len(a)), key=lambda i: -a.scores[i].item())
    for i, n in enumerate(c.n):
        top = torch.zeros(len(a), dtype=torch.bool)
        top[order[:n]] = True
        assert c.removed[i].item() == pytest.approx(by_hand(model, lin, top, "zero")[101].item(), abs=1e-5)
        assert c.kept[i].item() == pytest.approx(by_hand(model, lin, ~top, "zero")[101].item(), abs=1e-5)
    assert c.n == (math.ceil(len(a) / 10), math.ceil(len(a) / 2))
    assert c.clean == pytest.approx(lin.logits.double().log_softmax(-1)[101].item(), abs=1e-6)


# -- a model that reads one token ----------------------------------------------------------


@pytest.mark.parametrize("name", SCOPES)
@pytest.mark.parametrize("perturbation", ["zero", "mean", "delete"])
def test_every_scope_ranks_the_one_token_that_is_read_first(name, perturbation):
    lin = toy(PROMPT)
    a = SCOPES[name](lin)
    assert removal_order(a.scores)[0] == PROMPT.index(KEY)
    (c,) = tj.perturbation_curves(lin, [a], k=[10, 50], perturbation=perturbation)
    without = {
        "zero": read_key(EMBED[PROMPT] * 0, torch.tensor(PROMPT)),
        "mean": read_key(EMBED[PROMPT].mean(0).expand(10, -1), torch.tensor(PROMPT)),
        "delete": read_key(EMBED[[1]], torch.tensor([1])),
    }[perturbation]
    gone = (without @ UNEMBED).log_softmax(-1)[lin.logits.argmax()].item()
    assert c.removed.tolist() == pytest.approx([gone, gone], abs=1e-12)
    assert c.kept.tolist() == pytest.approx([c.clean, c.clean], abs=1e-12)  # the rest doesn't matter
    assert c.aopc == pytest.approx(c.clean - gone)
    assert c.comprehensiveness == pytest.approx(math.exp(c.clean) - math.exp(gone))
    assert c.sufficiency == pytest.approx(0, abs=1e-12)


def test_a_random_attribution_finds_it_no_more_often_than_chance():
    lin, draws = toy(PROMPT), 400
    found = [
        tj.baselines.random_attribution(lin, generator=torch.Generator().manual_seed(seed)).scores.argmax().item()
        for seed in range(draws)
    ]
    hits = found.count(PROMPT.index(KEY))
    assert abs(hits - draws / 10) < 4 * math.sqrt(draws * 0.1 * 0.9)


# -- what counts ---------------------------------------------------------------------------


def test_nothing_and_everything_removed():
    lin = toy(PROMPT)
    (c,) = tj.perturbation_curves(lin, [tj.semantic_scope(lin)], k=[0, 100])
    everything = (read_key(EMBED[PROMPT] * 0, torch.tensor(PROMPT)) @ UNEMBED).log_softmax(-1)
    assert c.n == (0, 10)
    assert c.removed.tolist() == pytest.approx([c.clean, everything[lin.logits.argmax()].item()])
    assert c.kept.tolist() == c.removed.flip(0).tolist()


def test_the_first_token_can_be_spared():
    lin = toy([KEY, *PROMPT])
    a = dataclasses.replace(tj.semantic_scope(lin), scores=torch.tensor([9.0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0]))
    (c,) = tj.perturbation_curves(lin, [a], k=[10, 100], skip_first=True)
    assert c.n == (1, 10)  # of the ten tokens after the first
    x = EMBED[[KEY, *PROMPT]].clone()
    x[4] = 0  # the second key: the strongest that may go
    logits = read_key(x, lin.tokens) @ UNEMBED
    assert c.removed[0].item() == pytest.approx(logits.log_softmax(-1)[lin.logits.argmax()].item())
    assert c.kept[1].item() == pytest.approx(c.clean)


@pytest.mark.parametrize(("n", "k", "count"), [(10, 5, 1), (100, 7, 7), (41, 5, 3), (3, 100, 3), (200, 14.5, 29)])
def test_percentages_are_rounded_up_to_tokens(n, k, count):
    lin = toy([KEY] * n)
    assert tj.perturbation_curves(lin, [tj.semantic_scope(lin)], k=[k])[0].n == (count,)


def test_equal_scores_go_from_left_to_right():
    assert removal_order(torch.tensor([1.0, 2.0, 2.0, 1.0])) == [1, 2, 0, 3]


def test_words_are_removed_whole():
    lin = toy(PROMPT)
    a = dataclasses.replace(tj.semantic_scope(lin), word_groups=(Word("a", 2), Word("b", 3), Word("c", 5))).words()
    (c,) = tj.perturbation_curves(lin, [a], k=[25])
    (tokens,) = tj.perturbation_curves(lin, [tj.semantic_scope(lin)], k=[10])
    assert c.n == (1,)
    assert c.removed.tolist() == tokens.removed.tolist()  # the word holds the key, and nothing else matters


def test_sets_that_methods_share_are_run_once():
    lin = toy(PROMPT)
    scopes = [SCOPES[name](lin) for name in ("semantic", "temperature", "semantic")]
    lin.rerun.runs.clear()
    tj.perturbation_curves(lin, scopes, k=[10])
    assert sum(lin.rerun.runs) == 2  # without the key; with it alone


def test_the_scored_token_is_the_explained_one():
    lin = toy(PROMPT)
    explained = tj.semantic_scope(lin, 3)
    (c,) = tj.perturbation_curves(lin, [explained])
    assert c.metadata["target_token"] == 3
    assert c.clean == pytest.approx(lin.logits.log_softmax(-1)[3].item())
    assert tj.perturbation_curves(lin, [tj.temperature_scope(lin)])[0].metadata["target_token"] == lin.logits.argmax()
    with pytest.raises(ArgumentError, match=r"must be the same, got '<2>' \(2\), '<3>' \(3\)"):
        tj.perturbation_curves(lin, [explained], target=2)
    with pytest.raises(ArgumentError, match="must be the same"):
        tj.perturbation_curves(lin, [explained, tj.semantic_scope(lin, 4)])


# -- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize("k", [[], [20, 5], [5, 5], [-1], [101], [float("nan")]])
def test_percentages_that_make_no_sense(k, unchecked):
    lin = toy(PROMPT)
    with pytest.raises(ArgumentError, match="expected rising percentages"):
        tj.perturbation_curves(lin, [tj.semantic_scope(lin)], k=k)


@pytest.mark.parametrize(
    ("k", "meant"), [([0.05, 0.1, 0.2], "5, 10, 20"), ([0.5, 1.0], "50, 100"), ([0, 0.1], "0, 10")]
)
def test_shares_in_the_place_of_percentages(k, meant, unchecked):
    lin = toy(PROMPT)
    with pytest.raises(ArgumentError, match=rf"percentages; did you mean {meant}\?"):
        tj.perturbation_curves(lin, [tj.semantic_scope(lin)], k=k)
    assert tj.perturbation_curves(lin, [tj.semantic_scope(lin)], k=[0, 0.5, 2])[0].k == (0, 0.5, 2)


def test_bad_arguments(unchecked):
    lin = toy(PROMPT)
    a = tj.semantic_scope(lin)
    with pytest.raises(ArgumentError, match="is of another prompt: '<1>"):
        tj.perturbation_curves(toy([3, KEY]), [a])
    with pytest.raises(ArgumentError, match=r"attributions=\[\], expected one or more: \[semantic_scope\(lin\), ...\]"):
        tj.perturbation_curves(lin, [])
    with pytest.raises(
        ArgumentError,
        match=r"attributions=\['semantic'\] is a list, expected an Attribution or",
    ):
        tj.perturbation_curves(lin, ["semantic"])
    with pytest.raises(ArgumentError, match="perturbation='blur', expected one of 'zero', 'mean', 'delete'"):
        tj.perturbation_curves(lin, [a], perturbation="blur")
    with pytest.raises(ArgumentError, match="deleting all 10 tokens leaves no prompt"):
        tj.perturbation_curves(lin, [a], k=[100], perturbation="delete")
    with pytest.raises(ArgumentError, match="no model to run again"):
        tj.perturbation_curves(dataclasses.replace(lin, rerun=None), [a])


def test_other_tokens_dont_fit_given_embeddings():
    model = shared("llama", "bridge")
    lin = tj.linearize(model, "abc", prepend_bos=False)
    given = tj.linearize(model, "abc", prepend_bos=False, input_value=lin.graph.x.detach())
    with pytest.raises(ArgumentError, match="ran with input_value="):
        tj.perturbation_curves(given, [tj.semantic_scope(given)], perturbation="delete")
