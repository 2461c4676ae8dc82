"""Features against the naive twin: gradients by autograd through the whole model, effects by interventions, sums."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import naive
import pytest
import torch
from cases import HAS_HOOKED, LAYERS, cases, shared
from recorded import PROMPT, TARGET, N, every_case
from torch import nn

import tl_jacobian as tj
from tl_jacobian.core.sae import read_sae

D, FEATURES = 32, 24
HOOK = "blocks.1.hook_resid_post"
KINDS = ("standard", "jumprelu", "topk")


def weights(kind="standard", d_out=D, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    made = dict(
        W_enc=draw(D, FEATURES), W_dec=draw(FEATURES, d_out), b_enc=0.3 * draw(FEATURES), b_dec=0.2 * draw(d_out)
    )
    more = {"jumprelu": dict(threshold=draw(FEATURES).abs()), "topk": dict(k=6)}
    return made | more.get(kind, {})


def encoded(w, h, shift=False):
    """The encoder once more, feature by feature."""
    z = torch.stack([(h - w["b_dec"] * shift) @ column for column in w["W_enc"].T], -1) + w["b_enc"]
    if "threshold" in w:
        return torch.where(z > w["threshold"], z, 0 * z).clamp_min(0)
    if "k" in w:
        kept = z >= z.sort(dim=-1, descending=True).values[..., w["k"] - 1 : w["k"]]
        return torch.where(kept, z, 0 * z).clamp_min(0)
    return z.clamp_min(0)


class Normed(nn.Module):
    """A stateful SAE as SAELens has them: statistics of its norm are kept between encode and decode."""

    def __init__(self):
        super().__init__()
        w = weights()
        self.W_enc, self.W_dec, self.b_enc, self.b_dec = (
            nn.Parameter(w[n]) for n in ("W_enc", "W_dec", "b_enc", "b_dec")
        )
        metadata = SimpleNamespace(hook_name=HOOK)
        self.cfg = SimpleNamespace(metadata=metadata, architecture="own", normalize_activations="layer_norm")

    def process_sae_in(self, h):
        self.mean, self.std = h.mean(-1, keepdim=True), h.std(-1, keepdim=True)
        return (h - self.mean) / self.std - self.b_dec

    def encode(self, h):
        return (self.process_sae_in(h) @ self.W_enc + self.b_enc).relu()

    def decode(self, a):
        return (a @ self.W_dec + self.b_dec) * self.std + self.mean


@pytest.mark.parametrize("kind", KINDS)
def test_plain_weights_encode_and_decode(kind, generator):
    w, h = weights(kind), torch.randn(5, D, generator=generator, dtype=torch.float64)
    for shift in (False, True):
        found = read_sae({**w, "apply_b_dec_to_input": shift}).decoded(h)
        torch.testing.assert_close(found.activations.detach(), encoded(w, h, shift))
        torch.testing.assert_close(found.reconstruction.detach(), encoded(w, h, shift) @ w["W_dec"] + w["b_dec"])


@every_case
def test_tokens_of_a_feature_are_the_gradient_of_its_activation(architecture, state):
    """Through the encoder and the model, by autograd on the whole model under hooks."""
    model = shared(architecture, state)
    lin = tj.linearize(model, PROMPT, output_hook=HOOK)
    for kind in KINDS:
        w = weights(kind)
        active = encoded(w, lin.y)
        feature = int(active.argmax())
        a = tj.feature_scope(lin, w, feature, at=HOOK)
        run = naive.inside(model, PROMPT, ["hook_embed", HOOK])
        value = encoded(w, run.at[HOOK][0, -1].double())[feature]
        expected = torch.autograd.grad(value, run.at["hook_embed"])[0][0].norm(dim=-1)
        assert a.metadata["value"] == pytest.approx(value.item(), rel=1e-5)
        # The bridge's RMSNorms work in float32 even in a float64 model.
        torch.testing.assert_close(a.scores.double(), expected.double(), rtol=1e-4, atol=1e-5)
        assert f"feature {feature} of the stream at {HOOK}" == a.target


@every_case
def test_features_bias_and_error_are_the_stream_and_every_effect_is_a_derivative(architecture, state):
    model = shared(architecture, state)
    lin = tj.linearize(model, PROMPT, record=[HOOK])
    w = weights("jumprelu")
    f = tj.feature_scope(lin, w, at=HOOK, target=TARGET, top=FEATURES)
    v = lin.unembedding.direction(TARGET, lin.logits)
    g, h = lin.vjp_at(v, [HOOK])[HOOK].double(), lin.taps[HOOK].double()
    sums = f.effects.values.double().sum(0) + f.remainder.values.double().sum(0)
    torch.testing.assert_close(sums, (g * h).sum(1), rtol=1e-5, atol=1e-4)  # grids are float32
    assert f.parts.total == pytest.approx(lin.logits[TARGET].item(), rel=1e-6)
    assert abs(f.parts.difference) < 1e-9
    rest = f.parts["rest of the model"]
    assert rest == pytest.approx(f.parts.total - (g * h).sum().item(), rel=1e-6, abs=1e-6)
    active = encoded(w, h)
    torch.testing.assert_close(f.activations.values.double(), active[:, list(f.features)].T, rtol=1e-5, atol=1e-5)
    # The bridge's RMSNorms work in float32 even in a float64 model, so a short step finds rounding errors.
    size, tolerance = (1e-2, 1e-3) if state.startswith("bridge") else (1e-3, 1e-5)
    scale = f.effects.values.abs().max().item()
    for cell in f.top(2):
        written = cell.activation * w["W_dec"][cell.feature]
        step = size / written.norm().item()
        nudge = torch.zeros(1, N, D, dtype=torch.float64)
        nudge[0, cell.token] = step * written
        up, down = (naive.patched(model, PROMPT, HOOK, s * nudge)[TARGET] for s in (1, -1))
        assert cell.effect == pytest.approx(((up - down) / (2 * step)).item(), abs=tolerance * (scale + 1))


def test_a_distributions_effects_are_the_divergence_to_second_order():
    """Against the Fisher matrix of all logits, written out."""
    model = shared("llama", "bridge")
    lin = tj.linearize(model, PROMPT, record=[HOOK])
    w = weights()
    f = tj.feature_scope(lin, w, at=HOOK, scope="fisher", rank=D, top=FEATURES)
    assert f.parts is None
    assert not f.effects.signed
    fisher = naive.fisher_sum(lin.unembedding.weight.double(), lin.probs.double())
    j = torch.stack(
        [lin.vjp_at(row, [HOOK])[HOOK] for row in torch.eye(D, dtype=lin.y.dtype)]
    ).double()  # (out, pos, in)
    active = encoded(w, lin.taps[HOOK].double())
    for row, feature in enumerate(f.features[:4]):
        moved = torch.einsum("opi,i->po", j, w["W_dec"][feature]) * active[:, feature, None]
        expected = torch.einsum("pa,ab,pb->p", moved, fisher, moved)
        torch.testing.assert_close(f.effects.values[row].double(), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=("gpt2", "neox")))
def test_a_transcoder_reads_one_activation_and_writes_another(architecture, state):
    model = shared(architecture, state)
    reads, writes = "blocks.1.hook_resid_pre", "blocks.1.hook_mlp_out"
    lin = tj.linearize(model, PROMPT, record=[reads, writes])
    w = weights()
    f = tj.feature_scope(lin, w, at=reads, into=writes, target=TARGET, top=FEATURES)
    g = lin.vjp_at(lin.unembedding.direction(TARGET, lin.logits), [writes])[writes].double()
    row = f.features[0]
    expected = encoded(w, lin.taps[reads].double())[:, row] * (g @ w["W_dec"][row])
    torch.testing.assert_close(f.effects.values[0].double(), expected, rtol=1e-5, atol=1e-5)
    sums = f.effects.values.double().sum(0) + f.remainder.values.double().sum(0)
    torch.testing.assert_close(sums, (g * lin.taps[writes].double()).sum(1), rtol=1e-5, atol=1e-4)


class CrossLayer(nn.Module):
    """A cross-layer transcoder as circuit-tracer has them: an encoder's *rows* are its features."""

    n_layers, d_model, feature_input_hook, feature_output_hook = LAYERS, D, "hook_resid_pre", "hook_mlp_out"

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        draw = lambda *shape: nn.Parameter(torch.randn(*shape, generator=generator, dtype=torch.float64))  # noqa: E731
        self.W_enc, self.b_enc, self.b_dec = draw(LAYERS, FEATURES, D), draw(LAYERS, FEATURES), draw(LAYERS, D)
        self.W_dec = nn.ParameterList([draw(FEATURES, LAYERS - i, D) for i in range(LAYERS)])

    def encode_layer(self, x, layer_id, apply_activation_function=True):
        z = x @ self.W_enc[layer_id].T + self.b_enc[layer_id]
        return z.relu() if apply_activation_function else z


@pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=("gpt2", "llama")))
def test_a_cross_layer_transcoder_reads_one_layer_and_writes_several(architecture, state):
    """Against one product for each activation that is written, and against an intervention in all of them."""
    model, clt, layer = shared(architecture, state), CrossLayer(), 1
    reads = f"blocks.{layer}.hook_resid_pre"
    writes = [f"blocks.{i}.hook_mlp_out" for i in range(layer, LAYERS)]
    lin = tj.linearize(model, PROMPT, record=[reads, *writes])
    f = tj.feature_scope(lin, clt, at=reads, target=TARGET, top=FEATURES)
    h = lin.taps[reads].double()
    active = torch.stack(
        [(h @ row).add(b).relu() for row, b in zip(clt.W_enc[layer], clt.b_enc[layer], strict=True)], 1
    )
    v = lin.unembedding.direction(TARGET, lin.logits)
    each = {hook: lin.vjp_at(v, [hook])[hook].double() for hook in writes}
    expected = sum(active * (each[hook] @ clt.W_dec[layer][:, i].T) for i, hook in enumerate(writes))
    found = list(f.features)
    torch.testing.assert_close(f.activations.values.double(), active[:, found].T, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(f.effects.values.double(), expected[:, found].T, rtol=1e-5, atol=1e-5)
    sums = f.effects.values.double().sum(0) + f.remainder.values.double().sum(0)
    whole = sum((each[hook] * lin.taps[hook].double()).sum(1) for hook in writes)
    torch.testing.assert_close(sums, whole, rtol=1e-4, atol=1e-4)
    assert abs(f.parts.difference) < 1e-9
    assert "features of other layers" in f.effects.metadata["goes_on"]
    # The same as plain weights, whose columns are the features.
    plain = dict(W_enc=clt.W_enc[layer].T, b_enc=clt.b_enc[layer], W_dec=clt.W_dec[layer], b_dec=clt.b_dec[layer:])
    again = tj.feature_scope(lin, plain, at=reads, into=writes, target=TARGET, top=FEATURES)
    torch.testing.assert_close(again.effects.values, f.effects.values)
    cell = f.top(1)[0]
    step = 1e-2 / cell.activation  # the bridge's RMSNorms work in float32
    changed = []
    for sign in (1, -1):

        def add(a, hook, sign=sign, at=0):
            a = a.clone()
            a[0, cell.token] += sign * step * cell.activation * clt.W_dec[layer][cell.feature, at]
            return a

        with torch.no_grad():
            hooks = [(name, partial(add, at=at)) for at, name in enumerate(writes)]
            logits = model.run_with_hooks(lin.tokens[None], fwd_hooks=hooks)
        changed.append(logits[0, -1, TARGET].item())
    scale = f.effects.values.abs().max().item() + 1
    assert cell.effect == pytest.approx((changed[0] - changed[1]) / (2 * step), abs=1e-3 * scale)
    inside = tj.linearize(model, PROMPT, output_hook=reads)
    a = tj.feature_scope(inside, clt, int(active[-1].argmax()))
    torch.testing.assert_close(a.scores, inside.vjp(clt.W_enc[layer][int(active[-1].argmax())]).norm(dim=-1).float())
    off = int(active[-1].argmin())
    assert tj.feature_scope(inside, clt, off, of="pre_activation").metadata["value"] <= 0


def test_a_skip_belongs_to_the_error():
    """Of a transcoder with a skip connection: it is no feature's."""
    model, w = shared("gpt2", "bridge"), weights()
    skipping = SimpleNamespace(
        **w, W_skip=torch.eye(D), encode=lambda h: encoded(w, h), decode=lambda a: pytest.fail("needs its input, too")
    )
    lin = tj.linearize(model, PROMPT, record=[HOOK])
    one, two = (tj.feature_scope(lin, sae, at=HOOK, target=TARGET, top=3) for sae in (skipping, w))
    torch.testing.assert_close(one.remainder.values, two.remainder.values)


def test_a_neuronpedia_id_is_text():
    cfg = SimpleNamespace(metadata=SimpleNamespace(hook_name=HOOK, neuronpedia_id="tiny/1-res"))
    lin = tj.linearize(shared("gpt2", "bridge"), PROMPT, record=[HOOK])
    f = tj.feature_scope(lin, SimpleNamespace(**weights(), cfg=cfg), target=TARGET, top=2)
    assert f.neuronpedia(7) == "https://www.neuronpedia.org/tiny/1-res/7"
    assert "neuronpedia.org/tiny/1-res/" in " ".join(f.panels()[0].facts)
    assert 'href="http' not in f._repr_html_()
    assert tj.feature_scope(lin, weights(), at=HOOK, target=TARGET, top=2).neuronpedia(7) is None


def test_an_objects_own_functions_are_used_and_it_stays_as_it_was():
    model, sae = shared("gpt2", "bridge"), Normed()
    before = dict(vars(sae))
    lin = tj.linearize(model, PROMPT, record=[HOOK])
    f = tj.feature_scope(lin, sae, target=TARGET, top=FEATURES)  # it knows its hook point
    h = lin.taps[HOOK].double()
    mean, std = h.mean(-1, keepdim=True), h.std(-1, keepdim=True)
    w = weights()
    active = (((h - mean) / std - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    g = lin.vjp_at(lin.unembedding.direction(TARGET, lin.logits), [HOOK])[HOOK].double()
    expected = active * std * (g @ w["W_dec"].T)
    torch.testing.assert_close(f.effects.values.double(), expected[:, list(f.features)].T, rtol=1e-5, atol=1e-5)
    inside = tj.linearize(model, PROMPT, output_hook=HOOK)
    feature = int(active[-1].argmax())
    a = tj.feature_scope(inside, sae, feature)
    y = inside.y.detach().clone().requires_grad_()
    z = ((y - y.mean()) / y.std() - w["b_dec"]) @ w["W_enc"][:, feature] + w["b_enc"][feature]
    (v,) = torch.autograd.grad(z, y)
    torch.testing.assert_close(a.scores, inside.vjp(v).norm(dim=-1).float(), rtol=1e-5, atol=1e-6)
    off = int((active[-1] == 0).nonzero()[0])
    held = tj.feature_scope(inside, sae, off, of="pre_activation")
    assert held.metadata["value"] < 0 < held.scores.max()
    assert vars(sae) == before
    assert all(p.grad is None and p.requires_grad for p in sae.parameters())


def test_directions_are_features_and_adding_one_does_its_slope():
    model = shared("llama", "bridge")
    lin = tj.linearize(model, PROMPT, record=[HOOK])
    d = torch.linspace(-1, 2, D, dtype=torch.float64)
    f = tj.feature_scope(lin, d, at=HOOK, target=TARGET)
    h = lin.taps[HOOK].double()
    torch.testing.assert_close(f.activations.values[0].double(), h @ d / (d @ d), rtol=1e-5, atol=1e-6)
    step, cell = 1e-2, f.top(1)[0]
    nudge = torch.zeros(1, N, D, dtype=torch.float64)
    nudge[0, cell.token] = step * d
    up, down = (naive.patched(model, PROMPT, HOOK, s * nudge)[TARGET] for s in (1, -1))
    assert cell.effect / cell.activation == pytest.approx(((up - down) / (2 * step)).item(), rel=1e-3)
    inside = tj.linearize(model, PROMPT, output_hook=HOOK)
    one, two = tj.feature_scope(inside, d, 0), tj.direction_scope(inside, d)
    torch.testing.assert_close(one.scores * (d @ d).item(), two.scores, rtol=1e-5, atol=1e-6)


def test_answers_batches_and_first_tokens():
    model, w = shared("gpt2", "bridge"), weights()
    lin = tj.linearize(model, PROMPT, answer=[TARGET, 5], record=[HOOK])
    f = tj.feature_scope(lin, w, at=HOOK, top=3)
    assert f.parts.total == pytest.approx(lin.log_probs.sum().item(), rel=1e-5)
    assert f.effects.values.shape == (3, N + 1)
    assert f.parts.names[-2:] == ("first token", "rest of the model")
    batch = tj.linearize(model, [PROMPT, PROMPT[::-1]], output_hook=HOOK)
    both = tj.feature_scope(batch, torch.ones(D), 0)
    assert both[1].scores.equal(tj.feature_scope(batch[1], torch.ones(D), 0).scores)
    alone = tj.feature_scope(tj.linearize(model, PROMPT[:1], record=[HOOK]), w, at=HOOK, target=3)
    assert "first token" not in alone.parts.names


def _lin():
    return tj.linearize(shared("gpt2", "bridge"), PROMPT, record=[HOOK])


def _inside():
    return tj.linearize(shared("gpt2", "bridge"), PROMPT, output_hook=HOOK)


OFF = {**weights(), "b_enc": weights()["b_enc"] - 1e4}
WIDE = {"W_enc": torch.zeros(48, 5), "W_dec": torch.zeros(5, 48)}


def _clt(*, lazy=False):
    clt = CrossLayer()
    if lazy:
        clt.W_dec = None
    return clt


BAD = {  # linearization, SAE, options, error, message
    "width": (_lin, WIDE, dict(at=HOOK), "ArgumentError", "reads activations of 48 numbers, but those at blocks"),
    "width of y": (_inside, WIDE, dict(feature=0), "ArgumentError", "48 numbers, but those at blocks.1.* have 32"),
    "not inside": (_lin, weights(), dict(feature=0), "HookPointError", r"ends at y.*output_hook='blocks.L.hook_resid"),
    "elsewhere": (_inside, weights(), dict(feature=0, at="0.resid_post"), "HookPointError", "ends at blocks.1"),
    "number": (_inside, weights(), dict(feature=FEATURES), "ArgumentError", "feature=24, expected an integer, 0 to 23"),
    "no hook": (_lin, weights(), {}, "ArgumentError", "doesn't say which activation it reads: at="),
    "not recorded": (_lin, weights(), dict(at="1.resid_pre"), "HookPointError", "wasn't recorded"),
    "options": (_inside, weights(), dict(feature=0, target=3), "ArgumentError", "target= is for features of a predic"),
    "of": (_lin, weights(), dict(at=HOOK, of="pre_activation"), "ArgumentError", "is for a feature"),
    "off": (
        _inside,
        OFF,
        dict(feature=3),
        "DirectionError",
        'feature 3 is off at token 10 .*that are on: none; of="pre',
    ),
    "no SAE": (_lin, {"W_enc": torch.zeros(3, 4)}, {}, "ArgumentError", "expected an SAE or transcoder"),
    "transposed": (_lin, {"W_enc": torch.zeros(5, 32), "W_dec": torch.zeros(5, 32)}, {}, "ArgumentError", r"W_enc\.T"),
    "zero": (_lin, torch.zeros(D), dict(at=HOOK), "ArgumentError", "a direction is zero"),
    "no layer": (_lin, _clt(), {}, "ArgumentError", r"CrossLayer has features of 3 layers: .*got at=None"),
    "lazy": (_lin, _clt(lazy=True), dict(at="blocks.1.hook_resid_pre"), "ArgumentError", "lazy_decoder=False"),
    "outputs": (
        _lin,
        {**weights(), "W_dec": torch.zeros(FEATURES, 2, D), "b_dec": None},
        dict(at=HOOK, into=HOOK),
        "ArgumentError",
        "expected the 2 different hook points",
    ),
    "k": (_lin, {**weights(), "k": 50}, dict(at=HOOK), "ArgumentError", "k=50, expected how many of 24"),
    "threshold": (
        _lin,
        {**weights(), "threshold": 0.1},
        dict(at=HOOK),
        "ArgumentError",
        "threshold=0.1, expected a ten",
    ),
    "bias": (_lin, {**weights(), "b_enc": torch.zeros(3)}, dict(at=HOOK), "ArgumentError", r"b_enc has shape \(3,\)"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(name):
    lin, sae, options, error, message = BAD[name]
    with pytest.raises(getattr(tj.errors, error), match=message):
        tj.feature_scope(lin(), sae, **options)


@pytest.mark.skipif(not HAS_HOOKED, reason="SAELens 6 needs TransformerLens 3")
@pytest.mark.slow  # importing it takes seconds
@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "topk", "gated", "transcoder"])
@pytest.mark.parametrize("norm", ["none", "layer_norm", "constant_norm_rescale"])
def test_saelens(architecture, norm):
    """Its own objects, where it is installed: their functions, found by finite differences and sums."""
    sae_lens = pytest.importorskip("sae_lens")
    state = torch.get_rng_state()
    sae_class, cfg_class = sae_lens.registry.get_sae_class(architecture)
    more = {"topk": dict(k=6), "transcoder": dict(d_out=D, apply_b_dec_to_input=False)}.get(architecture, {})
    cfg = cfg_class(d_in=D, d_sae=FEATURES, dtype="float64", normalize_activations=norm, **more)
    cfg.metadata.hook_name = HOOK
    sae = sae_class(cfg)
    torch.set_rng_state(state)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in sae.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) * (1 if p.ndim > 1 else 0.2))
    before = dict(vars(sae))
    model = shared("gpt2", "bridge")
    lin = tj.linearize(model, PROMPT, record=[HOOK])
    f = tj.feature_scope(lin, sae, target=TARGET, top=FEATURES)
    assert vars(sae) == before
    h = lin.taps[HOOK].double()
    with torch.no_grad():
        acts = sae.encode(h)
        made = sae.decode(acts)
    torch.testing.assert_close(f.activations.values.double(), acts[:, list(f.features)].T, rtol=1e-5, atol=1e-6)
    g = lin.vjp_at(lin.unembedding.direction(TARGET, lin.logits), [HOOK])[HOOK].double()
    torch.testing.assert_close(f.remainder.values[2].double(), (g * (h - made)).sum(1), rtol=1e-4, atol=1e-4)
    inside = tj.linearize(model, PROMPT, output_hook=HOOK)
    feature = int(sae.encode(inside.y[None].double()).argmax())
    a = tj.feature_scope(inside, sae, feature)
    y = inside.y.double()
    step = 1e-6 * torch.eye(D, dtype=torch.float64)
    with torch.no_grad():
        v = (sae.encode(y + step)[:, feature] - sae.encode(y - step)[:, feature]) / 2e-6
    torch.testing.assert_close(a.scores.double(), inside.vjp(v).norm(dim=-1).double(), rtol=1e-4, atol=1e-6)
