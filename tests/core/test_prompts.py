"""Prompts: everything a caller may hand in, and everything that is refused."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from tl_jacobian.core.prompts import Read, is_batch, read_prompt
from tl_jacobian.errors import PromptError

BOS, D_VOCAB = 0, 100


@dataclass
class FakeHost:
    """As much of a host as a prompt needs: token = length of a word, BOS in front by default."""

    n_ctx: int | None = 10
    d_vocab: int = D_VOCAB

    def tokenize(self, text: str, prepend_bos: bool | None) -> list[int]:
        words = [BOS if w == "<bos>" else len(w) for w in text.split()]
        return words if prepend_bos is False else [BOS, *words]

    def is_bos(self, token: int) -> bool:
        return token == BOS


def read(prompt: Any, position: Any = -1, prepend_bos: bool | None = None, **host: Any) -> list[int]:
    return read_prompt(FakeHost(**host), prompt, [position], prepend_bos).tokens  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _messages_of_the_library(unchecked):
    """The library's own messages, not beartype's."""


@pytest.mark.parametrize(
    "prompt",
    [
        [3, 4, 5],
        (3, 4, 5),
        range(3, 6),
        torch.tensor([3, 4, 5]),
        torch.tensor([3, 4, 5], dtype=torch.int32),
        torch.tensor([3, 4, 5], dtype=torch.uint8),
        list(torch.tensor([3, 4, 5])),
        list(np.array([3, 4, 5])),
        [3, np.int32(4), torch.tensor(5)],
    ],
    ids=repr,
)
def test_token_ids_in_any_dress(prompt):
    tokens = read(prompt)
    assert tokens == [3, 4, 5]
    assert all(type(t) is int for t in tokens)
    assert not is_batch(prompt)


def test_text_goes_through_the_tokenizer():
    assert read("one three") == [BOS, 3, 5]
    assert read("one three", prepend_bos=True) == [BOS, 3, 5]
    assert read("one three", prepend_bos=False) == [3, 5]


@pytest.mark.parametrize(
    "prompts", [["a", "b"], ("a",), [[1], [2, 3]], [torch.tensor([1])], torch.ones(2, 3, dtype=torch.long), ["a", [1]]]
)
def test_lists_of_prompts_are_batches(prompts):
    assert is_batch(prompts)


@pytest.mark.parametrize("prompt", ["text", "", [1, 2], [], torch.ones(3, dtype=torch.long), None, 5])
def test_single_prompts_are_not(prompt):
    assert not is_batch(prompt)


@given(st.lists(st.integers(0, D_VOCAB - 1), min_size=1, max_size=12), st.data())
def test_position_cuts_off_what_can_not_matter(tokens, data):
    position = data.draw(st.integers(-len(tokens), len(tokens) - 1))
    cut = read(tokens, position, n_ctx=None)
    assert cut == tokens[: len(cut)]
    assert cut[-1] == tokens[position]
    assert len(cut) - 1 == position % len(tokens)


@given(st.lists(st.integers(-3, D_VOCAB + 3), max_size=12), st.integers(-14, 14))
def test_ids_are_either_read_or_refused_by_name(tokens, position):
    try:
        cut = read(tokens, position)
    except PromptError:
        fits = tokens and all(0 <= t < D_VOCAB for t in tokens) and -len(tokens) <= position < len(tokens)
        assert not fits or position % len(tokens) >= 10
    else:
        assert cut == tokens[: position % len(tokens) + 1]


@pytest.mark.parametrize("prompt", ["", [], (), torch.tensor([], dtype=torch.long)], ids=repr)
def test_empty_prompts_are_refused(prompt):
    with pytest.raises(PromptError, match="is empty, expected"):
        read(prompt)


def test_text_without_a_token_is_refused():
    with pytest.raises(PromptError, match="the prompt '  ' is empty, expected at least one token"):
        read("  ", prepend_bos=False)


@pytest.mark.parametrize(("tokens", "bad", "at"), [([1, 100], 100, 1), ([-1], -1, 0), ([5, 2**70], 2**70, 1)])
def test_ids_outside_the_vocabulary_are_refused(tokens, bad, at):
    with pytest.raises(PromptError, match=rf"token id {bad} at position {at} is out of range, expected 0 to 99"):
        read(tokens)


@pytest.mark.parametrize("position", [3, -4, 10**9])
def test_positions_outside_the_prompt_are_refused(position):
    with pytest.raises(PromptError, match=rf"position={position} is outside the prompt's 3 tokens, expected -3 to 2"):
        read([1, 2, 3], position)


@pytest.mark.parametrize(
    "position", [None, 1.0, "1", True, torch.tensor(1.0), torch.tensor(True), np.bool_(True), np.float64(1)], ids=repr
)
def test_positions_that_are_no_integers_are_refused(position):
    with pytest.raises(PromptError, match=r"position=.* is a \w+, expected an int"):
        read([1, 2, 3], position)


@pytest.mark.parametrize("position", [torch.tensor(1), np.int64(1), np.uint8(1)], ids=repr)
def test_scalars_of_torch_and_numpy_are_positions(position):
    assert read([1, 2, 3], position) == read([1, 2, 3], 1)


def test_a_prompt_longer_than_the_context_is_refused():
    with pytest.raises(PromptError, match=r"has 12 tokens .* n_ctx=10; shorten it by 2 tokens"):
        read([1] * 12)


def test_the_context_is_counted_up_to_the_position_and_may_be_unlimited():
    assert len(read([1] * 12, 9)) == 10
    assert len(read([1] * 12, -3)) == 10
    assert len(read([1] * 12, n_ctx=None)) == 12


@pytest.mark.parametrize(
    "prompt",
    [
        torch.ones(2, 2, dtype=torch.long),
        torch.tensor(1),
        torch.ones(3),
        torch.ones(3, dtype=torch.bool),
        torch.ones(3, dtype=torch.complex64),
    ],
    ids=lambda t: f"{t.dtype}{tuple(t.shape)}",
)
def test_tensors_that_are_no_ids_are_refused(prompt):
    with pytest.raises(PromptError, match=r"token ids have shape .* and dtype .*, expected integers \(pos,\)"):
        read(prompt)


@pytest.mark.parametrize("prompt", [None, 5, 1.5, {1, 2}, {"a": 1}, [1, "a"], [1, 2.0], [True, False], [[1]]], ids=repr)
def test_what_is_no_prompt_is_refused(prompt):
    with pytest.raises(PromptError, match=r"can't read .* as a prompt; expected text, a list of token ids"):
        read(prompt)


@pytest.mark.parametrize("prompt", [b"Paris", bytearray(b"Paris")], ids=repr)
def test_bytes_are_neither_text_nor_ids(prompt):
    with pytest.raises(PromptError, match=r"can't read .* as a prompt"):
        read(prompt, d_vocab=300)


@pytest.mark.parametrize("prompt", [[torch.tensor(True)], [np.bool_(True)]], ids=repr)
def test_truth_values_are_no_ids_in_any_dress(prompt):
    with pytest.raises(PromptError, match=r"can't read .* as a prompt"):
        read(prompt)


def test_two_bos_tokens_are_pointed_out():
    with pytest.warns(UserWarning, match=r"begins with two BOS tokens \('<bos> a'\.\.\.\): pass prepend_bos=False"):
        assert read("<bos> a") == [BOS, BOS, 1]


@pytest.mark.parametrize("prompt", ["one one", [BOS, BOS, 1]])
def test_nothing_else_warns(prompt):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(prompt, prepend_bos=False)


def test_a_read_prompt_is_explained_elsewhere_without_reading_it_again():
    read = Read([5, 6, 7, 8], [3])
    assert read.at([-2, 1]) == Read([5, 6, 7], [2, 1])
    for position in (4, -5, 1.0, True):
        with pytest.raises(PromptError, match="position="):
            read.at([0, position])
