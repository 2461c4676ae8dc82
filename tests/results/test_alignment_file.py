"""Word alignments as tables and as files: exact, and damage is named."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
import torch
from test_word_alignment import running

from tl_jacobian.errors import AttributionFileError
from tl_jacobian.studies.language import WordAlignment

NAN: Any = float("nan")


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
    thirds = WordAlignment.of_matrix(torch.rand(3, 4, generator=torch.Generator().manual_seed(0)), "äbcd", ' "\u202e')
    thirds.save(tmp_path / "b.json")
    assert WordAlignment.load(tmp_path / "b.json") == thirds


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(format="tl_jacobian.grid"), "not a saved word alignment: .*this is a saved grid"),
        (dict(version=2), "version 2 of the word alignment format is unknown"),
        (dict(influence=[[1, 2], [3]]), r"damaged word alignment: ValueError: rows of \[1, 2\] numbers"),
        (dict(influence=[[1] * 6]), r"damaged word alignment: ArgumentError: influence of shape \(1, 6\)"),
        (dict(influence=[[1] * 6, [-1] * 6]), "damaged word alignment: ArgumentError: influence holds a negative"),
        (dict(influence=[[1] * 6, [NAN] * 6]), "damaged word alignment: ValueError: expected a finite number, got nan"),
        (dict(influence=[["1"] * 6, [1] * 6]), "damaged word alignment: TypeError: expected a number, got '1'"),
        (dict(sources=[1, 9]), r"damaged word alignment: ArgumentError: 2 words for sources=\(1, 9\)"),
        (dict(targets=[4, "5"]), "damaged word alignment: TypeError: expected int, got '5'"),
        (dict(source_words=["s0", 1]), "damaged word alignment: TypeError: expected str, got 1"),
        (dict(combine="mean"), "damaged word alignment: ValueError: combine='mean'"),
        (dict(metadata=[]), "damaged word alignment: TypeError: expected dict"),
    ],
)
def test_what_is_damaged_or_foreign_is_named(tmp_path, change, message):
    path = tmp_path / "a.json"
    running().save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(AttributionFileError, match=f"a.json: {message}"):
        WordAlignment.load(path)


def test_a_missing_part_is_named(tmp_path):
    path = tmp_path / "a.json"
    running().save(path)
    whole = json.loads(path.read_text())
    for key in set(whole) - {"format", "version"}:
        path.write_text(json.dumps({k: v for k, v in whole.items() if k != key}))
        with pytest.raises(AttributionFileError, match=f"damaged word alignment: KeyError: '{key}'"):
            WordAlignment.load(path)


def test_a_truncated_file_is_named(tmp_path):
    path = tmp_path / "a.json"
    running().save(path)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(AttributionFileError, match=r"a\.json is damaged or truncated"):
        WordAlignment.load(path)
