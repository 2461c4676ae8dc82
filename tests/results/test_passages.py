"""Segments against plain loops over tokens: where they are found, what they score, on both sides of a map."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.attribution_map import AttributionMap
from tl_jacobian.results.grid import Grid
from tl_jacobian.results.segments import line_spans, paragraph_spans, read, sentence_spans
from tl_jacobian.results.tokens import Region, Word, group_words

PIECES = ("The", " cat", " sat", ".", "\n\n", " Why", "?", " No", " cat", "!")


def make(pieces: Any = PIECES, **fields: Any) -> Attribution:
    n = len(pieces)
    defaults: dict[str, Any] = dict(
        scores=torch.arange(1.0, n + 1).sqrt(),
        scope="direction",
        tokens=tuple(range(n)),
        str_tokens=tuple(pieces),
        position=n - 1,
        target="v",
        word_groups=group_words(pieces),
    )
    return Attribution(**{**defaults, **fields})


def a_map(pieces: Any = PIECES, *, follows: str | None = None, combine: Any = "root_sum_squares") -> AttributionMap:
    n = len(pieces)
    scores = torch.rand(n, n, generator=torch.Generator().manual_seed(n))
    rows = [
        make(pieces[: i + 1], scores=scores[i, : i + 1], target=f"v{i}", combine=combine, stderr=scores[i, : i + 1] / 8)
        for i in range(n)
    ]
    return AttributionMap(attributions=tuple(rows), next_texts=(*pieces[1:], follows))


def joint(scores: list[float], combine: str, *, mean: bool = False, n: int | None = None) -> float:
    """How several scores make one, with loops."""
    n = len(scores) if n is None else n
    if combine == "sum":
        total = sum(scores)
        return total / n if mean else total
    total = 0.0
    for score in scores:
        total += score * score
    return math.sqrt(total / n if mean else total)


# -- scores ------------------------------------------------------------------------------


def sets_of_tokens(n: int) -> st.SearchStrategy[dict[str, set[int]]]:
    """Names to disjoint sets of n positions, some of which are in none."""
    owners = st.lists(st.sampled_from([None, "a", "b", "c"]), min_size=n, max_size=n)
    found = owners.map(lambda names: {name: {i for i, x in enumerate(names) if x == name} for name in names if name})
    return found.filter(bool)


@settings(max_examples=30, deadline=None)
@given(
    sets_of_tokens(len(PIECES)),
    st.lists(st.floats(-4, 4, width=32), min_size=len(PIECES), max_size=len(PIECES)),
    st.sampled_from(["sum", "root_sum_squares"]),
    st.booleans(),
    st.sampled_from(["rest", None]),
    st.booleans(),
)
def test_a_segment_is_its_tokens_jointly(spec, scores, combine, mean, rest, split_first):
    a = make(scores=torch.tensor(scores), combine=combine, stderr=torch.tensor(scores).abs())
    found = a.segments(spec, mean=mean, rest=rest, split_first=split_first)
    wanted = {name: sorted(positions) for name, positions in spec.items()}
    left = [i for i in range(len(PIECES)) if not any(i in positions for positions in spec.values())]
    if rest and left:
        wanted["rest"] = left
    if split_first:
        for name, positions in list(wanted.items()):
            if positions[0] == 0 and len(positions) > 1:
                wanted[name] = positions[1:]
                wanted["The"] = [0]
    assert dict(zip(found.str_tokens, map(list, found.units), strict=True)) == wanted
    assert list(found.units) == sorted(found.units)
    for name, score, i in zip(found.str_tokens, found.scores.tolist(), range(len(found)), strict=True):
        parts = [scores[at] for at in wanted[name]]
        assert score == pytest.approx(joint(parts, combine, mean=mean), abs=1e-5)
        if combine == "sum":
            assert found.stderr[i].item() == pytest.approx(joint([abs(x) for x in parts], "sum", mean=mean), abs=1e-5)
    if combine != "sum":
        assert found.stderr is None
    assert found.inside == a


@pytest.mark.parametrize("combine", ["sum", "root_sum_squares"])
def test_per_token_is_what_each_token_would_have_to_score(combine):
    a = make(scores=torch.full((len(PIECES),), 0.7), combine=combine)
    torch.testing.assert_close(a.sentences(mean=True).scores, torch.full((4,), 0.7))
    assert "per token" in a.lines(mean=True).metadata["score"]


def test_signed_scores_of_a_passage_cancel():
    a = make(scores=torch.tensor([5.0, 1.0, -1.0, 2.0, -2.0, 1.0, 1.0, 1.0, 1.0, 1.0]), combine="sum")
    assert a.segments({"first": range(1, 5)}).scores.tolist() == [5.0, 0.0, 5.0]


# -- a map's both sides --------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(
    sets_of_tokens(len(PIECES) + 1),
    st.sampled_from(["sum", "root_sum_squares"]),
    st.booleans(),
)
def test_a_maps_blocks_are_their_targets_and_sources_jointly(spec, combine, mean):
    m = a_map(follows=" end", combine=combine)
    found = m.segments(spec, mean=mean, split_first=False)
    n, scores = len(PIECES), m.scores.tolist()
    names = {at: name for name, positions in spec.items() for at in positions}
    members = {name: [at for at in range(n + 1) if names.get(at, "rest") == name] for name in {*spec, "rest"}}
    for i, row in enumerate(found.next_texts):
        targets = [at - 1 for at in members[row] if at > 0]
        for j, column in enumerate(found.str_tokens):
            sources = [at for at in members[column] if at < n]
            parts = [scores[t][s] for t in targets for s in sources if s <= t]
            seen = [s for s in sources if s <= max(targets)]
            expected = joint(parts, combine, mean=mean, n=max(1, len(targets) * len(seen)))
            assert found.scores[i, j].item() == pytest.approx(expected if seen else 0.0, abs=1e-5)
    assert {row for row in members if any(at > 0 for at in members[row])} == set(found.next_texts)
    assert [a.position for a in found] == sorted(a.position for a in found)


def test_a_maps_sentences_agree_with_those_of_its_rows():
    m = a_map()
    found = m.sentences()
    assert found.next_texts == ("The cat sat.", "Why?", "No cat!", None)
    # The last target predicts what no token of the text is: a row of its own.
    assert torch.equal(found[-1].scores, m[-1].sentences().scores)
    assert found[0].str_tokens == ("The", "The cat sat.")
    with pytest.raises(ArgumentError, match="none of the map's targets predicts and sees a token of these segments"):
        a_map(PIECES[:3], follows=" x").segments([range(1)], rest=None)
    assert a_map().segments({"x": {4, 5}}, rest=None).next_texts == ("x", None)


# -- a grid's columns -----------------------------------------------------------------------


@pytest.mark.parametrize("combine", ["sum", "root_sum_squares"])
@pytest.mark.parametrize("mean", [False, True])
def test_a_grids_columns_are_joined_row_by_row(combine, mean):
    values = torch.rand(2, len(PIECES), generator=torch.Generator().manual_seed(0))
    fields: dict[str, Any] = dict(rows=("0", "1"), columns=PIECES, title="t", quantity="q", row_axis="layer")
    g = Grid(values=values, column_axis="token", signed=False, combine=combine, **fields)
    found = g.segments({"cat": re.compile("cat")}, mean=mean)
    assert found.columns == ("The", "cat", "rest")
    assert found.column_axis == "segment"
    for row, i in zip(values.tolist(), range(2), strict=True):
        assert found.values[i, 1].item() == pytest.approx(joint([row[1], row[8]], combine, mean=mean))
    assert len(g.sentences().columns) == 4
    with pytest.raises(ArgumentError, match="the columns are segments, expected tokens"):
        found.lines()
    with pytest.raises(ArgumentError, match="numbers of several tokens don't make one here"):
        Grid(values=values, column_axis="token", signed=False, **fields).lines()


# -- where tokens are ------------------------------------------------------------------------


def test_pieces_patterns_spans_and_tokens():
    a, units = make(), {}
    for name, spec in {
        "piece": "cat sat.",
        "pattern": {"x": re.compile(" cat")},
        "characters": (4, 12),
        "range": range(1, 4),
        "slice": slice(1, 4),
        "set": {1, 2, 3},
        "several": {"x": ["cat sat", (11, 12)]},
    }.items():
        found = a.segments(spec, rest=None)
        units[name] = found.units
    assert a.text[4:12] == "cat sat."
    assert units.pop("pattern") == ((1, 8),)
    assert set(units.values()) == {((1, 2, 3),)}
    assert a.segments(re.compile(" cat"), rest=None).units == ((1,), (8,))
    assert a.segments(["cat sat", "No"], rest=None).str_tokens == ("cat sat", "No")


def test_a_token_belongs_where_its_first_character_that_is_no_space_is():
    a = make(("A", " b.c", " ", "d", "\n", " e"))
    assert a.segments({"x": "b."}, rest=None).units == ((1,),)
    assert a.segments({"x": "b.c d"}, rest=None).units == ((1, 2, 3),)
    assert a.lines(split_first=False).units == ((0, 1, 2, 3, 4), (5,))
    with pytest.raises(ArgumentError, match=r"'c' at characters 4 to 5 holds no token's first character.*longer piece"):
        a.segments({"x": "c"})


def test_characters_that_several_tokens_share_stay_together():
    bird = "\ufffd"
    pieces = ("caf", bird, bird, "!", " ", bird, bird, bird, "x")
    words = (Word("café", 3), Word("!", 1), Word(" 🦜", 4), Word("x", 1))
    text = read(pieces, words)
    assert text.text == "café! 🦜x"
    assert text.spans[1] == text.spans[2] == (3, 4)
    assert text.spans[5] == text.spans[6] == text.spans[7] == (6, 7)
    a = make(pieces, word_groups=words)
    assert a.segments({"x": "é"}, rest=None).units == ((1, 2),)
    assert a.segments({"x": "🦜"}, rest=None).units == ((5, 6, 7),)
    assert a.segments(["é!", "🦜x"], rest=None).units == ((1, 2, 3), (5, 6, 7, 8))


def test_only_tokens_with_scores_count_where_a_part_of_the_prompt_has_them():
    a = make()
    part = a.grouped_by([[i] for i in range(5, 10)])
    assert part.text == a.text
    assert part.segments({"cat": re.compile("cat")}).units == ((5, 6, 7, 9), (8,))


def test_text_without_words_is_what_the_tokens_spell():
    assert make(word_groups=()).text == make().text
    assert make((), scores=torch.zeros(0), position=0).text == ""


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("dog", r"'dog' isn't in the text; looked in 'The cat sat.\\n\\n Why\? No cat!'"),
        ("The cat sits", r"its first 9 characters are, at 0 .* and then comes 'at.* in the place of 'its'"),
        (" cat sat. ", r"but it is without the spaces around it: pass 'cat sat.'"),
        ("cat", r"is in the text 2 times, at characters 4 in .*\(4, 7\) for one place, or re.compile"),
        ({"x": "cat"}, r"segment 'x': 'cat' is in the text 2 times"),
        (
            ["cat sat", "The cat"],
            r"segments 'cat sat' and 'The cat' overlap: both hold token 1 ' cat', in 'The cat sat",
        ),
        ({"x": ["cat sat", range(2, 3)]}, r"segment 'x' holds token 2 ' sat' twice"),
        (re.compile("z+"), r"re.compile\('z\+'\) matches nothing; looked in 'The cat"),
        (re.compile(b"z"), r"is a pattern of bytes, expected one of text"),
        ((0, 99), r"characters 0 to 99, expected 0 <= start < stop <= 27"),
        ((3, 3), r"characters 3 to 3, expected 0 <= start < stop"),
        (slice(4, 4), r"range\(4, 4\) holds no token"),
        ({99}, r"position=99 is outside"),
        ({"x": {99}}, r"segment 'x': position=99 is outside"),
        ([], r"segments of \[\]: there is none, expected a piece of the text"),
        ({"x": []}, r"segment 'x' of \[\] holds nothing"),
        (3.5, r"3.5 is of type float, expected a piece of the text, re.compile"),
        ({3: "sat"}, r"a segment is called 3, expected text"),
        ({"rest": "sat"}, r"a segment is called 'rest', as what is left over: pass another rest="),
        ("", r"'' isn't in the text"),
    ],
)
def test_errors_show_where_the_text_was_looked_for(spec, match):
    with pytest.raises(ArgumentError, match=match):
        make().segments(spec)
    with pytest.raises(ArgumentError, match=match):
        a_map().segments(spec)


def test_long_texts_dont_make_long_errors():
    a = make(tuple(f" word{i}" for i in range(2000)))
    for spec in ("x" * 5000, " word1999 " + "y" * 5000, re.compile("q" * 3000), "word1"):
        with pytest.raises(ArgumentError) as caught:
            a.segments(spec)
        assert len(str(caught.value)) < 1500


def test_scores_have_to_be_per_token():
    for grouped in (make(("un", "do", " it")).words(split_first=False), make().sentences()):
        with pytest.raises(ArgumentError, match=r"per word or segment, expected one score for each token.*\.inside"):
            grouped.segments("sat")
    assert make().sentences().inside.segments("sat") == make().segments("sat")


# -- sentences, lines, paragraphs --------------------------------------------------------------


def spelled(spans: Any, text: str) -> list[str]:
    assert "".join(text[a:b] for a, b in spans) == text
    return [text[a:b].strip() for a, b in spans]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ('He said "No." Then left.', ['He said "No."', "Then left."]),
        ("Dr. Smith met J. Doe, e.g. here. Fine.", ["Dr. Smith met J. Doe, e.g. here.", "Fine."]),
        ("It is 3.5 km. 1990 was cold.", ["It is 3.5 km.", "1990 was cold."]),
        ("1. Bread\n2. Milk", ["1. Bread", "2. Milk"]),
        ("a line\nthat goes on\n\nand ends", ["a line\nthat goes on", "and ends"]),
        ("Question: who\nAnswer:", ["Question: who", "Answer:"]),
        ("我来了。你呢？好", ["我来了。", "你呢？", "好"]),
        ("Wait... what? Yes… No", ["Wait... what?", "Yes…", "No"]),
        ("  \n lead. Then", ["lead.", "Then"]),
        ("", []),
        ("   ", [""]),
    ],
)
def test_sentences(text, expected):
    assert spelled(sentence_spans(text), text) == expected


def test_lines_and_paragraphs():
    text = "a\nb\n\n \n  c\r\n\r\nd\n"
    assert spelled(line_spans(text), text) == ["a", "b", "c", "d"]
    assert spelled(paragraph_spans(text), text) == ["a\nb", "c", "d"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["A", " b", ".", "\n", "\n\n", " ", "", "?", " 1", "\u3002"]), max_size=12))
def test_whatever_a_text_falls_into_holds_every_token_once(pieces):
    a = make(pieces, scores=torch.ones(len(pieces)), position=max(len(pieces) - 1, 0), combine="sum")
    for found in (a.sentences(), a.lines(), a.paragraphs()):
        assert sorted(at for unit in found.units for at in unit) == list(range(len(pieces)))
        assert found.scores.sum().item() == len(pieces)


def conversation(**more):
    """'Hi. ' of the user, 'Ho it. Is' of the assistant, written by a template of one token each."""
    texts = ("<u>", "Hi", " yes", "<a>", "no", " it", ".", " Is")
    regions = {
        "roles": (Region("user", (1, 2)), Region("assistant", (4, 5, 6, 7)), Region("template", (0, 3))),
        "messages": (Region("user 1", (1, 2)), Region("assistant 1", (4, 5, 6, 7)), Region("template", (0, 3))),
    }
    return Attribution(
        scores=torch.arange(1.0, 9.0),
        scope="direction",
        tokens=tuple(range(8)),
        str_tokens=texts,
        position=7,
        target="v",
        regions=regions,
        **more,
    )


def test_no_sentence_goes_on_across_messages_or_into_an_answer():
    plain = dataclasses.replace(conversation(), regions={})
    assert plain.sentences(split_first=False).str_tokens == ("<u>Hi yes<a>no it.", "Is")
    told = conversation().sentences(split_first=False)
    assert told.str_tokens == ("<u>", "Hi yes", "<a>", "no it.", "Is")
    assert told.units == ((0,), (1, 2), (3,), (4, 5, 6), (7,))
    answered = dataclasses.replace(conversation(answer_start=5), regions={}).sentences(split_first=False)
    assert answered.str_tokens == ("<u>Hi yes<a>no", "it.", "Is")
    assert answered.answer.str_tokens == ("it.", "Is")


def test_grids_and_maps_know_roles():
    a = conversation()
    grid = Grid(
        values=torch.stack([a.scores, a.scores + 1]),
        rows=("0", "1"),
        columns=a.str_tokens,
        title="t",
        quantity="q",
        row_axis="layer",
        column_axis="token",
        signed=False,
        tokens=a.tokens,
        combine="sum",
        regions=a.regions,
        answer_start=5,
    )
    assert grid.roles().columns == ("template", "user", "assistant")
    assert grid.roles().values[0].tolist() == [1.0 + 4, 2.0 + 3, 5.0 + 6 + 7 + 8]
    assert grid.roles(mean=True).values[0].tolist() == [5.0 / 2, 5.0 / 2, 26.0 / 4]
    assert grid.sentences(split_first=False).columns == ("<u>", "Hi yes", "<a>", "no", "it.", "Is")
    with pytest.raises(ArgumentError, match="this Grid knows no roles: give linearize"):
        dataclasses.replace(grid, regions={}).roles()
    with pytest.raises(ArgumentError, match="what is done to several at once isn't known"):
        dataclasses.replace(grid, combine=None).roles()
    rows = [
        dataclasses.replace(
            a,
            scores=a.scores[:n],
            tokens=a.tokens[:n],
            str_tokens=a.str_tokens[:n],
            units=(),
            position=n - 1,
            regions={},
        )
        for n in (5, 6, 7)
    ]
    m = AttributionMap(attributions=tuple(rows), next_texts=(" it", ".", " Is"), regions=a.regions)
    roles = m.roles()  # all three targets are the assistant's, the last of them no source of any
    assert (roles.next_texts, roles.str_tokens) == (("assistant",), ("template", "user", "assistant"))
    squares = [[1 + 16, 4 + 9, 25], [1 + 16, 4 + 9, 25 + 36], [1 + 16, 4 + 9, 25 + 36 + 49]]
    torch.testing.assert_close(roles.scores[0], torch.tensor(squares).sum(0).float().sqrt())
    per_token = m.roles(mean=True).scores[0]  # of two, two and three tokens, for three targets
    sizes = torch.tensor([2, 2, 3]) * 3
    torch.testing.assert_close(per_token, (torch.tensor(squares).sum(0) / sizes).float().sqrt())
    with pytest.raises(ArgumentError, match="this AttributionMap knows no messages"):
        dataclasses.replace(m, regions={}).messages()
    written = dataclasses.replace(m, regions={}, metadata={"generated_from": 5})
    assert written.sentences(split_first=False).str_tokens == ("<u>Hi yes<a>no", "it.")
