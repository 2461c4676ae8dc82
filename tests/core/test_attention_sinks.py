"""Attention sinks: found where a token's residual stream is massive, named in metadata and pictures, hiding nothing."""

from __future__ import annotations

import pytest
import torch
from cases import cases, shared

import tl_jacobian as tj

PROMPT = list(b"Paris is in")
one_a_host = pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=("gpt2",)))


def with_sinks(model, *positions):
    """Embeddings of these tokens so large that the stream stays large."""
    x = tj.linearize(model, PROMPT).graph.x.detach().clone()
    x[:, list(positions)] *= 1e4
    return x


@one_a_host
def test_a_sink_is_found_wherever_it_is(architecture, state):
    model = shared(architecture, state)
    plain = tj.linearize(model, PROMPT)
    assert "attention_sinks" not in plain.facts
    lin = tj.linearize(model, PROMPT, input_value=with_sinks(model, 2, 7))
    found = lin.facts["attention_sinks"]
    assert [(s["position"], s["text"]) for s in found] == [(2, lin.str_tokens[2]), (7, lin.str_tokens[7])]
    assert all(s["norm"] > 40 for s in found)
    a = tj.semantic_scope(lin)
    says = f"attention sinks: token 2 {lin.str_tokens[2]!r}"
    strip = a.panels()[0]
    assert any(fact.startswith(says) for fact in strip.facts)
    assert strip.hidden == (0,)  # token 0 as before: detection names, and hides nothing
    assert any(fact.startswith(says) for fact in a.words().panels()[0].facts)
    assert any(fact.startswith(says) for fact in tj.token_interactions(lin).panels()[0].facts)
    assert not any("sink" in fact for fact in tj.semantic_scope(plain).panels()[0].facts)


@one_a_host
def test_each_member_of_a_batch_has_its_own(architecture, state):
    """Those that it sees: a sink behind the explained position is none of its."""
    model = shared(architecture, state)
    batch = tj.linearize(model, PROMPT, position=[4, 10], input_value=with_sinks(model, 7))
    assert ["attention_sinks" in one.facts for one in batch] == [False, True]
    answer = tj.linearize(model, PROMPT[:8], answer=PROMPT[8:])
    assert "attention_sinks" not in answer.facts


@pytest.mark.slow
def test_the_demo_models_sinks():
    """Every mark at which a template begins, one or several; no other token."""
    model = tj.load_demo_model(kind="bridge")
    start = model.tokenizer.bos_token_id
    for n in (1, 2):
        ids = [start] * n + model.tokenizer.encode("Hello, what a day", add_special_tokens=False)
        found = tj.linearize(model, ids).facts["attention_sinks"]
        assert [s["position"] for s in found] == list(range(n))
    assert torch.tensor([s["norm"] for s in found]).gt(100).all()
