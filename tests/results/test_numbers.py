"""Numbers of a series: forecasts and influences as values; no model."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.numbers import NumberDistribution, NumberInfluence


@st.composite
def distributions(draw):
    numbers = sorted(draw(st.sets(st.integers(10, 99), min_size=1, max_size=12)))
    p = np.array(draw(st.lists(st.floats(0.001, 1), min_size=len(numbers), max_size=len(numbers))))
    return NumberDistribution(
        numbers=np.array(numbers),
        probabilities=p / p.sum() * draw(st.floats(0.01, 1)),
        offset=draw(st.floats(-50, 50)),
        scale=draw(st.floats(0.01, 10)),
        truth=draw(st.floats(-100, 900)),
    )


@given(distributions())
@settings(deadline=None, max_examples=50)
def test_statistics_are_their_definitions(d):
    p = d.probabilities / d.probabilities.sum()
    mean = sum(p_i * v for p_i, v in zip(p, d.values, strict=True))
    assert d.mean == pytest.approx(mean)
    assert d.std == pytest.approx(math.sqrt(max(sum(p * (d.values - mean) ** 2), 0)), abs=1e-9)
    assert d.mode in d.values
    assert d.quantile(0.0) == d.values[0]
    assert d.quantile(1.0) == d.values[-1]
    for q in (0.1, 0.5, 0.9):
        at = d.quantile(q)
        assert p[d.values <= at].sum() >= q - 1e-9
        assert p[d.values < at].sum() < q + 1e-9
    # the integral of (F - step)^2, between the places where either jumps
    places = np.unique([*d.values, d.truth])
    heights = [(p[d.values <= x].sum() - (x >= d.truth)) ** 2 for x in places[:-1]]
    assert d.crps == pytest.approx(np.sum(heights * np.diff(places)), abs=1e-7)


def simple(**fields):
    options = dict(numbers=np.array([10, 11, 13]), probabilities=np.array([0.1, 0.3, 0.2]), offset=1.0, scale=2.0)
    return NumberDistribution(**{**options, **fields})


def test_scores():
    assert simple(truth=23.4).log_score == pytest.approx(math.log(0.3))
    assert simple(truth=25.0).log_score == -math.inf, "12 isn't there"
    assert simple(truth=1e6).log_score == -math.inf
    with pytest.raises(ArgumentError, match="the beam left out the true number 12"):
        _ = simple(truth=25.0, exact=False).log_score
    with pytest.raises(ArgumentError, match="true value isn't known: pass truth="):
        _ = simple().crps
    with pytest.raises(ArgumentError, match=r"q=1\.5, expected a share"):
        simple().quantile(1.5)
    assert simple().mass == pytest.approx(0.6)
    assert repr(simple(truth=23.0)) == "NumberDistribution(24 ± 2.2, mode 23; mass 60.0%; truth 23)"
    assert simple().to_dataframe().value.tolist() == [21, 23, 27]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"numbers": np.array([10, 11])}, "expected one probability for each"),
        ({"numbers": np.array([11, 10, 12])}, "numbers increasing"),
        ({"probabilities": np.array([0.1, -0.1, 0.2])}, "probabilities from -0.1 to 0.2"),
        ({"probabilities": np.zeros(3)}, "their sum at most 1 and more than 0"),
        ({"probabilities": np.array([0.9, 0.9, 0.1])}, "with sum 1.9"),
        ({"probabilities": np.array([0.9, np.nan, 0.1])}, "expected them not negative"),
    ],
)
def test_what_is_no_distribution_is_refused(fields, message, unchecked):
    with pytest.raises(ArgumentError, match=message):
        simple(**fields)


def test_the_value_owns_its_numbers():
    scores = np.ones(2)
    found = NumberInfluence(values=np.arange(2.0), influence=scores, scope="s", target="t")
    scores[0] = 5
    assert found.influence[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        found.influence[0] = 5
    assert repr(found) == "NumberInfluence(s: t; 2 numbers; top: 0: 1, 1: 1)"


def ranked(influence):
    n = len(influence)
    return NumberInfluence(values=np.arange(n) * 0.5, influence=np.array(influence), scope="s", target="t")


def test_the_most_influential_numbers_come_first():
    top = ranked([9.0, 1.0, 4.0, 4.0, 2.0]).top(3)
    assert top == [(0, 0.0, 9.0), (2, 1.0, 4.0), (3, 1.5, 4.0)]
    assert (top[1].position, top[1].value, top[1].influence) == (2, 1.0, 4.0)
    assert [type(x) for x in top[0]] == [int, float, float]


def test_first_numbers_are_left_out_of_the_ranking():
    i = ranked([9.0, 1.0, 4.0])
    assert [r.position for r in i.top(skip_first=1)] == [2, 1]
    assert [r.position for r in i.top(5)] == [0, 2, 1]
    assert i.top(0) == i.top(-1) == i.top(skip_first=9) == []
    assert "top: 0: 9, 2: 4, 1: 1" in repr(i)


def test_influences_below_zero_rank_by_their_size():
    assert [r.position for r in ranked([1.0, -3.0, 2.0]).top()] == [1, 2, 0]


@pytest.mark.parametrize("skip", [-1, 1.5, "1"])
@pytest.mark.usefixtures("unchecked")
def test_what_cant_be_left_out_of_the_ranking(skip):
    with pytest.raises(
        ArgumentError, match=f"skip_first={skip!r}.*, expected (an int|a number of first numbers to leave out)"
    ):
        ranked([1.0, 2.0]).top(skip_first=skip)


def test_the_number_that_holds_token_0_is_left_out_by_default():
    def placed(*positions):
        return NumberInfluence(
            values=np.arange(3.0), influence=np.array([9.0, 1.0, 4.0]), scope="s", target="t", positions=positions
        )

    first = placed((0, 1), (3, 4), (6,))
    assert [r.position for r in first.top()] == [r.position for r in first.top(skip_first=True)] == [2, 1]
    assert [r.position for r in first.top(skip_first=False)] == [0, 2, 1]
    assert [r.position for r in first.top(skip_first=2)] == [2]
    assert [r.position for r in placed((1, 2), (3, 4), (6,)).top()] == [0, 2, 1], "a BOS token is before it"
    assert [r.position for r in placed().top()] == [0, 2, 1], "it isn't known"
    with pytest.raises(ArgumentError, match="positions of 1 numbers for 3 numbers, expected one each"):
        placed((0,))
