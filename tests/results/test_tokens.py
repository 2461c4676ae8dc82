"""Tokens as text: visible characters, and the grouping into words and numbers."""

from __future__ import annotations

import unicodedata

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from tl_jacobian.results.tokens import Word, group_words, visible

PIECES = st.lists(
    st.one_of(
        st.text(st.characters(exclude_characters=" "), max_size=4),
        st.sampled_from(
            [" a", "b", "'", "’", "'t", ".", ".5", ",", " 3", "1", "<|endoftext|>", "日", "\n", "", " ", "é"]
        ),
    ),
    min_size=1,
    max_size=12,
)


def texts(*pieces: str) -> list[str]:
    return [w.text for w in group_words(pieces)]


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        (["un", "believ", "able"], ["unbelievable"]),
        ([" The", " cat"], [" The", " cat"]),
        (["e", "\u0301", "t"], ["e\u0301t"]),  # combining marks stay on their letter
        (["1", "9", "8", "4"], ["1984"]),
        (["x", "2"], ["x", "2"]),
        ([" 3", ".", "1", "4", "!"], [" 3.14", "!"]),
        (["3", ".14"], ["3.14"]),
        (["29", ",", " 30"], ["29", ",", " 30"]),
        (["29", ",", "30"], ["29", ",", "30"]),
        (["2", "9", ",", " ", "3", "0"], ["29", ",", " 30"]),  # a space of its own belongs to what follows
        (["a", " ", "b", "c", " "], ["a", " bc", " "]),
        ([" ", "日", "本"], [" 日", "本"]),
        (["  ", " a"], ["  ", " a"]),
        ([" ", "\n", "a"], [" ", "\n", "a"]),
        (["end", ".", " 5"], ["end", ".", " 5"]),
        (["page", " 5", ".", " Next"], ["page", " 5", ".", " Next"]),
        (["don", "'t"], ["don't"]),
        (["don", "'", "t", " go"], ["don't", " go"]),
        (["l", "’", "eau"], ["l’eau"]),
        (["dogs", "'", " tails"], ["dogs", "'", " tails"]),
        (["日", "本", "語"], ["日", "本", "語"]),
        (["日本", "語"], ["日本", "語"]),
        (["ก", "ข"], ["ก", "ข"]),
        (["カ", "タ"], ["カタ"]),  # katakana go together
        (["한", "국"], ["한국"]),  # Korean has spaces
        (["<|endoftext|>", "Once"], ["<|endoftext|>", "Once"]),
        (["a", "<s>", "</s>", "b"], ["a", "<s>", "</s>", "b"]),
        (["1", "<|endoftext|>", "2"], ["1", "<|endoftext|>", "2"]),
        (["a", "\n", "b"], ["a", "\n", "b"]),
        (["a", "\n", "\n", "b"], ["a", "\n", "\n", "b"]),
        (["(", "a", ")"], ["(", "a", ")"]),
        (["ก", "ี", "ไ", "ป", "า", "ๆ"], ["กี", "ไปาๆ"]),  # Thai vowels and their consonants, the repetition mark
        (["ຂ", "ຶ", "ະ"], ["ຂຶະ"]),  # Lao
        (["が", "か", "\u3099"], ["が", "か\u3099"]),
        (["テ", "レ", "ビ", "ー", "を"], ["テレビー", "を"]),
        (["क", "्", "ष", "ि"], ["क्षि"]),
        (["👩", "\u200d", "👧", "👍"], ["👩\u200d👧", "👍"]),
        (["$", "1", ",", "2", "3", "4", ".", "5", "6"], ["$1,234.56"]),
        ([" $", "1", ",", "234", " and", " €", "5"], [" $1,234", " and", " €5"]),
        (["1", ",", "234", ",", "567", "!"], ["1,234,567", "!"]),
        (["123", ",", "456", ","], ["123", ",", "456", ","]),  # a series, which ends with its separator
        (["123", ",", "456", ",", "78"], ["123", ",", "456", ",", "78"]),
        (["2", "9", ",", "3", "0", ","], ["29", ",", "30", ","]),
        (["1", ",", "2", "3", "4", "5"], ["1", ",", "2345"]),
        (["<s>", "\u0301"], ["<s>", "\u0301"]),
    ],
)
def test_words(pieces, words):
    assert texts(*pieces) == words


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        (["don", "'t", " go"], ["don't", " go"]),
        (["we", "'ll", "."], ["we'll", "."]),
        (["3", ".5", " apples"], ["3.5", " apples"]),
        (["3", ".5", "!"], ["3.5", "!"]),
    ],
)
def test_a_mark_with_its_letters_in_one_token_does_not_pull_in_what_follows(pieces, words):
    assert texts(*pieces) == words


def test_a_space_does_not_pull_in_a_special_token():
    assert texts("a", " ", "<|endoftext|>", "b") == ["a", " ", "<|endoftext|>", "b"]


def test_no_tokens_are_no_words():
    assert group_words([]) == ()


def test_an_empty_token_does_not_join_two_words():
    assert [w.text.strip() for w in group_words([" a", "", " b"])] == ["a", "b"]


def test_a_number_goes_on_after_a_mark_with_digits():
    assert texts("3", ".1", "4", "1") == ["3.141"]


@given(PIECES)
@example(["don", "'t", " go"])
def test_words_partition_the_tokens(pieces):
    words = group_words(pieces)
    assert sum(w.size for w in words) == len(pieces)
    assert all(w.size >= 1 for w in words)


@given(PIECES)
def test_no_text_is_lost(pieces):
    words, start = group_words(pieces), 0
    for word in words:
        assert word.text == "".join(pieces[start : start + word.size])
        start += word.size


@given(PIECES)
@example(["don", "'t", " go"])
@example([" a", "", " b"])
def test_no_word_holds_a_space_between_two_tokens(pieces):
    start = 0
    for word in group_words(pieces):
        inner = "".join(pieces[start : start + word.size]).lstrip(" ")
        assert word.size == 1 or " " not in inner.rstrip(" "), word
        start += word.size


@given(st.lists(st.sampled_from("0123456789"), min_size=1))
def test_a_run_of_digits_is_one_number(digits):
    assert group_words(digits) == (Word("".join(digits), len(digits)),)


@given(st.lists(st.characters(categories=["Lo"], min_codepoint=0x4E00, max_codepoint=0x9FFF), min_size=1))
def test_every_ideograph_stands_alone(characters):
    assert [w.size for w in group_words(characters)] == [1] * len(characters)


def test_an_emoji_spread_over_tokens_is_one_word_and_is_read_as_one():
    raw = [b"Hi", b" \xf0\x9f", b"\xa6", b"\x9c", b"!"]
    words = group_words(*as_tokens(raw))
    assert words == (Word("Hi", 1), Word(" 🦜", 3), Word("!", 1))


def test_characters_spread_over_tokens_follow_the_rules_of_whole_ones():
    parrots = [bytes([b]) for b in "🦜🦜".encode()]
    assert group_words(*as_tokens(parrots)) == (Word("🦜", 4), Word("🦜", 4))
    girl = [b"M", b"\xc3", b"\xa4", b"dchen", b" lacht"]
    assert group_words(*as_tokens(girl)) == (Word("Mädchen", 4), Word(" lacht", 1))


def as_tokens(raw):
    """Texts of byte tokens, each decoded alone, and the decoder of any run of them."""

    def decode(start: int, stop: int) -> str:
        return b"".join(raw[start:stop]).decode("utf-8", errors="replace")

    return [decode(i, i + 1) for i in range(len(raw))], decode


def test_without_a_decoder_partial_characters_stay_as_they_are():
    assert texts("\ufffd", "\ufffd") == ["\ufffd\ufffd"]


def test_whole_characters_are_not_decoded_again():
    def decode(start: int, stop: int) -> str:
        raise AssertionError("nothing to decode")

    assert [w.text for w in group_words(["a", "b", " c"], decode)] == ["ab", " c"]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\n\r\t", "↵␍⇥"),
        (" a b", " a b"),
        ("\x00\x1b", "\\x00\\x1b"),
        ("\u2028\u2029\u200b\u202e\ufeff", "\\u2028\\u2029\\u200b\\u202e\\ufeff"),
        ("👩\u200d👧 é \ufffd", "👩\u200d👧 é \ufffd"),
        ("\ud800", "\\ud800"),
    ],
)
def test_visible(text, seen):
    assert visible(text) == seen


@given(st.text())
def test_nothing_invisible_is_left(text):
    left = {unicodedata.category(c) for c in visible(text) if c not in "\u200c\u200d"}
    assert not left & {"Cc", "Cf", "Cs", "Zl", "Zp"}
