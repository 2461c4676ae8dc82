"""First-order predictions: exact where the model is linear, wrong to second order where it isn't."""

from __future__ import annotations

import pytest
import torch
from cases import cases, shared
from toys import EMBED, KEY, MIX, UNEMBED, read_key, read_squared, toy

import tl_jacobian as tj
from tl_jacobian.errors import ArgumentError, PromptError

PROMPT = [1, 4, KEY, 5]


@pytest.mark.parametrize("way", ["steepest", "away"])
def test_a_linear_model_keeps_every_promise(way):
    lin = tj.linearity(toy(PROMPT, read_key), 3, way=way, positions=[2])
    assert lin.relative_error.max() < 1e-12


def test_a_quadratic_model_breaks_it_as_known():
    found = tj.linearity(toy(PROMPT, read_squared), 3, way="away", positions=[2], epsilons=[0.1, 1.0])
    step = -EMBED[KEY] @ MIX  # of the inner y; y + y^2 / 2 has the second-order term step^2 / 2
    for epsilon, predicted, actual in zip(found.epsilons, found.predicted, found.actual, strict=True):
        second = (0.5 * (epsilon * step) ** 2) @ UNEMBED[:, 3]
        torch.testing.assert_close(actual - predicted, second[None], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge"))
def test_errors_vanish_with_epsilon_on_every_model(architecture, state):
    lin = tj.linearize(shared(architecture, state), "Rome is")
    # Not smaller: Hugging Face's RMSNorms work in float32, and below epsilon 1e-4 its rounding is all that is left.
    steep = tj.linearity(lin, 101, minus=7, epsilons=[1e-2, 1e-3], batch_size=3)
    near, nearer = steep.relative_error
    assert nearer < 0.02
    assert nearer / near == pytest.approx(0.1, rel=0.6)
    # RMSNorms hardly see an embedding's length, so next to nothing is promised on the way to zero: compare
    # with the steepest.
    away = tj.linearity(lin, 101, minus=7, way="away", epsilons=[1e-2, 1e-3], positions=steep.positions)
    errors = (away.predicted - away.actual).norm(dim=1) / steep.predicted.norm(dim=1)
    assert errors[1] < 0.02
    assert errors[1] < max(0.5 * errors[0], 1e-4)  # the same rounding


def test_the_steepest_way_promises_the_score():
    lin = tj.linearize(shared("llama", "bridge"), "Rome is")
    found = tj.linearity(lin, 101, positions=[1, -1], epsilons=[0.5])
    a, sizes = tj.semantic_scope(lin, 101), lin.graph.x.detach()[0].norm(dim=-1)
    last = len(lin.tokens) - 1
    assert found.positions == (1, last)
    assert found.predicted[0].tolist() == pytest.approx([0.5 * (sizes[t] * a.scores[t]).item() for t in (1, last)])
    assert tj.linearity(lin, 101).positions[0] == a.scores.argmax()


def test_bad_arguments():
    lin = toy(PROMPT)
    with pytest.raises(ArgumentError, match="epsilons="):
        tj.linearity(lin, 3, epsilons=[0.0])
    with pytest.raises(PromptError, match=r"position=9 is outside the prompt's 4 tokens"):
        tj.linearity(lin, 3, positions=[9])


def test_an_unknown_way(unchecked):
    with pytest.raises(ArgumentError, match="way='up', expected one of 'steepest', 'away'"):
        tj.linearity(toy(PROMPT), 3, way="up")
