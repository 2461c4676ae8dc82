"""Whole evaluations of the last word: several ways to remove tokens, bounds, and what is known beyond recency."""

from __future__ import annotations

import math

import pytest
import torch
from cases import shared

import tl_jacobian as tj
from tl_jacobian.errors import ArgumentError
from tl_jacobian.studies.corpus import CorpusPrompt
from tl_jacobian.studies.evaluation import METHODS, Settings, load_evaluation
from tl_jacobian.studies.evaluation.bounds import beam_search
from tl_jacobian.studies.evaluation.curves import removed_from
from tl_jacobian.studies.evaluation.evaluate import last_word
from tl_jacobian.studies.evaluation.matched import donors, matched_sets, n_removed

TEXTS = ["Rome is it", "Paris was big", "one two three", "a cat sat.", "no one knows"]
PLAIN = dict(prepend_bos=False, progress=False)


def model():
    return shared("llama", "bridge")


def answered(text, answer):
    return tj.linearize(model(), text, answer=answer, prepend_bos=False)


# -- what is explained ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "word"), [("Rome is it", " it"), ("a cat sat.", " sat"), ('he said "no"', '"no'), ("in 1984", " 1984")]
)
def test_the_last_word_is_the_answer(text, word):
    host = model()
    ids = host.tokenizer(text, add_special_tokens=False)["input_ids"]
    prompt, answer = last_word(host, ids)
    assert ids[: len(prompt) + len(answer)] == [*prompt, *answer]
    assert host.tokenizer.decode(answer).strip(' "') == word.strip(' "')
    e = tj.evaluate(host, [text, text], tj.Trial(methods=("random", "semantic"), k=(20,)), **PLAIN)
    record = e.records[0]
    assert record["answer"] == list(answer)
    assert record["n_tokens"] == len(prompt)
    lin = tj.linearize(host, list(prompt), answer=list(answer))
    assert record["log_prob"] == pytest.approx(lin.log_probs.sum().item(), abs=1e-5)


def test_prompts_that_name_what_to_explain_keep_it():
    given = [CorpusPrompt(0, "a", text="Rome is it", target="q"), {"text": "Rome", "answer": " is it"}]
    e = tj.evaluate(
        model(),
        [CorpusPrompt(1, "b", text="Rome", answer=" is it"), given[0]],
        tj.Trial(k=(50,), methods=("random",)),
        **PLAIN,
    )
    assert [r["target_text"] for r in e.records] == ["q", " is it"]


def test_a_single_word_has_nothing_before_it():
    e = tj.evaluate(
        model(), ["Rome is it", "Paris was", "Paris", "..."], tj.Trial(k=(50,), methods=("random",)), **PLAIN
    )
    assert [r["error"] for r in e.errors] == [
        "the prompt 'Paris' is a single word: nothing before it could explain it",
        "the prompt '...' has no word to explain, expected one at its end",
    ]


def test_the_table_says_what_was_explained_with_three_examples():
    e = tj.evaluate(model(), TEXTS, tj.Trial(k=(50,), methods=("random", "semantic")), **PLAIN)
    told = e.what_was_explained()
    assert told.startswith("Explained and scored is the log-probability of the prompt's last word, given what stands")
    for text, word in (("Rome is", " it"), ("Paris was", " big"), ("one two", " three")):
        assert f"'{word}' after '…{text}'" in told
    assert " knows" not in told


# -- several ways to remove tokens ---------------------------------------------------------------


@pytest.mark.slow
def test_every_way_is_the_evaluation_by_it_alone():
    also = [("mean", False), ("delete", False), ("resample", False), ("zero", True)]
    methods = ("random", "recency", "semantic", "token_frequency")
    e = tj.evaluate(model(), TEXTS, tj.Trial(methods=methods, k=(20, 50), also=also), **PLAIN)
    assert e.operators == ("zero", "mean", "delete", "resample", "zero, first kept")
    for (perturbation, skip_first), name in zip(also, e.operators[1:], strict=True):
        alone = tj.Trial(methods=methods, k=(20, 50), perturbation=perturbation, skip_first=skip_first)
        expected, found = tj.evaluate(model(), TEXTS, alone, **PLAIN), e.under(name)
        for metric in ("aopc", "divergence", "comprehensiveness"):
            for method in methods:
                assert found.values(metric, method) == pytest.approx(expected.values(metric, method), abs=1e-4)
    with pytest.raises(ArgumentError, match="expected each way to remove tokens once"):
        tj.Trial(also=[("zero", False)])


def test_tokens_are_counted_over_the_prompts():
    host = model()
    trial = tj.Trial(methods=("token_frequency",), k=(20,))
    e = tj.evaluate(host, TEXTS, trial, **PLAIN)
    read = [last_word(host, host.tokenizer(t, add_special_tokens=False)["input_ids"]).prompt for t in TEXTS]
    counts = {t: sum(list(ids).count(t) for ids in read) for ids in read for t in ids}
    given = tj.Trial(methods=("token_frequency",), k=(20,), settings=Settings(counts=counts))
    assert e.values("aopc", "token_frequency") == tj.evaluate(host, TEXTS, given, **PLAIN).values(
        "aopc", "token_frequency"
    )
    assert e.metadata["settings"]["counted_tokens"] == sum(map(len, read))
    lin = tj.linearize(host, TEXTS[:1], prepend_bos=False)
    with pytest.raises(ArgumentError, match="need to know how often tokens occur"):
        METHODS["token_frequency"](lin, [0], [0], Settings())


# -- bounds -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_methods_lie_between_the_bounds_of_the_same_removals():
    methods = ("random", "semantic", "beam_lowest", "beam_highest")
    trial = tj.Trial(methods=methods, k=(50,), settings=Settings(beam_width=2))
    e = tj.evaluate(model(), TEXTS, trial, **PLAIN)
    lin = answered("Rome is", " it")
    a = beam_search(lin, k=50, width=2)
    (c,) = tj.perturbation_curves(lin, [a], k=[50])
    assert e.values("aopc", "beam_highest")[0] == pytest.approx(c.aopc, abs=1e-4)
    low, mine, high = (e.values("aopc", m)[0] for m in ("beam_lowest", "semantic", "beam_highest"))
    assert e.values("normalized_aopc", "semantic")[0] == pytest.approx((mine - low) / (high - low))
    assert e.interval("normalized_aopc", "beam_highest").mean == pytest.approx(1.0)


# -- beyond recency ------------------------------------------------------------------------------------


def test_what_is_recency_knows_nothing_beyond_it(tmp_path):
    methods = ("recency", "first_and_recency", "semantic", "random")
    trial = tj.Trial(methods=methods, k=(20, 50), matched=3)
    e = tj.evaluate(model(), TEXTS, trial, out=tmp_path / "run", **PLAIN)
    assert e.values("beyond_recency", "recency") == pytest.approx([0.0] * 5, abs=1e-9)
    assert e.values("beyond_recency", "first_and_recency") == pytest.approx([0.0] * 5, abs=1e-9)
    assert any(abs(value) > 1e-3 for value in e.values("beyond_recency", "semantic"))
    assert load_evaluation(tmp_path / "run").records == e.records
    # A prompt by hand.
    lin, i = answered("a cat", " sat"), 3
    lengths = {j: r["n_tokens"] for j, r in enumerate(e.records)}
    sizes, means = n_removed((20, 50), lengths[i]), []
    for other in donors(lengths, i, 3, trial.settings.generator(i)):
        order = e.records[other]["methods"]["semantic"]["order"]
        sets = matched_sets(order, lengths[other], lengths[i], sizes, len(lin.tokens))
        means.append(removed_from(lin, sets, lin.answer).log_prob.mean().item())
    removed = e.records[i]["methods"]["semantic"]["removed"]
    expected = sum(means) / 3 - sum(removed) / 2
    assert e.values("beyond_recency", "semantic")[i] == pytest.approx(expected, abs=1e-4)


def test_prompts_that_cant_be_evaluated_are_matched_with_nothing():
    e = tj.evaluate(model(), [*TEXTS, "Paris"], tj.Trial(methods=("recency", "random"), k=(50,), matched=1), **PLAIN)
    assert len(e.usable) == 5
    assert all(math.isfinite(v) for v in e.values("beyond_recency", "random"))


def test_the_divergence_is_of_the_whole_distribution():
    e = tj.evaluate(model(), TEXTS, tj.Trial(methods=("recency", "random"), k=(50,)), **PLAIN)
    lin = answered("Rome is", " it")
    sets = torch.zeros(1, len(lin.tokens), dtype=torch.bool)
    sets[0, lin.answer_start - math.ceil(lin.answer_start / 2) : lin.answer_start] = True
    expected = removed_from(lin, sets, lin.answer).divergence.item()
    assert e.values("divergence", "recency")[0] == pytest.approx(expected, abs=1e-4)
