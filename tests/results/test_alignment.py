"""WordAlignment as a value: links, rows, grids, what it refuses; no model."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle

import pandas as pd
import pytest
import torch

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.alignment import AlignedWord, WordAlignment

MATRIX = torch.tensor([[0.1, 0.2, 0.7], [6.0, 1.0, 3.0], [2.0, 1.0, 1.0]])


def make(matrix=MATRIX, **fields):
    m, n = matrix.shape
    a = WordAlignment.of_matrix(matrix, [f"s{i}" for i in range(n)], [f"t{i}" for i in range(m)])
    return a if not fields else WordAlignment(**{**vars_of(a), **fields})


def vars_of(a):
    names = ("influence", "units", "sources", "targets", "source_words", "target_words", "scope", "combine", "metadata")
    return {name: getattr(a, name) for name in names}


def running(combine="sum"):
    """ "X: s0 s1 = t0 t1" with influence of the text between, and of t0 on t1."""
    return WordAlignment(
        influence=torch.tensor([[1.0, 3.0, 2.0, 4.0, 0.0, 0.0], [1.0, 6.0, 2.0, 0.0, 1.0, 0.0]]),
        units=("X:", " s0", " s1", " =", " t0", " t1"),
        sources=(1, 2),
        targets=(4, 5),
        source_words=("s0", "s1"),
        target_words=("t0", "t1"),
        scope="fisher",
        combine=combine,
        metadata={"score": "nats"},
    )


def test_the_matrix_is_the_source_words_part_of_the_influence():
    assert running().matrix.tolist() == [[3.0, 2.0], [6.0, 2.0]]
    assert torch.equal(make().matrix, MATRIX)
    torch.testing.assert_close(running().shares, torch.tensor([[0.6, 0.4], [0.75, 0.25]]))


def test_argmax_links_every_target_word():
    assert make().links() == {(2, 0), (0, 1), (0, 2)}
    assert make(torch.tensor([[0.0, 0.0], [1.0, 2.0]])).links() == {(1, 1)}, "nothing drives it, nothing is linked"


def test_the_intersection_asks_the_source_words_too():
    """s0's largest shares are in rows t1 (0.6) and t2 (0.5), s2's in t0."""
    assert make().links("intersection") == {(2, 0), (0, 1)}


def test_a_share_links_what_has_it():
    assert make().links(0.25) == {(2, 0), (0, 1), (2, 1), (0, 2), (1, 2), (2, 2)}
    assert make().links(0.65) == {(2, 0)}


@pytest.mark.parametrize("method", ["best", 0.0, 1.5, -0.1, True])
@pytest.mark.usefixtures("unchecked")
def test_other_methods_are_refused(method):
    with pytest.raises(ArgumentError, match=f"method={method!r}.*, expected .*argmax.*intersection"):
        make().links(method)


def test_relative_shares_forget_how_much_a_source_word_drives_everything():
    columns = torch.tensor([5.0, 1.0, 0.2])
    rows = torch.tensor([[1.0], [10.0], [0.3]])
    planted = torch.eye(3).flip(0) + 0.5
    a = make(planted * columns * rows)
    assert a.links() == {(0, 0), (0, 1), (0, 2)}
    shares = a.matrix / a.matrix.sum(1, keepdim=True)
    torch.testing.assert_close(a.relative().matrix, shares / shares.mean(0))
    assert a.relative().links() == {(2, 0), (1, 1), (0, 2)}
    assert a.relative().scope == "given, relative"


def test_a_row_by_text_or_index():
    row = running().row("t1")
    assert (row.index, row.word, row.scores.tolist()) == (1, "t1", [6.0, 2.0])
    assert row.top(1) == [(0, "s0", 6.0)]
    assert running().row(-1) == row
    assert repr(row) == "AlignedWord('t1': 's0' 6, 's1' 2)"


@pytest.mark.parametrize(
    ("word", "message"),
    [("t9", "'t9' is 0 target words, expected one of 0 't0', 1 't1'"), (2, "target word 2 of 2, expected -2 to 1")],
)
def test_rows_that_arent_there(word, message):
    with pytest.raises(ArgumentError, match=message):
        running().row(word)


def test_a_word_that_is_there_twice_goes_by_index():
    a = WordAlignment.of_matrix(torch.eye(2), ["le", "la"], ["the", "the"])
    with pytest.raises(ArgumentError, match="'the' is 2 target words"):
        a.row("the")
    assert a.row(1).top(1)[0].text == "la"


def test_the_source_words_share_of_all_influence():
    assert running().row(0).source_share == pytest.approx(5 / 10)
    assert running("root_sum_squares").row(0).source_share == pytest.approx(13 / 30)
    assert math.isnan(make().row(0).source_share)


def test_the_grid_is_the_matrix_by_words():
    grid = running().to_grid(per_row=False)
    assert torch.equal(grid.values, running().matrix)
    assert (grid.rows, grid.columns, grid.quantity) == (("t0", "t1"), ("s0", "s1"), "nats")
    torch.testing.assert_close(running().to_grid().values.sum(1), torch.ones(2))
    zeros = make(torch.zeros(1, 2)).to_grid()
    assert zeros.values.tolist() == [[0.0, 0.0]]


def test_a_value_owns_what_it_holds_and_equals_its_copies():
    matrix = MATRIX.clone()
    a = make(matrix)
    matrix.zero_()
    assert a == make()
    assert a != make(MATRIX + 1)
    assert a != 5
    assert copy.deepcopy(a) == a == pickle.loads(pickle.dumps(a))
    with pytest.raises(TypeError, match="metadata can't be changed"):
        a.metadata["x"] = 1


def test_its_repr_names_the_pairs():
    assert repr(running()) == "WordAlignment(fisher: 2 x 2 words; t0=s0, t1=s0)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(influence=torch.ones(2, 6)), r"influence of shape \(2, 6\), expected \(3, 6\)"),
        (dict(influence=-torch.ones(3, 6)), "negative or infinite number or NaN"),
        (dict(influence=torch.full((3, 6), torch.nan)), "negative or infinite number or NaN"),
        (dict(sources=(0, 1, 6)), r"3 words for sources=\(0, 1, 6\), expected .* its unit, 0 to 5"),
        (dict(sources=(0, 1)), r"3 words for sources=\(0, 1\)"),
        (dict(sources=(), source_words=()), "0 words for sources"),
    ],
)
def test_what_doesnt_fit_is_refused(change, message):
    with pytest.raises(ArgumentError, match=message):
        make(**{"scope": "x", **change})


def test_a_matrix_that_doesnt_fit_is_refused():
    with pytest.raises(ArgumentError, match=r"shape \(2, 2\) for 1 target words and 2 source words, expected"):
        WordAlignment.of_matrix(torch.eye(2), ["a", "b"], ["c"])


def test_a_word_that_is_token_0_is_left_out_of_rankings_and_stays_in_the_numbers():
    a = dataclasses.replace(make(), positions=((0,), (1, 2), (3,), (4,), (5,), (6,)))
    assert a.row("t1").top(2) == [(2, "s2", 3.0), (1, "s1", 1.0)]
    assert a.row("t1").top(1, skip_first=False) == [(0, "s0", 6.0)]
    assert a.links() == make().links()
    assert a.to_grid().units == ((0,), (1, 2), (3,))
    with pytest.raises(ArgumentError, match="2 positions for 6 units, expected one each"):
        dataclasses.replace(make(), positions=((0,), (1,)))
    with pytest.raises(ArgumentError, match="token position 0 is in two units"):
        dataclasses.replace(make(), positions=((0,),) * 6)


def test_a_row_outside_is_refused():
    with pytest.raises(ArgumentError, match="target word 7 of 3"):
        AlignedWord(alignment=make(), index=7)
    assert AlignedWord(alignment=make(), index=-1).index == 2


def test_a_rows_table():
    table = running().row("t1").to_dataframe()
    assert (table.word.tolist(), table.influence.tolist(), table.share.tolist()) == (["s0", "s1"], [6, 2], [0.75, 0.25])


def test_the_table_is_the_matrix_by_words():
    table = running().to_dataframe()
    assert (list(table.index), list(table.columns)) == (["t0", "t1"], ["s0", "s1"])
    assert (table.index.name, table.columns.name) == ("target word", "source word")
    assert table.loc["t1", "s0"] == 6.0
    assert table.to_numpy().tolist() == running().matrix.tolist()


def test_words_that_are_there_twice_keep_their_places():
    a = WordAlignment.of_matrix(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), ["le", "le"], ["the", "the"])
    table = a.to_dataframe()
    assert (list(table.index), list(table.columns)) == (["the", "the"], ["le", "le"])
    assert [table.iloc[i, j] for i in (0, 1) for j in (0, 1)] == [1, 2, 3, 4]


def test_the_table_is_the_users_own():
    a = running()
    table = a.to_dataframe()
    table.iloc[0, 0] = 99.0
    assert a == running()
    assert isinstance(a.to_dataframe(), pd.DataFrame)


@pytest.mark.parametrize("combine", ["sum", "root_sum_squares"])
def test_a_saved_alignment_comes_back_equal(tmp_path, combine):
    a = running(combine)
    a.save(tmp_path / "a.json")
    again = WordAlignment.load(tmp_path / "a.json")
    assert again == a
    assert again.links() == a.links()
    assert again.metadata == {"score": "nats"}
    thirds = WordAlignment.of_matrix(
        torch.rand(3, 4, generator=torch.Generator().manual_seed(0)), list("äbcd"), list(' "\u202e')
    )
    thirds.save(tmp_path / "b.json")
    assert WordAlignment.load(tmp_path / "b.json") == thirds
