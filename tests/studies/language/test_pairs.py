"""The shipped pairs: enough, of several languages, their links complete and not on the diagonal; files of one's own."""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files

import pytest

import tl_jacobian as tj
from tl_jacobian.studies.language import (
    AlignedPair,
    Link,
    aligned_pairs,
    diagonal_alignment,
    read_pairs,
    score_alignment,
)

PAIRS = aligned_pairs()
every_pair = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.source)
# Words that their sentence's translation has no word for.
FUNCTION_WORDS = {"den", "Il"}


def shipped():
    return json.loads(files("tl_jacobian.studies.language").joinpath("alignments.json").read_text(encoding="utf-8"))


def test_there_are_enough_pairs_of_several_languages():
    counts = Counter(pair.language for pair in PAIRS)
    assert len(PAIRS) >= 24
    assert len(counts) >= 4
    assert min(counts.values()) >= 4
    assert len({pair.source for pair in PAIRS}) == len(PAIRS)


@every_pair
def test_every_word_but_function_words_is_linked(pair):
    links = pair.sure | pair.possible
    alone = [word for i, word in enumerate(pair.source_words) if i not in {s for s, _ in links}]
    assert set(alone) <= FUNCTION_WORDS
    assert {t for _, t in links} == set(range(len(pair.target_words)))


@every_pair
def test_sentences_are_short_and_no_link_is_both_sure_and_possible(pair):
    assert 5 <= len(pair.source_words) <= 10
    assert 5 <= len(pair.target_words) <= 10
    assert not pair.sure & pair.possible


def test_words_are_those_the_sentences_are_split_into():
    for item, pair in zip(shipped()["pairs"], PAIRS, strict=True):
        assert tuple(item["source_words"]) == pair.source_words
        assert tuple(item["target_words"]) == pair.target_words


def test_some_links_by_their_words():
    """Indices are easily one off: words that are unmistakable."""
    words = {(pair.source_words[s].lower(), pair.target_words[t].lower()) for pair in PAIRS for s, t in pair.sure}
    expected = "gegessen ate|morgen tomorrow|froide cold|rouge red|ayer yesterday|profesor teacher|fiore flower"
    assert {tuple(two.split()) for two in expected.split("|")} <= words


def test_word_orders_differ_so_that_the_diagonal_doesnt_win_by_construction():
    scores = [
        score_alignment(diagonal_alignment(p.source_words, p.target_words), p.sure, p.possible).precision for p in PAIRS
    ]
    assert sum(scores) / len(scores) < 0.5
    crossed = [any(s < u and t > v for s, t in p.sure for u, v in p.sure) for p in PAIRS]
    assert sum(crossed) > len(PAIRS) * 0.9


def test_languages_are_chosen_by_name():
    assert {pair.language for pair in aligned_pairs("Dutch", "French")} == {"Dutch", "French"}
    assert aligned_pairs("Dutch")[0].template == "Dutch: {source} English: {target}"
    with pytest.raises(
        tj.errors.ArgumentError, match="no pairs of language 'Klingon', expected some of 'Dutch', 'French'"
    ):
        aligned_pairs("Klingon")


def test_a_file_of_ones_own(tmp_path):
    data = shipped()
    data["pairs"] = data["pairs"][:2]
    (tmp_path / "mine.json").write_text(json.dumps(data), encoding="utf-8")
    assert read_pairs(tmp_path / "mine.json") == PAIRS[:2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(sure="0-99"), r"at least one sure link and all of them inside, got \[Link\(source=0, target=99\)\]"),
        (dict(sure=""), "got no sure link"),
        (dict(possible="x"), "expected pairs like"),
        (dict(source="Ich habe heute einen roten Apfel gegessen"), "expected those that the sentence is split into"),
        (dict(target=5), r"Expected `str`, got `int` - at `\$.pairs\[0\].target`"),
    ],
)
def test_damaged_files_are_refused(change, message, tmp_path):
    data = shipped()
    data["pairs"] = [{**data["pairs"][0], **change}]
    (tmp_path / "mine.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(tj.errors.AttributionFileError, match=message):
        read_pairs(tmp_path / "mine.json")


@pytest.mark.parametrize("text", ['{"format": "tl_jacobian.grid"}', "[" * 5, ""])
def test_another_file_is_refused(text, tmp_path):
    (tmp_path / "other.json").write_text(text, encoding="utf-8")
    with pytest.raises(tj.errors.AttributionFileError, match=r"other.json isn't a file of aligned pairs"):
        read_pairs(tmp_path / "other.json")


def test_a_pair_of_ones_own():
    pair = AlignedPair(language="German", source="ja", target="yes", sure=frozenset({Link(0, 0)}))
    assert pair.source_words == ("ja",)
    with pytest.raises(tj.errors.ArgumentError, match="has 1 words"):
        AlignedPair(language="German", source="ja", target="yes", sure=frozenset({Link(0, 1)}))
