"""Plans: keep, recompute or refuse, by arithmetic alone."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tl_jacobian.core.memory import DEFAULT_ROOM, Footprint, n_bytes, plan
from tl_jacobian.errors import JacobianScopeError, MemoryBudgetError

PLENTY = 1 << 60


def toy(n: int) -> Footprint:
    """Ten blocks; like a transformer's, some parts grow with the square of the length."""
    return Footprint(
        ends=100 + n,
        stream=n,
        block=10 * n + n * n,
        n_blocks=10,
        run=4 * n * n,
        again=n * n,
        direction=n * n,
        work=0,
        head=50,
        holes=n,
    )


def test_what_is_kept_and_the_peaks():
    need = toy(10)
    assert need.kept(recompute=False) == 110 + 10 * 200
    assert need.kept(recompute=True) == 110 + 10 + 10 * 10
    assert need.peak(recompute=False) == 2110 + 100 + 100
    assert need.peak(recompute=True) == 220 + 200 + 100 + 100
    assert need.peak(recompute=True, directions=3, push=False) == 220 + 200 + 300
    assert toy(1).peak(recompute=False) == 101 + 110 + 50, "the unembedding's share is larger than a block's here"


def test_all_is_kept_where_it_fits():
    need = toy(10)
    enough = need.peak(recompute=False, directions=4)
    assert not plan(toy, 1, 10, enough, 0).recompute
    assert plan(toy, 1, 10, enough - 1, PLENTY).recompute


def test_the_smallest_budget_that_does():
    least = toy(10).peak(recompute=True)
    made = plan(toy, 1, 10, least, 0)
    assert made.recompute
    assert made.predicted == least
    assert made.room == toy(10).direction
    assert made.results == 0
    with pytest.raises(MemoryBudgetError):
        plan(toy, 1, 10, least - 1, PLENTY)


def test_without_a_budget_most_of_what_is_available():
    need = toy(10)
    assert not plan(toy, 1, 10, None, PLENTY).recompute
    assert plan(toy, 1, 10, None, PLENTY).room == DEFAULT_ROOM
    assert plan(toy, 1, 10, PLENTY, 0).room > DEFAULT_ROOM, "a budget that is given may be used"
    assert plan(toy, 1, 10, None, need.peak(recompute=True) * 10 // 8).recompute


@given(st.integers(1, 300), st.integers(200, 10**7))
def test_what_is_planned_stays_within_the_budget(n, budget):
    need = toy(n)
    try:
        made = plan(toy, 1, n, budget, 0)
    except MemoryBudgetError:
        assert need.peak(recompute=True) > budget
        return
    directions = made.room // need.direction
    assert directions >= 1
    assert need.peak(made.recompute, directions) + made.results <= budget + need.head


def test_a_refusal_says_what_would_fit():
    with pytest.raises(JacobianScopeError, match=r"a prompt of 100 tokens is predicted to take 31.6KiB") as refused:
        plan(toy, 1, 100, 10_000, PLENTY)
    message = str(refused.value)
    assert "more than max_memory='9.8KiB' allows" in message
    longest = int(re.search(r"at most (\d+) tokens", message)[1])
    plan(toy, 1, longest, 10_000, PLENTY)
    with pytest.raises(MemoryBudgetError):
        plan(toy, 1, longest + 1, 10_000, PLENTY)
    plan(toy, 1, 100, n_bytes(re.search(r"or max_memory='(.*?)'", message)[1]), 0)


def test_a_refusal_without_a_budget():
    with pytest.raises(
        MemoryBudgetError, match=r"more than the 8.8KiB that can be used now.*max_memory='31.6KiB' tries"
    ):
        plan(toy, 1, 100, None, 10_000)


def test_a_refusal_of_a_batch():
    with pytest.raises(
        MemoryError, match=r"4 prompts of 100 tokens are predicted.*fit: fewer prompts at a time, or at"
    ):
        plan(toy, 4, 100, 10_000, PLENTY)


def test_a_refusal_where_no_prompt_fits():
    with pytest.raises(MemoryBudgetError, match=r"What would fit: max_memory="):
        plan(toy, 1, 100, 10, PLENTY)
