"""Influence of each number: grouping by hand, delimiters left out, other positions, refusals."""

from __future__ import annotations

import math

import number_tokenizers as kinds
import numpy as np
import pytest
import torch
from cases import cases, shared

import tl_jacobian as tj
from tl_jacobian.errors import ArgumentError
from tl_jacobian.studies.timeseries import NumberInfluence, number_influence, serialize


@pytest.fixture
def series():
    return serialize([1.0, 2.0, 4.0], kinds.digit_per_token(), prepend_bos=True)


def attribution(series, scores, **fields):
    tokens = series.tokens[: len(scores)]
    options = dict(scope="temperature", target="β", position=len(scores) - 1, metadata={"model": "toy"})
    texts = tuple(map(str, range(len(scores))))
    return tj.Attribution(scores=torch.tensor(scores), str_tokens=texts, **{**options, "tokens": tokens, **fields})


SCORES = [100.0, 3.0, 4.0, 50.0, 6.0, 8.0, 60.0, 5.0, 12.0, 70.0]  # BOS, two digits and a comma each


def test_vector_scopes_add_squares_and_leave_delimiters_out(series):
    found = number_influence(attribution(series, SCORES), series)
    np.testing.assert_allclose(found.influence, [5.0, 10.0, 13.0])
    np.testing.assert_array_equal(found.values, [1.0, 2.0, 4.0])
    assert found.cut_off == len(found) == 3
    assert found.stderr is None
    assert (found.scope, found.target, found.metadata["model"]) == ("temperature", "β", "toy")
    assert found.metadata["combine"] == "root_sum_squares"
    assert found.metadata["influence_outside_numbers"] == pytest.approx(math.hypot(100, 50, 60, 70))


def test_fisher_traces_add_with_their_errors(series):
    a = attribution(series, SCORES, scope="fisher", combine="sum", stderr=torch.arange(10.0))
    found = number_influence(a, series)
    np.testing.assert_allclose(found.influence, [7.0, 14.0, 17.0])
    np.testing.assert_allclose(found.stderr, [3.0, 9.0, 15.0])
    assert found.metadata["influence_outside_numbers"] == 280
    table = found.to_dataframe()
    assert table.columns.tolist() == ["position", "value", "influence", "stderr"]
    assert table.influence.tolist() == [7, 14, 17]


@pytest.mark.parametrize(("n", "whole"), [(3, 1), (4, 1), (5, 1), (6, 2), (9, 3)])
def test_an_earlier_position_has_the_numbers_before_it(series, n, whole):
    found = number_influence(attribution(series, SCORES[:n]), series)
    np.testing.assert_allclose(found.influence, [5.0, 10.0, 13.0][:whole])


def test_the_next_numbers_first_digit_may_follow(series):
    tokens = (*series.tokens, series.tokens[1])
    a = attribution(series, [*SCORES, 9.0], tokens=tokens)
    np.testing.assert_allclose(number_influence(a, series).influence, [5.0, 10.0, 13.0])


@pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=("gpt2", "neox")))
def test_on_a_model_it_is_the_norm_of_the_joint_gradient(architecture, state):
    """All of a number's embeddings move at once: the norm over its tokens and dimensions together."""
    model = shared(architecture, state)
    series = serialize(np.sin(np.arange(8.0)), model)
    lin = tj.linearize(model, list(series.tokens))
    grad = lin.vjp(lin.y / lin.y.norm())
    joint = [grad[start:stop].norm().item() for start, stop in series.groups]
    np.testing.assert_allclose(number_influence(tj.temperature_scope(lin), series).influence, joint, rtol=1e-5)


def test_refusals(series, unchecked):
    words = attribution(series, SCORES).grouped([4, 3, 3])
    with pytest.raises(ArgumentError, match="this attribution is per word"):
        number_influence(words, series)
    with pytest.raises(ArgumentError, match="ends at token 1, before the first number does"):
        number_influence(attribution(series, SCORES[:2]), series)
    other = serialize([1.0, 3.0, 4.0], kinds.digit_per_token(), prepend_bos=True)
    with pytest.raises(ArgumentError, match=r"token 4 is \d+, the series' \d+: linearize the series' own tokens"):
        number_influence(attribution(series, SCORES), other)
    with pytest.raises(ArgumentError, match="expected one"):
        NumberInfluence(values=np.ones(3), influence=np.ones(2), scope="s", target="t")


def ranked(influence):
    n = len(influence)
    return NumberInfluence(values=np.arange(n) * 0.5, influence=np.array(influence), scope="s", target="t")


@pytest.mark.parametrize("skip", [-1, 1.5])
@pytest.mark.usefixtures("unchecked")
def test_what_cant_be_left_out_of_the_ranking(skip):
    with pytest.raises(
        ArgumentError, match=f"skip_first={skip}.*, expected an? (int|number of first numbers to leave out)"
    ):
        ranked([1.0, 2.0]).top(skip_first=skip)
