"""AttributionMap: the matrix, words on both sides, tables, equality; no model."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.attribution import Attribution, Prediction
from tl_jacobian.results.attribution_map import AttributionMap
from tl_jacobian.results.tokens import Word

TEXTS = ("The", " cap", "ital", " is")
WORDS = (Word("The", 1), Word(" capital", 2), Word(" is", 1))


def row(position, scores=None, **fields):
    n = position + 1
    fields.setdefault("target", f"target {position}")
    fields.setdefault("scope", "semantic")
    words = tuple(w for w in (Word("The", 1), Word(" capital"[: 4 if n == 2 else 8], min(2, n - 1)), Word(" is", 1)))
    return Attribution(
        scores=torch.arange(1.0, n + 1) * 10**position if scores is None else torch.tensor(scores),
        tokens=tuple(range(5, 5 + n)),
        str_tokens=TEXTS[:n],
        position=position,
        word_groups=words[: {1: 1, 2: 2, 3: 2, 4: 3}[n]],
        predictions=(Prediction(7, " x", 0.5),),
        **fields,
    )


def whole(**fields):
    return AttributionMap(
        attributions=tuple(row(p, **fields) for p in range(4)),
        next_texts=(" cap", "ital", " is", None),
        target_words=(Word(" capital", 2), Word(" is", 1), Word("", 1)),
        metadata={"target_rule": "next"},
    )


def test_scores_are_lower_triangular_and_hold_every_row():
    m = whole()
    assert m.scores.dtype == torch.float32
    assert torch.equal(m.scores, m.scores.tril())
    assert torch.equal(m.mask, torch.ones(4, 4, dtype=torch.bool).tril())
    for i, a in enumerate(m):
        assert torch.equal(m.scores[i, : len(a)], a.scores)
        assert m[i] is a
    assert m[-1].position == 3
    assert (m.positions, m.str_tokens, m.tokens) == ((0, 1, 2, 3), TEXTS, (5, 6, 7, 8))
    assert (m.scope, m.combine, m.targets[2]) == ("semantic", "root_sum_squares", "target 2")


def test_a_subset_of_targets_keeps_all_sources():
    m = AttributionMap(attributions=(row(1), row(3)), next_texts=("ital", None))
    assert m.scores.shape == (2, 4)
    assert m.mask.tolist() == [[True, True, False, False], [True] * 4]


def test_standard_errors_need_every_row():
    errors = [torch.ones(n) for n in (1, 2)]
    both = [row(p, stderr=errors[p]) for p in (0, 1)]
    assert AttributionMap(attributions=tuple(both), next_texts=("a", None)).stderr.tolist() == [[1, 0], [1, 1]]
    assert AttributionMap(attributions=(both[0], row(1)), next_texts=("a", None)).stderr is None


def test_words_merge_sources_and_targets_by_root_sum_squares():
    w = whole().words()
    raw = whole().scores.double()
    assert w.str_tokens == ("The", " capital", " is")
    assert w.next_texts == (" capital", " is", None)
    blocks = [[raw[r][:, c].square().sum().sqrt() for c in ([0], [1, 2], [3])] for r in ([0, 1], [2], [3])]
    torch.testing.assert_close(w.scores, torch.tensor(blocks).float())
    assert torch.equal(w.mask, torch.tensor([[True, True, False], [True, True, False], [True] * 3]))
    assert w[0].str_tokens == ("The", " cap"), "of its own word a target sees the beginning"
    assert w[0].target == "target 0, target 1"
    assert w[0].metadata["merged_positions"] == [0, 1]
    assert w[0].predictions == ()
    assert w[2] == whole()[3].words()


def test_words_add_up_for_traces():
    w = whole(combine="sum", scope="fisher").words()
    assert w.scores[0].tolist() == [1 + 10, 20, 0]


def test_standard_errors_of_words_add_up_for_traces_alone():
    def rows(**fields):
        return tuple(row(p, stderr=torch.full((p + 1,), 0.1), **fields) for p in range(4))

    m = whole()
    traces = AttributionMap(
        attributions=rows(combine="sum"), next_texts=m.next_texts, target_words=m.target_words
    ).words()
    torch.testing.assert_close(traces.stderr, torch.tensor([[0.2, 0.1, 0], [0.1, 0.2, 0], [0.1, 0.2, 0.1]]))
    norms = AttributionMap(attributions=rows(), next_texts=m.next_texts, target_words=m.target_words).words()
    assert [a.stderr for a in norms] == [None] * 3


def test_words_of_words_are_the_same():
    assert whole().words().words() == whole().words()


def test_the_frobenius_norm_of_words_is_that_of_tokens():
    assert whole().words().scores.norm().item() == pytest.approx(whole().scores.norm().item())


def test_words_without_target_words_merge_the_sources_alone():
    w = AttributionMap(attributions=(row(1), row(3)), next_texts=("ital", None)).words()
    assert w.next_texts == ("ital", None)
    assert w.scores.shape == (2, 3)


def test_the_table_has_one_row_a_pair():
    table = whole().to_dataframe()
    assert len(table) == 1 + 2 + 3 + 4
    first = table[(table.target == 2) & (table.source == 1)].iloc[0]
    assert (first.source_text, first.next_text, first.explained, first.score) == (" cap", " is", "target 2", 200)
    assert table.stderr.isna().all()


def test_equality_copies_and_pickles():
    m = whole()
    assert m == whole()
    assert m != whole(target="another")
    assert m != 3
    assert copy.deepcopy(m) == m
    assert pickle.loads(pickle.dumps(m)) == m
    with pytest.raises(AttributeError):
        m.next_texts = ()
    with pytest.raises(TypeError):
        m.metadata["target_rule"] = "x"


def test_repr_is_one_short_line():
    assert repr(whole()) == "AttributionMap(semantic: 4 targets x 4 sources of 'The capital is')"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(attributions=(), next_texts=()), "a map of no targets, expected at least one attribution"),
        (dict(attributions=(row(1), row(0)), next_texts=("a", None)), r"positions 1, 0: expected increasing ones"),
        (dict(attributions=(row(1), row(1)), next_texts=("a", None)), r"positions 1, 1: expected increasing ones"),
        (dict(attributions=(row(1),), next_texts=()), r"0 next_texts for 1 targets, expected one each"),
        (
            dict(attributions=(row(0), row(1, scope="fisher")), next_texts=("a", None)),
            r"scopes 'semantic' and 'fisher' in one map",
        ),
        (
            dict(attributions=(row(1), row(3).words()), next_texts=("a", None)),
            None,  # " cap" is the beginning of " capital"
        ),
        (dict(attributions=(row(2), row(3).words()), next_texts=("a", None)), r"position 2 has other units"),
        (dict(attributions=(row(2).words(), row(3)), next_texts=("a", None)), r"position 2 has other units"),
        (
            dict(attributions=(row(1),), next_texts=("a",), target_words=(Word("a", 2),)),
            r"target_words of \[2\] targets don't add up to 1 targets",
        ),
    ],
)
def test_rows_that_make_no_map_are_refused(fields, message):
    if message is None:
        AttributionMap(**fields)
        return
    with pytest.raises(ArgumentError, match=message):
        AttributionMap(**fields)


def test_rows_of_different_texts_are_refused():
    other = Attribution(scores=torch.ones(1), tokens=(99,), str_tokens=("z",), position=0, scope="semantic", target="t")
    with pytest.raises(ArgumentError, match="positions 0 and 1 are of different texts, expected one"):
        AttributionMap(attributions=(other, row(1)), next_texts=("a", None))


@pytest.mark.parametrize("index", [4, -5, " is"], ids=repr)
@pytest.mark.usefixtures("unchecked")
def test_rows_that_are_not_there_say_how_many_are(index):
    with pytest.raises(IndexError, match=r"of a map of 4 rows; which token each explains is in \.positions"):
        whole()[index]


@pytest.mark.usefixtures("unchecked")
def test_several_rows_at_once_are_shown_another_way():
    with pytest.raises(IndexError, match=r"rows slice\(0, 2, None\): a map gives one row at a time; tj.compare"):
        whole()[0:2]


def test_token_0_stays_apart_among_the_sources():
    def part(n):
        return Attribution(
            scores=torch.arange(3.0, 3 + n),
            tokens=tuple(range(n)),
            str_tokens=("Par", "is", " is")[:n],
            position=n - 1,
            scope="s",
            target="t",
            word_groups=(Word("Paris"[: 5 if n > 1 else 3], min(n, 2)), Word(" is", 1))[: 1 if n < 3 else 2],
        )

    m = AttributionMap(attributions=(part(1), part(2), part(3)), next_texts=("is", " is", None))
    assert m.words().str_tokens == ("Par", "is", " is")
    assert m.words().units == ((0,), (1,), (2,))
    assert m.words(split_first=False).str_tokens == ("Paris", " is")
    assert [a.str_tokens for a in m.words(split_first=False)] == [("Par",), ("Paris",), ("Paris", " is")]
