"""layer_influence() and head_influence(): gradients at activations, against patching and against plain autograd."""

from __future__ import annotations

import naive
import pytest
import torch
from cases import ARCHITECTURES, LAYERS, cases, make, shared, tokenizer
from recorded import (
    OTHER,
    PARALLEL,
    POST_NORM,
    PROMPT,
    TARGET,
    N,
    every_case,
    every_raw_case,
    one_a_host,
    recorded,
    v32,
)

import tl_jacobian as tj


def contrast(lin):
    """The gradient of logit(TARGET) - logit(OTHER) in y, soft-cap included."""
    return lin.unembedding.direction(TARGET, lin.logits) - lin.unembedding.direction(OTHER, lin.logits)


def differentiable(lin):
    return [name for name in lin.taps if name != "hook_pos_embed"]


# -- the gradients themselves ------------------------------------------------------------


@every_case
def test_gradients_predict_what_patching_does(architecture, state, generator):
    model, lin = shared(architecture, state), recorded(architecture, state)
    names = differentiable(lin)
    grads = lin.vjp_at(contrast(lin), names)
    # Finite differences. HookedTransformer computes in float64; the bridge's native norms in float32, so a step must
    # stand out of their noise. Errors measured over the suite: 1.3e-6 and 1.4e-3 of the gradient's norm.
    step, allowed = (5e-5, 1e-5) if state.startswith("hooked") else (1e-3, 4e-3)
    layer = torch.randint(LAYERS, (len(names),), generator=generator).tolist()
    kinds = sorted({name.split(".", 2)[2] for name in names})
    for i, kind in enumerate(kinds):
        name = f"blocks.{layer[i]}.{kind}"
        everywhere = torch.randn(grads[name].shape, generator=generator, dtype=torch.float64)
        at_one_token = torch.zeros_like(everywhere)
        token = int(torch.randint(len(PROMPT), (), generator=generator))
        where = (slice(None), -1) if kind.endswith("pattern") else (token,)
        at_one_token[where] = everywhere[where]
        nudge, at = (everywhere, at_one_token)[i % 2], naive.reaching_the_stream(model, name)
        there, back = (naive.patched(model, PROMPT, at, sign * step * nudge) for sign in (1, -1))
        measured = ((there - back)[TARGET] - (there - back)[OTHER]) / (2 * step)
        scale = (grads[name].norm() * nudge.norm() / nudge.count_nonzero() ** 0.5).item()
        assert abs(measured - (grads[name] * nudge).sum()) < allowed * scale, name


@every_case
def test_gradients_equal_plain_autograd(architecture, state):
    model, lin = shared(architecture, state), recorded(architecture, state)
    names = differentiable(lin)
    run = naive.inside(model, PROMPT, names)
    z = run.logits[-1]
    read = [run.at[naive.reaching_the_stream(model, name)] for name in names]
    expected = torch.autograd.grad(z[TARGET] - z[OTHER], read)
    ours = lin.vjp_at(contrast(lin), names)
    for name, theirs in zip(names, expected, strict=True):
        torch.testing.assert_close(lin.taps[name], run.at[name][0].detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(ours[name], theirs[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("architecture", "state"), cases("hooked"))
def test_both_hosts_give_the_same_rows(architecture, state):
    for at in ("resid", "components", "heads"):
        ours, theirs = (
            tj.layer_influence(recorded(architecture, s), at=at, target=TARGET, minus=OTHER) for s in (state, "bridge")
        )
        assert ours.rows == theirs.rows
        torch.testing.assert_close(ours.values, theirs.values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("architecture", "state"), cases("bridge", of=[a for a in ARCHITECTURES if a not in PARALLEL]))
def test_a_norms_input_is_what_the_norm_reads(architecture, state):
    """The bridge's ln2.hook_in, asked for by that name: the MLP's part of the stream, not what goes on beside it."""
    model, name = shared(architecture, state), "blocks.1.ln2.hook_in"
    lin, run = (
        tj.linearize(model, PROMPT, record=[name, "blocks.1.hook_resid_mid"]),
        naive.inside(model, PROMPT, [name]),
    )
    (expected,) = torch.autograd.grad(v32 @ run.y[-1], run.at[name])
    grads = lin.vjp_at(v32, list(lin.taps))
    torch.testing.assert_close(grads[name], expected[0], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(grads[name], grads["blocks.1.hook_resid_mid"], rtol=0.1)


@pytest.mark.parametrize(("architecture", "state"), cases("hooked"))
def test_norms_equal_the_grad_that_activations_retain(architecture, state):
    """The way that TransformerLens's own demos take gradients."""
    model, kept = make(architecture, state), {}

    def keep(value, hook):
        value.retain_grad()
        kept[hook.name] = value

    names = [f"blocks.{i}.{n}" for i in range(LAYERS) for n in ("hook_resid_pre", "attn.hook_z", "hook_mlp_out")]
    logits = model.run_with_hooks(torch.tensor([PROMPT]), fwd_hooks=[(name, keep) for name in names])
    logits[0, -1, TARGET].backward()
    lin = tj.linearize(model, PROMPT, record=names)
    rows = tj.layer_influence(lin, at=names, target=TARGET)
    for i in range(LAYERS):
        for name, label in (("hook_resid_pre", f"{i}.resid_pre"), ("hook_mlp_out", f"{i}.mlp_out")):
            expected = kept[f"blocks.{i}.{name}"].grad[0].norm(dim=-1)
            torch.testing.assert_close(rows.pick(label).values[0], expected.float(), rtol=1e-5, atol=1e-6)
        heads = kept[f"blocks.{i}.attn.hook_z"].grad[0].norm(dim=-1).T
        for h, expected in enumerate(heads):
            ours = rows.pick(f"L{i}H{h}").values[0]
            torch.testing.assert_close(ours, expected.float(), rtol=1e-5, atol=1e-6)


# -- what scopes say at the embeddings, and what layers have in common ---------------------


@every_case
def test_the_first_row_is_the_scopes_own(architecture, state):
    lin = recorded(architecture, state)
    entropy = lambda y, z: torch.distributions.Categorical(logits=z).entropy()  # noqa: E731
    for grid, scores in (
        (tj.layer_influence(lin, target=TARGET), tj.semantic_scope(lin, TARGET)),
        (tj.layer_influence(lin, target=TARGET, minus=OTHER), tj.semantic_scope(lin, TARGET, minus=OTHER)),
        (tj.layer_influence(lin, "temperature", confidence="logit_norm"), None),
        (tj.layer_influence(lin, "output", fn=entropy), tj.output_scope(lin, entropy)),
        (tj.layer_influence(lin, v32), tj.direction_scope(lin, v32)),
        (tj.layer_influence(lin, "direction", v=v32), tj.direction_scope(lin, v32)),
        (tj.layer_influence(lin, "fisher"), tj.fisher_scope(lin, method="low_rank")),
        (tj.layer_influence(lin, "fisher", rank=5), tj.fisher_scope(lin, method="low_rank", rank=5)),
    ):
        scores = scores or tj.temperature_scope(lin, confidence="logit_norm")
        torch.testing.assert_close(grid.pick("0.resid_pre").values[0], scores.scores, rtol=1e-6, atol=1e-9)


@every_raw_case
def test_the_first_row_of_temperature(architecture, state):
    lin = recorded(architecture, state)
    ours = tj.layer_influence(lin, "temperature").values[0]
    torch.testing.assert_close(ours, tj.temperature_scope(lin).scores, rtol=1e-6, atol=1e-9)


def test_fisher_takes_as_many_backward_passes_as_it_needs(monkeypatch):
    """20 directions in chunks that memory allows: the sums don't depend on them."""
    from tl_jacobian.core import graph

    lin = recorded("llama", "bridge")
    whole = tj.layer_influence(lin, "fisher", rank=20)
    monkeypatch.setattr(graph, "MAX_CHUNK", 3)
    torch.testing.assert_close(tj.layer_influence(lin, "fisher", rank=20).values, whole.values)


@every_case
def test_what_is_written_moves_y_as_the_stream_does(architecture, state):
    """resid_mid = resid_pre + attn_out, so their gradients are one; and nothing reads later tokens."""
    lin = recorded(architecture, state, position=6)
    grid = tj.layer_influence(lin, target=TARGET, at=["resid", "components"])
    row = dict(zip(grid.rows, grid.values, strict=True))
    for i in range(LAYERS):
        written = "resid_post" if architecture in PARALLEL else "resid_mid"
        torch.testing.assert_close(row[f"{i}.attn_out"], row[f"{i}.{written}"], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(row[f"{i}.mlp_out"], row[f"{i}.resid_post"], rtol=1e-5, atol=1e-7)
    last = row[f"{LAYERS - 1}.resid_post"]
    assert last[-1] > 0
    assert not last[:-1].any(), "behind the last block no token reads another"
    assert grid.values.shape[1] == 7


@every_case
def test_gradient_x_activation_adds_up(architecture, state):
    """Scaling every head (and the bias) scales what attention writes, where no norm comes in between."""
    lin = recorded(architecture, state)
    measured = {
        at: tj.layer_influence(lin, target=TARGET, at=at, kind="gradient_x_activation")
        for at in ("heads", "components", "resid")
    }
    assert all(grid.signed for grid in measured.values())
    names = [f"blocks.{i}.hook_attn_out" for i in range(LAYERS)]
    grads = lin.vjp_at(lin.unembedding.direction(TARGET, lin.logits), names)
    for i, name in enumerate(names):
        whole = measured["components"].pick(f"{i}.attn_out").values[0]
        torch.testing.assert_close(whole, (grads[name] * lin.taps[name]).sum(-1).float(), rtol=1e-5, atol=1e-6)
        if architecture in POST_NORM:
            continue
        bias = lin.anatomy.output_projection(i).bias
        constant = 0 if bias is None else (grads[name] @ bias.double()).float()
        heads = measured["heads"].pick(*[f"L{i}H{h}" for h in range(4)]).values.sum(0)
        torch.testing.assert_close(heads + constant, whole, rtol=1e-5, atol=1e-5)


@one_a_host
def test_relative_influence_is_the_gradient_times_the_size_of_the_activation(architecture, state):
    lin = recorded(architecture, state)
    for at in ("resid", "heads"):
        for options in (dict(target=TARGET), dict(scope="fisher", rank=3)):
            relative, norm = (tj.layer_influence(lin, at=at, kind=kind, **options) for kind in ("relative", "norm"))
            names = [name for name in lin.taps if name.endswith("hook_z" if at == "heads" else ("pre", "mid", "post"))]
            sizes = torch.cat([lin.taps[name].norm(dim=-1).view(N, -1).T for name in names])
            sizes = sizes if "target" in options else sizes**2  # Fisher's are squares
            torch.testing.assert_close(relative.values, (norm.values * sizes).float(), rtol=1e-5, atol=1e-7)
            assert not relative.signed


@one_a_host
def test_head_influence_sums_over_tokens(architecture, state):
    lin = recorded(architecture, state)
    cases_ = [
        (dict(target=TARGET), lambda x: x.square().sum(-1).sqrt()),
        (dict(scope="fisher", rank=3), lambda x: x.sum(-1)),
        (dict(target=TARGET, kind="relative"), lambda x: x.square().sum(-1).sqrt()),
        (dict(target=TARGET, kind="gradient_x_activation"), lambda x: x.sum(-1)),
    ]
    for options, over_tokens in cases_:
        each = tj.layer_influence(lin, at="heads", **options)
        grid = tj.head_influence(lin, **options)
        assert (grid.rows, grid.columns) == (("0", "1", "2"), ("H0", "H1", "H2", "H3"))
        assert (grid.row_axis, grid.column_axis) == ("layer", "head")
        expected = over_tokens(each.values.view(LAYERS, 4, -1))
        torch.testing.assert_close(grid.values, expected, rtol=1e-5, atol=1e-6)


# -- which rows, in which order ------------------------------------------------------------


@every_case
def test_every_group_has_its_rows(architecture, state):
    """Also GPT-2's positional embeddings, on which no path from the tokens lies, and patterns, which aren't vectors."""
    lin = recorded(architecture, state)
    layers, kv = range(LAYERS), {"neox": 4, "phi": 4, "gpt2": 4}.get(architecture, 2)
    stream = ("pre", "post") if architecture in PARALLEL else ("pre", "mid", "post")
    resid = [f"{i}.resid_{n}" for i in layers for n in stream]
    components = [f"{i}.{n}_out" for i in layers for n in ("attn", "mlp")]
    heads = [f"L{i}H{h}" for i in layers for h in range(4)]
    kv_heads = lin.taps["blocks.0.attn.hook_v"].shape[1]
    assert kv_heads in (4, kv), "some states repeat the values of grouped heads"
    sources = [f"L{i}H{h}.v" for i in layers for h in range(kv_heads)]
    for at, rows in (("resid", resid), ("components", components), ("heads", heads), ("sources", sources)):
        grid = tj.layer_influence(lin, target=TARGET, at=at)
        assert list(grid.rows) == rows
        assert grid.columns == lin.str_tokens
        assert grid.values.dtype == torch.float32
    everything = tj.layer_influence(lin, target=TARGET, at=True).rows
    assert sorted(everything) == sorted(resid + components + heads + sources)
    first = ["0.resid_pre", *[f"L0H{h}.v" for h in range(kv_heads)], *heads[:4], "0.attn_out"]
    assert list(everything[: len(first)]) == first, "in the model's order"


@one_a_host
def test_between_ends_inside_the_model_groups_have_fewer_rows(architecture, state):
    lin = recorded(architecture, state, input_hook="blocks.0.hook_resid_post", output_hook="blocks.2.hook_resid_pre")
    whole = recorded(architecture, state, output_hook="blocks.2.hook_resid_pre")
    grid = tj.layer_influence(lin, v32)
    assert grid.rows == ("0.resid_post", "1.resid_pre", "1.resid_mid", "1.resid_post", "2.resid_pre")
    torch.testing.assert_close(grid.values, tj.layer_influence(whole, v32).pick(*grid.rows).values)
    torch.testing.assert_close(grid.values[0], tj.direction_scope(lin, v32).scores)
    torch.testing.assert_close(grid.values[-1, -1], v32.norm().float())
    assert tj.head_influence(lin, v32).rows == ("1",)
    with pytest.raises(
        tj.errors.HookPointError, match=r"doesn't depend on blocks.2.hook_resid_mid: it comes after blocks.2"
    ):
        tj.layer_influence(lin, v32, at="blocks.2.hook_resid_mid")
    with pytest.raises(
        tj.errors.HookPointError, match=r"depend on blocks.0.hook_mlp_out: .* before blocks.0.hook_resid_post"
    ):
        tj.layer_influence(lin, v32, at=["components", "blocks.0.hook_mlp_out"])
    apart = recorded(architecture, state, output_hook="blocks.0.hook_resid_pre", record="heads")
    with pytest.raises(tj.errors.HookPointError, match=r"nothing of at='heads' lies between hook_embed and blocks.0"):
        tj.head_influence(apart, v32)


def test_a_grid_says_what_it_shows():
    lin = recorded("llama", "bridge", position=4)
    norm, signed = (tj.layer_influence(lin, target="A", kind=k) for k in ("norm", "gradient_x_activation"))
    assert (norm.title, signed.title) == ("influence on logit of 'A'", "gradient x activation: logit of 'A'")
    assert norm.quantity == "change of logit of 'A' per unit of activation norm"
    assert signed.quantity == "gradient x activation: first-order change of logit of 'A'"
    assert (norm.signed, signed.signed) == (False, True)
    assert norm.tokens == tuple(PROMPT[:5])
    assert norm.metadata["position"] == 4
    assert norm.metadata["kind"] == "norm"
    assert norm.metadata["target_token"] == tokenizer().convert_tokens_to_ids("A")
    assert norm.metadata["host"] == "TransformerBridge"


# -- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "options", "error", "message"),
    [
        (
            "sematic",
            {},
            tj.errors.ArgumentError,
            "scope='sematic', expected one of 'semantic', 'temperature', 'fisher'",
        ),
        (3, {}, tj.errors.ArgumentError, "scope=3, expected one of"),
        (
            "semantic",
            {"confidence": "logit_norm"},
            tj.errors.ArgumentError,
            "'semantic' takes no confidence=; its options are 'target'",
        ),
        ("fisher", {"target": 1}, tj.errors.ArgumentError, "'fisher' takes no target=; its options are 'rank'"),
        (v32, {"target": 1}, tj.errors.ArgumentError, "'direction' takes no target=; its options are 'v'"),
        ("output", {}, tj.errors.ArgumentError, "'output' needs fn="),
        ("output", {"fn": 3}, tj.errors.ArgumentError, "fn=3 is an int, expected a function"),
        ("direction", {}, tj.errors.ArgumentError, "'direction' needs v="),
        ("fisher", {"rank": 0}, tj.errors.ArgumentError, "rank=0, expected 1 to d_model=32"),
        ("fisher", {"rank": 1.5}, tj.errors.ArgumentError, "rank=1.5 is a float, expected an int"),
        ("fisher", {"rank": "all"}, tj.errors.ArgumentError, "rank='all' is a str, expected an int"),
        (
            "temperature",
            {"confidence": "logit"},
            tj.errors.ArgumentError,
            "confidence='logit', expected one of 'hidden_norm'",
        ),
        ("semantic", {"target": "two"}, tj.errors.TargetError, "two"),
        (v32[:3], {}, tj.errors.DirectionError, r"v has shape \(3,\), expected \(32,\)"),
        (
            "semantic",
            {"kind": "size"},
            tj.errors.ArgumentError,
            "kind='size', expected one of 'norm', 'relative', 'gradient_x",
        ),
        (
            "fisher",
            {"rank": 2, "kind": "gradient_x_activation"},
            tj.errors.ArgumentError,
            r"signed measures need one direction, .* has 2: take rank=1, or one of fisher_spectrum\(lin\).directions",
        ),
        ("semantic", {"at": "blocks.0.hook_embed"}, tj.errors.HookPointError, "'blocks.0.hook_embed' wasn't recorded"),
        ("semantic", {"at": 3}, tj.errors.ArgumentError, "at=3 is an int, expected .*True"),
        ("semantic", {"at": []}, tj.errors.HookPointError, r"nothing of at=\[\] was recorded"),
        (
            "semantic",
            {"at": "blocks.0.attn.hook_pattern"},
            tj.errors.HookPointError,
            r"look at lin.vjp_at\(v, \[name\]\)",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_options_are_named(scope, options, error, message):
    with pytest.raises(error, match=message):
        tj.layer_influence(recorded("gpt2", "bridge"), scope, **options)


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_taken_apart_is_refused():
    model = shared("gpt2", "bridge")
    nothing, batch = tj.linearize(model, PROMPT), tj.linearize(model, [PROMPT, PROMPT[:3]], record=True)
    for call in (tj.layer_influence, tj.head_influence):
        with pytest.raises(
            tj.errors.HookPointError, match=r"was recorded: call linearize\(model, prompt, record=True\)"
        ):
            call(nothing)
        with pytest.raises(
            tj.errors.ArgumentError,
            match=r"got a LinearizationBatch, expected one( position's)? linearization.*batch\[i\]",
        ):
            call(batch)
        with pytest.raises(tj.errors.ArgumentError, match="got a list, expected one linearization"):
            call([nothing])
    inner = tj.linearize(model, PROMPT, record=True, output_hook="blocks.1.hook_resid_post")
    for scope in ("semantic", "fisher", "temperature"):
        with pytest.raises(tj.errors.ArgumentError, match=r"explains blocks.1.hook_resid_post, which isn't unembedded"):
            tj.layer_influence(inner, scope)


def test_folded_norms_have_no_temperature_here_either():
    with pytest.raises(tj.errors.DegenerateScopeError, match=r'final_norm="original"'):
        tj.layer_influence(recorded("llama", "bridge-compat"), "temperature")


@pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge"))
def test_relative_influence_is_the_norm_times_the_activations(architecture, state):
    lin = tj.linearize(shared(architecture, state), "Rome is it", record=["resid_post", "heads"])
    for at, name in (("resid_post", "blocks.1.hook_resid_post"), ("heads", "blocks.1.attn.hook_z")):
        norms, relative = (tj.layer_influence(lin, at=at, kind=kind).values for kind in ("norm", "relative"))
        sizes = lin.taps[name].norm(dim=-1)
        rows = slice(1, 2) if at == "resid_post" else slice(sizes.shape[1], 2 * sizes.shape[1])
        torch.testing.assert_close(relative[rows], norms[rows] * sizes.float().reshape(len(sizes), -1).T)
    heads = tj.head_influence(lin, kind="relative").values
    assert (heads >= tj.head_influence(lin, kind="gradient_x_activation").values.abs() / len(lin.tokens) - 1e-6).all()


def test_grids_rows_are_names_too():
    lin = tj.linearize(shared("llama", "bridge"), "Rome is it", record="resid")
    assert tj.layer_influence(lin, at="2.resid_mid").rows == ("2.resid_mid",)
    assert tj.layer_influence(lin, at=["resid_mid", "0.resid_pre"]).rows[:2] == ("0.resid_pre", "0.resid_mid")
    assert tj.layer_influence(lin).pick("2").rows == ("2.resid_pre", "2.resid_mid", "2.resid_post")
