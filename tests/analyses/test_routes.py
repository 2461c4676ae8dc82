"""Routes: each layer's positions add up to the score, and a nudge of a place says the same."""

from __future__ import annotations

import pytest
import torch
from cases import LAYERS, cases, shared

import tl_jacobian as tj
from tl_jacobian.analyses.routes import token_route
from tl_jacobian.errors import ArgumentError, PromptError


@pytest.mark.parametrize("case", cases())
def test_each_layer_adds_up_to_the_score(case):
    lin = tj.linearize(shared(*case), "the cat sat")
    scores = tj.semantic_scope(lin, 100).scores
    for at in (1, 4):
        g = token_route(lin, [at], target=100)
        assert g.values.shape == (LAYERS, len(lin.tokens))
        torch.testing.assert_close(g.values.sum(1), scores[at].expand(LAYERS), rtol=1e-5, atol=1e-7)
        assert not g.values[:, :at].any()  # nothing travels back


def test_the_route_is_the_product_of_two_jacobians():
    lin = tj.linearize(shared("llama", "bridge"), "the cat", record="resid")
    v = lin.head.weight[:, 100].to(lin.y)
    grad = lin.vjp(v)[2]
    u = grad / grad.norm()
    g = token_route(lin, [2], target=100)
    hook = "blocks.2.hook_resid_pre"
    at_layer = lin.vjp_at(v, [hook])[hook]
    for p in range(2, len(lin.tokens)):
        # d(a_p . grad_p)/dx_2 along u, by autograd on the recorded graph
        (found,) = torch.autograd.grad(
            lin.taps.tensor(hook)[0, p] @ at_layer[p].detach(), lin.graph.x, retain_graph=True
        )
        assert g.values[2, p].item() == pytest.approx(float(found[0, 2] @ u), rel=1e-4, abs=1e-6)


def test_several_tokens_travel_jointly_and_answers_too():
    lin = tj.linearize(shared("llama", "bridge"), "the cat", answer=" sat")
    a = tj.semantic_scope(lin)
    g = token_route(lin, [1, 2])
    assert g.values.sum(1)[0].item() == pytest.approx(a.scores[1:3].square().sum().sqrt().item(), rel=1e-5)


def test_what_has_no_route_is_refused():
    lin = tj.linearize(shared("llama", "bridge"), "the cat")
    with pytest.raises(PromptError):
        token_route(lin, [99])
    with pytest.raises(ArgumentError, match="routes need one direction"):
        token_route(lin, [1], "fisher", rank=2)
