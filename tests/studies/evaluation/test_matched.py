"""Removals at places drawn from a method's own: what recency has, they have; what it hasn't, they lack."""

from __future__ import annotations

import pytest
import torch

from tl_jacobian.errors import ArgumentError
from tl_jacobian.studies.evaluation.matched import donors, matched_sets, n_removed, transferred, with_matched


def recency(n, first=False):
    late = list(range(n - 1, 0, -1))
    return [0, *late] if first else [*late, 0]


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(("length", "to"), [(10, 10), (8, 11), (11, 8), (3, 12)])
def test_a_ranking_by_recency_is_its_own_control(length, to, first):
    sizes = n_removed([10, 25, 50], to)
    sets = matched_sets(recency(length, first), length, to, sizes, to + 2)
    for row, size in zip(sets, sizes, strict=True):
        assert row.nonzero().flatten().tolist() == sorted(recency(to, first)[:size])


def test_places_are_counted_from_the_end():
    assert transferred([7, 2, 0, 5, 6, 4, 3, 1], length=8, to=10) == [9, 4, 7, 0, 8, 6, 5, 3, 2, 1]
    # What would lie before the beginning is left out, and isn't taken for the first token.
    assert transferred([7, 2, 0, 5, 3, 6, 4, 1], length=8, to=5) == [4, 0, 2, 3, 1]
    sets = matched_sets([7, 2, 6, 5, 4, 3, 1], 8, 8, [2], 10)
    assert sets[0].nonzero().flatten().tolist() == [2, 7]


def test_donors_are_other_prompts_of_like_length():
    lengths = {i: 10 * i for i in range(100)}
    drawn = [donors(lengths, 50, 3, torch.Generator().manual_seed(seed)) for seed in range(200)]
    assert all(len(set(d)) == 3 and 50 not in d for d in drawn)
    assert {p for d in drawn for p in d} == {p for p in range(45, 56) if p != 50}
    assert len(donors({0: 3, 1: 9}, 0, 3, torch.Generator())) == 3
    with pytest.raises(ArgumentError, match="a single prompt has no other's places"):
        donors({4: 10}, 4, 1, torch.Generator())


def test_records_get_what_was_found():
    records = [{"methods": {"a": {"removed": [1.0]}}}, {"error": "no"}]
    found = [{"matched": {"a": [2.0]}}, {"error": "no"}]
    assert with_matched(records, found) == [{"methods": {"a": {"removed": [1.0], "matched": [2.0]}}}, {"error": "no"}]
