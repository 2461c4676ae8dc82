"""Half-precision models: the scores of the function that their weights define, or a refusal.

The oracle is a float32 copy of the model and plain autograd. Products with a weight that is cast up are the very ones
of that copy, so they agree bit for bit here; 1e-5 leaves room for other orders of summation.
"""

from __future__ import annotations

import copy
import dataclasses

import naive
import pytest
import torch
from cases import cases, make, shared, tokenizer
from transformers import AutoModelForCausalLM, GptOssConfig, MixtralConfig
from untouched import assert_untouched, snapshot

import tl_jacobian as tj
from tl_jacobian.core.host.hosts import resolve
from tl_jacobian.errors import ArgumentError, ContractError, UnsupportedModelError

IDS = tokenizer().encode("The capital of France", add_special_tokens=False)
OTHER = tokenizer().encode("The capital of Brazil", add_special_tokens=False)
HALVES = {"gpt2": torch.float16, "llama": torch.float16, "gemma3": torch.float16}
CASES = [(a, s, HALVES.get(a, torch.bfloat16)) for a, s in cases()]
FEW = [("gpt2", "bridge", torch.bfloat16), ("gemma2", "bridge", torch.float16)]


def close(found, wanted, allowed=1e-5):
    assert (found - wanted).norm() <= allowed * wanted.norm()


def generator():
    return torch.Generator().manual_seed(0)


def naive_scores(model, target=65):
    run = naive.run(model, IDS)
    return naive.grad(run.logits[-1, target], run.x).norm(dim=-1)


@pytest.mark.parametrize(("architecture", "state", "dtype"), CASES)
def test_scores_are_those_of_a_float32_copy(architecture, state, dtype):
    model = shared(architecture, state, dtype)
    lin = tj.linearize(model, IDS)
    close(tj.semantic_scope(lin, 65).scores, naive_scores(naive.twin(model)))
    assert lin.facts["precision"] == f"weights {str(dtype)[6:]}, computed in float32"


EVERYTHING = {
    "logits": lambda lin: lin.logits,
    "confidence": lambda lin: tj.temperature_scope(lin, confidence="logit_norm").scores,
    "exact": lambda lin: tj.fisher_scope(lin, method="exact").scores,
    "estimate": lambda lin: tj.fisher_scope(lin, method="estimate", n_products=12, generator=generator()).scores,
    "low rank": lambda lin: tj.fisher_scope(lin, method="low_rank", rank=1).scores,
    "batched products": lambda lin: lin.vjp(torch.eye(32)[:3]),
    "from x's side": lambda lin: lin.jvp(torch.randn(2, len(IDS), 32, generator=generator())),
    "layers": lambda lin: tj.layer_influence(lin, target=65).values,
    "heads": lambda lin: tj.head_influence(lin, target=65).values,
    "leave one out": lambda lin: tj.baselines.leave_one_out(lin, 65).scores,
    "smoothgrad": lambda lin: tj.baselines.smoothgrad(lin, 65, samples=2, generator=generator()).scores,
}


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "state", "dtype"), FEW)
def test_everything_else_agrees(architecture, state, dtype):
    model = shared(architecture, state, dtype)
    twin = naive.twin(model)
    lin, wanted = (tj.linearize(m, IDS, record=True) for m in (model, twin))
    for name, of in EVERYTHING.items():
        found = of(lin)
        assert found.dtype == torch.float32, name
        close(found, of(wanted))
    close(tj.attribution_map(model, IDS[-4:]).scores, tj.attribution_map(twin, IDS[-4:]).scores)
    assert tj.attribute_generation(model, IDS, 2)[0].tokens == tj.attribute_generation(twin, IDS, 2)[0].tokens
    patched = [
        tj.compare_patching(m, IDS[-3:], OTHER[-3:], target=65, minus=66, precision=None).measured.values
        for m in (model, twin)
    ]
    close(*patched)


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "state", "dtype"), FEW)
def test_blocks_that_are_computed_again_are_computed_alike(architecture, state, dtype):
    model = shared(architecture, state, dtype)
    budget = resolve(model).footprint(1, len(IDS), 1).peak(recompute=True)
    lin = tj.linearize(model, IDS, max_memory=budget)
    assert "again" in lin.facts["activations"]
    close(tj.semantic_scope(lin, 65).scores, naive_scores(naive.twin(model)))
    close(EVERYTHING["estimate"](lin), EVERYTHING["estimate"](tj.linearize(naive.twin(model), IDS)))


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm", pytest.param("batched_mm", marks=pytest.mark.slow)])
@pytest.mark.parametrize("config", [MixtralConfig, GptOssConfig])
def test_mixtures(config, implementation):
    from transformer_lens.model_bridge import TransformerBridge

    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, head_dim=8)
    made = config(vocab_size=300, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = AutoModelForCausalLM.from_config(made, attn_implementation="eager").bfloat16().eval()
    hf.config.architectures = [type(hf).__name__]
    hf.set_experts_implementation(implementation)
    twin = copy.deepcopy(hf).float()
    model = TransformerBridge.boot_transformers(
        "tiny", hf_model=hf, tokenizer=tokenizer(), device="cpu", dtype=torch.bfloat16
    ).eval()
    x = twin.get_input_embeddings()(torch.tensor([IDS])).detach().requires_grad_()
    wanted = naive.grad(twin(inputs_embeds=x).logits[0, -1, 65], x).norm(dim=-1)
    close(tj.semantic_scope(tj.linearize(model, IDS), 65).scores, wanted)


def test_the_models_own_rounding_on_request():
    model = shared("llama", "bridge", torch.bfloat16)
    lin = tj.linearize(model, IDS, precision="model")
    found, true = tj.semantic_scope(lin, 65).scores, naive_scores(naive.twin(model))
    close(found, naive_scores(model).float(), 0.01)  # the gradient itself is rounded on the way: measured 0.2%
    assert (found - true).norm() > 0.005 * true.norm()  # measured: 3%
    assert lin.facts["precision"] == "weights bfloat16, computed as the model does, with its rounding"
    assert lin.vjp(lin.y).dtype == torch.float32


def test_float32_models_are_left_alone():
    lin = tj.linearize(shared("gpt2", "bridge", torch.float32), IDS)
    assert lin.facts["precision"] == "as the weights"


def test_another_precision_is_refused():
    with pytest.raises(ArgumentError, match="precision='bfloat16', expected 'model', or None"):
        tj.linearize(shared("gpt2", "bridge", torch.float32), IDS, precision="bfloat16")


@pytest.mark.parametrize("precision", [None, "model"])
def test_the_model_is_left_as_it_was(precision):
    model = make("gpt2", "bridge", torch.bfloat16)
    with torch.no_grad():
        model(torch.tensor([IDS]))  # TransformerBridge installs hooks of its own at its first pass
    before = snapshot(model)
    tj.semantic_scope(tj.linearize(model, IDS, precision=precision), 65)
    assert_untouched(before, model)
    assert not torch.overrides._get_current_function_mode_stack()


def test_an_enclosing_autocast_rounds_nothing_but_on_request():
    model = shared("gpt2", "bridge", torch.float32)
    plain = tj.linearize(model, IDS, record=True)
    wanted = {name: of(plain) for name, of in EVERYTHING.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lin = tj.linearize(model, IDS, record=True)
        for name, of in EVERYTHING.items():
            close(of(lin), wanted[name])
        rounded = tj.semantic_scope(tj.linearize(model, IDS, precision="model"), 65).scores
    assert (rounded - naive_scores(model)).norm() > 1e-3 * rounded.norm()  # measured: 3e-3


# -- hooks of the caller ---------------------------------------------------------------------

V = torch.randn(32, generator=torch.Generator().manual_seed(1)).bfloat16()
HOOKS = {
    "adds a half-precision vector": lambda x, hook: x + V,
    "casts what it sees": lambda x, hook: x.to(V.dtype) + V.type_as(x),
    "changes it in place": lambda x, hook: x.add_(V),
    "writes into it": lambda x, hook: torch.cat([x[:, :1] * 0 + V, x[:, 1:]], dim=1),
    "projects on a trained direction": lambda x, hook: x - (x @ V.clone().requires_grad_())[..., None] * V / 32,
}


@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
def test_hooks_with_half_precision_tensors_work(hook, monkeypatch):
    model = shared("gpt2", "bridge", torch.bfloat16)
    seen = []
    hooks = [("blocks.1.hook_mlp_out", lambda x, hook: seen.append(x.dtype)), ("blocks.1.hook_mlp_out", hook)]
    with model.hooks(fwd_hooks=hooks):
        found = tj.semantic_scope(tj.linearize(model, IDS), 65).scores
    assert set(seen) == {torch.float32}
    twin = naive.twin(model)
    monkeypatch.setitem(globals(), "V", V.float())
    with twin.hooks(fwd_hooks=[("blocks.1.hook_mlp_out", hook)]):
        close(found, naive_scores(twin))


class Rounds(torch.autograd.Function):
    """As a kernel does that nobody sees into."""

    @staticmethod
    def forward(ctx, x):
        with torch._C.DisableTorchFunction():
            return x.to(torch.bfloat16)

    @staticmethod
    def backward(ctx, grad):
        return grad.float()


def test_what_rounds_where_no_rule_reaches_is_refused():
    model = shared("gpt2", "bridge", torch.bfloat16)
    with model.hooks(fwd_hooks=[("blocks.1.hook_mlp_out", lambda x, hook: Rounds.apply(x))]):
        with pytest.raises(UnsupportedModelError, match=r'Rounds rounds activations to bfloat16 .* precision="model"'):
            tj.linearize(model, IDS)
        tj.semantic_scope(tj.linearize(model, IDS, precision="model"), 65)


def test_what_takes_half_precision_alone_is_refused():
    def kernel(x, hook):
        if x.dtype == torch.float32:
            raise RuntimeError("expected scalar type BFloat16 but found Float")
        return x

    model = shared("gpt2", "bridge", torch.bfloat16)
    with model.hooks(fwd_hooks=[("blocks.1.hook_mlp_out", kernel)]):
        with pytest.raises(UnsupportedModelError, match=r"can't be computed in float32: .*BFloat16.*; precision="):
            tj.linearize(model, IDS)
        tj.semantic_scope(tj.linearize(model, IDS, precision="model"), 65)


def test_quantised_activations_are_refused():
    model = make("llama", "bridge", torch.float32)
    mlp = model.original_model.model.layers[1].mlp
    mlp.gate_proj._modules["_original_component"] = torch.ao.nn.quantized.dynamic.Linear(4, 4)
    with pytest.raises(UnsupportedModelError, match=r"is quantised \(Linear\)"):
        tj.linearize(model, IDS)


# -- directions of any size --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("precision", [None, "model"])
@pytest.mark.parametrize("size", [1e-40, 1e-6, 1e5, 1e30])
def test_directions_of_any_size(dtype, precision, size):
    lin = tj.linearize(shared("llama", "bridge", dtype), IDS, precision=precision)
    u = lin.y.double() / lin.y.double().norm()
    one, other = tj.direction_scope(lin, u).scores.double(), tj.direction_scope(lin, u * size).scores.double()
    # float16 rounds a direction that was scaled by another number than a power of two, and 1e-40 has 17 bits.
    close(other / size, one, 5e-3 if dtype == torch.float16 and precision == "model" else 1e-4)


def test_scores_that_are_not_finite_are_refused():
    lin = tj.linearize(shared("llama", "bridge", torch.float32), IDS)
    huge = torch.full((32,), 3e38)
    with pytest.raises(ContractError, match=r"aren't finite in float32: inf at token"):
        tj.direction_scope(lin, huge)
    with pytest.raises(ContractError, match=r"numbers of a product with the Jacobian are not finite"):
        lin.vjp(huge)
    scores = tj.semantic_scope(lin, 65).scores
    scores[2] = torch.nan
    mine = dataclasses.replace(tj.semantic_scope(lin, 65), scores=scores)
    with pytest.raises(ArgumentError, match=r"score of unit 2 is nan .* can be ranked"):
        tj.perturbation_curves(lin, mine)
    with pytest.raises(ArgumentError, match=r"score of unit 2 is nan .* can be ranked"):
        tj.rank_agreement(mine, tj.semantic_scope(lin, 65))
