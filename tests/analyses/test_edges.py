"""Edges against path patching, against patching a component for everybody, and against TransformerLens's own."""

from __future__ import annotations

import pytest
import torch
from cases import HAS_HOOKED, LAYERS, cases, shared

import tl_jacobian as tj
from tl_jacobian.analyses.edges import Edges, edge_attribution
from tl_jacobian.analyses.patching import PromptPair, aim_of
from tl_jacobian.core.hooks import MLP_OUT, RESID_MID, RESID_POST, RESID_PRE, K, Q, V, Z, in_block

CLEAN, CORRUPTED = "Rome is it", "Nome as it"
TASK = dict(target=7, minus=9)


@pytest.mark.parametrize(("architecture", "state"), cases())
def test_a_senders_edges_add_up_to_patching_it(architecture, state):
    """Whatever reads it: exact, since derivatives add up over paths."""
    model = shared(architecture, state)
    e = edge_attribution(model, CLEAN, CORRUPTED, check=0, **TASK)
    nodes = tj.predict_patching(model, CLEAN, CORRUPTED, ["heads", "mlp_out"], **TASK)
    whole = torch.cat(
        [torch.cat([nodes["heads"].values[i], nodes["mlp_out"].values[i].sum()[None]]) for i in range(LAYERS)]
    )
    torch.testing.assert_close(e.effects.values.nan_to_num().sum(1), whole, rtol=1e-5, atol=1e-5)
    values = e.effects.values
    heads = len(e.effects.rows) // LAYERS - 1
    parallel = architecture in ("neox", "phi")
    assert values[heads, :heads].isnan().all()  # nothing leads back
    assert values[0, heads].isnan() == parallel  # a parallel block's MLP doesn't read its heads


def edges_of(model):
    def names(layer):
        paths = (RESID_PRE, Q, K, V, Z, RESID_MID, MLP_OUT, RESID_POST)
        return [n for p in paths if (n := in_block(layer, p)) in model.hook_dict]

    pair = PromptPair(model, CLEAN, CORRUPTED, names, None, None)
    return Edges(pair, aim_of(pair, 7, 9, None))


@pytest.mark.parametrize(("architecture", "state"), cases())
def test_heads_share_directions_through_attention_and_the_mlp_is_what_is_left(architecture, state):
    """Against one direction for each head through all of attention, and the MLP's own product."""
    edges = edges_of(shared(architecture, state))
    # The bridge's RMSNorms work in float32 even in a float64 model.
    tolerance = dict(rtol=1e-4, atol=1e-5) if state.startswith("bridge") else dict(rtol=1e-9, atol=1e-11)
    for layer in edges.layers:
        expected, found = edges.one_by_one(layer), edges.by_groups(layer)
        assert found is not None or architecture not in ("llama", "gpt2", "neox")
        if found is not None:
            torch.testing.assert_close(found, expected, **tolerance)
        tensor, gm = edges.run.taps.tensor, edges.grads[layer.mlp_out][None, None]
        mlp = edges.run.graph.between_many(tensor(layer.mlp_out), tensor(layer.mlp_reads), gm)[0, 0]
        torch.testing.assert_close(edges.by_mlp(layer), mlp, **tolerance)


@pytest.mark.parametrize(("architecture", "state"), cases())
def test_an_edge_is_the_derivative_of_its_path_patch(architecture, state):
    edges = edges_of(shared(architecture, state))
    grid = edges.grid()
    # The bridge's RMSNorms work in float32 even in a float64 model.
    step, tolerance = (1e-2, 1e-3) if state.startswith("bridge") else (1e-4, 1e-5)
    written = edges.written
    chosen = {c.column_name: c for c in reversed(grid.top(40, skip_first=False))}
    few = [next(c for n, c in chosen.items() if kind in n) for kind in ("H", "MLP", "logits")]
    for cell in few:
        edges.written = written * step
        up = edges.measured(cell.row, cell.column_name)
        edges.written = -written * step
        down = edges.measured(cell.row, cell.column_name)
        assert cell.value == pytest.approx((up - down) / (2 * step), rel=tolerance, abs=tolerance), cell


@pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=("gpt2", "llama")))
def test_the_largest_are_measured_and_the_model_is_left_alone(architecture, state):
    model = shared(architecture, state)
    hooks = sum(len(m._forward_hooks) for m in model.modules())
    e = edge_attribution(model, CLEAN, CORRUPTED, check=4, progress=False, **TASK)
    assert [edge[:3] for edge in e.checked] == [edge[:3] for edge in e.top(4)]
    assert all(edge.measured == edge.measured for edge in e.checked)
    assert e.dot(3).count("->") == 3
    again = edge_attribution(model, CLEAN, CORRUPTED, check=[e.checked[2], e.checked[0][:2]], progress=False, **TASK)
    assert again.checked == (e.checked[2], e.checked[0])
    assert sum(len(m._forward_hooks) for m in model.modules()) == hooks
    with pytest.raises(tj.errors.ArgumentError, match="check=-1, expected an integer, at least 0"):
        edge_attribution(model, CLEAN, CORRUPTED, check=-1)


@pytest.mark.skipif(HAS_HOOKED, reason="TransformerLens 4 has it")
def test_transformer_lens_4_gives_the_same_edges():
    """Its edges are split by position and by queries, keys and values: ours are their sums."""
    try:
        from transformer_lens.tools.analysis.attribution_patching import EdgeAttributionConfig, attribution_patch
    except ImportError:
        pytest.skip("this version has no attribution patching")
    model = shared("gpt2", "bridge")
    clean, corrupted = model.to_tokens(CLEAN), model.to_tokens(CORRUPTED)

    def metric(logits):
        return logits[0, -1, 7] - logits[0, -1, 9]

    theirs = attribution_patch(model, clean, corrupted, metric, config=EdgeAttributionConfig(granularity="edge"))
    ours = edge_attribution(model, clean[0], corrupted[0], metric=metric, check=0).effects
    sums: dict[tuple[str, str], float] = {}
    for (writer, reader), score in theirs.edge_scores.items():
        if writer.kind == "embed":
            continue
        sender = f"L{writer.layer}H{writer.head}" if writer.head is not None else f"L{writer.layer}MLP"
        receiver = {"logits": "logits", "mlp_in": f"L{reader.layer}MLP"}.get(
            reader.kind, f"L{reader.layer}H{reader.head}"
        )
        sums[sender, receiver] = sums.get((sender, receiver), 0.0) + score
    assert len(sums) == int((~ours.values.isnan()).sum())
    values = ours.values
    found = [values[ours.rows.index(s), ours.columns.index(r)].item() for s, r in sums]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(list(sums.values())), rtol=1e-3, atol=1e-5)
