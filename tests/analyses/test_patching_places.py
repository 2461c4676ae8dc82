"""Patching by head and token, of neurons, with caches, metrics of all logits, and only where it is asked for."""

from __future__ import annotations

import pytest
import torch
from cases import HAS_HOOKED, cases, shared

import tl_jacobian as tj
from tl_jacobian.core.host.patching import KINDS
from tl_jacobian.results.grid import Cell

CLEAN, CORRUPTED = "Rome is it", "Nome as it"
TASK = dict(target=7, minus=9)
ONE = pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=("gpt2", "llama")))


def value(model, prompt, hooks=()):
    with torch.no_grad():
        logits = model.run_with_hooks(model.to_tokens(prompt), fwd_hooks=list(hooks))
    return (logits[0, -1, 7] - logits[0, -1, 9]).item()


def activation(model, prompt, name):
    with torch.no_grad():
        return model.run_with_cache(model.to_tokens(prompt))[1][name]


@pytest.mark.parametrize(("architecture", "state"), cases())
def test_heads_at_tokens_patterns_and_neurons_are_derivatives(architecture, state, generator):
    model = shared(architecture, state)
    kinds = ["q", "k", "v", "z", "pattern", "mlp_post", "neurons"]
    found = tj.predict_patching(model, CLEAN, CORRUPTED, kinds, **TASK)
    step, tolerance = (1e-2, 5e-4) if state.startswith("bridge") else (1e-4, 1e-6)
    _, clean = model.run_with_cache(model.to_tokens(CLEAN))
    for kind, grid in found.items():
        top = grid.top(1, skip_first=False)[0]
        layer = int(top.row_name.split("H")[0].removeprefix("L"))
        head = int(top.row_name.split("H")[1]) if "H" in top.row_name else None
        name = f"blocks.{layer}.{KINDS[kind].hook}"

        def moved(share, kind=kind, top=top, head=head, name=name):
            def change(a, hook):
                a = a.clone()
                at = {
                    "pattern": (0, head, top.column),
                    "mlp_post": (0, top.column),
                    "neurons": (0, slice(None), top.column),
                }
                index = at.get(kind, (0, top.column, head))
                a[index] += share * (clean[name][index] - a[index])
                return a

            return value(model, CORRUPTED, [(name, change)])

        expected = (moved(step) - moved(-step)) / (2 * step)
        assert top.value == pytest.approx(expected, abs=tolerance * (abs(top.value) + 1)), kind
    # A head's tokens together are the head.
    heads = tj.predict_patching(model, CLEAN, CORRUPTED, "heads", **TASK)
    torch.testing.assert_close(found["z"].values.sum(1), heads.values.flatten(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["neurons"].values.sum(1), found["mlp_post"].values.sum(1), rtol=1e-4, atol=1e-4)


@ONE
def test_only_what_is_asked_for_is_measured(architecture, state):
    model = shared(architecture, state)
    c = tj.compare_patching(model, CLEAN, CORRUPTED, "z", top=3, **TASK)
    best = [(cell.row, cell.column) for cell in c.predicted.top(3, skip_first=False)]
    measured = {tuple(at) for at in (~c.measured.values.isnan()).nonzero().tolist()}
    assert measured == set(best)
    again = tj.compare_patching(model, CLEAN, CORRUPTED, "z", places=c.predicted.top(3, skip_first=False), **TASK)
    assert again == c
    places = [("L1H2", 3), (0, -1)]
    n = len(model.to_tokens(CLEAN)[0])
    c = tj.compare_patching(model, CLEAN, CORRUPTED, "z", places=places, progress=False, **TASK)
    assert {tuple(at) for at in (~c.measured.values.isnan()).nonzero().tolist()} == {(6, 3), (0, n - 1)}
    z, name = activation(model, CLEAN, "blocks.1.attn.hook_z"), "blocks.1.attn.hook_z"

    def patch(a, hook):
        a = a.clone()
        a[:, 3, 2] = z[:, 3, 2]
        return a

    expected = value(model, CORRUPTED, [(name, patch)]) - value(model, CORRUPTED)
    assert c.measured.values[6, 3].item() == pytest.approx(expected, abs=1e-5)
    everything = tj.compare_patching(model, CLEAN, CORRUPTED, "heads", **TASK)
    few = tj.compare_patching(model, CLEAN, CORRUPTED, "heads", places=[("2", "H1")], **TASK)
    assert few.measured.values[2, 1] == everything.measured.values[2, 1]
    assert everything.measured.values.isnan().sum() == 0


@pytest.mark.skipif(not HAS_HOOKED, reason="its functions are compared on TransformerLens 3, where they are stable")
def test_measurements_are_transformer_lens_own(capfd):
    from transformer_lens import patching

    model = shared("gpt2", "hooked")
    tokens = model.to_tokens(CORRUPTED)
    _, cache = model.run_with_cache(model.to_tokens(CLEAN))

    def metric(logits):
        return logits[0, -1, 7] - logits[0, 4, 9]

    with torch.no_grad():
        before = metric(model(tokens)).item()
        theirs = {
            "q": patching.get_act_patch_attn_head_q_by_pos(model, tokens, cache, metric),
            "pattern": patching.get_act_patch_attn_head_pattern_by_pos(model, tokens, cache, metric),
        }
    capfd.readouterr()
    for kind, expected in theirs.items():
        c = tj.compare_patching(model, CLEAN, CORRUPTED, kind, metric=metric)
        assert capfd.readouterr().err == ""
        by_head = expected.permute(0, 2, 1) if kind == "q" else expected  # (layer, pos, head), (layer, head, to)
        wanted = (by_head - before).reshape(c.measured.values.shape)
        torch.testing.assert_close(c.measured.values, wanted.float(), rtol=1e-4, atol=1e-5)


@ONE
def test_a_metric_may_read_the_logits_of_every_token(architecture, state):
    """Products across tokens: each one's gradient, together."""
    model = shared(architecture, state)

    def metric(logits):
        return logits[0, -1, 7] * logits[0, 4, 9] + logits[0].log_softmax(-1)[5, 3]

    grid = tj.predict_patching(model, CLEAN, CORRUPTED, "resid_pre", metric=metric)
    name, step = "blocks.1.hook_resid_pre", 1e-2 if state.startswith("bridge") else 1e-4
    clean = activation(model, CLEAN, name)
    for token in (4, 9):

        def moved(share, token=token):
            def change(a, hook):
                a = a.clone()
                a[:, token] += share * (clean[:, token] - a[:, token])
                return a

            with torch.no_grad():
                return metric(model.run_with_hooks(model.to_tokens(CORRUPTED), fwd_hooks=[(name, change)])).item()

        expected = (moved(step) - moved(-step)) / (2 * step)
        assert grid.values[1, token].item() == pytest.approx(expected, rel=5e-3, abs=1e-3)
    with torch.no_grad():
        whole = (metric(model(model.to_tokens(CLEAN))) - metric(model(model.to_tokens(CORRUPTED)))).item()
    assert grid.metadata["whole"] == pytest.approx(whole, rel=1e-4)
    integrated = tj.predict_patching(model, CLEAN, CORRUPTED, metric=metric, method="integrated", steps=40)
    assert integrated.metadata["from_embeddings"] == pytest.approx(whole, rel=0.05)


@ONE
def test_caches_stand_for_runs(architecture, state):
    model = shared(architecture, state)
    caches = {
        f"{n}_cache": model.run_with_cache(model.to_tokens(p))[1]
        for n, p in (("clean", CLEAN), ("corrupted", CORRUPTED))
    }
    ours = tj.predict_patching(model, CLEAN, CORRUPTED, "heads", **TASK)
    theirs = tj.predict_patching(model, CLEAN, CORRUPTED, "heads", **caches, **TASK)
    torch.testing.assert_close(ours.values, theirs.values, rtol=1e-4, atol=1e-5)
    caches["clean_cache"].cache_dict["blocks.1.attn.hook_z"] = caches["corrupted_cache"]["blocks.1.attn.hook_z"]
    edited = tj.compare_patching(model, CLEAN, CORRUPTED, "heads", places=[(1, 0)], **caches, **TASK)
    assert edited.predicted.values[1].abs().max() < 1e-4 < ours.values[1].abs().max()
    assert edited.measured.values[1, 0].abs() < 1e-4


def _caches(prompt, **options):
    model = shared("gpt2", "bridge")
    return {"clean_cache": model.run_with_cache(model.to_tokens(prompt), **options)[1]}


def _keep_z(name):
    return name.endswith("hook_z")


BAD = {
    "row": (dict(at="heads", places=[("3", "H1")]), "ArgumentError", "places has no such row: '3'; the nearest is '"),
    "column": (dict(at="z", places=[("L1H2", "x")]), "ArgumentError", "no such column: 'x'; the nearest is "),
    "twice": (dict(at="z", places=[("L1H2", "i")] * 2), "ArgumentError", "'i', the name of 2 of them: give its number"),
    "number": (dict(at="z", places=[(0, 11)]), "ArgumentError", "places has column 11, expected -11 to 10"),
    "pairs": (
        dict(at="z", places=["L1H2"]),
        "ArgumentError",
        r"places has 'L1H2', expected pairs of a row and a column",
    ),
    "cell": (
        dict(at="z", places=[Cell(0, 0, "L0H0", "Q", 1.0)]),
        "ArgumentError",
        r"'Q' of another grid, expected cells of predict_patching\(\.\.\., at='z'\)",
    ),
    "both": (dict(at="z", places=[(0, 0)], top=3), "ArgumentError", "places= and top=3: give one or the other"),
    "top": (dict(at="z", top=0), "ArgumentError", "top=0, expected an integer, at least 1"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.usefixtures("unchecked")
def test_bad_places_are_named(name):
    options, error, message = BAD[name]
    with pytest.raises(getattr(tj.errors, error), match=message):
        tj.compare_patching(shared("gpt2", "bridge"), "Rome is it", "Nome is it", **options, **TASK)


@pytest.mark.usefixtures("unchecked")
def test_a_cache_of_another_prompt_is_refused():
    model = shared("gpt2", "bridge")
    cases_of = {
        "another prompt's": _caches("Rome is at"),
        "of another prompt than that of 11 tokens": _caches("Rome is"),
        "or made under hooks: keep hook_embed": _caches("Come as at", names_filter=_keep_z),
    }
    for message, caches in cases_of.items():
        with pytest.raises(tj.errors.PromptError, match=rf"clean_cache .*{message}"):
            tj.predict_patching(model, CLEAN, CORRUPTED, "z", **caches, **TASK)
    with pytest.raises(tj.errors.HookPointError, match=r"clean_cache has no blocks.0.attn.hook_q, of 3 activations"):
        tj.predict_patching(model, CLEAN, CORRUPTED, ["z", "q"], **_caches(CLEAN, names_filter=_keep_z), **TASK)
    with pytest.raises(tj.errors.PromptError, match=r"clean is an ActivationCache, .*clean_cache="):
        tj.predict_patching(model, _caches(CLEAN)["clean_cache"], CORRUPTED, "z", **TASK)
    with pytest.raises(tj.errors.ArgumentError, match="clean_cache=3, expected an ActivationCache or a mapping"):
        tj.predict_patching(model, CLEAN, CORRUPTED, "z", clean_cache=3, **TASK)
