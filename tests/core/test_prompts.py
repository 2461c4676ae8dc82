"""Prompts: everything a caller may hand in, and everything that is refused."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas
import pytest
import torch
from hypothesis import given
from transformers import BatchEncoding

from tl_jacobian.core.prompts import Read, is_batch, members, read_prompt
from tl_jacobian.errors import PromptError

BOS, EOS, PAD, D_VOCAB = 0, 98, 99, 100


@dataclass
class FakeHost:
    """As much of a host as a prompt needs: token = length of a word, BOS in front by default."""

    n_ctx: int | None = 10
    d_vocab: int = D_VOCAB
    padding: int | None = PAD

    def tokenize(self, text: str, prepend_bos: bool | None) -> list[int]:
        words = [BOS if w == "<bos>" else len(w) for w in text.split()]
        return words if prepend_bos is False else [BOS, *words]

    def is_bos(self, token: int) -> bool:
        return token == BOS

    def is_eos(self, token: int) -> bool:
        return token == EOS


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


@given(st.lists(st.integers(0, PAD - 1), min_size=1, max_size=12), st.data())
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
        fits = fits and PAD not in (tokens[0], tokens[-1])
        assert not fits or position % len(tokens) >= 10
    else:
        assert cut == tokens[: position % len(tokens) + 1]


@pytest.mark.parametrize(
    "prompt",
    ["", [], (), torch.tensor([], dtype=torch.long), {"input_ids": []}, {"input_ids": [1], "attention_mask": [0]}],
    ids=repr,
)
def test_empty_prompts_are_refused(prompt):
    with pytest.raises(PromptError, match="is empty, expected"):
        read(prompt, prepend_bos=False)


def test_no_text_is_the_bos_token_where_there_is_one():
    assert read("") == read("", prepend_bos=True) == [BOS]


ROWS = torch.tensor([[BOS, 4, 5], [BOS, 6, PAD]])
MASK = torch.tensor([[1, 1, 1], [1, 1, 0]])


@pytest.mark.parametrize("kind", ["clone", "tolist", "numpy"])
@pytest.mark.parametrize("flip", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("wrap", [dict, BatchEncoding], ids=["dict", "BatchEncoding"])
def test_a_tokenizers_output_is_read_without_its_padding(kind, flip, wrap):
    rows, mask = (ROWS.flip(1), MASK.flip(1)) if flip else (ROWS, MASK)
    output = {"input_ids": rows, "attention_mask": mask, "token_type_ids": 0 * mask}
    output = wrap({name: getattr(one, kind)() for name, one in output.items()})
    assert is_batch(output)
    found = [read(one) for one in members(FakeHost(), output)]
    expected = [[BOS, 4, 5], [BOS, 6]]
    assert found == [row[::-1] for row in expected] if flip else found == expected


def test_a_tokenizers_output_for_one_text_is_one_prompt():
    for output in ({"input_ids": [3, 4], "attention_mask": [1, 1]}, {"input_ids": [3, 4]}):
        assert not is_batch(output)
        assert read(output) == [3, 4]
    assert read({"input_ids": torch.tensor([[3, 4, PAD]]), "attention_mask": torch.tensor([[1, 1, 0]])}) == [3, 4]
    with pytest.raises(PromptError, match="input_ids holds 2 prompts, expected one"):
        read({"input_ids": ROWS, "attention_mask": MASK})


def test_a_mask_of_ones_says_that_padding_is_meant():
    output = {"input_ids": ROWS, "attention_mask": torch.ones_like(ROWS)}
    assert [read(one) for one in members(FakeHost(), output)] == ROWS.tolist()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"input_ids": [1, 2, 3], "attention_mask": [1, 0, 1]}, "leaves out token 1, between others"),
        ({"input_ids": [1, 2, 3], "attention_mask": [1, 1]}, "expected a 0 or 1 for each of its 3 tokens"),
        ({"input_ids": [1, 2], "attention_mask": [0.5, 1]}, "expected a 0 or 1 for each"),
        ({"input_ids": [1, 2], "attention_mask": 1}, "expected a 0 or 1 for each"),
        ({"input_ids": [[1], [2]], "attention_mask": [[1]]}, "attention_mask has 1 rows for 2 prompts"),
        ({"input_ids": [[1], [2]], "attention_mask": 1}, "attention_mask has 1 rows for 2 prompts"),
        ({"input_ids": ["a"]}, "expected token ids"),
        ({"input_ids": None}, "expected token ids"),
        ({"input_ids": [1], "pixel_values": [0.5]}, "holds 'pixel_values' too, which isn't read"),
    ],
)
def test_a_tokenizers_output_that_can_not_be_meant_is_refused(output, message):
    with pytest.raises(PromptError, match=message):
        [read(one) for one in (members(FakeHost(), output) if is_batch(output) else [output])]


@pytest.mark.parametrize("prompt", [[3, PAD], [PAD, 3], [PAD], {"input_ids": [3, PAD, PAD]}], ids=repr)
def test_padding_is_no_text(prompt):
    with pytest.raises(PromptError, match=r"with \d of the padding token 99, which would be explained as text"):
        read(prompt)


@pytest.mark.parametrize("rows", [ROWS, ROWS.tolist(), {"input_ids": ROWS}, list(ROWS)], ids=lambda r: type(r).__name__)
def test_padded_rows_are_refused(rows):
    with pytest.raises(PromptError, match="prompt 1 ends with 1 of the padding token 99"):
        members(FakeHost(), rows)


@pytest.mark.parametrize("pad", [BOS, EOS])
def test_a_padding_token_that_is_text_too_is_told_by_how_many_there_are(pad):
    host = FakeHost(padding=pad)
    assert read([pad, 5, pad], padding=pad) == [pad, 5, pad]
    members(host, [[pad, 5], [pad, 6]])  # as both begin
    members(host, [[pad, 5, 6], [pad, 6]])  # not made equally long
    for rows in ([[pad, 5, 6], [5, 6, 7]], [[5, 6, 7], [5, 6, pad]]):
        with pytest.raises(PromptError, match=rf"with 1 of the padding token {pad}"):
            members(host, rows)
    with pytest.raises(PromptError, match=rf"the prompt ends with 2 of the padding token {pad}"):
        read([5, pad, pad], padding=pad)


def test_without_a_padding_token_nothing_is_padding():
    assert read([PAD, PAD], padding=None) == [PAD, PAD]


def test_a_bos_token_is_not_put_before_ids():
    assert read([BOS, 5], prepend_bos=True) == [BOS, 5]
    assert read([5], prepend_bos=False) == [5]
    with pytest.raises(PromptError, match="these token ids begin with 5, which isn't the BOS token"):
        read([5], prepend_bos=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\u00e9\ud800", r"'é\\ud800' isn't Unicode text: character 1 is half of a surrogate pair"),
        (
            "Caf\udce9",
            r"'Caf\\udce9' isn't Unicode text: character 3 is the byte 0xE9, which is no text in",
        ),
    ],
)
def test_half_characters_are_refused(text, message):
    with pytest.raises(PromptError, match=message):
        read(text)


def test_texts_of_numpy_are_texts():
    assert read(np.str_("one three")) == [BOS, 3, 5]
    assert is_batch(np.array(["one", "three"]))
    assert members(FakeHost(), np.array(["one", "three"])) == ["one", "three"]
    assert is_batch(pandas.Series(["one", "three"]))
    table = pandas.DataFrame({"one": ["a"], "two": ["b"]})  # iterating over it gives the names of its columns
    assert not is_batch(table)
    with pytest.raises(PromptError, match="can't read"):
        read(table)


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
