"""Evaluations side by side, their operators and blocks: tables of numbers that are known by hand."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.evaluation import Evaluation
from tl_jacobian.results.side_by_side import ranks_agree, side_by_side
from tl_jacobian.results.statistics import bootstrap_mean


def made(drops, *, name="corpus", model="demo", also=None, **more):
    """One record a row of drops by method: the log-probability is 0."""
    n = len(next(iter(drops.values())))
    methods = [{m: {"removed": [-d[i]]} for m, d in drops.items()} for i in range(n)]
    records = [{"log_prob": 0.0, "methods": one, **more} for one in methods]
    if also:
        for i, record in enumerate(records):
            record["also"] = {
                op: {m: {"removed": [-d[i]], "divergence": [d[i]]} for m, d in by.items()} for op, by in also.items()
            }
    return Evaluation(name=name, records=tuple(records), metadata={"k": [20.0], "model": model, "explained": "word"})


ZERO = {"a": [3.0, 5.0, 4.0], "b": [2.0, 1.0, 3.0], "c": [1.0, 1.0, 1.0], "random": [9.0, 9.0, 9.0]}
MEAN = {"a": [3.0, 5.0, 4.0], "b": [0.0, 0.0, 0.0], "c": [2.0, 1.0, 1.0], "random": [0.0, 0.0, 0.0]}


def test_other_operators_are_views_of_the_same_records():
    e = made(ZERO, also={"mean, first kept": MEAN})
    assert e.operators == ("zero", "mean, first kept")
    other = e.under("mean, first kept")
    assert other.values("aopc", "c") == [2.0, 1.0, 1.0]
    assert other.values("divergence", "c") == [2.0, 1.0, 1.0]
    assert other.operators == ("mean, first kept",)
    assert "mean embedding in their place, the first token kept" in other.to_markdown()
    assert e.under("zero") is e
    with pytest.raises(ArgumentError, match="operator='delete', expected one of"):
        e.under("delete")


def test_ranks_are_compared_by_counting_pairs():
    e = made(ZERO, also={"mean": MEAN})
    (found,) = ranks_agree({op: e.under(op) for op in e.operators})
    order = {op: [np.mean(by[m]) for m in "abc"] for op, by in (("zero", ZERO), ("mean", MEAN))}
    signs = [
        np.sign((order["zero"][i] - order["zero"][j]) * (order["mean"][i] - order["mean"][j]))
        for i, j in combinations(range(3), 2)
    ]
    assert found == ("zero", "mean", pytest.approx(sum(signs) / 3), 3)  # random isn't ranked


def test_a_table_of_models_and_operators():
    table, agreement = side_by_side([made(ZERO, also={"mean": MEAN}), made(MEAN, model="/models/qwen")])
    assert table.header == ("method", "demo, corpus, zero", "demo, corpus, mean", "qwen, corpus, zero")
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    i = bootstrap_mean(ZERO["a"])
    assert rows["a"][0] == f"4.00 [{i.low:.2f}, {i.high:.2f}] (2)"  # random is higher
    assert rows["a"][2].endswith("(1)")
    assert len(agreement.rows) == 3
    with pytest.raises(ArgumentError, match="two evaluations are of 'demo, corpus, zero'"):
        side_by_side([made(ZERO), made(ZERO)])
    with pytest.raises(ArgumentError, match=r"evaluations=\[\], expected one or more"):
        side_by_side([])


def test_methods_that_one_model_lacks_are_blank():
    table, _ = side_by_side([made(ZERO), made({"a": [1.0, 2.0, 3.0]}, model="other")])
    assert {row[0].text: row[2].text for row in table.rows}["b"] == ""


def test_normalised_between_the_bounds():
    e = made({"a": [3.0, 1.0, 4.0], "beam_lowest": [-1.0, 1.0, 2.0], "beam_highest": [7.0, 1.0, 6.0]})
    values = e.values("normalized_aopc", "a")
    assert values[0] == 0.5
    assert math.isnan(values[1])  # nothing to tell apart
    assert values[2] == 0.5
    assert e.interval("normalized_aopc", "a").n == 2
    assert e.values("normalized_aopc", "beam_highest")[0] == 1.0
    assert e.values("normalized_aopc", "beam_lowest")[0] == 0.0
    assert "normalized_aopc" not in made(ZERO).metrics


def test_beyond_recency_is_the_drop_beyond_the_matched_one():
    records = [
        {"log_prob": -1.0, "methods": {"a": {"removed": [-3.0, -5.0], "matched": [-2.0, -4.5]}}} for _ in range(3)
    ]
    e = Evaluation(name="x", records=tuple(records), metadata={"k": [10.0, 20.0]})
    assert e.values("beyond_recency", "a") == [0.75] * 3


def test_blocks_reach_intervals_and_tests():
    e = made({m: d * 4 for m, d in ZERO.items()})
    blocked = e.in_blocks([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    assert blocked.interval("aopc", "a").low == blocked.interval("aopc", "a").high  # all blocks are the same
    assert blocked.interval("aopc", "a").mean == e.interval("aopc", "a").mean
    assert e.in_blocks(3) == blocked
    assert "over 4 blocks of neighbouring prompts" in blocked.to_markdown()
    assert blocked.differences()[0].p == pytest.approx(2 / 2**4)
    with pytest.raises(ArgumentError, match="blocks of 2 prompts for 12, expected one a prompt"):
        e.in_blocks([0, 1])


def test_blocks_leave_errors_out():
    e = made(ZERO)
    records = (e.records[0], {"error": "no"}, *e.records[1:])
    found = Evaluation(name="x", records=records, metadata={"k": [20.0]}, blocks=(0, 0, 0, 1))
    expected = bootstrap_mean(ZERO["a"], blocks=[0, 0, 1])
    assert found.interval("aopc", "a") == expected


def test_the_first_line_says_what_was_explained():
    e = made(ZERO, target_text=" Bob", context="looked at each other, then at")
    text = e.to_markdown()
    assert "Explained and scored is the log-probability of the prompt" in text
    assert text.count("then at") == 3
