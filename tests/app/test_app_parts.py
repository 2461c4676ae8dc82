"""Features of an SAE and edges between heads, as the view asks for them: the library's numbers, and its Python."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from cases import cases, shared
from readers import Reader

import tl_jacobian as tj
from tl_jacobian.analyses.edges import edge_attribution
from tl_jacobian.app.bench import Bench
from tl_jacobian.app.features import sae_of
from tl_jacobian.app.session import Place
from tl_jacobian.errors import ArgumentError, HookPointError
from tl_jacobian.results.panels import TokenStrip, to_json

TEXT, HOOK = "the cat sat on", "blocks.1.hook_resid_post"


def small_sae(d, n=40):
    draw = torch.Generator().manual_seed(3)
    w = torch.randn(n, d, generator=draw, dtype=torch.float64)
    # Shifted so that about half of the features are off.
    return {"W_enc": w.T.clone(), "W_dec": w, "b_enc": torch.full((n,), -0.1, dtype=torch.float64)}


def with_sae(model):
    sae = small_sae(model.cfg.d_model)
    return sae, Place(Bench(model, "tiny", sae=sae_of(sae, HOOK)))


def as_sent(panels):
    return [one for one in json.loads(to_json(panels)) if one["kind"] != "tokenstrip"]


def ran(python, model, sae=None):
    """What the Python gives whose last line shows it."""
    *lines, last = python.strip().splitlines()
    made = {"model": model, "sae": sae}
    exec("\n".join([*lines, "found = " + last.rpartition(".show(")[0]]), made)
    return made["found"]


@pytest.mark.parametrize("case", cases("hooked", "bridge")[:2])
def test_features_of_a_prediction_and_tokens_of_a_feature(case):
    model = shared(*case)
    sae, here = with_sae(model)
    reader = Reader({"tiny": here})
    view = {"prompt": TEXT, "target": 101, "minus": 102}
    _, seen = reader.ask({"do": "features", "view": view})
    lin = tj.linearize(model, TEXT, record=[HOOK])
    f = tj.feature_scope(lin, sae, at=HOOK, target=101, minus=102)
    effects, parts, activations = as_sent(f.panels())
    panels = seen["panels"]
    assert (panels["effects"], panels["parts"], panels["activations"]) == ([effects], [parts], [activations])
    assert seen["facts"]["features"] == list(f.features)
    assert ran(seen["python"], model, sae) == f

    cell = f.top(1)[0]
    ask = {"do": "feature", "view": view, "feature": cell.feature, "position": cell.token}
    _, seen = reader.ask(ask)
    a = tj.feature_scope(tj.linearize(model, TEXT, output_hook=HOOK, position=cell.token), sae, cell.feature)
    shown = [p for p in a.panels() if isinstance(p, TokenStrip)]
    assert seen["panels"]["feature"] == json.loads(to_json(shown))
    assert ran(seen["python"], model, sae) == a

    _, seen = reader.ask({**ask, "remove": True})
    assert seen["facts"]["promised"] == pytest.approx(-cell.effect, rel=1e-5)
    without = lin.taps[HOOK][cell.token] - cell.activation * sae["W_dec"][cell.feature]
    with model.hooks(
        fwd_hooks=[(HOOK, lambda h, hook: h.index_copy(1, torch.tensor([cell.token]), without[None, None]))]
    ):
        z = tj.linearize(model, TEXT).logits
    true = (z[101] - z[102]) - (lin.logits[101] - lin.logits[102])
    assert seen["facts"]["effect"] == pytest.approx(true.item(), rel=1e-5, abs=1e-9)
    assert ran(seen["python"], model, sae).effect == pytest.approx(true.item(), rel=1e-5, abs=1e-9)
    here.close()


def test_a_feature_that_is_off_an_answer_and_what_can_not_be_asked():
    model = shared("llama", "bridge")
    sae, here = with_sae(model)
    reader, f = Reader({"tiny": here}), tj.linearize(model, TEXT, output_hook=HOOK, position=4)
    off = int((f.y @ sae["W_enc"] + sae["b_enc"]).argmin())
    _, seen = reader.ask({"do": "feature", "view": {"prompt": TEXT}, "feature": off, "position": 4})
    assert "is off there" in seen["notes"][0]
    assert ran(seen["python"], model, sae) == tj.feature_scope(f, sae, off, of="pre_activation")
    view = {"prompt": TEXT, "answer": [101, 102], "scope": "fisher"}
    _, seen = reader.ask({"do": "features", "view": view})
    lin = tj.linearize(model, TEXT, answer=[101, 102], record=[HOOK])
    assert (
        seen["panels"]["effects"] == as_sent(tj.feature_scope(lin, sae, at=HOOK, scope="fisher", rank=1).panels())[:1]
    )
    for change, remedy in (
        ({"feature": 40}, "0 to 39"),
        ({"position": 99}, "0 to"),
        ({"position": 99, "remove": True}, "after"),
    ):
        head, _ = reader.ask({"do": "feature", "view": {"prompt": TEXT}, "feature": 1, "position": 1, **change})
        assert head["type"] == "failed", change
        assert remedy in head["message"]
    here.close()
    plain = Place(Bench(model, "tiny"))
    head, _ = Reader({"tiny": plain}).ask({"do": "features", "view": {"prompt": TEXT}})
    assert "--sae FILE" in head["message"]
    assert ("sae" in plain.bench.facts, "sae" in here.bench.facts) == (False, True)
    plain.close()


def test_an_sae_that_does_not_fit_is_refused_when_the_view_opens():
    model = shared("llama", "bridge")
    with pytest.raises(ArgumentError, match="belongs to another model"):
        Bench(model, sae=sae_of(small_sae(model.cfg.d_model + 1), HOOK))
    with pytest.raises(HookPointError, match=r"blocks\.77"):
        Bench(model, sae=sae_of(small_sae(model.cfg.d_model), "blocks.77.hook_resid_post"))
    with pytest.raises(ArgumentError, match="--sae-at"):
        sae_of(small_sae(4))
    named = SimpleNamespace(**small_sae(4), cfg=SimpleNamespace(hook_name=HOOK))
    assert sae_of(named).at == HOOK


@pytest.mark.parametrize("case", cases("hooked", "bridge")[:2])
def test_edges_and_one_of_them_measured(case):
    model = shared(*case)
    here = Place(Bench(model, "tiny"))
    reader, ask = Reader({"tiny": here}), {"do": "edges", "view": {"prompt": TEXT, "target": 101, "minus": 102}}
    at = list(tj.linearize(model, TEXT).str_tokens).index("c")
    ask |= {"edited": [at, at + 1, at + 2], "text": "dog"}
    head, seen = reader.ask(ask)
    assert head["type"] == "done", head
    texts = TEXT, "the dog sat on"
    clean, corrupted = (tj.linearize(model, text).tokens.tolist() for text in texts)
    e = edge_attribution(model, clean, corrupted, target=101, minus=102, check=0)
    graph, grid, table = as_sent(e.panels())
    assert [seen["panels"][name] for name in ("graph", "grid", "table")] == [[graph], [grid], [table]]
    assert seen["facts"]["edges"] == [[one.sender, one.receiver] for one in e.top(24)]
    assert ran(seen["python"], model) == e
    _, seen = reader.ask({**ask, "check": [["L0MLP", "logits"]]})
    (edge,) = ran(seen["python"], model).checked
    assert edge[:2] == ("L0MLP", "logits")
    assert (seen["facts"]["promised"], seen["facts"]["effect"]) == edge[2:]
    assert [bar["value"] for bar in seen["panels"]["test"][0]["bars"]] == list(edge[2:])
    here.close()


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"text": "cat"}, "the same"),
        ({"text": "tiger"}, "as many tokens"),
        ({"view": {"prompt": TEXT, "answer": [101]}}, "one prediction"),
        ({"view": {"prompt": TEXT, "target": 101, "minus": 101}}, "Shift-click"),
        ({"check": [["L9H9", "logits"]]}, "the nearest is 'L"),
        ({"check": [["L2H0", "L0H0"]]}, "no edge leads"),
        ({"edited": [3, 5]}, "neighbours"),
    ],
)
def test_edges_that_can_not_be(change, remedy):
    here = Place(Bench(shared("llama", "bridge"), "tiny"))
    ask = {"do": "edges", "view": {"prompt": TEXT, "target": 101, "minus": 102}, "edited": [5, 6, 7], "text": "dog"}
    head, _ = Reader({"tiny": here}).ask({**ask, **change})
    assert head["type"] == "failed"
    assert remedy in head["message"]
    here.close()
