"""The plan: each prompt once, like lengths together, always the same."""

from __future__ import annotations

from itertools import pairwise

import hypothesis.strategies as st
from hypothesis import given

from tl_jacobian.studies.corpus.run import make_plan

LENGTHS = st.lists(st.integers(0, 50), min_size=1, max_size=200)


@given(LENGTHS, st.integers(1, 40))
def test_each_prompt_is_in_one_shard_of_its_size(lengths, size):
    plan = make_plan(lengths, size)
    assert sorted(place for shard in plan for place in shard.places) == list(range(len(lengths)))
    assert [shard.number for shard in plan] == list(range(len(plan)))
    assert sorted((len(shard.places) for shard in plan), reverse=True)[:-1] == [size] * (len(plan) - 1)


@given(LENGTHS, st.integers(1, 40))
def test_like_lengths_are_together_and_the_longest_comes_first(lengths, size):
    plan = make_plan(lengths, size)
    assert lengths[plan[0].places[0]] == max(lengths)
    spans = sorted((lengths[shard.places[-1]], lengths[shard.places[0]]) for shard in plan)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    for shard in plan:
        inside = [lengths[place] for place in shard.places]
        assert inside == sorted(inside, reverse=True)


def test_the_order_says_nothing_of_the_length():
    firsts = [shard.places[0] for shard in make_plan(range(1000), 10)]
    early, late = sum(firsts[1:50]) / 49, sum(firsts[50:]) / 50
    assert abs(early - late) < 150  # of 1000; sorted by length it would be 500


def test_the_plan_never_changes():
    """Runs that were begun with an earlier version go on with the same plan."""
    assert [shard.places for shard in make_plan([3, 1, 4, 1, 5, 9, 2, 6, 5, 3], 2)] == [
        (5, 7),
        (9, 6),
        (4, 8),
        (1, 3),
        (2, 0),
    ]
