"""Predictions under a backward rule: its gradient, named wherever they are shown; measurements know of none."""

from __future__ import annotations

import pytest
import torch
from cases import LAYERS, cases, shared, tokenizer

import tl_jacobian as tj
from benchmarks import zoo
from tl_jacobian.analyses.edges import edge_attribution
from tl_jacobian.errors import UnsupportedModelError

CLEAN, CORRUPTED = "Rome is it", "Nome as it"
TASK = dict(target=7, minus=9)
one_a_host = pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=("llama",)))


@one_a_host
@pytest.mark.parametrize("rule", ["frozen_attention", "gim"])
def test_the_gradient_is_that_of_the_rule(architecture, state, rule):
    model = shared(architecture, state)
    names = [f"blocks.{i}.hook_attn_out" for i in range(LAYERS)]
    lin = tj.linearize(model, CORRUPTED, rule=rule, record=names)
    other = tj.linearize(model, CLEAN, record=names)
    v = lin.unembedding.direction(7, lin.logits) - lin.unembedding.direction(9, lin.logits)
    expected = [((other.taps[n] - lin.taps[n]) * g).sum(-1) for n, g in lin.vjp_at(v, names).items()]
    found = tj.predict_patching(model, CLEAN, CORRUPTED, "attn_out", rule=rule, **TASK)
    torch.testing.assert_close(found.values.double(), torch.stack(expected).double(), rtol=1e-4, atol=1e-5)
    assert found.metadata["rule"] == rule
    assert found.panels()[0].title.endswith(f"(rule {rule})")


@one_a_host
def test_what_is_measured_knows_no_rule(architecture, state):
    model = shared(architecture, state)
    plain, ruled = (
        tj.compare_patching(model, CLEAN, CORRUPTED, "attn_out", top=2, rule=rule, **TASK) for rule in (None, "gim")
    )
    assert "rule" not in plain.predicted.metadata
    assert ruled.predicted.metadata["rule"] == "gim"
    assert "rule" not in ruled.measured.metadata
    assert not (plain.predicted.values == ruled.predicted.values).all()
    again = tj.compare_patching(
        model,
        CLEAN,
        CORRUPTED,
        "attn_out",
        places=[(c.row, c.column) for c in ruled.predicted.top(2, skip_first=False)],
        **TASK,
    )
    assert again.measured.values.nan_to_num().equal(ruled.measured.values.nan_to_num())
    titles = [panel.title for panel in ruled.panels()]
    assert ["(rule gim)" in title for title in titles if "effect" in title] == [True, False, True]
    assert "(rule gim)" in titles[-1]
    assert "(rule gim)" in repr(ruled)


@one_a_host
def test_edges_under_a_rule_add_up_and_say_it(architecture, state):
    model = shared(architecture, state)
    e = edge_attribution(model, CLEAN, CORRUPTED, check=1, rule="frozen_attention", **TASK)
    nodes = tj.predict_patching(model, CLEAN, CORRUPTED, "mlp_out", rule="frozen_attention", **TASK)
    rows = [e.effects.rows.index(f"L{i}MLP") for i in range(LAYERS)]
    sums = e.effects.values[rows].nan_to_num().sum(1)
    torch.testing.assert_close(sums, nodes.values.sum(1), rtol=1e-4, atol=1e-5)
    assert e.metadata["rule"] == "frozen_attention"
    assert all("(rule frozen_attention)" in panel.title for panel in e.panels())
    assert "(rule frozen_attention)" in repr(e)


def test_a_model_without_softmax_attention_is_refused():
    model = zoo.bridge(zoo.hugging_face("mamba"), tokenizer())
    with pytest.raises(UnsupportedModelError, match=r"rule='frozen_attention'.*softmax"):
        tj.predict_patching(model, CLEAN, CORRUPTED, "resid_pre", rule="frozen_attention", **TASK)
    assert tj.predict_patching(model, CLEAN, CORRUPTED, "resid_pre", rule="frozen_norms", **TASK).metadata["rule"]
