"""The evidence's scripts: runs that are cut off keep what they have, and peers explain what their names say."""

from __future__ import annotations

import json
from argparse import Namespace

import pytest
import torch
from cases import HAS_HOOKED, shared

import tl_jacobian as tj
from benchmarks import aopc, peers
from benchmarks.tasks import disambiguation, induction, key_value, needle


def test_a_part_is_written_chunk_by_chunk_and_read_again(tmp_path, monkeypatch):
    """As much as its minutes allow, a first chunk always; each chunk has random numbers of its own."""
    texts = ["I go home", "Rome is it", "You are here", "We can see"]
    (tmp_path / "iwslt2017_de_en_200.json").write_text(json.dumps([{"text": t} for t in texts]))
    monkeypatch.setattr(aopc, "load_model", lambda *_, **__: shared("llama", "bridge"))
    given = Namespace(
        data=[tmp_path / "iwslt2017_de_en_200.json"],
        out=tmp_path / "runs",
        records=None,
        part="reduced",
        prompts=4,
        methods="random,recency",
        model=None,
        device="cpu",
        dtype="float32",
        batch_size=2,
        runs=8,
        chunk=2,
        slice=(0, 1),
        minutes=0.0,
    )
    aopc.run(given)
    ((model, part, of, cut),) = aopc.loaded(tmp_path / "runs")
    assert (model, part, of, len(cut.records), cut.operators) == ("demo", "reduced", 4, 2, ("zero", "mean"))
    given.minutes = 60.0
    aopc.run(given)
    ((_, _, _, whole),) = aopc.loaded(tmp_path / "runs")
    assert sorted(r["id"] for r in whole.records) == ["0", "1", "2", "3"]
    assert whole.records[:2] == cut.records  # another run goes on after what was cut off
    (store,) = (tmp_path / "runs").iterdir()
    store.write_text(store.read_text().replace('"id":"', '"id":"1'))
    with pytest.raises(SystemExit, match="holds other prompts than this run's"):
        aopc.run(given)
    store.write_text(store.read_text().replace('"id":"1', '"id":"'))
    assert whole.blocks == ("0: 0",) * 4  # rows of the first talk
    given.out = tmp_path / "slices"
    for i in range(2):
        given.slice = (i, 2)
        aopc.run(given)
    ((_, _, of, both),) = aopc.loaded(tmp_path / "slices")
    assert (of, sorted(r["id"] for r in both.records)) == (4, ["0", "1", "2", "3"])


@pytest.mark.parametrize("answer", [None, [97, 98]])
def test_rules_are_those_of_linearize(answer):
    model = shared("llama", "bridge")
    lin = tj.linearize(model, [80, 81, 82], answer=answer)
    found = peers.of_rules(model)
    assert list(found)[2] == "semantic (frozen norms and frozen attention)"
    for rule, scores in zip(peers.RULES, found.values(), strict=True):
        under = tj.semantic_scope(tj.linearize(model, [80, 81, 82], answer=answer, rule=rule))
        torch.testing.assert_close(scores(lin).scores, under.scores)


@pytest.mark.parametrize("make", [key_value, induction, needle, disambiguation])
def test_evidence_is_uniform_over_places(make):
    """A ranking by place finds it as often as chance does: 6 places, 300 draws; 4.6 standard errors."""
    import numpy as np

    g = np.random.default_rng(0)
    at = np.bincount([int(make(g).evidence) for _ in range(300)], minlength=6)
    assert abs(at - 50).max() < 30


@pytest.mark.skipif(not HAS_HOOKED, reason="gim-explain is measured on HookedTransformer")
def test_gims_package_is_added_up_over_the_answer():
    gim = pytest.importorskip("gim")
    model = shared("llama", "hooked")
    lin = tj.linearize(model, [80, 81, 82], answer=[97, 98])
    each = [
        gim.explain(model, lin.tokens[None], target_token_id=t, target_position=2 + i, tokenizer=model.tokenizer)
        for i, t in enumerate((97, 98))
    ]
    torch.testing.assert_close(peers._gim(model)(lin), torch.stack(each).sum(0).float())
