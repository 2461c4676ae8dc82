"""Alignments against gold links: the definitions by hand, chance by enumeration, planted alignments."""

from __future__ import annotations

import itertools
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import tl_jacobian as tj
from tl_jacobian.studies.language import (
    WordAlignment,
    chance_alignment,
    diagonal_alignment,
    link_score,
    parse_links,
    score_alignment,
)
from tl_jacobian.studies.language.score import average_precision, reciprocal_rank

gold_rows = st.lists(st.booleans(), min_size=1, max_size=5).filter(any)


def planted(links, n, m, noise=0.1):
    """A matrix whose highest numbers are the links."""
    matrix = noise * torch.rand(m, n, generator=torch.Generator().manual_seed(3))
    for source, target in links:
        matrix[target, source] = 1.0
    return WordAlignment.of_matrix(matrix, [f"s{i}" for i in range(n)], [f"t{i}" for i in range(m)])


def test_aer_by_hand():
    """A = 4 links, 2 of them sure, 3 possible; S = 3: 1 - (2 + 3) / (4 + 3)."""
    score = link_score({(0, 0), (1, 1), (2, 3), (4, 4)}, sure={(0, 0), (1, 1), (2, 2)}, possible={(2, 3)})
    assert score.aer == pytest.approx(1 - 5 / 7)
    assert score.precision == 3 / 4
    assert score.recall == 2 / 3
    assert score.f1 == pytest.approx(2 * (3 / 4) * (2 / 3) / (3 / 4 + 2 / 3))


def test_with_sure_links_alone_aer_is_one_minus_f1():
    score = link_score({(0, 0), (1, 2), (3, 3)}, sure={(0, 0), (3, 3), (2, 2), (4, 1)})
    assert score.aer == pytest.approx(1 - score.f1)


def test_no_links_recall_nothing():
    score = link_score(set(), sure={(0, 0)})
    assert score[:1] + score[2:] == (1.0, 0.0, 0.0)
    assert math.isnan(score.precision)


def test_nothing_sure_is_refused():
    with pytest.raises(tj.errors.ArgumentError, match="no sure gold link"):
        link_score({(0, 0)}, sure=set(), possible={(0, 0)})


def test_a_planted_alignment_is_perfect():
    links = [(3, 0), (0, 1), (1, 2), (2, 3)]
    score = score_alignment(planted(links, 4, 4), links)
    assert score == (0.0, 1.0, 1.0, 1.0, 1.0, 1.0)


def test_an_alignment_is_scored_as_its_links_are():
    links = [(3, 0), (0, 1), (1, 2), (2, 3)]
    a, sure, possible = planted(links, 5, 4), [(3, 0), (0, 1), (4, 2)], [(1, 2)]
    assert score_alignment(a, sure, possible)[:4] == pytest.approx(link_score(a.links(), sure, possible))


def test_chance_is_the_mean_over_random_alignments():
    n, m, sure, possible = 4, 3, [(0, 0), (1, 0), (3, 2)], [(2, 1)]
    chance = score_alignment(chance_alignment(["s"] * n, ["t"] * m), sure, possible)
    every = list(itertools.product(range(n), repeat=m))
    drawn = [link_score({(s, t) for t, s in enumerate(sources)}, sure, possible) for sources in every]
    for name in ("aer", "precision", "recall"):
        assert getattr(chance, name) == pytest.approx(sum(getattr(d, name) for d in drawn) / len(every))


@pytest.mark.slow
def test_random_matrices_get_chance_on_average():
    generator, n, m, sure = torch.Generator().manual_seed(0), 5, 4, [(0, 0), (1, 0), (4, 1), (3, 3)]
    words = ["s"] * n, ["t"] * m
    found = [
        score_alignment(WordAlignment.of_matrix(torch.rand(m, n, generator=generator), *words), sure)
        for _ in range(1500)
    ]
    chance = score_alignment(chance_alignment(*words), sure)
    for name in ("aer", "precision", "recall", "reciprocal_rank", "average_precision"):
        values = torch.tensor([getattr(score, name) for score in found])
        error = values.std().item() / len(values) ** 0.5
        assert values.mean().item() == pytest.approx(getattr(chance, name), abs=4 * error)


def orders(scores):
    """All rankings that the scores allow, as lists of indices."""
    for permutation in itertools.permutations(range(len(scores))):
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(permutation)):
            yield permutation


def naive(scores, gold, of_ranking):
    values = [of_ranking([gold[i] for i in order]) for order in orders(scores)]
    return sum(values) / len(values)


def naive_reciprocal_rank(ranking):
    return 1 / (1 + ranking.index(True))


def naive_average_precision(ranking):
    hits = [i for i, is_gold in enumerate(ranking, start=1) if is_gold]
    return sum((k + 1) / rank for k, rank in enumerate(hits)) / len(hits)


@given(gold_rows, st.data())
def test_ranks_with_ties_are_expectations_over_orders(gold, data):
    scores = data.draw(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=len(gold), max_size=len(gold)))
    assert reciprocal_rank(scores, gold) == pytest.approx(naive(scores, gold, naive_reciprocal_rank))
    assert average_precision(scores, gold) == pytest.approx(naive(scores, gold, naive_average_precision))


def test_target_words_without_gold_links_dont_count_for_ranks():
    a = planted([(1, 0), (0, 1)], 2, 2)
    assert score_alignment(a, [(1, 0)]).reciprocal_rank == 1
    assert score_alignment(a, [(1, 0)]).precision == 1 / 2


def test_the_diagonal_of_sentences_of_two_lengths():
    a = diagonal_alignment(["s"] * 4, ["t"] * 2)
    assert score_alignment(a, [(0, 0), (1, 0), (2, 1), (3, 1)]).precision == 1
    assert sorted(diagonal_alignment(["s"] * 2, ["t"] * 4).links()) == [(0, 0), (0, 1), (1, 2), (1, 3)]


@pytest.mark.parametrize("link", [(2, 0), (0, 2), (-1, 0)])
def test_gold_links_outside_the_sentences_are_refused(link):
    with pytest.raises(
        tj.errors.ArgumentError, match=rf"gold link {link[0]}-{link[1]} .* is outside 2 source words and 2"
    ):
        score_alignment(planted([], 2, 2), [link])


def test_gold_links_may_be_written_as_text():
    a = planted([(1, 0), (0, 1)], 2, 2)
    assert score_alignment(a, "1-0 0-1") == score_alignment(a, [(1, 0), (0, 1)])
    assert score_alignment(a, "1-0", "0-1") == score_alignment(a, [(1, 0)], [(0, 1)])
    assert link_score("1-0 0-1", sure="1-0", possible="0-1") == link_score({(1, 0), (0, 1)}, {(1, 0)}, {(0, 1)})


@pytest.mark.parametrize(
    "links", [[("dog", "Hund")], {0: 0}, [(0,)], [(0, 0, 1)], [0], 3, None, [(0.5, 1)], [(True, 1)], ["0-0"]]
)
@pytest.mark.usefixtures("unchecked")
def test_what_isnt_a_link_is_refused(links):
    message = r"expected pairs of word indices \(source, target\).*parse_links"
    a = planted([], 2, 2)
    with pytest.raises(tj.errors.ArgumentError, match=rf"sure.*{message}"):
        score_alignment(a, links)
    with pytest.raises(tj.errors.ArgumentError, match=rf"possible.*{message}"):
        score_alignment(a, [(0, 0)], links)
    with pytest.raises(tj.errors.ArgumentError, match=message):
        link_score(links, [(0, 0)])


def test_links_are_written_as_alignment_tools_do():
    assert parse_links(" 0-0  11-2") == {(0, 0), (11, 2)}
    assert parse_links("") == frozenset()


@pytest.mark.parametrize("text", ["0", "0-a", "0 - 1"])
def test_links_that_cant_be_read(text):
    with pytest.raises(tj.errors.ArgumentError, match=r'expected pairs like "0-0 1-2"'):
        parse_links(text)
