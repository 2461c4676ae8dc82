"""Answers read: their tokens, the part that is explained, what the model writes itself."""

from __future__ import annotations

import pytest
import torch
from cases import shared, tokenizer

import tl_jacobian as tj
from tl_jacobian.core.host.transformer_lens import TransformerLensHost
from tl_jacobian.errors import ArgumentError, PromptError

PROMPT, ANSWER = "Paris is", " in Fr, über"


@pytest.fixture(scope="module")
def model():
    return shared("gpt2", "bridge")


def ids(text):
    return tokenizer().encode(text, add_special_tokens=False)


def test_texts_and_ids_give_the_same_answer(model):
    by_text = tj.linearize(model, PROMPT, answer=ANSWER, prepend_bos=False)
    by_ids = tj.linearize(model, ids(PROMPT), answer=ids(ANSWER))
    as_tensor = tj.linearize(model, torch.tensor(ids(PROMPT)), answer=torch.tensor(ids(ANSWER)))
    for lin in (by_ids, as_tensor):
        assert lin.tokens.tolist() == by_text.tokens.tolist() == ids(PROMPT + ANSWER)[:-1]
        assert lin.answer == by_text.answer == tuple(ids(ANSWER))
        torch.testing.assert_close(lin.y, by_text.y)
    assert by_text.text == ANSWER
    assert by_text.answer_start == len(ids(PROMPT))
    assert by_text.positions == tuple(range(len(ids(PROMPT)) - 1, len(ids(PROMPT + ANSWER)) - 1))


@pytest.mark.parametrize(
    ("span", "text"),
    [
        ("Fr", "Fr"),
        (" in", " in"),
        ("über", "über"),
        ((4, 6), "Fr"),
        (slice(1, 3), "in"),
        (slice(-2, None), "er"),
        (slice(1, 6, 2), "i r"),
        (slice(None, 1), " "),
    ],
)
def test_a_span_is_text_characters_or_tokens(model, span, text):
    lin = tj.linearize(model, ids(PROMPT), answer=ANSWER, span=span)
    assert tokenizer().decode(lin.answer) == text
    whole = tj.linearize(model, ids(PROMPT), answer=ANSWER)
    assert set(lin.positions) <= set(whole.positions)
    torch.testing.assert_close(lin.y[0], whole.y[whole.positions.index(lin.positions[0])])
    assert lin.answer_start == whole.answer_start


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ("x", "isn't in"),
        ("r", "times"),
        ("", "isn't in"),
        (slice(5, 5), "holds no token"),
        ((90, 95), "characters"),
    ],
)
def test_a_span_outside_the_answer_is_refused(model, span, message):
    with pytest.raises(ArgumentError, match=message):
        tj.linearize(model, ids(PROMPT), answer=ANSWER, span=span)


def test_what_the_model_writes_is_its_most_probable_text(model):
    lin = tj.linearize(model, ids(PROMPT), answer=tj.GENERATE, max_new_tokens=3)
    text = ids(PROMPT)
    for token in lin.answer:
        with torch.no_grad():
            assert int(model(torch.tensor([text]))[0, -1].argmax()) == token
        text.append(token)
    assert len(lin) == 3


def test_an_answer_that_is_only_an_end_token_is_said_to_be(model, monkeypatch):
    monkeypatch.setattr(TransformerLensHost, "is_eos", lambda *_: True)
    with pytest.warns(UserWarning, match="the model ends the text at once.*give a conversation as messages"):
        lin = tj.linearize(model, ids(PROMPT), answer=tj.GENERATE, max_new_tokens=3)
    assert len(lin) == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(answer=""), PromptError, "the answer '' is empty"),
        (dict(answer=[]), PromptError, "is empty"),
        (dict(answer=[9999]), PromptError, "out of range"),
        (dict(answer=" in", position=2), ArgumentError, "use span="),
        (dict(answer=" in", max_new_tokens=2), ArgumentError, "is for answer=GENERATE"),
        (dict(answer=tj.GENERATE), ArgumentError, "max_new_tokens=None"),
        (dict(span="in"), ArgumentError, "is for an answer"),
        (dict(answer=[" in", " at"]), PromptError, "can't read"),
    ],
)
def test_what_makes_no_answer_is_refused(model, options, error, message):
    with pytest.raises(error, match=message):
        tj.linearize(model, ids(PROMPT), **options)


def test_a_batch_needs_an_answer_for_each(model):
    with pytest.raises(ArgumentError, match="one answer for 2 prompts"):
        tj.linearize(model, [ids(PROMPT), ids(PROMPT)], answer=" in")
    batch = tj.linearize(model, [ids(PROMPT), ids("a")], answer=tj.GENERATE, max_new_tokens=2)
    assert [len(one) for one in batch] == [2, 2]


def test_a_prompt_and_its_answer_may_fill_the_context(model):
    prompt = [65] * 60
    assert len(tj.linearize(model, prompt, answer=[66] * 5).tokens) == 64  # nothing follows the last one
    with pytest.raises(PromptError, match="n_ctx=64"):
        tj.linearize(model, prompt, answer=[66] * 6)
