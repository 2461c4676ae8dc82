"""Linearity: how far first order is from what really happened, and its numbers as a table; no model."""

from __future__ import annotations

import math

import pytest
import torch

from tl_jacobian.results.linearity import Linearity

FOUND = Linearity(
    epsilons=(0.01, 0.1),
    positions=(2, 3),
    str_tokens=(" of", " France"),
    predicted=torch.tensor([[0.3, 0.4], [3.0, 4.0]]),
    actual=torch.tensor([[0.3, 0.4], [0.0, 0.0]]),
)


def test_the_error_is_relative_to_what_was_promised():
    """Exact at the small step; at the large one nothing happens, so that all of the promise is missing."""
    assert FOUND.relative_error.tolist() == pytest.approx([0.0, 1.0])


def test_where_nothing_was_promised_there_is_no_relative_error():
    nothing = Linearity(
        epsilons=(0.1,), positions=(0,), str_tokens=("a",), predicted=torch.zeros(1, 1), actual=torch.zeros(1, 1)
    )
    assert math.isnan(nothing.relative_error[0])
    assert nothing.panels()[0].rows[0][1].text == "nan"


def test_a_row_for_each_step_and_token():
    table = FOUND.to_dataframe()
    assert list(table.columns) == ["epsilon", "position", "text", "predicted", "actual"]
    assert table["epsilon"].tolist() == [0.01, 0.01, 0.1, 0.1]
    assert table["position"].tolist() == [2, 3, 2, 3]
    assert table["text"].tolist() == [" of", " France"] * 2
    assert table["predicted"].tolist() == FOUND.predicted.flatten().tolist()
    assert table["actual"].tolist() == FOUND.actual.flatten().tolist()


def test_what_its_table_says():
    table, curve = FOUND.panels()
    assert [cell.text for cell in table.rows[1]] == ["0.1", "1", "+3 → +0", "+4 → +0"]
    assert table.header == ("epsilon", "relative error", "2 ' of'", "3 ' France'")
    assert table.notes == ("of each token: predicted → actual change, in logits",)
    assert curve.curves[0].y == pytest.approx((0.0, 1.0))
