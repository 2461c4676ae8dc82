"""Targets: from text, an id or None to one token id."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from tl_jacobian.core.graph import Graph
from tl_jacobian.core.linearization import Linearization
from tl_jacobian.core.prompts import name_of, resolve_target
from tl_jacobian.core.unembedding import Unembedding
from tl_jacobian.errors import TargetError

VOCAB = ["a", "b", " a", "truth", "ful", " truthful", "\n"]


def encode(text: str) -> list[int]:
    """Greedy longest match; unknown characters vanish."""
    ids = []
    while text:
        known = [piece for piece in VOCAB if text.startswith(piece)]
        if known:
            ids.append(VOCAB.index(max(known, key=len)))
        text = text[len(max(known, key=len)) :] if known else text[1:]
    return ids


def toy(**fields: Any) -> Linearization:
    x = torch.ones(1, 1, 2, requires_grad=True)
    defaults: dict[str, Any] = dict(
        y=torch.ones(2),
        logits=torch.tensor([0.0, 3.0, 1.0, 0.0, 0.0, 0.0, 0.0]),
        tokens=torch.tensor([0]),
        str_tokens=("a",),
        head=Unembedding(torch.ones(2, 7)),
        graph=Graph(x, x.sum(1), 1),
        encode=encode,
        decode=VOCAB.__getitem__,
    )
    return Linearization(**{**defaults, **fields})


def test_no_target_is_the_most_probable_token():
    assert resolve_target(toy(), None) == 1


@pytest.mark.parametrize("token", [0, 3, 6])
def test_an_id_is_itself(token):
    assert resolve_target(toy(), token) == token


@pytest.mark.parametrize(("text", "token"), [("a", 0), (" a", 2), (" truthful", 5), ("\n", 6)])
def test_text_of_one_token(text, token):
    assert resolve_target(toy(), text) == token


@pytest.mark.parametrize("token", [-1, 7, 10**9])
def test_an_id_outside_the_vocabulary_is_refused(token):
    with pytest.raises(TargetError, match=rf"target id {token} is out of range, expected 0 to 6"):
        resolve_target(toy(), token)


@pytest.mark.parametrize(
    "target", [True, 1.0, [1], ("a",), b"a", torch.tensor([1]), torch.tensor(1.0), np.bool_(True)], ids=repr
)
@pytest.mark.usefixtures("unchecked")
def test_anything_else_is_refused(target):
    message = rf"is a {type(target).__name__}, expected text, a token id or None"
    with pytest.raises(TargetError, match=message):
        resolve_target(toy(), target)


@pytest.mark.parametrize("target", [torch.tensor(1), np.int64(1)], ids=repr)
def test_scalars_of_torch_and_numpy_are_ids(target):
    assert resolve_target(toy(), target) == resolve_target(toy(), 1)


def test_several_tokens_are_listed_and_the_spaced_form_hinted():
    message = (
        r"target 'truthful' is 2 tokens, expected one: 'truth' \(3\), 'ful' \(4\); ' truthful' is one token\. "
        r"Pass one of these, or a token id"
    )
    with pytest.raises(TargetError, match=message):
        resolve_target(toy(), "truthful")


def test_there_is_no_hint_where_the_spaced_form_is_no_token_either():
    with pytest.raises(TargetError, match=r"2 tokens, expected one: 'a' \(0\), 'b' \(1\)\. Pass one"):
        resolve_target(toy(), "ab")


def test_a_target_that_is_spaced_already_is_not_spaced_again():
    with pytest.raises(TargetError, match=r"target ' ab' is 2 tokens, expected one: ' a' \(2\), 'b' \(1\)\. Pass one"):
        resolve_target(toy(), " ab")


@pytest.mark.parametrize("text", ["", "?"])
def test_text_without_tokens_is_refused(text):
    with pytest.raises(TargetError, match="is 0 tokens, expected one: nothing"):
        resolve_target(toy(), text)


def test_text_needs_a_tokenizer():
    with pytest.raises(TargetError, match="'a' is text, but this model has no tokenizer; pass a token id"):
        resolve_target(toy(encode=None), "a")


def test_names_show_hidden_characters():
    assert name_of(toy(), 5) == "' truthful'"
    assert name_of(toy(), 6) == r"'\n'"


# The tokenizer of `toy` writes " a" for " a"; here it puts a space before every text, as SentencePiece does.
def spaced(text: str) -> list[int]:
    return encode(" " + text)


def test_text_is_the_token_that_is_shown_so_whatever_the_tokenizer_makes_of_it():
    assert spaced("a") == [2]
    assert resolve_target(toy(encode=spaced), "a") == 0
    assert resolve_target(toy(encode=spaced), " a") == 2


def test_text_that_no_token_has_is_refused_with_what_the_tokenizer_reads():
    message = r"target 'truthful' is no token's text; the tokenizer reads it as ' truthful' \(5\)\. Pass one of these"
    with pytest.raises(TargetError, match=message):
        resolve_target(toy(encode=spaced), "truthful")


def test_text_of_several_tokens_is_refused_with_their_ids():
    several = ["a", "b", " a", "x", "x", "\ufffd", "\ufffd"]
    with pytest.raises(TargetError, match=r"target 'x' is the text of 2 tokens: pass the id of one, 3, 4"):
        resolve_target(toy(decode=several.__getitem__, encode=lambda text: []), "x")
    with pytest.raises(TargetError, match=r"is the text of 2 tokens: pass the id of one, 5, 6"):
        resolve_target(toy(decode=several.__getitem__, encode=lambda text: [5]), "\ufffd")
    assert resolve_target(toy(decode=several.__getitem__, encode=lambda text: [4]), "x") == 4  # which it would write


def test_half_a_character_is_no_target():
    with pytest.raises(TargetError, match=r"target 'a\\ud800' isn't Unicode text: character 1"):
        resolve_target(toy(), "a\ud800")


def test_a_space_that_is_missing_is_pointed_out():
    lin = toy(logits=torch.tensor([0.0, 1.0, 8.0, 0.0, 0.0, 0.0, 0.0]))
    with pytest.warns(UserWarning, match=r"target 'a' is predicted with 0\.00033: did you mean ' a' \(100%\)\?"):
        assert resolve_target(lin, "a") == 0


@pytest.mark.parametrize(
    ("target", "logits"),
    [
        (" a", [0.0, 1, 8, 0, 0, 0, 0]),  # as predicted
        ("b", [0.0, 1, 8, 0, 0, 0, 0]),  # another word
        ("a", [7.0, 1, 8, 0, 0, 0, 0]),  # likely too
        ("a", [0.0, 9, 6, 0, 0, 0, 0]),  # neither is
        (0, [0.0, 1, 8, 0, 0, 0, 0]),  # an id is no slip
        ("\n", [0.0, 1, 8, 0, 0, 0, 0]),
    ],
)
def test_nothing_else_is_pointed_out(target, logits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resolve_target(toy(logits=torch.tensor(logits)), target)
