"""Counterfactuals: whether scores and changes rank words alike; no model."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.attribution import Prediction
from tl_jacobian.results.counterfactuals import Counterfactuals, Edit

NONE = Prediction(0, "x", 0.5)


def value(scores, changes, kind="removed", kls=None):
    """One edit a change: (word, size)."""
    edits = [
        Edit(i, f"w{i}", scores[i], kind, "", 0.0, c, abs(c) if kls is None else kls[k], NONE)
        for k, (i, c) in enumerate(changes)
    ]
    return Counterfactuals(
        prompt="p",
        words=tuple(f"w{i}" for i in range(len(scores))),
        scores=tuple(scores),
        scope="s",
        quantity="q",
        value=0.0,
        prediction=NONE,
        edits=tuple(edits),
    )


def test_agreement_is_spearmans_with_an_exact_p():
    scores, changes = [5.0, 1.0, 3.0, 2.0], [-4.0, 0.5, 1.0, -2.0]
    found = value(scores, list(enumerate(changes))).agreement()
    assert found.spearman == pytest.approx(stats.spearmanr(scores, [abs(c) for c in changes]).statistic)
    assert found.p == pytest.approx(4 / 24)  # this order, or the perfect one, or two as good
    assert (found.n, found.first, found.rank_of_first) == (4, "w0", 1)


def test_a_scope_that_names_the_wrong_word_first():
    found = value([9.0, 1.0, 2.0], [(0, 0.1), (1, 3.0), (2, -2.0)]).agreement()
    assert (found.first, found.rank_of_first) == ("w0", 3)
    assert found.spearman < 0
    assert found.p > 0.5


def test_planted_scores_agree_and_random_ones_dont():
    changes = torch.randn(12, generator=torch.Generator().manual_seed(0)).tolist()
    same = value([abs(c) for c in changes], list(enumerate(changes))).agreement()
    assert (same.spearman, same.rank_of_first) == (1.0, 1)
    assert same.p < 0.001
    generator = torch.Generator().manual_seed(1)
    ps = [
        value(torch.rand(12, generator=generator).tolist(), list(enumerate(changes))).agreement().p for _ in range(40)
    ]
    assert 0.3 < sum(ps) / len(ps) < 0.7


def test_of_several_replacements_the_mean_size_counts():
    c = value([3.0, 2.0, 1.0], [(0, 1.0), (0, -9.0), (1, 4.0), (2, 0.0)], kind="replaced")
    assert c.agreement("replaced").rank_of_first == 1
    c = value([3.0, 2.0, 1.0], [(0, 1.0), (0, -3.0), (1, 4.0), (2, 0.0)], kind="replaced")
    assert c.agreement("replaced").rank_of_first == 2


def test_the_divergence_in_place_of_the_change():
    c = value([3.0, 2.0, 1.0], [(0, 1.0), (1, 2.0), (2, 3.0)], kls=[0.3, 0.2, 0.1])
    assert (c.agreement().spearman, c.agreement(effect="kl").spearman) == (-1.0, 1.0)
    assert (c.top(1)[0].word, c.top(1, "kl")[0].word) == ("w2", "w0")


def test_ends_are_left_out():
    c = value([9.0, 3.0, 2.0, 1.0, 9.5], [(0, 0.0), (1, 3.0), (2, 2.0), (3, 1.0), (4, 0.1)])
    inner = c.agreement(skip_first=True, skip_last=True)
    assert (inner.n, inner.spearman, inner.first) == (3, 1.0, "w1")
    assert c.agreement(skip_first=True).n == 4


@pytest.mark.parametrize(
    ("c", "message"),
    [
        (value([1.0, 2.0], [(0, 1.0), (1, 2.0)]), "2 words were removed, expected 3 or more"),
        (value([1.0] * 3, list(enumerate([1.0, 2.0, 3.0]))), "3 words were removed, .* that differ"),
        (value([1.0, 2.0, 3.0], list(enumerate([1.0, 1.0, -1.0]))), "that differ"),
        (value([1.0, 2.0, 3.0], list(enumerate([1.0, 2.0, 3.0])), kind="replaced"), "0 words were removed"),
    ],
)
def test_nothing_to_rank_is_refused(c, message):
    with pytest.raises(ArgumentError, match=message):
        c.agreement()


@pytest.mark.usefixtures("unchecked")
def test_unknown_kinds_and_effects_are_refused():
    with pytest.raises(ArgumentError, match="kind='gone', expected one of 'removed', 'replaced'"):
        value([1.0], []).agreement("gone")


def test_a_table_has_a_row_an_edit():
    table = value([1.0, 2.0], [(0, 1.0), (1, 2.0)]).to_dataframe()
    assert list(table) == [
        *("at", "word", "score", "kind", "replacement", "value", "change", "kl", "prediction", "probability", "n_words")
    ]
    assert table.change.tolist() == [1.0, 2.0]


def test_every_word_has_a_score():
    with pytest.raises(ArgumentError, match="2 scores for 1 words, expected one each"):
        Counterfactuals(
            prompt="", words=("a",), scores=(1.0, 2.0), scope="", quantity="", value=0.0, prediction=NONE, edits=()
        )
