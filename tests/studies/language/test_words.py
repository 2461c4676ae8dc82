"""Words and their tokens by character offsets, on every kind of tokenizer of the suite."""

from __future__ import annotations

import unicodedata

import hypothesis.strategies as st
import pytest
from hypothesis import given
from language_toys import KINDS, merging, pieces_of, sentencepiece

import tl_jacobian as tj
from tl_jacobian.studies.language.words import fill, split_words, token_spans, units_of

TEXT = "German: Über den Fluß, l'été – 3,5 €! English: Over the river."


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Das Buch ist rot.", ["Das", "Buch", "ist", "rot"]),
        ("« L'eau », dit-il...", ["L'eau", "dit-il"]),
        ("¿Qué? - ¡Sí!", ["Qué", "Sí"]),
        ("3.14 € (etwa)", ["3.14", "etwa"]),
        ("e\u0301te\u0301.", ["e\u0301te\u0301"]),
        ("我喝茶。你呢?", ["我", "喝", "茶", "你", "呢"]),
        ("東京タワーは高い", ["東", "京", "タワー", "は", "高", "い"]),
        ("ไปเที่ยว", ["ไป", "เที่", "ย", "ว"]),
        ("我喝tea, 3杯", ["我", "喝", "tea", "3", "杯"]),
        ("한국어는 쉽다", ["한국어는", "쉽다"]),
        (" ... ", []),
        ("", []),
    ],
)
def test_words_stand_between_spaces_without_punctuation_around(text, words):
    assert [word.text for word in split_words(text)] == words


@given(st.text(max_size=30), st.integers(0, 5))
def test_words_are_where_they_say(text, start):
    for word in split_words(text, start):
        assert text[word.start - start : word.stop - start] == word.text
        assert not set(word.text) & set(" \n\t")


def naive_units(text, words, pieces):
    """Each token's letters, a character at a time; only for tokens of whole characters."""
    token_at = [token for token, piece in enumerate(pieces) for _ in piece]
    return [sorted(set(token_at[word.start : word.stop])) for word in words]


@pytest.mark.parametrize("kind", KINDS)
def test_every_tokenizer_finds_the_words(kind):
    pieces, decode = pieces_of(KINDS[kind](), TEXT)
    words = split_words(TEXT)
    spans = token_spans(TEXT, pieces, decode)
    units = units_of(TEXT, words, spans, pieces)
    assert sum(unit.size for unit in units.words) == len(pieces)
    assert "".join(unit.text for unit in units.words).strip() == TEXT
    for word, at, tokens in zip(words, units.at, units.tokens, strict=True):
        assert split_words(units.words[at].text)[0].text == word.text
        assert units.words[at].size == len(tokens)
        assert word.text in decode(tokens.start, tokens.stop)
        assert sum(unit.size for unit in units.words[:at]) == tokens.start
    if all("\ufffd" not in piece for piece in pieces) and "".join(pieces) == TEXT:
        assert [list(tokens) for tokens in units.tokens] == naive_units(TEXT, words, pieces)


def test_tokens_that_share_a_character_share_its_place():
    pieces, decode = pieces_of(KINDS["bytes"](), "ä é")
    assert len(pieces) == 5
    assert token_spans("ä é", pieces, decode) == [(0, 1), (0, 1), (1, 2), (2, 3), (2, 3)]


def test_characters_between_words_stay_whole():
    units = units_of("a – b", split_words("a – b"), *spans_and_pieces("a – b"))
    assert [unit.text for unit in units.words] == ["a", " ", "–", " ", "b"]
    assert [unit.size for unit in units.words] == [1, 1, 3, 1, 1]


def spans_and_pieces(text, kind="bytes"):
    pieces, decode = pieces_of(KINDS[kind](), text)
    return token_spans(text, pieces, decode), pieces


def test_merges_make_a_token_of_a_word_and_its_space():
    _, pieces = spans_and_pieces("the cat", "merging")
    assert pieces == ("the", " cat")


def test_sentencepieces_own_space_is_outside_the_text():
    spans, pieces = spans_and_pieces("the cat", "sentencepiece")
    assert pieces == (" the", " cat")
    assert spans == [(0, 3), (3, 7)]


def test_tokens_outside_the_text_are_units_of_their_own():
    spans = token_spans("a b", ["<bos>", "a", " b", "<eos>"], lambda a, b: "", {0, 3})
    assert spans == [(0, 0), (0, 1), (1, 3), (3, 3)]
    units = units_of("a b", split_words("a b"), spans, ["<bos>", "a", " b", "<eos>"])
    assert [unit.text for unit in units.words] == ["<bos>", "a", " b", "<eos>"]
    assert units.at == (1, 2)


def test_two_tokens_outside_the_text_are_two_units():
    pieces = ["a", "<eos>", "<eos>"]
    spans = token_spans("a", pieces, lambda a, b: "", {1, 2})
    assert [unit.text for unit in units_of("a", split_words("a"), spans, pieces).words] == pieces


@pytest.mark.parametrize(
    ("text", "pieces", "message"),
    [
        ("The cat", ["the", " cat"], r"at character 0 it reads 'The cat', and the next token 'the'"),
        ("The cat", ["The"], r"at character 3 it reads ' cat', and the next token ''"),
        ("cafe\u0301", ["caf", "é"], r"unicodedata\.normalize"),
        ("a", ["<bos>", "a"], r"next token '<bos>'"),
    ],
)
def test_tokens_that_spell_another_text_are_refused(text, pieces, message):
    with pytest.raises(tj.errors.PromptError, match=message):
        token_spans(text, pieces, lambda a, b: "".join(pieces[a:b]))


def test_only_text_that_isnt_normal_is_told_to_be_normalised():
    with pytest.raises(tj.errors.PromptError) as error:
        token_spans("The", ["the"], lambda a, b: "the")
    assert "normalize" not in str(error.value)
    assert unicodedata.normalize("NFC", "The") == "The"


def test_a_token_of_two_words_is_refused():
    with pytest.raises(tj.errors.PromptError, match="token 1 ' of the' holds parts of two words"):
        units_of("one of the", split_words("one of the"), [(0, 3), (3, 10)], ["one", " of the"])


def test_a_template_says_where_its_sentences_are():
    filled = fill("{{x}} {source} / {target}!", "ein Hund", "a dog.")
    assert filled.text == "{x} ein Hund / a dog.!"
    assert [filled.text[word.start : word.stop] for word in filled.source + filled.target] == [
        "ein",
        "Hund",
        "a",
        "dog",
    ]


@pytest.mark.parametrize(
    "template", ["{source}", "{target} {source}", "{source} {target} {target}", "{source.x} {target}"]
)
def test_a_template_needs_both_fields_in_order(template):
    with pytest.raises(tj.errors.ArgumentError, match=r"expected the fields \{source\} and \{target\} once each"):
        fill(template, "a", "b")


@pytest.mark.parametrize("template", ["{source:>9} {target}", "{source!r} {target}"])
def test_a_template_formats_nothing(template):
    with pytest.raises(tj.errors.ArgumentError, match="once each"):
        fill(template, "a", "b")


@pytest.mark.parametrize("template", ["{source {target}", 5])
@pytest.mark.usefixtures("unchecked")
def test_a_template_that_cant_be_read(template):
    with pytest.raises(tj.errors.ArgumentError, match="can't be read"):
        fill(template, "a", "b")


@pytest.mark.parametrize(
    ("name", "values"), [("source", ("", "b")), ("target", ("a", " ... ")), ("source", (None, "b"))]
)
@pytest.mark.usefixtures("unchecked")
def test_a_sentence_has_a_word(name, values):
    with pytest.raises(tj.errors.ArgumentError, match=f"{name}=.* expected a sentence of at least one word"):
        fill("{source} {target}", *values)


def test_the_toys_are_what_they_should_be():
    assert merging().encode("the cat", add_special_tokens=False) != sentencepiece().encode("the cat")


def test_a_segmenter_tells_the_words():
    found = split_words("我喜欢北京。", 10, lambda text: ["我", "喜欢", "北京", "。"])
    assert [(word.text, word.start) for word in found] == [("我", 10), ("喜欢", 11), ("北京", 13)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["北京", "我"], "segmenter gave '我', which isn't in"),
        (["Beijing"], "segmenter gave 'Beijing', which isn't in '我北京'"),
        ([1], "segmenter gave 1, which isn't in"),
        ("我 北京", "segmenter gave '我 北京', expected the list of a text's words"),
        (None, "segmenter gave None, expected the list"),
    ],
)
def test_a_segmenter_that_changes_the_text_is_refused(given, message):
    with pytest.raises(tj.errors.ArgumentError, match=message):
        split_words("我北京", segmenter=lambda text: given)
