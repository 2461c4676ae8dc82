"""Rank agreement, counted by hand."""

from __future__ import annotations

import dataclasses
import math
from itertools import combinations

import pytest
import torch
from toys import KEY, randn, toy

import tl_jacobian as tj
from tl_jacobian.errors import ArgumentError

PROMPT = [KEY, 4, 2, 1, 5, 0, 3, 9]


def scored(*scores: float) -> tj.Attribution:
    return dataclasses.replace(tj.temperature_scope(toy(PROMPT[: len(scores)])), scores=torch.tensor(scores))


def kendall(a, b):
    """tau-b: concordant minus discordant pairs, over those tied in neither."""
    signs = [((a[i] - a[j]).sign() * (b[i] - b[j]).sign()).item() for i, j in combinations(range(len(a)), 2)]
    free = [sum(bool(x[i] != x[j]) for i, j in combinations(range(len(x)), 2)) for x in (a, b)]
    return sum(signs) / math.sqrt(free[0] * free[1])


def spearman(a, b):
    """Pearson's correlation of ranks, ties sharing theirs."""
    ranks = [torch.stack([(x < v).sum() + ((x == v).sum() + 1) / 2 for v in x]) for x in (a, b)]
    return torch.corrcoef(torch.stack(ranks).double())[0, 1].item()


@pytest.mark.parametrize("seed", range(4))
def test_against_counting(seed):
    a, b = pair(seed)
    found = tj.rank_agreement(scored(*a.tolist()), scored(*b.tolist()), k=25)
    assert found.kendall == pytest.approx(kendall(a, b))
    assert found.spearman == pytest.approx(spearman(a, b))
    assert found.expected == 0.25


def pair(seed):
    """Scores with ties."""
    return tuple((2 * randn(8, seed=10 * seed + i)).round().abs() + 0.0 for i in (1, 2))


def test_equal_opposite_and_constant():
    a, b = scored(1.0, 2.0, 3.0, 4.0), scored(4.0, 3.0, 2.0, 1.0)
    assert tj.rank_agreement(a, a, k=50) == (1.0, 1.0, 1.0, 0.5)
    assert tj.rank_agreement(a, b, k=50) == (-1.0, -1.0, 0.0, 0.5)
    constant = tj.rank_agreement(a, scored(2.0, 2.0, 2.0, 2.0))
    assert math.isnan(constant.kendall)
    assert math.isnan(constant.spearman)


def test_signs_dont_count_and_the_first_token_can_be_left_out():
    a, b = scored(-9.0, 2.0, -3.0, 4.0), scored(0.0, 2.0, 3.0, 4.0)
    assert tj.rank_agreement(a, b, skip_first=True).kendall == 1.0
    assert tj.rank_agreement(a, b).kendall < 1.0


def test_what_cant_be_compared():
    a = scored(1.0, 2.0, 3.0)
    with pytest.raises(ArgumentError, match="different prompts or units"):
        tj.rank_agreement(a, scored(1.0, 2.0))
    with pytest.raises(ArgumentError, match="1 units have no ranking"):
        tj.rank_agreement(scored(1.0, 2.0), scored(1.0, 2.0), skip_first=True)
    with pytest.raises(ArgumentError, match="k=0, expected a percentage"):
        tj.rank_agreement(a, a, k=0)
