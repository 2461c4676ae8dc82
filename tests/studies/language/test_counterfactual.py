"""Counterfactual edits: equal to running each edited text by hand, and their ranks against scipy."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest
import torch
from cases import CONTEXT, HAS_HOOKED, make, shared

import tl_jacobian as tj
from tl_jacobian.results.attribution import Prediction
from tl_jacobian.studies.language import Counterfactuals, Edit, counterfactuals

PROMPT, TARGET, OTHER = "Wer ist, der da?", 65, 66
one = shared("llama", "bridge")
NAMES = [one.tokenizer.decode([token]) for token in (TARGET, OTHER)]
states = pytest.mark.parametrize("state", ["hooked", "bridge"] if HAS_HOOKED else ["bridge"])


def log_probs(model, text):
    ids = [256, *model.tokenizer.encode(text, add_special_tokens=False)]
    with torch.no_grad():
        return model(torch.tensor([ids]))[0, -1].double().log_softmax(-1)


@states
def test_every_word_is_removed_and_the_model_run_again(state, monkeypatch):
    monkeypatch.setattr("tl_jacobian.studies.language.counterfactual._BATCH", 3)  # batches of prompts of two lengths
    model = shared("llama", state)
    c = counterfactuals(model, PROMPT, TARGET, replace={"da": ["dort", "je nun"]}, prepend_bos=True)
    texts = [
        "ist, der da?",
        "Wer, der da?",
        "Wer ist, da?",
        "Wer ist, der?",
        "Wer ist, der dort?",
        "Wer ist, der je nun?",
    ]
    before = log_probs(model, PROMPT)
    assert c.value == pytest.approx(before[TARGET].item(), abs=1e-5)
    assert [(e.word, e.kind, e.replacement) for e in c.edits] == [
        *((word, "removed", "") for word in ("Wer", "ist", "der", "da")),
        ("da", "replaced", "dort"),
        ("da", "replaced", "je nun"),
    ]
    for edit, text in zip(c.edits, texts, strict=True):
        after = log_probs(model, text)
        assert edit.value == pytest.approx(after[TARGET].item(), abs=1e-5)
        assert edit.change == pytest.approx((after - before)[TARGET].item(), abs=1e-5)
        assert edit.kl == pytest.approx((before.exp() * (before - after)).sum().item(), abs=1e-5)
        assert edit.prediction.token == int(after.argmax())
        assert edit.prediction.probability == pytest.approx(after.max().exp().item(), abs=1e-6)


def test_a_contrast_is_a_difference_of_logits():
    c = counterfactuals(one, PROMPT, TARGET, minus=OTHER, prepend_bos=True)
    before, after = log_probs(one, PROMPT), log_probs(one, "ist, der da?")
    assert c.value == pytest.approx((before[TARGET] - before[OTHER]).item(), abs=1e-5)
    assert c.edits[0].change == pytest.approx(
        (after - before)[TARGET].item() - (after - before)[OTHER].item(), abs=1e-5
    )
    assert c.quantity == "logit of 'A' minus logit of 'B'" or "minus logit of" in c.quantity


@pytest.mark.parametrize("scope", ["semantic", "temperature", "fisher", "function"])
def test_scores_are_the_scopes_by_word(scope):
    lin = tj.linearize(one, PROMPT, prepend_bos=False)
    options = {"fisher": dict(method="low_rank"), "temperature": dict(confidence="logit_norm")}.get(scope, {})
    alone = {
        "semantic": lambda: tj.semantic_scope(lin, TARGET, minus=OTHER),
        "temperature": lambda: tj.temperature_scope(lin, **options),
        "fisher": lambda: tj.fisher_scope(lin, **options),
        "function": lambda: tj.semantic_scope(lin, 7),
    }[scope]()
    given = (lambda one: tj.semantic_scope(one, 7)) if scope == "function" else scope
    c = counterfactuals(one, PROMPT, TARGET, minus=OTHER, scope=given, prepend_bos=False, **options)
    parts = [alone.scores.double()[start : start + size] for start, size in ((0, 3), (4, 3), (9, 3), (13, 2))]
    joint = [p.sum() if scope == "fisher" else p.square().sum().sqrt() for p in parts]
    assert c.scores == pytest.approx([value.item() for value in joint], rel=1e-5)
    assert c.words == ("Wer", "ist", "der", "da")


def test_the_highest_words_alone():
    whole = counterfactuals(one, PROMPT, TARGET)
    some = counterfactuals(one, PROMPT, TARGET, top=2)
    best = sorted(range(4), key=lambda i: -whole.scores[i])[:2]
    assert [e.at for e in some.edits] == sorted(best)
    none = counterfactuals(one, PROMPT, TARGET, top=0, replace={0: ["Was"], -1: ["hier"]})
    assert [(e.at, e.replacement) for e in none.edits] == [(0, "Was"), (3, "hier")]


@pytest.mark.parametrize("scope", ["semantic", "fisher"])
def test_a_phrase_is_replaced_as_one(scope):
    options = dict(method="low_rank") if scope == "fisher" else {}
    c = counterfactuals(one, PROMPT, TARGET, scope=scope, top=0, replace={"ist, der": ["war der"]}, **options)
    (edit,) = c.edits
    assert (edit.at, edit.word, edit.n_words) == (1, "ist, der", 2)
    assert edit.value == pytest.approx(log_probs(one, "Wer war der da?")[TARGET].item(), abs=1e-5)
    pair = torch.tensor(c.scores)[1:3]
    assert edit.score == pytest.approx((pair.sum() if scope == "fisher" else pair.norm()).item(), rel=1e-6)


def test_phrases_are_no_words_to_rank():
    single = counterfactuals(one, PROMPT, TARGET)
    phrases = counterfactuals(one, PROMPT, TARGET, replace={"ist der": ["war"], "der da": ["dort"]})
    assert phrases.agreement() == single.agreement()
    with pytest.raises(tj.errors.ArgumentError, match="0 words were replaced"):
        phrases.agreement("replaced")


def test_the_most_probable_token_is_the_target_by_default():
    c = counterfactuals(one, PROMPT)
    assert c.value == pytest.approx(torch.tensor(c.prediction.probability).log().item(), abs=1e-5)


def test_a_single_word_can_only_be_replaced():
    c = counterfactuals(one, "Wer?", TARGET, replace={"Wer": ["Was"]})
    assert [(e.kind, e.replacement) for e in c.edits] == [("replaced", "Was")]


def test_nothing_is_recorded_for_edits():
    model, seen = make("llama", "bridge"), []
    model.add_hook("blocks.1.hook_resid_pre", tj.pointwise(lambda value, hook: seen.append(value.grad_fn is not None)))
    tj.linearize(model, PROMPT)  # a model's first runs search it for lost gradients
    seen.clear()
    counterfactuals(model, PROMPT, TARGET)
    assert seen == [True, False]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(prompt=" ... "), tj.errors.ArgumentError, "prompt=' ... ', expected text of at least one word"),
        (dict(replace={"das": ["x"]}), tj.errors.ArgumentError, "replace names 'das', which is in the prompt 0 times"),
        (
            dict(replace={"ist da": ["x"]}),
            tj.errors.ArgumentError,
            "replace names 'ist da', which is in the prompt 0 times",
        ),
        (dict(replace={" ": ["x"]}), tj.errors.ArgumentError, "replace names ' ', which is in the prompt 0 times"),
        (dict(prompt="so so", replace={"so": ["x"]}), tj.errors.ArgumentError, "'so', which is in the prompt 2 times"),
        (dict(replace={9: ["x"]}), tj.errors.ArgumentError, "replace names 9"),
        (dict(replace={"da": "dort"}), tj.errors.ArgumentError, "expected a list of texts for each word"),
        (dict(replace={"da": [" "]}), tj.errors.ArgumentError, "expected text: an empty one is no replacement"),
        (
            dict(replace={"da": [""]}),
            tj.errors.ArgumentError,
            "an empty one .* each word's removal is measured anyway",
        ),
        (dict(replace={"da": [3]}), tj.errors.ArgumentError, "expected a list of texts for each word"),
        (dict(replace={"da": 3}), tj.errors.ArgumentError, "expected a list of texts for each word"),
        (dict(replace={"da": ["x" * CONTEXT]}), tj.errors.PromptError, f"context is n_ctx={CONTEXT}"),
        (dict(scope="magic"), tj.errors.ArgumentError, "scope='magic', expected one of 'semantic'"),
        (dict(scope=lambda lin: 3), tj.errors.ArgumentError, "the scope gave 3 for .* expected an Attribution of its"),
        (dict(target="no token"), tj.errors.TargetError, "is 8 tokens, expected one"),
        (dict(top=-1), tj.errors.ArgumentError, "top=-1, expected a number of words"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cant_be_edited_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        counterfactuals(one, **{"prompt": PROMPT, "target": TARGET, **arguments})


# -- the value ---------------------------------------------------------------------

NONE = Prediction(0, "x", 0.5)


def value(scores, changes, kind="removed", kls=None):
    """One edit a change: (word, size)."""
    edits = [
        Edit(i, f"w{i}", scores[i], kind, "", 0.0, c, abs(c) if kls is None else kls[k], NONE)
        for k, (i, c) in enumerate(changes)
    ]
    return Counterfactuals(
        prompt="p",
        words=tuple(f"w{i}" for i in range(len(scores))),
        scores=tuple(scores),
        scope="s",
        quantity="q",
        value=0.0,
        prediction=NONE,
        edits=tuple(edits),
    )


@pytest.mark.parametrize(
    ("c", "message"),
    [
        (value([1.0, 2.0], [(0, 1.0), (1, 2.0)]), "2 words were removed, expected 3 or more"),
        (value([1.0] * 3, list(enumerate([1.0, 2.0, 3.0]))), "3 words were removed, .* that differ"),
        (value([1.0, 2.0, 3.0], list(enumerate([1.0, 1.0, -1.0]))), "that differ"),
        (value([1.0, 2.0, 3.0], list(enumerate([1.0, 2.0, 3.0])), kind="replaced"), "0 words were removed"),
    ],
)
def test_nothing_to_rank_is_refused(c, message):
    with pytest.raises(tj.errors.ArgumentError, match=message):
        c.agreement()


@pytest.mark.usefixtures("unchecked")
def test_unknown_kinds_and_effects_are_refused():
    with pytest.raises(tj.errors.ArgumentError, match="kind='gone', expected one of 'removed', 'replaced'"):
        value([1.0], []).agreement("gone")


def test_a_table_and_copies():
    c = counterfactuals(one, PROMPT, TARGET)
    table = c.to_dataframe()
    names = [
        "at",
        "word",
        "score",
        "kind",
        "replacement",
        "value",
        "change",
        "kl",
        "prediction",
        "probability",
        "n_words",
    ]
    assert list(table.columns) == names
    assert table["change"].tolist() == [e.change for e in c.edits]
    assert copy.deepcopy(c) == c == pickle.loads(pickle.dumps(c))
    assert repr(c).startswith("Counterfactuals(log-probability of ")
    with pytest.raises(tj.errors.ArgumentError, match="1 scores for 2 words"):
        dataclasses.replace(c, words=("a", "b"), scores=(1.0,))


def test_words_of_a_script_without_spaces():
    with pytest.warns(UserWarning, match="is in a script that writes no spaces between words"):
        c = counterfactuals(one, "我喝茶", TARGET, replace={"喝茶": ["走"]}, prepend_bos=True)
    assert c.words == ("我", "喝", "茶")
    assert [(e.word, e.kind) for e in c.edits if e.n_words == 2] == [("喝茶", "replaced")]
    d = counterfactuals(one, "我喝茶", TARGET, prepend_bos=True, segmenter=lambda text: ["我", "喝茶"])
    assert d.words == ("我", "喝茶")
    assert d.edits[1].value == pytest.approx(log_probs(one, "我")[TARGET].item(), abs=1e-5)
