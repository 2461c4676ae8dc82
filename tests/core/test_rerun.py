"""Runs without a graph, and linearizing what was read before."""

from __future__ import annotations

import torch
from cases import make, shared

import tl_jacobian as tj
from tl_jacobian.core.host.hosts import resolve
from tl_jacobian.core.linearize import Options, linearize_read
from tl_jacobian.core.prompts import Read
from tl_jacobian.core.rerun import last_logits, padded, run

TEXT = "Paris is in"


def test_prompts_are_padded_on_the_right():
    assert padded([[5], [6, 7, 8]]).tolist() == [[5, 0, 0], [6, 7, 8]]


def test_last_logits_are_those_of_each_prompt_alone_and_leave_no_graph():
    model = shared("gpt2", "bridge")
    prompts = [[5, 6], [7, 8, 9, 10], [11]]
    with torch.inference_mode():
        found = last_logits(resolve(model), prompts)
    assert not found.is_inference()
    assert not run(resolve(model), prompts).y.requires_grad
    for row, ids in zip(found, prompts, strict=True):
        torch.testing.assert_close(row, tj.linearize(model, ids).logits.to(row), rtol=1e-9, atol=1e-9)


def test_a_read_prompt_gives_what_the_prompt_gives():
    model = shared("gpt2", "bridge")
    lin = tj.linearize(model, TEXT, record="resid", position=-2)
    (read,) = linearize_read(resolve(model), [Read(lin.tokens.tolist(), [lin.position])], Options(record="resid"))
    assert torch.equal(lin.y, read.y)
    assert list(lin.taps) == list(read.taps)


def test_a_text_ends_with_any_of_the_end_tokens_that_generation_knows():
    model = make("llama", "bridge")
    prompt = list(b"Paris is")
    after = int(tj.linearize(model, prompt).logits.argmax())
    for ends in ([257, after], after):
        model.original_model.generation_config.eos_token_id = ends
        found = tj.attribute_generation(model, prompt, 4)
        assert len(found) == 1
        assert found.metadata["ended"]
    model.original_model.generation_config.eos_token_id = None
    assert len(tj.attribute_generation(model, prompt, 4)) > 1
