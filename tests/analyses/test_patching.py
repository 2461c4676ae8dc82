"""Predicted patches against interventions on the model itself, and measured ones against TransformerLens by hand."""

from __future__ import annotations

import pytest
import torch
from cases import LAYERS, cases, shared

import tl_jacobian as tj
from tl_jacobian.core.host.patching import KINDS
from tl_jacobian.results.patching import PatchComparison

CLEAN, CORRUPTED = "Rome is it", "Nome as it"
TARGET, MINUS = 7, 9
AT = ("resid_pre", "resid_mid", "attn_out", "mlp_out", "heads")
every_model = pytest.mark.parametrize(("architecture", "state"), cases())
hosts = pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge"))


def kinds_of(architecture, state):
    """Parallel blocks have no middle, and the bridge's hook there changes what the MLP reads alone."""
    middle = architecture not in ("neox", "phi") and not state.startswith("bridge")
    return [kind for kind in AT if kind != "resid_mid" or middle]


def metric(logits):
    return logits[TARGET] - logits[MINUS]


def cache_of(model, prompt):
    kept = {}

    def keep(name):
        return name, lambda value, hook: kept.__setitem__(name, value.detach().clone())

    names = [f"blocks.{i}.{hook}" for i in range(LAYERS) for hook in {kind.hook for kind in KINDS.values()}]
    hooks = [keep(name) for name in names if name in model.hook_dict]
    with torch.no_grad():
        logits = model.run_with_hooks(model.to_tokens(prompt), fwd_hooks=hooks)
    return kept, metric(logits[0, -1]).item()


def patched(model, name, change):
    """The metric of the corrupted run with one activation changed."""
    with torch.no_grad():
        logits = model.run_with_hooks(
            model.to_tokens(CORRUPTED), fwd_hooks=[(name, lambda value, hook: change(value.clone()))]
        )
    return metric(logits[0, -1]).item()


def mix(clean, place, share, kind):
    """Moves one place of an activation by a share of the way to the clean one."""

    def change(value):
        at = (slice(None), slice(None), place) if kind == "heads" else (slice(None), place)
        value[at] = value[at] + share * (clean[at] - value[at])
        return value

    return change


@every_model
def test_predictions_are_the_derivative_of_interventions(architecture, state, generator):
    model = shared(architecture, state)
    kinds = kinds_of(architecture, state)
    found = tj.predict_patching(model, CLEAN, CORRUPTED, kinds, target=TARGET, minus=MINUS)
    clean, _ = cache_of(model, CLEAN)
    # The bridge's RMSNorms work in float32 even in a float64 model, so differences of metrics carry 1e-7.
    step, tolerance = (1e-2, 2e-4) if state.startswith("bridge") else (1e-4, 1e-6)
    for kind in kinds:
        values = found[kind].values.double()
        scale = values.abs().max()
        for _ in range(2):
            layer, place = (int(torch.randint(n, (), generator=generator)) for n in values.shape)
            name = f"blocks.{layer}.{KINDS[kind].hook}"
            up, down = (patched(model, name, mix(clean[name], place, s, kind)) for s in (step, -step))
            expected = (up - down) / (2 * step)
            assert values[layer, place].item() == pytest.approx(expected, abs=tolerance * (scale.item() + 1)), kind


@hosts
def test_measurements_are_patches(architecture, state):
    model = shared(architecture, state)
    clean, after = cache_of(model, CLEAN)
    _, before = cache_of(model, CORRUPTED)
    for kind in ("attn_out", "heads"):
        c = tj.compare_patching(model, CLEAN, CORRUPTED, kind, metric=metric)
        assert (c.clean, c.corrupted) == (pytest.approx(after), pytest.approx(before))
        for layer, place in ((0, 1), (2, 3)):
            name = f"blocks.{layer}.{KINDS[kind].hook}"
            expected = patched(model, name, mix(clean[name], place, 1.0, kind)) - before
            assert c.measured.values[layer, place].item() == pytest.approx(expected, abs=1e-5)


@hosts
def test_the_last_residual_stream_patched_everywhere_restores_the_clean_run(architecture, state):
    """Nothing after the last block moves between tokens, so the last token's patch gives the clean metric."""
    model = shared(architecture, state)
    c = tj.compare_patching(model, CLEAN, CORRUPTED, "mlp_out", metric=metric)
    assert c.measured.values[-1, :-1].abs().max() < 1e-5
    assert c.n_passes == 4


@hosts
def test_two_points_are_the_mean_of_both_gradients(architecture, state):
    model = shared(architecture, state)
    options = dict(at="attn_out", target=TARGET, minus=MINUS)
    both = tj.predict_patching(model, CLEAN, CORRUPTED, method="two_point", **options).values
    there = tj.predict_patching(model, CLEAN, CORRUPTED, **options).values
    back = tj.predict_patching(model, CORRUPTED, CLEAN, **options).values
    torch.testing.assert_close(both, (there - back) / 2, rtol=1e-4, atol=1e-5)


@hosts
def test_the_integral_between_the_prompts_is_complete(architecture, state):
    """At the embeddings the gradient integrated along the way adds up to the whole difference."""
    model = shared(architecture, state)
    grid = tj.predict_patching(model, CLEAN, CORRUPTED, target=TARGET, minus=MINUS, method="integrated", steps=60)
    whole = cache_of(model, CLEAN)[1] - cache_of(model, CORRUPTED)[1]
    assert grid.values[0].double().sum().item() == pytest.approx(whole, rel=0.01)


def test_defaults_compare_what_the_two_prompts_predict():
    model = shared("llama", "bridge")
    lins = [tj.linearize(model, prompt) for prompt in (CLEAN, CORRUPTED)]
    tokens = [int(lin.logits.argmax()) for lin in lins]
    assert tokens[0] != tokens[1]
    named = tj.predict_patching(model, CLEAN, CORRUPTED, target=tokens[0], minus=tokens[1])
    assert tj.predict_patching(model, CLEAN, CORRUPTED) == named
    assert "→" in "".join(named.columns)


def test_a_metric_as_transformer_lens_writes_it_is_the_same_metric():
    model = shared("llama", "bridge")
    ours, theirs = (
        tj.compare_patching(model, CLEAN, CORRUPTED, metric=fn)
        for fn in (lambda logits: logits[5] - logits[7], lambda logits: logits[0, -1, 5] - logits[0, -1, 7])
    )
    assert torch.equal(ours.measured.values, theirs.measured.values)
    assert torch.equal(ours.predicted.values, theirs.predicted.values)
    assert ours.measured.values.abs().max() > 0
    with pytest.raises(tj.errors.ArgumentError, match=r"metric\(logits\) failed: IndexError: .*logits\[0, -1, token\]"):
        tj.predict_patching(model, CLEAN, CORRUPTED, metric=lambda logits: logits[0, 30, 5])


@hosts
def test_the_callers_hooks_stay(architecture, state):
    model = shared(architecture, state)
    calls = []
    model.hook_dict["blocks.1.hook_resid_pre"].add_hook(lambda value, hook: calls.append(1))
    try:
        tj.compare_patching(model, CLEAN, CORRUPTED, "attn_out", metric=metric)
        seen = len(calls)
        with torch.no_grad():
            model(model.to_tokens(CLEAN))
        assert len(calls) == seen + 1 > 1
    finally:
        model.reset_hooks()
    assert all(p.grad is None for p in model.parameters())


def test_agreement_is_what_it_says():
    def grid(values):
        return tj.Grid(
            values=torch.tensor(values),
            rows=("0", "1"),
            columns=("a", "b", "c"),
            title="t",
            quantity="logits",
            row_axis="layer",
            column_axis="token",
            signed=True,
        )

    predicted, measured = grid([[1.0, 2.0, 3.0], [-4.0, 5.0, -6.0]]), grid([[1.0, 2.0, 3.5], [-4.0, 50.0, 0.001]])
    c = PatchComparison(predicted=predicted, measured=measured, clean=1.0, corrupted=0.0)
    assert c.sign_agreement == 1.0  # 0.001 of 50 is noise, and of the others every sign agrees
    assert c.spearman == pytest.approx(1 - 6 * (0 + 1 + 1 + 1 + 0 + 1) / (6 * 35), abs=0.2)
    assert c.worst(1) == [("1", "b", 5.0, 50.0)]
    assert c.relative_error == pytest.approx(
        (0.25 + 45**2 + 6.001**2) ** 0.5 / (1 + 4 + 3.5**2 + 16 + 2500) ** 0.5, rel=1e-5
    )
    assert list(c.to_dataframe()["measured"])[2] == 3.5


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda m: tj.predict_patching(m, "abc", "abcd"),
            tj.errors.PromptError,
            r"clean prompt has 4 tokens and the corrupted one 5.*a \| b \| c",
        ),
        (
            lambda m: tj.predict_patching(m, "abc", "abd", "resid_top"),
            tj.errors.ArgumentError,
            r"at='resid_top', expected one of 'r",
        ),
        (
            lambda m: tj.predict_patching(m, "abc", "abd", method="best"),
            tj.errors.ArgumentError,
            r"method='best', expected one of",
        ),
        (
            lambda m: tj.predict_patching(m, "abc", "abd", steps=0),
            tj.errors.ArgumentError,
            r"steps=0, expected a number of runs between the prompts, at least 1",
        ),
        (
            lambda m: tj.predict_patching(m, "abc", "abc"),
            tj.errors.ArgumentError,
            r"target and minus are the same token",
        ),
        (
            lambda m: tj.predict_patching(m, "abc", "abd", target=3, metric=metric),
            tj.errors.ArgumentError,
            r"metric= and target=3, minus=None: give one or the other",
        ),
        (lambda m: tj.predict_patching(m, "abc", "abd", target="xy"), tj.errors.TargetError, r"'xy' is 2 tokens"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call(shared("gpt2", "bridge"))


def test_the_bridge_cannot_patch_the_middle():
    model = shared("llama", "bridge")
    assert tj.predict_patching(model, CLEAN, CORRUPTED, "resid_mid", target=1, minus=2).values.any()
    with pytest.raises(tj.errors.HookPointError, match=r"hook_resid_mid is the input of the MLP's norm"):
        tj.compare_patching(model, CLEAN, CORRUPTED, "resid_mid", target=1, minus=2)


def test_parallel_blocks_have_no_middle():
    with pytest.raises(tj.errors.HookPointError, match=r"no hook point 'blocks.0.hook_resid_mid'; did you mean"):
        tj.predict_patching(shared("neox", "bridge"), CLEAN, CORRUPTED, "resid_mid")
