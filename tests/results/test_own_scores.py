"""Scores that were made elsewhere become an Attribution like any other, or are refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.attribution import Attribution, Prediction
from tl_jacobian.results.comparison import compare
from tl_jacobian.results.tokens import Word

LIN = SimpleNamespace(  # what results know of a linearization
    tokens=torch.tensor([4, 5, 6]),
    str_tokens=("un", "do", " it"),
    words=(Word("undo", 2), Word(" it", 1)),
    regions={},
    position=2,
    predictions=(Prediction(7, " all", 0.5),),
    output_hook=None,
    decode=lambda token: f" t{token}",
    facts={"model": "m"},
)


@pytest.mark.parametrize(
    "scores",
    [
        [1, -2.0, 3],
        (1, -2, 3),
        np.array([1.0, -2.0, 3.0], dtype=np.float16),
        torch.tensor([1.0, -2.0, 3.0], dtype=torch.bfloat16),
        torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64, requires_grad=True),
        torch.tensor([1, -2, 3]),
    ],
    ids=["list", "tuple", "array", "bfloat16", "with a graph", "integers"],
)
def test_scores_of_any_kind(scores, tmp_path):
    a = Attribution.from_scores(LIN, scores, name="mine")
    assert a.scores.tolist() == [1.0, -2.0, 3.0]
    assert (a.scope, a.tokens, a.position, a.metadata["model"]) == ("mine", (4, 5, 6), 2, "m")
    assert a.predictions == LIN.predictions
    assert a.words(split_first=False).scores.tolist() == [-1.0, 3.0]
    assert a.segments("undo", split_first=False).scores.tolist() == [-1.0, 3.0]
    assert len(compare([a, a])) == 2
    a.save(tmp_path / "a.json")
    assert Attribution.load(tmp_path / "a.json") == a


def test_what_they_are_can_be_said():
    options = dict(name="ig", target=9, unit="logits", combine="root_sum_squares", stderr=[0.1, 0.1, 0.1])
    a = Attribution.from_scores(LIN, [3.0, 4.0, 1.0], **options)
    assert (a.target, a.metadata["target_token"], a.metadata["score"]) == ("' t9'", 9, "logits")
    assert a.words(split_first=False).scores.tolist() == [5.0, 1.0]
    assert a.stderr.tolist() == pytest.approx([0.1] * 3)
    assert Attribution.from_scores(LIN, [3.0, 4.0, 1.0], name="ig", explains="the loss").target == "the loss"


@pytest.mark.parametrize(
    ("scores", "match"),
    [
        ([1.0, 2.0], r"shape \(2,\), expected \(3,\), one for each of the linearization's tokens; a BOS token counts"),
        ([[1.0, 2.0, 3.0]], r"shape \(1, 3\), expected \(3,\).*: scores\[0\]"),
        (torch.zeros(1, 3, 8), r"sum or take the norm over the last axis of scores\[0\]"),
        (5.0, r"shape \(\), expected \(3,\)"),
        ([1.0, float("nan"), 2.0], r"scores\[1\] is nan \(1 of 3 aren't finite\)"),
        (["a", "b", "c"], r"expected 3 numbers, one for each token"),
        ([[1.0], [2.0, 3.0], [1.0]], r"expected 3 numbers, one for each token"),
        ([True, False, True], r"dtype torch.bool, expected real numbers"),
        (None, r"scores=None, expected 3 numbers"),
    ],
)
def test_scores_that_dont_fit_are_refused(scores, match):
    with pytest.raises(ArgumentError, match=match):
        Attribution.from_scores(LIN, scores, name="mine")


def test_a_linearization_is_expected():
    with pytest.raises(ArgumentError, match=r"lin=.*is a list, expected one linearization"):
        Attribution.from_scores([1], [1.0], name="mine")
