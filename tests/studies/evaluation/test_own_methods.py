"""Methods of one's own are judged as the library's are; captum's and inseq's scores where those are installed."""

from __future__ import annotations

import pytest
import torch
from cases import exists, hf_model, make, shared, tokenizer

import tl_jacobian as tj
from tl_jacobian.errors import ArgumentError, CorpusError

TEXTS = ["Rome is it", "Paris was", "one two three"]
PLAIN = dict(prepend_bos=False, progress=False, explained="argmax")


def model():
    return shared("llama", "bridge")


def norms(lin):
    return tj.semantic_scope(lin).scores.numpy()


def test_a_function_is_judged_as_the_method_that_it_is():
    trial = tj.Trial(methods={"mine": norms, "own name": "semantic", "random": "random"}, k=(20, 50), agreement=True)
    e = tj.evaluate(model(), TEXTS, trial, **PLAIN)
    assert e.methods == ("mine", "own name", "random")
    named = tj.evaluate(model(), TEXTS, tj.Trial(methods=("semantic", "random"), k=(20, 50), agreement=True), **PLAIN)
    for _, metric, k in e.columns():
        assert e.values(metric, "mine", k) == e.values(metric, "own name", k) == named.values(metric, "semantic", k)
        assert e.values(metric, "random", k) == named.values(metric, "random", k)


def test_a_function_that_asks_for_the_target_gets_it():
    asked = []

    def mine(lin, target):
        asked.append(target)
        return tj.baselines.input_x_gradient(lin, target, signed=True)

    trial = tj.Trial(methods={"mine": mine, "partial": tj.baselines.input_x_gradient}, k=(50,))
    e = tj.evaluate(model(), TEXTS, trial, **(PLAIN | {"explained": "next"}))
    assert sorted(asked) == sorted(record["target"] for record in e.records)
    by_name = tj.evaluate(
        model(), TEXTS, tj.Trial(methods=("input_x_gradient",), k=(50,)), **(PLAIN | {"explained": "next"})
    )
    assert e.values("aopc", "partial") == pytest.approx(by_name.values("aopc", "input_x_gradient"))


def test_what_is_no_method_is_refused():
    for methods, match in (
        ({"mine": "magic"}, "method 'magic', expected some of .*a function: fn"),
        ({}, "one or more"),
    ):
        with pytest.raises(ArgumentError, match=match):
            tj.Trial(methods=methods)


def test_what_a_function_gives_has_to_fit():
    other = tj.linearize(model(), "Rome", prepend_bos=False)
    for fn, match in (
        (lambda lin: [1.0], r"scores have shape \(1,\), expected \(\d+,\)"),
        (lambda lin: tj.semantic_scope(other), "method 'mine' gave an attribution of another prompt"),
        (lambda lin: tj.semantic_scope(lin, 3), "the explained token and the scored one must be the same"),
    ):
        with pytest.raises(ArgumentError, match=match):
            tj.evaluate(model(), TEXTS, tj.Trial(methods={"mine": fn}, k=(50,)), **PLAIN)


def test_a_run_goes_on_with_functions_of_the_same_names(tmp_path):
    trial = tj.Trial(methods={"mine": norms}, k=(50,))
    e = tj.evaluate(model(), TEXTS, trial, out=tmp_path / "run", **PLAIN)
    assert tj.evaluate(model(), TEXTS, trial, out=tmp_path / "run", **PLAIN).records == e.records
    assert e.metadata["methods"] == {"mine": "function norms"}
    with pytest.raises(CorpusError, match="methods"):
        tj.evaluate(model(), TEXTS, tj.Trial(methods={"mine": "random"}, k=(50,)), out=tmp_path / "run", **PLAIN)


def test_own_scores_in_curves_comparisons_and_agreement():
    lin = tj.linearize(model(), TEXTS[0], prepend_bos=False)
    theirs = tj.semantic_scope(lin)
    mine = tj.Attribution.from_scores(lin, theirs.scores, name="mine", combine=theirs.combine)
    one, other = tj.perturbation_curves(lin, [mine, theirs], k=[20, 50])
    assert torch.equal(one.removed, other.removed)
    assert torch.equal(one.kept, other.kept)
    assert tj.rank_agreement(mine, theirs).kendall == pytest.approx(1.0)
    assert len(tj.compare([mine, theirs])) == 2


@pytest.mark.parametrize("state", [s for s in ("hooked", "bridge") if exists("llama", s)])
def test_captums_scores(state):
    """As the README has it: gradient x input of captum is ours."""
    attr = pytest.importorskip("captum.attr")
    made = make("llama", state, torch.float64)
    lin = tj.linearize(made, TEXTS[0], prepend_bos=False)
    target = int(lin.logits.argmax())
    method = attr.LayerGradientXActivation(lambda ids: made(ids)[:, -1], made.embed)
    scores = method.attribute(lin.tokens[None], target=target).sum(-1)[0]
    mine = tj.Attribution.from_scores(lin, scores, name="captum", target=target)
    ours = tj.baselines.input_x_gradient(lin, target, signed=True)
    torch.testing.assert_close(mine.scores, ours.scores, rtol=1e-4, atol=1e-6)
    assert tj.perturbation_curves(lin, mine, k=[50])[0].metadata["target_token"] == target


def test_inseqs_scores():
    """As the README has it. inseq puts a BOS token first, and a row for the target last."""
    inseq = pytest.importorskip("inseq")
    lin = tj.linearize(shared("llama", "bridge", torch.float32), TEXTS[0], prepend_bos=True)
    target = int(lin.logits.argmax())
    theirs = inseq.load_model(hf_model("llama", torch.float32), "input_x_gradient", tokenizer=tokenizer())
    out = theirs.attribute(TEXTS[0], TEXTS[0] + lin.decode(target), attributed_fn="logit", show_progress=False)[0]
    assert [token.id for token in out.target][: len(lin.tokens)] == lin.tokens.tolist()
    scores = out.target_attributions[: len(lin.tokens), 0].sum(-1)
    mine = tj.Attribution.from_scores(lin, scores, name="inseq", target=target, unit="logits")
    ours = tj.baselines.input_x_gradient(lin, target, signed=True)
    torch.testing.assert_close(mine.scores, ours.scores, rtol=1e-4, atol=1e-5)


def test_methods_in_the_place_of_a_trial_are_told_where_they_go():
    with pytest.raises(ArgumentError, match=r"trial: got a dict, expected a trial, such as tj.Trial\(methods="):
        tj.evaluate(shared("llama", "bridge"), [[80, 81, 82], [81, 82]], {"mine": len})
