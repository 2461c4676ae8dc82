"""The other baselines, each against what its definition says, computed by hand."""

from __future__ import annotations

import dataclasses

import captum.attr
import pytest
import torch
from allocations import Allocations
from cases import HAS_HOOKED, LAYERS, cases, hf_model, make, shared

import tl_jacobian as tj
from tl_jacobian.results.scopes import scope_title

TEXT, TARGET, OTHER = "Rome is it", 101, 7
hosts = pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge"))


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen2", "neox"])
def test_input_x_gradient_is_captums(architecture):
    lin = tj.linearize(shared(architecture, "bridge"), TEXT, prepend_bos=False)
    ixg = captum.attr.InputXGradient(lambda x: hf_model(architecture)(inputs_embeds=x, use_cache=False).logits[:, -1])
    theirs = ixg.attribute(lin.graph.x.detach().clone().requires_grad_(), target=TARGET)[0].norm(dim=-1)
    torch.testing.assert_close(
        tj.baselines.input_x_gradient(lin, TARGET).scores, theirs.detach().float(), rtol=1e-5, atol=1e-6
    )


@hosts
def test_leaving_out_is_an_intervention(architecture, state):
    model = shared(architecture, state)
    lin = tj.linearize(model, TEXT)
    mean = lin.graph.x.detach()[0].mean(0)
    for replacement, vector in (("zero", torch.zeros_like(mean)), ("mean", mean), (2 * mean, 2 * mean)):
        drops = tj.baselines.leave_one_out(lin, TARGET, replacement=replacement, batch_size=3).scores
        far = tj.baselines.leave_one_out(lin, measure="kl", replacement=replacement).scores
        for t in (0, 2, len(lin.tokens) - 1):
            logits = run_without(model, lin.tokens, t, vector)
            new, old = logits.log_softmax(-1), lin.logits.log_softmax(-1)
            assert drops[t].item() == pytest.approx((old - new)[TARGET].item(), abs=1e-5)
            assert far[t].item() == pytest.approx((old.exp() * (old - new)).sum().item(), abs=1e-5)


class Vast:
    """Runs of a model with a vocabulary of 100,000 tokens."""

    def __init__(self, lin):
        self.x = lin.graph.x.detach()[0]

    def logits(self, values):
        return (values - self.x).sum((1, 2))[:, None] * torch.linspace(-1, 1, 100_000)

    def check(self, x, logits):
        assert torch.equal(x, self.x)

    def continued(self, x, logits):
        return lambda values, start: self.logits(values)

    linearized = prompts = of_answer = at = logits


def test_leaving_out_holds_logits_of_a_batch_alone():
    """Positions x vocabulary in float64, twice, were 5 GB at 2,048 tokens and 128,000 words; here 128 MB."""
    lin = tj.linearize(shared("gpt2", "bridge", torch.float32), [i % 200 for i in range(64)])
    lin = dataclasses.replace(lin, logits=torch.zeros(100_000), rerun=Vast(lin))
    with Allocations() as counted:
        found = counted.run(lambda: tj.baselines.leave_one_out(lin, 0, batch_size=4))
    assert counted.runs[0][0] < 8 * 4 * 100_000 * 8
    change = -lin.graph.x.detach()[0].sum(1).double()
    want = (change[:, None] * torch.linspace(-1, 1, 100_000).double()).log_softmax(-1)[:, 0]
    torch.testing.assert_close(found.scores.double(), torch.tensor(1e-5).double().log() - want, rtol=1e-4, atol=1e-3)


def run_without(model, tokens, t, vector):
    def change(value, hook):
        value = value.clone()
        value[:, t] = vector
        return value

    with torch.no_grad():
        return model.run_with_hooks(tokens[None], fwd_hooks=[("hook_embed", change)])[0, -1].double()


@hosts
def test_smoothgrad_is_the_mean_over_noise(architecture, state):
    model = shared(architecture, state)
    lin = tj.linearize(model, TEXT)
    a = tj.baselines.smoothgrad(lin, TARGET, minus=OTHER, noise=0.2, samples=3, batch_size=2)
    x, generator = lin.graph.x.detach()[0], torch.Generator().manual_seed(0)
    size = 0.2 * x.square().mean().sqrt()
    noise = [torch.randn(n, *x.shape, generator=generator, dtype=torch.float64) for n in (2, 1)]
    total = torch.zeros_like(x)
    for one in torch.cat(noise):
        run = tj.linearize(model, TEXT, input_value=(x + size * one)[None])
        v = run.unembedding.direction(TARGET, run.logits) - run.unembedding.direction(OTHER, run.logits)
        total += run.vjp(v) / 3
    torch.testing.assert_close(a.scores, total.norm(dim=-1).float(), rtol=1e-4, atol=1e-6)


@hosts
def test_rollout_multiplies_patterns(architecture, state):
    lin = tj.linearize(shared(architecture, state), TEXT, record="sources")
    product = torch.eye(len(lin.tokens), dtype=torch.float64)
    for layer in range(LAYERS):
        mean = lin.taps[f"blocks.{layer}.attn.hook_pattern"].mean(0)
        product = (mean + torch.eye(len(mean))) / 2 @ product
    a = tj.baselines.attention_rollout(lin)
    torch.testing.assert_close(a.scores, product[-1].float())
    assert a.scores.sum().item() == pytest.approx(1, abs=1e-5)


def test_rollout_needs_patterns():
    with pytest.raises(tj.errors.HookPointError, match=r'found 0: linearize\(model, prompt, record="sources"\)'):
        tj.baselines.attention_rollout(tj.linearize(shared("gpt2", "bridge"), TEXT))


def test_random_scores_follow_their_generator():
    lin = tj.linearize(shared("gpt2", "bridge"), TEXT)
    a, b, c = (
        tj.baselines.random_attribution(lin, generator=torch.Generator().manual_seed(seed)).scores for seed in (0, 0, 1)
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert (a >= 0).all()


def test_runs_leave_the_model_and_its_hooks_alone():
    model = make("llama", "bridge")
    calls = []
    model.hook_dict["blocks.1.hook_resid_pre"].add_hook(tj.pointwise(lambda value, hook: calls.append(len(value))))
    lin = tj.linearize(model, TEXT)
    tj.baselines.path_integrated_scope(lin, TARGET, steps=4, max_steps=4, tol=0.99)
    tj.baselines.leave_one_out(lin, TARGET)
    assert calls[0] == 1
    assert 4 in calls  # the caller's hook acts in the runs too
    assert all(p.requires_grad and p.grad is None for p in model.original_model.parameters())
    assert len(model.hook_dict["blocks.1.hook_resid_pre"].fwd_hooks) == 1


BASELINES = [
    tj.baselines.input_x_gradient,
    tj.baselines.attention_rollout,
    lambda lin: tj.baselines.leave_one_out(lin),
    lambda lin: tj.baselines.smoothgrad(lin, samples=1),
    lambda lin: tj.baselines.path_integrated_scope(lin, steps=2, max_steps=2),
    lambda lin: tj.baselines.path_integrand(lin, alphas=[1.0]),
]


@pytest.mark.parametrize("state", ["hooked", "bridge"] if HAS_HOOKED else ["bridge"])
def test_a_stale_linearization_is_refused(state):
    model = make("gpt2", state)
    lin = tj.linearize(model, TEXT, record="sources")
    with torch.no_grad():
        model.W_U.mul_(2)
    for baseline in BASELINES:
        with pytest.raises(
            tj.errors.ContractError, match=r"weights were changed after .* was changed in place.*; call linearize"
        ):
            baseline(lin)


@pytest.mark.parametrize(
    "baseline", [*BASELINES, lambda lin: tj.baselines.random_attribution(lin, generator=torch.Generator())]
)
@pytest.mark.usefixtures("unchecked")
def test_a_batch_is_refused(baseline):
    batch = tj.linearize(shared("gpt2", "bridge"), [TEXT], record="sources")
    with pytest.raises(
        tj.errors.ArgumentError, match=r"got a LinearizationBatch, expected one( position's)? linearization.*batch\[i\]"
    ):
        baseline(batch)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda lin: tj.baselines.leave_one_out(lin, measure="drop"), "measure='drop', expected"),
        (lambda lin: tj.baselines.leave_one_out(lin, TARGET, measure="kl"), "target=101 is for measure"),
        (lambda lin: tj.baselines.leave_one_out(lin, replacement="pad"), "replacement='pad', expected"),
        (
            lambda lin: tj.baselines.leave_one_out(lin, replacement=torch.zeros(3)),
            r"replacement has shape \(3,\), expected \(32,\)",
        ),
        (lambda lin: tj.baselines.smoothgrad(lin, noise=0), "noise=0.*, expected a finite number, more than 0"),
        (lambda lin: tj.baselines.smoothgrad(lin, samples=0), "samples=0, expected an integer, at least 1"),
        (
            lambda lin: tj.baselines.random_attribution(lin, generator=0),
            "generator=0 is an int, expected a torch",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_options_are_named(call, message):
    with pytest.raises(tj.errors.ArgumentError, match=message):
        call(tj.linearize(shared("gpt2", "bridge"), TEXT))


def test_every_baseline_has_its_name():
    lin = tj.linearize(shared("llama", "bridge"), "Rome is", record="sources")
    made = [
        tj.baselines.leave_one_out(lin, TARGET),
        tj.baselines.input_x_gradient(lin, TARGET),
        tj.baselines.path_integrated_scope(lin, TARGET, tol=0.9),
        tj.baselines.smoothgrad(lin, TARGET, generator=torch.Generator().manual_seed(0), samples=2),
        tj.baselines.attention_rollout(lin),
        tj.baselines.random_attribution(lin, generator=torch.Generator().manual_seed(0)),
    ]
    assert {a.scope: scope_title(a.scope) for a in made} == {
        "leave_one_out": "Leave-one-out",
        "input_x_gradient": "Input x gradient",
        "path_integrated": "Integrated gradients",
        "smoothgrad": "SmoothGrad",
        "attention_rollout": "Attention rollout",
        "random": "Random scores",
    }
