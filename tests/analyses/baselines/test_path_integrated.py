"""Path-integrated Semantic Scope: complete on every architecture, and captum's numbers on the Hugging Face model."""

from __future__ import annotations

import captum.attr
import pytest
import torch
from cases import cases, hf_model, shared

import tl_jacobian as tj
from tl_jacobian.analyses.baselines import path_integrated
from tl_jacobian.analyses.baselines.runs import inputs_of

TEXT, TARGET, OTHER = "Rome is it", 101, 7
hosts = pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge"))


def logits_of(architecture, x):
    return hf_model(architecture)(inputs_embeds=x, use_cache=False).logits[:, -1]


def embedded(architecture, lin):
    """x as the Hugging Face model wants it: Gemma scales its embeddings inside."""
    return lin.graph.x.detach()


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "state"), cases())
def test_it_is_complete(architecture, state):
    lin = tj.linearize(shared(architecture, state), TEXT)
    a = tj.baselines.path_integrated_scope(lin, TARGET, minus=OTHER)
    assert a.metadata["completeness_gap"] <= 0.01
    assert a.metadata["steps"] >= 32
    assert a.metadata["value"] == pytest.approx((lin.logits[TARGET] - lin.logits[OTHER]).item())


@pytest.mark.parametrize("nodes", ["gauss_legendre", "trapezoid", "riemann"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen2", "neox"])
def test_it_is_captums(architecture, nodes):
    lin = tj.linearize(shared(architecture, "bridge"), TEXT, prepend_bos=False)
    method = {"gauss_legendre": "gausslegendre", "trapezoid": "riemann_trapezoid", "riemann": "riemann_right"}[nodes]
    ig = captum.attr.IntegratedGradients(lambda x: logits_of(architecture, x))
    theirs = ig.attribute(lin.graph.x.detach(), target=TARGET, n_steps=20, method=method)[0].norm(dim=-1)
    with pytest.warns(UserWarning, match="pass a larger max_steps") if nodes != "gauss_legendre" else _nothing():
        ours = tj.baselines.path_integrated_scope(
            lin, TARGET, nodes=nodes, steps=20, max_steps=20, tol=_tol(nodes)
        ).scores
    # Hugging Face's RMSNorm works in float32 even in a float64 model, and at x = 0 it magnifies rounding.
    # captum's trapezoid leaves out a step of its own
    rtol = {"gauss_legendre": 1e-4, "trapezoid": 0.06, "riemann": 1e-4}[nodes]
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=rtol, atol=1e-6)


def _tol(nodes):
    return 0.99 if nodes == "gauss_legendre" else 1e-9


def _nothing():
    from contextlib import nullcontext

    return nullcontext()


@hosts
def test_the_integral_is_the_mean_of_gradients_on_the_way(architecture, state):
    lin = tj.linearize(shared(architecture, state), TEXT)
    baseline = 0.5 * lin.graph.x.detach()[0]
    a = tj.baselines.path_integrated_scope(
        lin, TARGET, baseline=baseline, nodes="gauss_legendre", steps=2, max_steps=2, tol=0.99
    )
    x = lin.graph.x.detach()[0]
    total = torch.zeros_like(x)
    for alpha in (0.5 - 0.5 / 3**0.5, 0.5 + 0.5 / 3**0.5):  # Gauss and Legendre's two nodes
        value = (baseline + alpha * (x - baseline))[None]
        one = tj.linearize(shared(architecture, state), TEXT, input_value=value)
        total += one.vjp(one.unembedding.direction(TARGET, one.logits)) / 2
    expected = ((x - baseline) * total).norm(dim=-1)
    torch.testing.assert_close(a.scores, expected.float(), rtol=1e-5, atol=1e-7)


def test_batches_change_nothing():
    lin = tj.linearize(shared("gpt2", "bridge"), TEXT)
    one, many = (
        tj.baselines.path_integrated_scope(lin, TARGET, steps=5, max_steps=5, tol=0.99, batch_size=n).scores
        for n in (1, 16)
    )
    torch.testing.assert_close(one, many)


def test_the_integrand_at_x_is_semantic_scope():
    lin = tj.linearize(shared("llama", "bridge"), TEXT)
    g = tj.baselines.path_integrand(lin, TARGET, alphas=[0.5, 1.0])
    assert g.rows == ("0.5", "1")
    torch.testing.assert_close(g.values[1], tj.semantic_scope(lin, TARGET).scores)
    assert g.quantity == "logits per unit of embedding norm"


def test_the_integrand_inside_the_model_says_what_it_is_measured_against():
    lin = tj.linearize(shared("llama", "bridge"), TEXT, input_hook="blocks.1.hook_resid_pre")
    g = tj.baselines.path_integrand(lin, TARGET, alphas=[1.0])
    scope = tj.semantic_scope(lin, TARGET)
    torch.testing.assert_close(g.values[0], scope.scores)
    assert g.quantity == scope.metadata["score"] == "logits per unit of activation norm at blocks.1.hook_resid_pre"


def test_what_does_not_converge_says_so():
    lin = tj.linearize(shared("llama", "bridge"), TEXT)
    with pytest.warns(UserWarning, match=r"with 2 steps the parts add up to .* instead of .*larger max_steps="):
        a = tj.baselines.path_integrated_scope(lin, TARGET, steps=2, max_steps=2, tol=1e-6)
    assert a.metadata["completeness_gap"] > 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(nodes="simpson"), "nodes='simpson', expected"),
        (dict(steps=1), "steps=1, expected an integer, at least 2"),
        (dict(steps=8, max_steps=4), "max_steps=4, expected an integer, at least 8"),
        (dict(tol=0), "tol=0, expected a relative gap"),
        (dict(batch_size=0), "batch_size=0, expected"),
        (dict(baseline="mean"), "baseline='mean', expected one of 'zero', 'zero_after_first', or a tensor of floats"),
        (dict(baseline=torch.zeros(2, 3)), r"baseline has shape \(2, 3\), expected that of x"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_options_are_named(options, message):
    lin = tj.linearize(shared("gpt2", "bridge"), TEXT)
    with pytest.raises(tj.errors.ArgumentError, match=message):
        tj.baselines.path_integrated_scope(lin, TARGET, **options)


@pytest.mark.usefixtures("unchecked")
def test_it_wants_one_linearization():
    batch = tj.linearize(shared("gpt2", "bridge"), [TEXT, "x"])
    with pytest.raises(
        tj.errors.ArgumentError, match=r"got a LinearizationBatch, expected one linearization \(linearize"
    ):
        path_integrated.path_integrated_scope(batch)


class Winding:
    """A logit that turns more often than nodes can see, along a straight way."""

    def __init__(self, lin, turns):
        self.x, self.turns, self.runs = inputs_of(lin), turns, 0

    def __call__(self, rerun, values, what):
        self.runs += len(values)
        along = (values * self.x).flatten(1).sum(1) / (self.x**2).sum()
        slope = 1 + self.turns * torch.cos(self.turns * torch.pi * along**2) * along
        return slope[:, None, None] * self.x / (self.x**2).sum()


def test_more_steps_are_given_up_where_they_do_not_help(monkeypatch):
    lin = tj.linearize(shared("llama", "bridge"), TEXT)
    winding = Winding(lin, turns=30_000)
    monkeypatch.setattr(path_integrated, "gradients", winding)
    message = r"not converged; .*more steps don't help, so nothing should be read .*baseline=\"zero_after_first\""
    with pytest.warns(UserWarning, match=message):
        a = tj.baselines.path_integrated_scope(lin, TARGET, nodes="gauss_legendre")
    assert winding.runs == 32 + 64 + 128  # of 2016
    assert not a.metadata["converged"]


def test_a_gap_that_is_small_by_chance_is_looked_at_twice(monkeypatch):
    lin = tj.linearize(shared("llama", "bridge"), TEXT)
    nothing = tj.linearize(shared("llama", "bridge"), TEXT, input_value=0 * lin.graph.x)
    change = (lin.logits[TARGET] - nothing.logits[TARGET]).item()
    x, steps = inputs_of(lin), []

    def first_right_by_chance(lin, path, nodes, n, batch_size):
        steps.append(n)
        part = torch.zeros_like(x, dtype=torch.float64)
        part[0 if n == 32 else 1] = change / x[0 if n == 32 else 1].double().sum()
        return part

    monkeypatch.setattr(path_integrated, "_integral", first_right_by_chance)
    a = tj.baselines.path_integrated_scope(lin, TARGET)
    assert steps == [32, 16, 64, 128]
    assert a.metadata["converged"]
    assert a.metadata["steps"] == 128


def test_a_baseline_equal_to_x_leaves_nothing_to_integrate():
    lin = tj.linearize(shared("llama", "bridge"), TEXT)
    a = tj.baselines.path_integrated_scope(lin, TARGET, baseline=inputs_of(lin))
    assert a.metadata["converged"]
    assert (a.metadata["completeness_gap"], a.metadata["steps"]) == (0.0, 32)
    assert not a.scores.any()


@pytest.mark.slow
def test_the_first_token_may_stay_as_it_is():
    lin = tj.linearize(shared("gpt2", "bridge"), TEXT)
    a = tj.baselines.path_integrated_scope(lin, TARGET, minus=OTHER, baseline="zero_after_first")
    baseline = torch.zeros_like(inputs_of(lin))
    baseline[0] = inputs_of(lin)[0]
    assert a.metadata["converged"]
    assert a.scores[0] == 0
    assert torch.equal(a.scores, tj.baselines.path_integrated_scope(lin, TARGET, minus=OTHER, baseline=baseline).scores)


def test_evenly_spread_nodes_miss_what_happens_at_the_baseline():
    """Why nodes are logarithmic: within 1e-6 of the way to zero, RMSNorms undo most of the difference."""
    lin = tj.linearize(shared("llama", "bridge"), TEXT)
    with pytest.warns(UserWarning, match="larger max_steps"):
        even = tj.baselines.path_integrated_scope(lin, TARGET, minus=OTHER, nodes="gauss_legendre", max_steps=32)
    assert even.metadata["completeness_gap"] > 0.5
    assert tj.baselines.path_integrated_scope(lin, TARGET, minus=OTHER).metadata["completeness_gap"] < 0.01
