"""Models on another device than the CPU, where there is none: nothing of the two is mixed, and numbers are the same."""

from __future__ import annotations

import pytest
import torch

import tl_jacobian as tj
from tests import cases
from tests.elsewhere import elsewhere, is_elsewhere
from tl_jacobian.core.host import memory

PROMPT, ANSWER = list(b"Paris is in"), list(b" it")


def numbers(model):
    lin, v = tj.linearize(model, PROMPT, record=True), torch.linspace(-1, 2, cases.WIDTH, dtype=torch.float64)
    batch = tj.linearize(model, [PROMPT, PROMPT[:4]])
    answer = tj.linearize(model, PROMPT, answer=ANSWER)
    yield lin.vjp(v), lin.jvp(torch.ones(len(PROMPT), cases.WIDTH)), lin.jacobian([0, -1])
    for one in (lin, batch, answer):
        found = [tj.fisher_scope(one, method=m) for m in ("exact", "low_rank")]
        found += [tj.fisher_scope(one, method="estimate", n_products=16), tj.semantic_scope(one)]
        found += [tj.temperature_scope(one), tj.direction_scope(one, v)]
        found += [tj.output_scope(one, lambda y, z: z.log_softmax(-1).max())]
        yield [a.scores for group in found for a in (group if isinstance(group, list) else [group])]
    yield [tj.token_interactions(lin).values, tj.attribution_map(model, PROMPT).scores]
    yield [tj.layer_influence(lin).values, tj.residual_contributions(lin).values]
    yield [tj.baselines.leave_one_out(lin).scores, tj.baselines.smoothgrad(lin, samples=3).scores]
    yield [tj.jacobian_spectrum(lin, 3).singular_values, tj.linearity(lin).actual]


def flat(values):
    if isinstance(values, torch.Tensor):
        return [values.detach().double()]
    return [one for value in values for one in flat(value)]


@pytest.mark.slow
def test_nothing_of_two_devices_is_mixed(monkeypatch):
    here, model = flat(numbers(cases.make("gemma2", "bridge"))), cases.make("gemma2", "bridge")
    monkeypatch.setattr(memory, "_on_cuda", lambda device: 1 << 34)
    with elsewhere(model):
        assert is_elsewhere(tj.linearize(model, PROMPT).y)
        there = flat(numbers(model))
    assert len(here) == len(there)
    for one, other in zip(here, there, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_the_second_device_refuses_to_be_mixed():
    model = cases.make("llama", "bridge")
    with elsewhere(model), pytest.raises(RuntimeError, match="same device"):
        model.W_U @ torch.ones(cases.VOCAB, dtype=torch.float64)
