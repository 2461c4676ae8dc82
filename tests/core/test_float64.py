"""No float64 on the model's device: Apple's has none. A float32 model is followed as if it were on one."""

from __future__ import annotations

import sys

import pytest
import torch
from cases import HAS_HOOKED, shared
from float64 import OnDevice

import tl_jacobian as tj
from tl_jacobian.core.unembedding import exact
from tl_jacobian.studies.evaluation import curves

PROMPT = list(b"Paris is")
HOSTS = [pytest.param("hooked-folded", marks=pytest.mark.slow), "bridge"] if HAS_HOOKED else ["bridge"]
baselines = tj.baselines


ASKED = [
    tj.semantic_scope,
    lambda lin: tj.temperature_scope(lin, confidence="logit_norm"),
    lambda lin: tj.fisher_scope(lin, method="exact"),
    lambda lin: tj.fisher_scope(lin, method="low_rank", rank=1),
    lambda lin: tj.fisher_scope(lin, method="estimate", n_products=24),
    lambda lin: tj.fisher_scope(lin, method="estimate", rtol=0.2),
    lambda lin: tj.output_scope(lin, lambda y, z: z.softmax(-1)[3]),
    tj.layer_influence,
    tj.head_influence,
    tj.residual_contributions,
    lambda lin: tj.path_scope(lin, through="blocks.1.hook_resid_pre"),
    lambda lin: tj.jacobian_spectrum(lin, position=0, k=2),
    lambda lin: tj.fisher_spectrum(lin, k=2),
    lambda lin: tj.perturbation_curves(lin, [tj.semantic_scope(lin)], k=(50,)),
    lambda lin: tj.linearity(lin, epsilons=[0.1]),
    baselines.input_x_gradient,
    lambda lin: baselines.path_integrated_scope(lin, steps=2, max_steps=2, tol=0.99),
    lambda lin: baselines.path_integrand(lin, alphas=[0.5]),
    lambda lin: baselines.smoothgrad(lin, samples=2),
    baselines.leave_one_out,
    lambda lin: baselines.leave_one_out(lin, measure="kl"),
    baselines.attention_rollout,
]


@pytest.mark.filterwarnings("ignore:path_integrated_scope")
@pytest.mark.parametrize("state", HOSTS)
def test_nothing_is_float64_where_the_model_is(state, monkeypatch):
    # As on a device that has no such numbers, where this model only pretends to be.
    for user in (sys.modules[tj.baselines.leave_one_out.__module__], curves):
        monkeypatch.setattr(user, "wide", exact)
    model = shared("llama", state, torch.float32)
    tensors = [*torch.nn.Module.parameters(model), *torch.nn.Module.buffers(model)]
    if hasattr(model, "original_model"):
        tensors += [*model.original_model.parameters(), *model.original_model.buffers()]
    with OnDevice(tensors) as there:
        lin = tj.linearize(model, PROMPT, record=True)
        for ask in ASKED:
            ask(lin)
        tj.attribute_generation(model, PROMPT, 1, temperature=1.0, generator=torch.Generator().manual_seed(0))
    assert not there.float64


def test_what_follows_tensors_sees_float64():
    x = torch.ones(2)
    with OnDevice([x]) as there:
        exact(2 * x).double()
        torch.ones(2).double()
    assert not there.float64
    with OnDevice([x]) as there:
        (2 * x).to(torch.float64)
    assert there.float64 == {"outside the library"}
