"""Baselines that ignore the model, counted by hand."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from cases import cases, shared

import tl_jacobian as tj
from tl_jacobian.errors import ArgumentError

hosts = pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge"))


@hosts
def test_each_is_what_it_says(architecture, state):
    lin = tj.linearize(shared(architecture, state), "Rome is it", prepend_bos=False)
    n, ids = len(lin.tokens), lin.tokens.tolist()
    assert tj.baselines.recency(lin).scores.tolist() == pytest.approx([(i + 1) / n for i in range(n)])
    first = tj.baselines.recency(lin, first=True)
    assert first.scores.argsort(descending=True).tolist() == [0, *range(n - 1, 0, -1)]
    assert first.scope == "first_and_recency"
    x = lin.graph.x.detach()[0]
    torch.testing.assert_close(tj.baselines.embedding_norm(lin).scores, x.double().norm(dim=-1).float())
    counts = Counter(ids[:4])
    rare = tj.baselines.token_frequency(lin, counts).scores
    total = sum(counts.values()) + len(counts) + 1
    assert rare.tolist() == pytest.approx([-math.log((counts[t] + 1) / total) for t in ids])


def test_a_whole_answer_has_places_too():
    lin = tj.linearize(shared("llama", "bridge"), "Rome is", answer=" it", prepend_bos=False)
    assert len(tj.baselines.recency(lin)) == len(tj.baselines.embedding_norm(lin)) == len(lin.tokens)


@pytest.mark.parametrize("counts", [{}, {1: 0}, {1: -1}, {1: True}, {-1: 2}, {1: 1.5}])
def test_counts_are_counts_of_ids(counts, unchecked):
    lin = tj.linearize(shared("llama", "bridge"), "Rome", prepend_bos=False)
    with pytest.raises(ArgumentError, match=r"counts=.*, expected (how often each token id occurs|a mapping)"):
        tj.baselines.token_frequency(lin, counts)
