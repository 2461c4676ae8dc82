"""Backward rules: frozen norms, frozen attention and GIM are what their naive twins say, on both hosts.

Two implementations of one model differ as those of tests/analyses/scopes/test_oracles.py do: Hugging Face's norms and
softmax work in float32, so 1e-4 is allowed between hosts; measured: 2e-6. On one host GIM is its authors' to 2e-15.
"""

from __future__ import annotations

import warnings

import naive
import pytest
import torch
from backward_twin import RULES, rewritten
from cases import cases, final_norm_of, hf_model, make, shared, slow, tokenizer
from torch import nn
from torch.nn import functional as F
from untouched import assert_untouched, snapshot

import tl_jacobian as tj
from benchmarks import zoo
from tl_jacobian.core.host.backward import Backward
from tl_jacobian.core.host.hosts import resolve
from tl_jacobian.core.host.loan import Loan
from tl_jacobian.core.host.operations import rewriting
from tl_jacobian.errors import ArgumentError, CorpusError, UnsupportedModelError

PROMPT, TARGET, OTHER = list(b"Paris is in"), 101, 32
every_rule = pytest.mark.parametrize("rule", RULES)
one_a_host = pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=("gpt2",)))


def far(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()


def contrast(model, rule=None, **options):
    """Gradient of a difference of logits, which folding and centring leave alone."""
    lin = tj.linearize(model, PROMPT, rule=rule, **options)
    slope = lin.unembedding.direction(TARGET, lin.logits) - lin.unembedding.direction(OTHER, lin.logits)
    return lin, lin.vjp(slope)


ALWAYS = {("gemma3", "bridge"), ("llama", "hooked")}
TWINS = [pytest.param(*c, marks=() if c in ALWAYS else pytest.mark.slow) for c in cases()]


@every_rule
@pytest.mark.parametrize(("architecture", "state"), TWINS)
def test_products_are_those_of_the_twin(architecture, state, rule):
    hf = hf_model(architecture)
    with rewritten(hf, rule):
        run = naive.run_hf(hf, final_norm_of(hf), PROMPT)
        wanted = naive.grad(run.logits[-1, TARGET] - run.logits[-1, OTHER], run.x)
    lin, found = contrast(shared(architecture, state), rule)
    exact, without = contrast(shared(architecture, state))
    assert torch.equal(lin.logits, exact.logits)
    assert torch.equal(lin.y, exact.y)
    assert far(without, found) > 0.2  # and not the exact Jacobian's
    assert far(found, wanted) < 1e-4


@pytest.mark.parametrize(("architecture", "state"), cases("hooked"))
def test_gim_is_its_authors(architecture, state):
    pytest.importorskip("gim")
    from gim.context import GIM

    model, seen = make(architecture, state), {}

    def embed(value, hook):
        seen["x"] = value.detach().requires_grad_()
        return seen["x"]

    with GIM(model):
        z = model.run_with_hooks(torch.tensor([PROMPT]), fwd_hooks=[("hook_embed", embed)])[0, -1]
        wanted = naive.grad(z[TARGET] - z[OTHER], seen["x"])
    assert far(contrast(model, "gim")[1], wanted) < 1e-13


@pytest.mark.slow
@every_rule
@one_a_host
def test_every_kind_of_product(architecture, state, rule, generator):
    """Batched ones, those from x's side, and those of blocks that are run again."""
    model = shared(architecture, state)
    with torch.no_grad():
        model(torch.tensor([PROMPT]))  # TransformerBridge installs hooks of its own at its first pass
    before = snapshot(model)
    lin = tj.linearize(model, PROMPT, rule=rule)
    v = torch.randn(3, lin.d_model, generator=generator, dtype=torch.float64)
    dx = torch.randn(len(PROMPT), lin.d_model, generator=generator, dtype=torch.float64)
    pulled = lin.vjp(v)
    assert lin.graph.batches
    torch.testing.assert_close(pulled[1], lin.vjp(v[1]), rtol=1e-10, atol=1e-12)
    # HF's norms and softmax are float32 inside, backward too
    torch.testing.assert_close((pulled * dx).sum((1, 2)), v @ lin.jvp(dx), rtol=1e-5, atol=1e-4)
    need = resolve(model).footprint(1, len(PROMPT), 1)
    budget = (need.peak(recompute=True) + need.peak(recompute=False)) // 2
    again = tj.linearize(model, PROMPT, rule=rule, max_memory=budget)
    assert again.facts["activations"].startswith("computed again")
    torch.testing.assert_close(again.vjp(v), pulled, rtol=1e-12, atol=1e-12)
    batch = tj.linearize(model, [PROMPT, PROMPT[:5]], rule=rule)
    torch.testing.assert_close(batch[0].vjp(v[0]), pulled[0], rtol=1e-6, atol=1e-8)
    assert_untouched(before, model)


@pytest.mark.slow
@every_rule
@pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=("llama", "gpt2"), every=False))
def test_half_precision_and_a_rule_together(architecture, state, rule):
    model = make(architecture, state, torch.bfloat16)
    wanted = contrast(naive.twin(model), rule)[1]
    assert far(contrast(model, rule)[1], wanted) < 1e-5
    rounded = contrast(model, rule, precision="model")[1]
    assert 1e-4 < far(rounded, wanted) < 1.0  # rounding, and nothing of another kind


@one_a_host
def test_activations_on_the_way(architecture, state):
    model, pattern, z = shared(architecture, state), "blocks.1.attn.hook_pattern", "blocks.1.attn.hook_z"
    lin = tj.linearize(model, PROMPT, record=[pattern, z], rule="frozen_attention")
    grads = lin.vjp_at(lin.y, [pattern, z])
    assert grads[pattern].any()
    assert grads[z].any()
    with pytest.raises(tj.errors.HookPointError, match="no path leads"):  # a pattern that is held fixed
        tj.path_scope(lin, pattern, "temperature")
    split = tj.path_scope(lin, z, "temperature")
    assert split.through.scores.any()


class Attention(nn.Module):
    def __init__(self, fused, **how):
        super().__init__()
        self.fused, self.how = fused, how

    def forward(self, q, k, v):
        if self.fused:
            return F.scaled_dot_product_attention(q, k, v, **self.how)
        k, v = (t.repeat_interleave(2, dim=1) for t in (k, v))
        mask = torch.ones(4, 4, dtype=torch.bool).tril()
        scores = (q @ k.mT / 2).masked_fill(~mask, -torch.inf)
        return scores.softmax(-1) @ v


class Norms(nn.Module):
    def __init__(self, fused):
        super().__init__()
        self.fused, self.w = fused, torch.arange(1.0, 5.0, dtype=torch.float64)

    def forward(self, x):
        if self.fused:
            return F.rms_norm(F.layer_norm(x, (4,), self.w, self.w, 1e-3), (4,), self.w, 1e-2)
        c = x - x.mean(-1, keepdim=True)
        x = c / (c.pow(2).mean(-1, keepdim=True) + 1e-3).sqrt() * self.w + self.w
        return x * (x.pow(2).mean(-1, keepdim=True) + 1e-2) ** -0.5 * self.w


def grads_of(module, rule, inputs):
    leaves = [x.clone().requires_grad_() for x in inputs]
    backward = Backward(rule)
    with Loan() as loan, loan:
        backward.mark(loan, [module])
        with rewriting((backward,)):
            out = module(*leaves)
    assert not backward._left_alone
    return torch.autograd.grad(out.sin().sum(), leaves, allow_unused=True)


@pytest.mark.parametrize("rule", ["frozen_attention", "gim"])
@pytest.mark.parametrize(
    "how", [dict(is_causal=True), dict(attn_mask=torch.ones(4, 4, dtype=torch.bool).tril(), scale=0.5)]
)
def test_fused_attention_is_that_of_its_steps(rule, how, generator):
    q, k, v = (torch.randn(1, n, 4, 4, generator=generator, dtype=torch.float64) for n in (4, 2, 2))
    found = grads_of(Attention(True, enable_gqa=True, **how), rule, (q, k, v))
    wanted = grads_of(Attention(False), rule, (q, k, v))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b) if b is not None else None
    assert (found[0] is None or not found[0].any()) == (rule == "frozen_attention")


def test_fused_norms_are_those_of_their_steps(generator):
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    (found,), (wanted,) = (grads_of(Norms(fused), "frozen_norms", (x,)) for fused in (True, False))
    torch.testing.assert_close(found, wanted)


# -- what it can't be asked of -----------------------------------------------------------------


@pytest.mark.parametrize("rule", ["frozen", ["gim", "frozen_norms"], [], "frozen_norms+gim", ["exact"]])
def test_no_such_rule(rule):
    with pytest.raises(ArgumentError, match="rule="):
        tj.linearize(shared(*cases()[0]), PROMPT, rule=rule)


@pytest.mark.parametrize("name", ["mamba", *slow("falcon_h1", "qwen3_next")])
def test_what_is_no_softmax_attention_is_refused(name):
    model = zoo.bridge(zoo.hugging_face(name), tokenizer())
    for rule in ("frozen_attention", "gim"):
        with pytest.raises(UnsupportedModelError, match=f"rule='{rule}'.*softmax"):
            tj.linearize(model, PROMPT, rule=rule)


def test_norms_of_a_state_space_can_be_frozen():
    model = zoo.bridge(zoo.hugging_face("mamba"), tokenizer())
    assert far(*(tj.linearize(model, PROMPT, rule=rule).vjp(torch.ones(32)) for rule in ("frozen_norms", None))) > 0.1


def test_a_norm_that_nobody_can_freeze_is_refused():
    class OddNorm(nn.Module):
        def forward(self, x):
            return x / x.abs().amax(-1, keepdim=True)

    model = make(*cases("bridge", of=("llama",))[0])
    model.original_model.model.layers[1].post_attention_layernorm.forward = OddNorm().forward
    model.blocks[1].ln2.original_component.forward = OddNorm().forward
    with pytest.raises(UnsupportedModelError, match=r"no root of a mean square was seen in blocks\.1\."):
        tj.linearize(model, PROMPT, rule="frozen_norms")


# -- what is said of it, and never mixed ------------------------------------------------------------


@pytest.mark.parametrize("rule", ["gim"])
@one_a_host
def test_values_say_the_rule(architecture, state, rule):
    model = shared(architecture, state)
    exact, lin = tj.linearize(model, PROMPT), tj.linearize(model, PROMPT, record=True, rule=rule)
    a, b = tj.semantic_scope(exact, TARGET), tj.semantic_scope(lin, TARGET)
    assert "rule" not in a.metadata
    assert b.metadata["rule"] == rule
    assert b.metadata["held_fixed"] != a.metadata["held_fixed"]
    assert b.panels()[0].title == f"Semantic Scope (rule {rule})"
    assert tj.layer_influence(lin, target=TARGET).panels()[0].title.endswith(f"(rule {rule})")
    both = tj.compare([a, b])
    assert [f"(rule {rule})" in row.label for row in both.panels()[0].rows] == [False, True]
    assert list(both.to_dataframe().scope.unique()) == ["semantic", f"semantic (rule {rule})"]
    assert "rule" in tj.jacobian_spectrum(lin, 2, k=1).metadata


@one_a_host
def test_what_takes_no_gradient_is_the_same_and_says_no_rule(architecture, state):
    model = shared(architecture, state)
    exact, lin = (tj.linearize(model, PROMPT, record=True, rule=rule) for rule in (None, "gim"))
    for of in (
        lambda one: tj.baselines.leave_one_out(one, TARGET),
        lambda one: tj.baselines.attention_rollout(one),
        lambda one: tj.baselines.random_attribution(one, generator=torch.Generator().manual_seed(0)),
        lambda one: tj.baselines.recency(one),
        lambda one: tj.baselines.recency(one, first=True),
        lambda one: tj.baselines.token_frequency(one, {3: 5}),
        lambda one: tj.baselines.embedding_norm(one),
        lambda one: tj.residual_contributions(one, target=TARGET),
    ):
        assert of(exact) == of(lin)
    with pytest.raises(ArgumentError, match=r"backward rule 'gim'.*add up"):
        tj.baselines.path_integrated_scope(lin, TARGET)
    noisy = tj.baselines.smoothgrad(lin, TARGET, samples=2)  # runs again, under the rule
    assert noisy.metadata["rule"] == "gim"
    assert noisy.scores.ne(tj.baselines.smoothgrad(exact, TARGET, samples=2).scores).all()


def test_rules_do_not_mix(tmp_path):
    model = shared(*cases("bridge", of=("llama",))[0])
    maps = [tj.attribution_map(model, PROMPT[:4], target="predicted", rule=rule) for rule in (None, "gim")]
    assert maps[1][0].metadata["rule"] == "gim"
    with pytest.raises(ArgumentError, match=r"rules 'exact' and 'gim' in one map"):
        tj.AttributionMap(attributions=(maps[0][0], maps[1][1]), next_texts=("a", "b"))
    out = tmp_path / "run"
    tj.corpus.attribute_corpus(model, [PROMPT], "semantic", out, rule="gim", progress=False)
    (read,) = tj.corpus.read_attributions(out)
    assert read.metadata["rule"] == "gim"
    torch.testing.assert_close(read.scores, tj.semantic_scope(tj.linearize(model, PROMPT, rule="gim")).scores)
    with pytest.raises(CorpusError, match=r"model\.rule was 'gim' and is now"):
        tj.corpus.attribute_corpus(model, [PROMPT], "semantic", out, progress=False)


def test_evaluations_under_a_rule():
    model = shared(*cases("bridge", of=("llama",))[0])
    with pytest.raises(ArgumentError, match="'integrated_gradients', which integrates exact gradients"):
        tj.evaluate(model, [PROMPT, PROMPT[2:]], rule="gim", progress=False)
    trial = tj.Trial(methods=("random", "semantic"), k=(20,))
    found = tj.evaluate(model, [PROMPT, PROMPT[2:]], trial, rule="gim", progress=False)
    assert found.metadata["rule"] == "gim"
    assert len(found.usable) == 2


@pytest.mark.parametrize(("architecture", "state"), cases("bridge", of=("llama",)))
def test_nobody_blames_the_rule_for_lost_gradient(architecture, state):
    """And a hook that detaches is still found under one."""
    model = make(architecture, state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tj.linearize(model, PROMPT, rule="frozen_norms+frozen_attention")
    hook = ("blocks.1.hook_mlp_out", lambda value, hook: value.detach())
    with model.hooks(fwd_hooks=[hook]), pytest.warns(UserWarning, match="your hooks detach"):
        tj.linearize(model, PROMPT, rule="gim")
