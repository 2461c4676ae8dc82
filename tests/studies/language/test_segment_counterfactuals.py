"""Passages taken out: equal to running the other tokens by hand."""

from __future__ import annotations

import pytest
import torch
from cases import HAS_HOOKED, shared

import tl_jacobian as tj
from tl_jacobian.errors import ArgumentError
from tl_jacobian.studies.language import segment_counterfactuals

PROMPT, ANSWER = list(b"Ab cd. Ef gh."), list(b" no")
TOKENS = PROMPT + ANSWER[:-1]
UNITS = {"one": range(2, 6), "two": {7, 9}}
states = pytest.mark.parametrize("state", ["hooked", "bridge"] if HAS_HOOKED else ["bridge"])


def logits_without(model, gone, tokens):
    with torch.no_grad():
        return model(torch.tensor([[t for i, t in enumerate(tokens) if i not in gone]]))[0].double().log_softmax(-1)


@states
def test_the_other_tokens_are_run_and_the_same_answer_asked_for(state):
    model = shared("llama", state)
    lin = tj.linearize(model, PROMPT, answer=ANSWER)
    a = tj.semantic_scope(lin).segments(UNITS, rest=None)
    c = segment_counterfactuals(lin, a, batch_size=1)
    before = logits_without(model, (), TOKENS)[-len(ANSWER) :]
    assert (c.words, c.quantity) == (("one", "two"), f"log-probability of the answer {lin.text!r}")
    for edit, gone in zip(c.edits, UNITS.values(), strict=True):
        after = logits_without(model, gone, TOKENS)[-len(ANSWER) :]
        now, then = (sum(rows[i, t] for i, t in enumerate(ANSWER)) for rows in (after, before))
        assert edit.value == pytest.approx(now.item(), abs=1e-5)
        assert edit.change == pytest.approx((now - then).item(), abs=1e-5)
        assert edit.kl == pytest.approx((before.exp() * (before - after)).sum().item(), abs=1e-5)
        assert edit.prediction.token == int(after[0].argmax())
        assert edit.score == pytest.approx(a.scores[edit.at].item())
    c.show()


def test_a_single_token_is_asked_for_too():
    model = shared("llama", "bridge")
    lin = tj.linearize(model, PROMPT)
    c = segment_counterfactuals(lin, tj.semantic_scope(lin, 7).segments(UNITS, rest=None))
    after, before = (logits_without(model, gone, PROMPT)[-1] for gone in (UNITS["one"], ()))
    assert c.value == pytest.approx(before[7].item(), abs=1e-5)
    assert c.edits[0].change == pytest.approx((after - before)[7].item(), abs=1e-5)


def test_segments_may_be_given_as_they_are():
    """Beside Semantic Scope's scores; the picture says what its columns are."""
    lin = tj.linearize(shared("llama", "bridge"), PROMPT, answer=ANSWER)
    told = tj.semantic_scope(lin).segments(UNITS, rest=None, split_first=False)
    found = segment_counterfactuals(lin, UNITS)
    assert found == segment_counterfactuals(lin, told)
    assert any(fact.startswith("KL: how far the whole distribution") for fact in found.panels()[0].facts)
    assert any("first token of another answer" in fact for fact in found.panels()[0].facts)
    with pytest.raises(ArgumentError, match=r"segments is a linearization, expected what to take out: an attribution"):
        segment_counterfactuals(lin, lin)


def test_what_cannot_be_taken_out_is_refused():
    lin = tj.linearize(shared("llama", "bridge"), PROMPT, answer=ANSWER)
    a = tj.semantic_scope(lin)
    with pytest.raises(ArgumentError, match="none that is all of them"):
        segment_counterfactuals(lin, a.segments({"all": range(len(PROMPT))}, split_first=False))
    with pytest.raises(ArgumentError, match="a unit has tokens of the prompt and others"):
        segment_counterfactuals(lin, a.segments({"across": range(3, len(TOKENS))}))
    with pytest.raises(ArgumentError, match="of another prompt"):
        segment_counterfactuals(tj.linearize(shared("llama", "bridge"), PROMPT), a)


def test_an_answer_that_quotes_a_passage_leaves_it_one_place():
    """What is asked of the prompt is looked for in the prompt."""
    lin = tj.linearize(shared("llama", "bridge"), "abc def. Q:", answer=" abc def!")
    prompt = tj.semantic_scope(lin).prompt
    assert prompt.text.endswith("abc def. Q:")
    found = prompt.segments({"passage": "abc def"}, rest=None)
    assert [prompt.text[5:12]] == ["abc def"]
    assert found.units == (tuple(range(1, 8)),)
    assert prompt.lines().units[-1][-1] == prompt.sentences().units[-1][-1] == len(prompt) - 1
    assert prompt.lines().str_tokens[-1].endswith("Q:")
    taken_out = tj.language.segment_counterfactuals(lin, {"passage": "abc def"})
    assert [edit.word for edit in taken_out.edits] == ["passage"]
    with pytest.raises(ArgumentError, match="is in the text 2 times"):
        tj.semantic_scope(lin).segments({"passage": "abc def"})
