"""Several scopes of one linearization, from shared backward passes: each as it comes out alone."""

from __future__ import annotations

import pytest
import torch

import tl_jacobian as tj
from tests import cases
from tl_jacobian.analyses.scopes.choose import attributed, choose
from tl_jacobian.core import graph

PROMPT = list(b"Paris is in")
V = torch.linspace(-1, 2, cases.WIDTH, dtype=torch.float64)
SCOPES = [choose("semantic", minus=32), choose("temperature"), choose("fisher", rank=3), choose("direction", v=V)]


def same(found, alone):
    assert found.target == alone.target
    assert found.metadata == alone.metadata
    torch.testing.assert_close(found.scores, alone.scores, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("architecture", "state"), [("llama", "bridge"), *cases.cases("hooked", of=["gpt2"])])
def test_each_is_as_it_is_alone(architecture, state):
    lin = tj.linearize(cases.shared(architecture, state), PROMPT)
    for found, scope in zip(attributed(lin, SCOPES), SCOPES, strict=True):
        same(found, scope.attribute(lin))


def test_a_batch_with_targets_of_its_own():
    batch = tj.linearize(cases.shared("llama", "bridge"), [PROMPT, PROMPT[:4]])
    scopes = [choose("semantic"), choose("fisher", method="exact"), choose("temperature")]
    for found, scope in zip(attributed(batch, scopes, target=[7, 9]), scopes, strict=True):
        for one, other in zip(found, scope.attribute(batch, target=[7, 9]), strict=True):
            same(one, other)


def test_an_answer_beside_what_has_no_direction():
    lin = tj.linearize(cases.shared("llama", "bridge"), PROMPT, answer=list(b" it"))
    scopes = [
        choose("semantic"),
        choose("fisher", n_products=12),
        choose(tj.temperature_scope),
        choose(tj.semantic_scope),
    ]
    for found, scope in zip(attributed(lin, scopes), scopes, strict=True):
        same(found, scope.attribute(lin))


def test_they_share_a_backward_pass(monkeypatch):
    lin, passes = tj.linearize(cases.shared("llama", "bridge"), PROMPT), []
    pull = type(lin.graph).pull
    monkeypatch.setattr(type(lin.graph), "pull", lambda graph, v: passes.append(len(v)) or pull(graph, v))
    attributed(lin, SCOPES)
    assert passes == [1 + 1 + 3 + 1]


def test_nothing_to_do():
    assert attributed(tj.linearize(cases.shared("llama", "bridge"), PROMPT), []) == []


@pytest.mark.parametrize("prompts", [PROMPT, [PROMPT, PROMPT[:4]]])
def test_how_many_travel_together_changes_no_estimate(prompts, monkeypatch):
    found = []
    for rows in (1, 40, 1 << 30):
        monkeypatch.setattr(graph, "CPU_ROWS", rows)
        made = tj.fisher_scope(tj.linearize(cases.shared("llama", "bridge"), prompts), method="estimate", n_products=20)
        found.append([a.scores for a in (made if isinstance(made, list) else [made])])
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-6, atol=0)


def test_rows_bound_what_travels_together_on_a_processor():
    lin = tj.linearize(cases.shared("llama", "bridge"), [PROMPT] * 16)
    assert lin[0].graph.chunk == graph.CPU_ROWS // (16 * len(PROMPT)) == 4
    assert lin[0].graph.held == graph.MAX_CHUNK
