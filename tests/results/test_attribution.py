"""Attribution: a frozen value that ranks, groups and tabulates itself."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.attribution import Attribution, Prediction, Ranked
from tl_jacobian.results.tokens import Region, Word


def make(scores: list[float] | torch.Tensor = (3.0, 4.0, 1.0), **fields: Any) -> Attribution:
    scores = torch.as_tensor(scores, dtype=torch.float32) if not isinstance(scores, torch.Tensor) else scores
    n = len(scores)
    defaults: dict[str, Any] = dict(
        scores=scores,
        scope="direction",
        tokens=tuple(range(n)),
        str_tokens=tuple(f"t{i}" for i in range(n)),
        position=n - 1,
        target="v.y",
    )
    return Attribution(**{**defaults, **fields})


WORDS = (Word("t0t1", 2), Word("t2", 1))


def test_scores_become_cpu_float32_without_a_graph():
    scores = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    a = make(scores, stderr=scores * 0.1)
    assert a.scores.dtype == a.stderr.dtype == torch.float32
    assert not a.scores.requires_grad
    assert not a.stderr.requires_grad


def test_no_field_can_be_set():
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'scores'"):
        make().scores = torch.ones(3)


def test_metadata_is_read_only_and_a_copy():
    given_ = {"seed": 1}
    a = make(metadata=given_)
    given_["seed"] = 2
    assert a.metadata["seed"] == 1
    with pytest.raises(TypeError, match="metadata can't be changed"):
        a.metadata["seed"] = 3


def test_changing_the_tensor_that_made_it_does_not_change_it():
    scores = torch.tensor([1.0, 2.0])
    a = make(scores, stderr=scores)
    scores.zero_()
    assert a.scores.tolist() == [1.0, 2.0]
    assert a.stderr.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(str_tokens=("a",)), "one score and one text per unit.*'str_tokens': 1"),
        (dict(tokens=(1, 2)), "one of its 2 tokens.*'units': 2"),
        (dict(units=((0,), (1,))), "'units': 2"),
        (dict(units=((0,), (1,), (3,))), "unit 2 has token position 3, expected 0 to 2"),
        (dict(units=((0,), (1,), (-1,))), "unit 2 has token position -1, expected 0 to 2"),
        (dict(units=((0,), (1,), ())), "unit 2 has no token"),
        (dict(units=((0,), (1,), (1,))), "token position 1 is in two units"),
        (dict(units=((0,), (1, 1), (2,))), "token position 1 is in two units or twice in one"),
        (dict(stderr=torch.ones(2)), "'stderr': 2"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_fields_of_different_lengths_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        make(**fields)


@pytest.mark.parametrize(
    "change",
    [
        dict(scores=torch.tensor([3.0, 4.0, math.nextafter(1, 2) + 1e-6])),
        dict(stderr=torch.zeros(3)),
        dict(scope="fisher"),
        dict(tokens=(0, 1, 3)),
        dict(str_tokens=("t0", "t1", "x")),
        dict(position=1),
        dict(target="other"),
        dict(combine="sum"),
        dict(word_groups=WORDS),
        dict(predictions=(Prediction(1, "a", 0.5),)),
        dict(metadata={"seed": 1}),
    ],
    ids=lambda change: next(iter(change)),
)
def test_equality_looks_at_every_field(change):
    assert make() == make()
    assert make() != make(**change)


def test_is_no_equal_of_other_things_and_not_hashable():
    assert make() != "attribution"
    with pytest.raises(TypeError, match="unhashable"):
        hash(make())


def test_a_copy_is_equal():
    a = make(stderr=torch.ones(3), metadata={"versions": {"torch": "2"}})
    assert copy.copy(a) == a
    assert copy.deepcopy(a) == a
    assert pickle.loads(pickle.dumps(a)) == a


def test_repr_names_scope_target_and_best():
    assert repr(make()) == "Attribution(direction: v.y; 3 units; top: 't1' 4, 't2' 1)"


def test_top_is_sorted_and_keeps_the_order_of_ties():
    a = make([1.0, 5.0, 1.0, 2.0])
    assert a.top(3, skip_first=False) == [Ranked(1, "t1", 5.0), Ranked(3, "t3", 2.0), Ranked(0, "t0", 1.0)]
    assert [r[0] for r in make([1.0] * 40).top(40)] == list(range(1, 40))


def test_top_takes_at_most_what_there_is():
    assert len(make().top(skip_first=False)) == 3
    assert len(make().top()) == 2
    assert make().top(0) == []
    assert make().top(-1) == []


def test_top_skips_token_0_without_renumbering_where_there_is_another():
    assert make([9.0, 1.0, 2.0]).top(2) == [Ranked(2, "t2", 2.0), Ranked(1, "t1", 1.0)]
    assert make([9.0]).top(2) == [Ranked(0, "t0", 9.0)]
    whole = make([9.0, 1.0, 2.0]).grouped([2, 1])
    assert whole.top(1)[0].unit == 0, "a unit of several tokens isn't left out"
    assert make([9.0, 1.0, 2.0]).grouped_by([[1], [0]]).top(5) == [Ranked(0, "t1", 1.0)], "wherever token 0 stands"


@pytest.mark.parametrize(("combine", "joint"), [("root_sum_squares", 5.0), ("sum", 7.0)])
def test_a_words_score_is_that_of_its_tokens_jointly(combine, joint):
    words = make(combine=combine, word_groups=WORDS, stderr=torch.ones(3)).words(split_first=False)
    assert words.scores.tolist() == [joint, 1.0]
    assert words.scores.dtype == torch.float32
    assert words.str_tokens == ("t0t1", "t2")
    assert words.sizes == (2, 1)
    assert words.tokens == (0, 1, 2)
    assert (words.stderr is None) == (combine == "root_sum_squares")
    if combine == "sum":
        assert words.stderr.tolist() == [float(size) for size in words.sizes]  # errors add up at worst


def test_words_of_words_are_the_same():
    words = make(word_groups=WORDS).words()
    assert words.words() == words


def test_a_words_text_is_the_readable_one_not_its_pieces():
    a = make([1.0, 1.0], str_tokens=("\ufffd", "\ufffd"), word_groups=(Word("é", 2),))
    assert a.words(split_first=False).str_tokens == ("é",)
    assert a.words().str_tokens == ("\ufffd", "\ufffd")


def test_token_0_is_a_unit_of_its_own_and_sums_still_add_up():
    groups = (Word("t0t1t2", 3), Word("t3", 1))
    words = make([3.0, 4.0, 12.0, 1.0], word_groups=groups).words()
    assert words.str_tokens == ("t0", "t1t2", "t3")
    assert words.units == ((0,), (1, 2), (3,))
    assert words.scores.tolist() == [3.0, pytest.approx(math.hypot(4, 12)), 1.0]
    summed = make([3.0, 4.0, 12.0, 1.0], word_groups=groups, combine="sum").words()
    assert summed.scores.sum().item() == 20.0
    assert make([3.0, 1.0], word_groups=(Word("t0", 1), Word("t1", 1))).words().sizes == (1, 1)


def test_any_sets_of_tokens_are_units():
    a = make([3.0, 1.0, 4.0, 2.0], stderr=torch.ones(4), combine="sum", metadata={"seed": 1})
    found = a.grouped_by([[2, 0], [1]], ["user", "system"])
    assert (found.units, found.sizes, found.str_tokens) == (((0, 2), (1,)), (2, 1), ("user", "system"))
    assert (found.scores.tolist(), found.stderr.tolist()) == ([7.0, 1.0], [2.0, 1.0])
    assert (found.tokens, found.metadata, len(found)) == (a.tokens, a.metadata, 2)
    assert found.to_dataframe()["tokens"].tolist() == [(0, 2), (1,)]
    norms = make([3.0, 1.0, 4.0]).grouped_by([(0, 2)])
    assert (norms.scores.tolist(), norms.str_tokens, norms.stderr) == ([5.0], ("t0t2",), None)
    assert found.words() is found, "units are kept"


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ([[0, 3]], "unit 0 has token position 3, expected 0 to 2"),
        ([[0], []], "unit 1 has no token"),
        ([[0, 1], [1]], "token position 1 is in two units"),
    ],
)
def test_sets_that_are_none_are_refused(units, message):
    with pytest.raises(ValueError, match=message):
        make().grouped_by(units)


def test_words_have_no_tokens_to_choose():
    with pytest.raises(ValueError, match="this attribution is per word, expected one score for each token"):
        make().grouped([2, 1]).grouped_by([[0]])


def test_grouping_twice_is_grouping_once():
    a = make([1.0, 2.0, 3.0, 4.0])
    twice, once = a.grouped([1, 2, 1]).grouped([2, 1]), a.grouped([3, 1])
    assert twice.sizes == once.sizes == (3, 1)
    assert twice.str_tokens == once.str_tokens == ("t0t1t2", "t3")
    assert torch.allclose(twice.scores, once.scores, rtol=1e-6)


@pytest.mark.parametrize("sizes", [[1, 1], [4], [3, 0], [4, -1], []])
def test_groups_that_do_not_fit_are_refused(sizes):
    with pytest.raises(ValueError, match=r"positive and add up to 3 units, got \["):
        make().grouped(sizes)


def test_more_texts_than_groups_are_refused():
    with pytest.raises(ValueError, match="one score and one text per unit"):
        make().grouped([2, 1], ["a", "b", "c"])


@given(st.lists(st.floats(0, 2.0**100, width=32), min_size=1, max_size=20), st.data())
def test_grouping_equals_the_formula(scores, data):
    cuts = sorted(data.draw(st.sets(st.integers(1, len(scores)), max_size=5)) | {len(scores)})
    sizes = [b - a for a, b in zip([0, *cuts], cuts, strict=False)]
    parts = [scores[end - size : end] for size, end in zip(sizes, cuts, strict=True)]
    for combine, joint in (("sum", math.fsum), ("root_sum_squares", lambda part: math.hypot(*part))):
        grouped = make(scores, combine=combine).grouped(sizes)
        assert grouped.scores.tolist() == pytest.approx([joint(part) for part in parts], rel=1e-6, abs=1e-44)
        assert grouped.sizes == tuple(sizes)


def test_dataframe_has_one_row_a_unit():
    frame = make(word_groups=WORDS).words(split_first=False).to_dataframe()
    assert list(frame.columns) == ["position", "tokens", "text", "score", "stderr"]
    assert frame["position"].tolist() == [0, 2]
    assert frame["tokens"].tolist() == [(0, 1), (2,)]
    assert frame["text"].tolist() == ["t0t1", "t2"]
    assert frame["score"].tolist() == [5.0, 1.0]
    assert frame["stderr"].isna().all()


def test_dataframe_has_standard_errors_where_there_are_some():
    assert make(stderr=torch.tensor([0.5, 0.25, 0.0])).to_dataframe()["stderr"].tolist() == [0.5, 0.25, 0.0]


REGIONS = {"roles": (Region("user", (0, 2)), Region("template", (1,))), "messages": (Region("user 1", (2,)),)}


def test_roles_and_messages_are_groups_of_tokens():
    a = make([3.0, 12.0, 4.0], regions=REGIONS)
    assert (a.roles().str_tokens, a.roles().units) == (("user", "template"), ((0, 2), (1,)))
    assert a.roles().scores.tolist() == [5.0, 12.0]
    assert make([3.0, 12.0, 4.0], regions=REGIONS, combine="sum").roles().scores.tolist() == [7.0, 12.0]
    assert a.messages().scores.tolist() == [4.0]
    per_token = a.roles(mean=True)  # root mean square of 3 and 4
    torch.testing.assert_close(per_token.scores, torch.tensor([12.5**0.5, 12.0]))
    assert make([3.0, 12.0, 5.0], regions=REGIONS, combine="sum").roles(mean=True).scores.tolist() == [4.0, 12.0]
    with pytest.raises(ArgumentError, match=r"knows no roles: give linearize\(\) the prompt as messages"):
        make([1.0]).roles()
    with pytest.raises(ArgumentError, match="this attribution is per word"):
        a.roles().messages()
    with pytest.raises(TypeError, match="can't be changed"):
        a.regions["roles"] = ()


@pytest.mark.parametrize(("positions", "why"), [((0, 3), "expected 0 to 2"), ((1,), "in two units"), ((), "no token")])
def test_regions_are_disjoint_tokens_of_the_prompt(positions, why):
    with pytest.raises(ArgumentError, match=why):
        make([3.0, 12.0, 4.0], regions={"roles": (Region("user", (1,)), Region("template", positions))})


def test_adding_says_what_to_do_instead():
    a = make()
    with pytest.raises(ArgumentError, match=r"attributions don't add up: .*output_scope"):
        sum([a, a])
