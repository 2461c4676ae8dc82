"""residual_contributions(): parts that sum to the logit, each what a hand-made decomposition gives."""

from __future__ import annotations

import pytest
import torch
from cases import HEADS, LAYERS, cases, final_norm_of, hf_model, make, shared
from recorded import OTHER, PARALLEL, PROMPT, TARGET, every_case, every_raw_case, one_a_host, recorded, v32

import tl_jacobian as tj
from tl_jacobian.analyses.contributions import _layer, stream_of

NAMES = [f"{i}.{kind}" for i in range(LAYERS) for kind in ("attn", "mlp")]


def rounding(state):
    """Native norms on the bridge work in float32: 2e-7 measured over the suite, where HookedTransformer has 2e-15."""
    return 1e-12 if state.startswith("hooked") else 2e-6


def by_hand(architecture, model):
    """Direct logit attribution of a raw model: what the final norm, at its scale, makes of a vector, read along w.

    Returns that function, the cache, and the norm's bias read along w.
    """
    hf, norm = hf_model(architecture), final_norm_of(hf_model(architecture))
    with torch.no_grad():
        logits, cache = model.run_with_cache(torch.tensor([PROMPT]))
    w = hf.get_output_embeddings().weight[TARGET]
    if architecture == "gemma2":
        w = w * (1 - (logits[0, -1, TARGET] / 3.0) ** 2)  # the slope of the soft-cap
    h = cache[f"blocks.{LAYERS - 1}.hook_resid_post"][0, -1]
    centred = isinstance(norm, torch.nn.LayerNorm)
    gain = norm.weight + 1 if architecture.startswith("gemma") else norm.weight
    eps = next(getattr(norm, name) for name in ("eps", "variance_epsilon") if hasattr(norm, name))

    def centre(o):
        return o - o.mean() if centred else o

    scale = (centre(h).square().mean() + eps).sqrt()
    bias = (w @ norm.bias).item() if centred else None
    return lambda o: (w @ (gain * centre(o) / scale)).item(), cache, bias


# -- sums --------------------------------------------------------------------------------------


@every_case
def test_parts_sum_to_the_logit(architecture, state):
    lin = recorded(architecture, state)
    folded = state not in ("hooked", "bridge")  # a LayerNorm's bias goes into the unembedding's
    biased = architecture == "phi" or (folded and architecture in ("gpt2", "neox"))
    for options, total in (
        (dict(target=TARGET), lin.logits[TARGET]),
        (dict(target=TARGET, minus=OTHER), lin.logits[TARGET] - lin.logits[OTHER]),
        (dict(), lin.logits.max()),
        (dict(scope=v32), v32 @ lin.y),
        (dict(scope="fisher"), None),
        (dict(scope="output", fn=lambda y, z: z.log_softmax(-1)[TARGET]), None),
    ):
        c = tj.residual_contributions(lin, **options)
        if total is not None:
            assert abs(c.total - total.item()) < 1e-6
        assert abs(c.values.sum().item() - c.total) < 1e-12
        assert abs(c["unattributed"]) < rounding(state)
        first = ["embed", "pos_embed"] if architecture == "gpt2" else ["embed"]
        assert list(c.names[: len(first) + 2 * LAYERS]) == first + NAMES
        assert c.names[-1] == "unattributed"
        assert ("soft-cap" in c.names) == (architecture == "gemma2" and "target_token" in c.metadata)
        assert ("unembedding bias" in c.names) == (biased and "target_token" in c.metadata)


@every_raw_case
def test_parts_sum_to_the_confidence(architecture, state):
    lin = recorded(architecture, state)
    c = tj.residual_contributions(lin, "temperature")
    assert abs(c.total - lin.y.norm().item()) < 1e-9
    assert abs(c["unattributed"]) < rounding(state)


@every_case
def test_heads_sum_to_layers_and_sources_to_heads(architecture, state):
    for position in (-1, 3):
        lin = recorded(architecture, state, position=position)
        c = tj.residual_contributions(lin, target=TARGET)
        assert c.heads.rows == ("0", "1", "2")
        assert c.heads.columns == ("H0", "H1", "H2", "H3", "bias")
        assert c.sources.rows == tuple(f"L{i}H{h}" for i in range(LAYERS) for h in range(HEADS))
        assert c.sources.columns == lin.str_tokens
        stream = stream_of(lin)
        u = stream.norm.pull(lin.unembedding.direction(TARGET, lin.logits))
        for i in range(LAYERS):
            layer = _layer(lin, i, stream.parts[f"{i}.attn"], u)  # float64; grids are float32
            assert abs(layer.heads.sum().item() - c[f"{i}.attn"]) < rounding(state)
            torch.testing.assert_close(layer.sources.sum(1), layer.heads[:-1], rtol=1e-6, atol=rounding(state))
            torch.testing.assert_close(c.heads.values[i], layer.heads.float())
            torch.testing.assert_close(c.sources.values[i * HEADS : (i + 1) * HEADS], layer.sources.float())


# -- the same by hand ------------------------------------------------------------------------------


@every_raw_case
def test_parts_equal_a_decomposition_by_hand(architecture, state):
    read, cache, bias = by_hand(architecture, shared(architecture, state))
    c = tj.residual_contributions(recorded(architecture, state), target=TARGET)
    written = {"embed": cache["hook_embed"]}
    written |= {name: cache[f"blocks.{name.replace('.', '.hook_')}_out"] for name in NAMES}
    for name, o in written.items():
        assert abs(c[name] - read(o[0, -1])) < 1e-5, name
    assert ("final norm bias" in c.names) == (bias is not None)
    if bias is not None:
        assert abs(c["final norm bias"] - bias) < 1e-6
    theirs = hf_model(architecture).get_output_embeddings().bias
    assert ("unembedding bias" in c.names) == (theirs is not None)
    if theirs is not None:
        assert abs(c["unembedding bias"] - theirs[TARGET].item()) < 1e-7


@pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=("gpt2", "llama")))
def test_heads_and_sources_equal_a_decomposition_by_hand(architecture, state):
    """z_h W_h, with W of the Hugging Face weights; and pattern times values."""
    read, cache, _ = by_hand(architecture, shared(architecture, state))
    hf = hf_model(architecture)
    c = tj.residual_contributions(recorded(architecture, state), target=TARGET)
    for i in range(LAYERS):
        if architecture == "gpt2":
            projection = hf.transformer.h[i].attn.c_proj
            weight, bias = projection.weight, read(projection.bias)
        else:
            weight, bias = hf.model.layers[i].self_attn.o_proj.weight.T, 0.0
        weight = weight.reshape(HEADS, -1, 32)
        z, v, pattern = (cache[f"blocks.{i}.attn.hook_{name}"][0] for name in ("z", "v", "pattern"))
        assert abs(c.heads.values[i, -1].item() - bias) < 1e-5
        for h in range(HEADS):
            assert abs(c.heads.values[i, h].item() - read(z[-1, h] @ weight[h])) < 1e-5
            values = v[:, h * v.shape[1] // HEADS]
            for s in range(len(PROMPT)):
                expected = read(pattern[h, -1, s] * values[s] @ weight[h])
                assert abs(c.sources.pick(f"L{i}H{h}").values[0, s].item() - expected) < 1e-5


@pytest.mark.parametrize(("architecture", "state"), cases("hooked", of=["gemma2"]))
def test_a_bias_goes_through_the_slope_of_the_soft_cap(architecture, state, generator):
    model = make(architecture, state)
    b = torch.randn(300, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        model.unembed.b_U.copy_(b)
    lin = tj.linearize(model, PROMPT, record=True)
    c, z = tj.residual_contributions(lin, target=TARGET, minus=OTHER), lin.logits
    slope = 1 - (z / 3.0) ** 2
    assert abs(c["unembedding bias"] - (slope[TARGET] * b[TARGET] - slope[OTHER] * b[OTHER]).item()) < 1e-9
    raw = [slope[t] * (lin.y @ model.W_U[:, t] + b[t]) for t in (TARGET, OTHER)]
    assert abs(c["soft-cap"] - (z[TARGET] - z[OTHER] - raw[0] + raw[1]).item()) < 1e-9
    assert abs(c["unattributed"]) < 1e-12
    assert abs(c.total - (z[TARGET] - z[OTHER]).item()) < 1e-9


@pytest.mark.parametrize(("architecture", "state"), cases("hooked-folded", "hooked-centered", "bridge-compat"))
def test_folded_models_have_the_raw_models_parts(architecture, state):
    """With and without the original norm: a difference of logits splits into the same parts."""
    options = dict(target=TARGET, minus=OTHER)
    raw = tj.residual_contributions(recorded(architecture, "bridge"), **options)
    given = recorded(architecture, state, final_norm=final_norm_of(hf_model(architecture)))
    for c in (
        tj.residual_contributions(recorded(architecture, state), **options),
        tj.residual_contributions(given, **options),
    ):
        biases = ["final norm bias", "unembedding bias"]  # folding makes them one
        constants = [sum(part.value for part in x if part.name in biases) for x in (raw, c)]
        assert abs(constants[0] - constants[1]) < 1e-5
        for name in set(raw.names) - {*biases, "unattributed"}:
            # folding turns centring on or off: it moves nothing but what is the same in all of d_model
            assert abs(c[name] - raw[name]) < 1e-5, name
        assert abs(c["unattributed"]) < rounding(state)


# -- hooks of the caller ------------------------------------------------------------------------


@pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=("gpt2", "llama")))
def test_a_steering_vector_is_what_stays_unattributed(architecture, state):
    model = make(architecture, state)
    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", lambda value, hook: value + v32)]):
        lin = tj.linearize(model, PROMPT, record=True)
        read, cache, _ = by_hand(architecture, model)
    c = tj.residual_contributions(lin, target=TARGET)
    assert abs(c["unattributed"] - read(v32)) < 1e-5
    assert abs(c["unattributed"]) > 0.01
    assert abs(c["2.mlp"] - read(cache["blocks.2.hook_mlp_out"][0, -1])) < 1e-5
    assert abs(c.values.sum().item() - lin.logits[TARGET].item()) < 1e-6


@pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=("llama", "gemma2")))
def test_layers_that_a_hook_rewrote_have_no_heads(architecture, state):
    model = make(architecture, state)
    before = tj.residual_contributions(tj.linearize(model, PROMPT, record=True), target=TARGET)
    assert before.heads.rows == ("0", "1", "2")
    for replace in (lambda value, hook: value + v32, lambda value, hook: 0 * value):
        with model.hooks(fwd_hooks=[("blocks.1.hook_attn_out", replace)]):
            c = tj.residual_contributions(tj.linearize(model, PROMPT, record=True), target=TARGET)
        assert c.heads.rows == ("0", "2")
        assert {row[:2] for row in c.sources.rows} == {"L0", "L2"}
        assert abs(c["unattributed"]) < 2e-6
        for i in (0, 2):
            assert abs(c.heads.pick(str(i)).values.sum().item() - c[f"{i}.attn"]) < 1e-5
    assert c["1.attn"] == 0, "an ablated layer writes nothing"
    with model.hooks(fwd_hooks=[("blocks.1.attn.hook_z", lambda value, hook: value + 1)]):
        c = tj.residual_contributions(tj.linearize(model, PROMPT, record=True), target=TARGET)
    assert c.heads.rows == ("0", "1", "2")
    assert {row[:2] for row in c.sources.rows} == {"L0", "L2"}, "values and patterns don't make these heads"
    names = [f"blocks.{i}.hook_attn_out" for i in range(LAYERS)]
    with model.hooks(fwd_hooks=[(name, lambda value, hook: 0 * value) for name in names]):
        c = tj.residual_contributions(tj.linearize(model, PROMPT, record=True), target=TARGET)
    assert (c.heads, c.sources) == (None, None)


def test_a_hook_that_replaces_the_norm_is_refused():
    model = make("gpt2", "bridge")
    with model.hooks(fwd_hooks=[("ln_final.hook_out", lambda value, hook: value.tanh())]):
        lin = tj.linearize(model, PROMPT, record=True)
    with pytest.raises(
        tj.errors.UnsupportedModelError, match="the final norm isn't a LayerNorm or RMSNorm at a fixed scale"
    ):
        tj.residual_contributions(lin, target=TARGET)


# -- ends inside the model -----------------------------------------------------------------------


@every_case
def test_an_output_inside_the_model_is_split_too(architecture, state):
    last = {"pre": "0.mlp", "mid": "1.attn", "post": "1.mlp"}
    for where in ("pre", "post") if architecture in PARALLEL else ("pre", "mid", "post"):
        lin = recorded(architecture, state, output_hook=f"blocks.1.hook_resid_{where}", position=7)
        c = tj.residual_contributions(lin, v32)
        assert abs(c.total - (v32 @ lin.taps[f"blocks.1.hook_resid_{where}"][7]).item()) < 1e-9
        assert abs(c["unattributed"]) < 1e-12
        assert list(c.names) == [n for n in c.names if n.endswith("embed")] + [
            *NAMES[: NAMES.index(last[where]) + 1],
            "unattributed",
        ]
        assert abs(c["0.mlp"] - (v32 @ lin.taps["blocks.0.hook_mlp_out"][7]).item()) < 1e-12
        assert c.heads.rows == (("0",) if where == "pre" else ("0", "1"))


@every_case
def test_an_input_inside_the_model_is_a_part(architecture, state):
    mid = () if architecture in PARALLEL or state.startswith("bridge") else ("mid",)
    for where in ("pre", *mid, "post"):
        name = f"blocks.1.hook_resid_{where}"
        lin = recorded(architecture, state, input_hook=name)
        c = tj.residual_contributions(lin, target=TARGET)
        later = {"pre": NAMES[2:], "mid": NAMES[3:], "post": NAMES[4:]}[where]
        assert list(c.names[: 1 + len(later)]) == [name, *later]
        assert abs(c.total - lin.logits[TARGET].item()) < 1e-6
        assert abs(c["unattributed"]) < rounding(state)
        whole = tj.residual_contributions(recorded(architecture, state), target=TARGET)
        written = [p.value for p in whole if p.name in ("embed", "pos_embed", *NAMES) and p.name not in later]
        assert abs(c[name] - sum(written)) < 1e-5


@one_a_host
def test_both_ends_inside_the_model(architecture, state):
    lin = recorded(architecture, state, input_hook="blocks.1.hook_resid_pre", output_hook="blocks.1.hook_resid_post")
    c = tj.residual_contributions(lin, v32)
    assert c.names == ("blocks.1.hook_resid_pre", "1.attn", "1.mlp", "unattributed")
    assert abs(c["unattributed"]) < 1e-12


# -- precision, memory --------------------------------------------------------------------------


@pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge"))
def test_half_precision_models_keep_their_heads_and_sources(architecture, state):
    lin = tj.linearize(shared(architecture, state, torch.bfloat16), PROMPT, record=True)
    c = tj.residual_contributions(lin, target=TARGET)
    assert c.heads.rows == ("0", "1", "2")
    assert len(c.sources.rows) == LAYERS * HEADS
    size = c.values.abs().sum().item()
    assert abs(c["unattributed"]) < 1e-5 * size  # activations are float32
    attention = torch.tensor([c[f"{i}.attn"] for i in range(LAYERS)])
    assert (c.heads.values.sum(1) - attention).abs().max() < 1e-5 * size


def test_less_may_be_recorded():
    model = shared("llama", "bridge")
    full = tj.residual_contributions(tj.linearize(model, PROMPT, record=True), target=TARGET)
    for record, heads in (("components", None), (["components", "heads"], full.heads)):
        c = tj.residual_contributions(tj.linearize(model, PROMPT, record=record), target=TARGET)
        assert (c.names, c.heads, c.sources) == (full.names, heads, None)
        assert torch.equal(c.values, full.values)
    one = tj.linearize(model, PROMPT, record=["components", "blocks.1.attn.hook_z"])
    assert tj.residual_contributions(one, target=TARGET).heads.rows == ("1",)


def test_what_was_split_is_said():
    lin = recorded("llama", "bridge", position=4)
    c = tj.residual_contributions(lin, target="A", minus="B")
    assert c.target == "logit of 'A' minus logit of 'B'"
    assert c.heads.quantity == c.sources.quantity == f"contribution to {c.target}"
    assert (c.heads.title, c.sources.title) == (
        f"what each head wrote: {c.target}",
        f"which token each head read it from: {c.target}",
    )
    assert c.heads.signed
    assert c.sources.signed
    assert c.sources.tokens == tuple(PROMPT[:5])
    assert c.metadata["position"] == 4
    assert c.metadata["norm_scale"] > 0
    assert c.metadata["host"] == "TransformerBridge"


# -- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "arguments", "error", "message"),
    [
        (dict(record=None), {}, tj.errors.HookPointError, r"hook_attn_out wasn't recorded, so .* record=\["),
        (
            dict(record=["blocks.0.hook_attn_out"]),
            {},
            tj.errors.HookPointError,
            "blocks.0.hook_mlp_out wasn't recorded",
        ),
        (dict(), dict(scope="fisher", rank=2), tj.errors.ArgumentError, "contributions need one direction, .* has 2"),
        (dict(), dict(scope="logit"), tj.errors.ArgumentError, "scope='logit', expected one of"),
        (dict(), dict(kind="norm"), tj.errors.ArgumentError, "takes no kind="),
        (dict(), dict(target=300), tj.errors.TargetError, "300"),
        (
            dict(input_hook="blocks.0.attn.hook_z"),
            {},
            tj.errors.HookPointError,
            "hook_z isn't the residual stream, .* expected hook_embed or blocks.L.hook_resid_pre",
        ),
        (
            dict(output_hook="blocks.1.hook_mlp_out"),
            dict(scope=v32),
            tj.errors.HookPointError,
            "hook_mlp_out isn't the residual stream, .* expected blocks.L.hook_resid_pre",
        ),
        (
            dict(output_hook="hook_embed"),
            dict(scope=v32),
            tj.errors.HookPointError,
            "hook_embed isn't the residual stream",
        ),
        (dict(output_hook="blocks.1.hook_resid_pre"), {}, tj.errors.ArgumentError, "which isn't unembedded"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(options, arguments, error, message):
    with pytest.raises(error, match=message):
        tj.residual_contributions(recorded("gpt2", "bridge", **options), **arguments)


@pytest.mark.usefixtures("unchecked")
def test_one_linearization_at_a_time():
    batch = tj.linearize(shared("gpt2", "bridge"), [PROMPT, PROMPT[:3]], record=True)
    with pytest.raises(
        tj.errors.ArgumentError, match=r"got a LinearizationBatch, expected one( position's)? linearization.*batch\[i\]"
    ):
        tj.residual_contributions(batch)
    alone = tj.residual_contributions(tj.linearize(shared("gpt2", "bridge"), PROMPT[:3], record=True), target=TARGET)
    torch.testing.assert_close(tj.residual_contributions(batch[1], target=TARGET).values, alone.values)
