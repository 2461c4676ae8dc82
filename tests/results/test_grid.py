"""Grid: a frozen table of named numbers that ranks, picks, saves and tabulates itself; no model."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
from typing import Any

import pytest
import torch

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.grid import Cell, Grid

NAN = math.nan
ODD = ("</script>", "שלום", "a\n\nb", "\ud800")


def grid(values: Any = ((9.0, 1.0, 0.5), (8.0, -2.0, NAN)), **fields: Any) -> Grid:
    values = torch.as_tensor(values)
    defaults: dict[str, Any] = dict(
        values=values,
        rows=tuple(map(str, range(values.shape[0]))),
        columns=("The", " cat", " sat", " on")[: values.shape[1]],
        title="influence on v",
        quantity="logits",
        row_axis="layer",
        column_axis="token",
        signed=True,
    )
    return Grid(**{**defaults, **fields})


# -- a frozen value --------------------------------------------------------------------


def test_values_become_a_cpu_float32_copy_without_a_graph():
    values = torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    g = grid(values)
    assert (g.values.dtype, g.values.requires_grad) == (torch.float32, False)
    plain = torch.tensor([[1.0, 2.0]])
    g = grid(plain)
    plain[0, 0] = 7
    assert g.values.tolist() == [[1, 2]]


def test_fields_and_metadata_are_read_only():
    given = {"model": "m"}
    g = grid(metadata=given)
    given["model"] = "other"
    assert g.metadata["model"] == "m"
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'title'"):
        g.title = "x"
    with pytest.raises(TypeError, match="metadata can't be changed"):
        g.metadata["model"] = "x"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(rows=("0",)), r"values of shape \(2, 3\) for 1 rows and 3 columns, expected shape \(1, 3\)"),
        (dict(columns=("a", "b")), r"for 2 rows and 2 columns, expected shape \(2, 2\): one name for each"),
        (dict(tokens=(5, 6)), "2 tokens for 3 columns, expected one each, or none at all"),
        (dict(signed=False), "layer '1', token ' cat' is -2, expected none below zero .* pass signed=True"),
        (dict(values=torch.tensor([[0.0, 1, 2], [3, 4, math.inf]])), "layer '1', token ' sat' is infinite"),
        (dict(values=torch.full((2, 3), 1e300, dtype=torch.float64)), "layer '0', token 'The' is infinite"),
        (dict(metadata={"x": object()}), "metadata holds a object"),
    ],
)
def test_what_does_not_go_together_is_refused(change, message):
    with pytest.raises(ArgumentError, match=message):
        grid(**change)


def test_a_grid_of_nothing_is_refused():
    with pytest.raises(ArgumentError, match="a grid of 0 rows and 3 columns, expected at least one of each"):
        grid(torch.zeros(0, 3), columns=("a", "b", "c"))


@pytest.mark.usefixtures("unchecked")
def test_values_that_are_no_table_are_refused():
    with pytest.raises(
        ArgumentError, match=r"values has shape \(3,\) .*expected a tensor of floats of shape \(rows, columns\)"
    ):
        dataclasses.replace(grid(((1.0, 2.0, 3.0),)), values=torch.ones(3))


def test_tokens_of_a_grid_over_other_columns_are_the_prompts():
    assert grid(column_axis="head", tokens=(1, 2, 3, 4, 5)).tokens == (1, 2, 3, 4, 5)


def test_equality_is_bit_for_bit():
    assert grid() == grid()
    assert grid() != grid(((9.0, 1.0, 0.5), (8.0, -2.0, 0.0)))
    assert grid() != grid(((9.0, 1.0, 0.5 + 1e-7), (8.0, -2.0, NAN)))
    assert grid(((0.0,),)) != grid(((-0.0,),)), "the same number, but other bits"
    assert grid(title="a") != grid(title="b")
    assert grid() != "grid"
    with pytest.raises(TypeError, match="unhashable"):
        hash(grid())


def test_every_nan_is_the_same_nan():
    other = torch.tensor([[0x7FC00001]], dtype=torch.int32).view(torch.float32)
    assert grid(other) == grid(((NAN,),))


def test_copies_and_pickles_are_equal():
    g = grid(metadata={"a": [1]})
    for again in (copy.copy(g), copy.deepcopy(g), pickle.loads(pickle.dumps(g))):
        assert again == g
        with pytest.raises(TypeError, match="metadata can't be changed"):
            again.metadata["a"] = 1


def test_repr_gives_the_size_and_the_largest_number():
    assert repr(grid()) == "Grid(influence on v; 2 layers x 3 tokens; largest: -2 at '1', ' cat')"
    assert repr(grid(((NAN,),))) == "Grid(influence on v; 1 layers x 1 tokens)"


# -- ranking and choosing ------------------------------------------------------------------


def test_top_ranks_by_size_and_leaves_out_gaps():
    cells = grid().top(10, skip_first=False)
    assert [cell.value for cell in cells] == [9, 8, -2, 1, 0.5]
    assert cells[2] == Cell(1, 1, "1", " cat", -2.0)
    assert grid().top(0) == grid().top(-1) == []


def test_top_without_the_first_token():
    assert [cell.value for cell in grid().top(2)] == [-2, 1]
    assert [cell.value for cell in grid(((3.0,), (4.0,))).top()] == [4, 3], "there is no other"


def test_what_is_no_token_0_stays():
    assert grid(column_axis="head").top(1)[0].value == 9
    words = grid(column_axis="word", units=((0, 1), (2,), (3,)), tokens=(5, 6, 7, 8))
    assert words.top(1)[0].value == 9
    apart = grid(column_axis="word", units=((1, 2), (0,), (3,)))
    assert [cell.value for cell in apart.top(2)] == [9, 8]
    assert [cell.value for cell in apart.top(3, skip_first=False)] == [9, 8, -2]


def test_columns_have_the_positions_of_their_tokens():
    assert grid().units == ((0,), (1,), (2,))
    assert grid(column_axis="head").units == ()
    assert grid() == grid(units=((0,), (1,), (2,)))
    assert grid().pick("1").units == grid().units


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (((0,), (1,)), "units of 2 columns for 3 columns, expected one each"),
        (((0,), (1,), ()), "unit 2 has no token"),
        (((0,), (1,), (1,)), "token position 1 is in two units"),
        (((0,), (1,), (7,)), "unit 2 has token position 7, expected 0 to 3"),
    ],
)
def test_units_that_do_not_fit_are_refused(units, message):
    with pytest.raises(ArgumentError, match=message):
        grid(units=units, tokens=(5, 6, 7, 8))


NAMES = ("embed", "0.attn", "0.mlp", "1.attn", "1.mlp", "1")


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        (("attn",), ("0.attn", "1.attn")),
        (("1",), ("1",)),
        (("1.",), ("1.attn", "1.mlp")),
        (("mlp", "embed", "0.mlp"), ("embed", "0.mlp", "1.mlp")),
    ],
)
def test_pick_takes_an_exact_name_or_else_a_part_of_names(names, rows):
    g = grid(torch.arange(6.0)[:, None], rows=NAMES, metadata={"model": "m"})
    picked = g.pick(*names)
    assert picked.rows == rows
    assert picked.values[:, 0].tolist() == [NAMES.index(row) for row in rows]
    assert (picked.metadata, picked.columns) == (g.metadata, g.columns)


def test_pick_names_the_nearest_row():
    g = grid(torch.arange(6.0)[:, None], rows=NAMES)
    with pytest.raises(ArgumentError, match=r"'0\.attm' .* the nearest is '0\.attn' of 6 layers from 'embed' to '1'"):
        g.pick("attn", "0.attm")
    with pytest.raises(ArgumentError, match=r"pick\(\) got no name of a row, expected some of 'embed', '0.attn'"):
        g.pick()


# -- out of Python -----------------------------------------------------------------------


def test_the_dataframe_is_long():
    table = grid().to_dataframe()
    assert list(table.columns) == ["row", "column", "row_name", "column_name", "value"]
    assert len(table) == 6
    assert table.iloc[4].tolist() == [1, 1, "1", " cat", -2.0]
    assert math.isnan(table.value.iloc[5])


def test_the_round_trip_is_exact_with_gaps_and_odd_tokens(tmp_path):
    g = grid(((1 / 3, NAN, 3.5e-40, -0.0),), columns=ODD, tokens=(1, 2, 3, 4), metadata={"seed": 1, "x": None})
    g.save(tmp_path / "g.json")
    text = (tmp_path / "g.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["value"]["values"][0][1] is None, "valid JSON has no NaN"
    again = Grid.load(tmp_path / "g.json")
    assert again == g
    assert type(again.columns) is tuple
    assert again.columns == ODD
