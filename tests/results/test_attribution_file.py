"""Saved attributions: an exact round trip, and a clear refusal of everything else."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from tl_jacobian.errors import AttributionFileError
from tl_jacobian.results.attribution import Attribution, Prediction
from tl_jacobian.results.attribution_file import from_json, to_json
from tl_jacobian.results.tokens import Word

TEXT = st.text(max_size=8)  # every code point but lone surrogates
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def sample() -> Attribution:
    return Attribution(
        scores=torch.tensor([0.1, 2.0, 3.5e-40]),
        stderr=torch.tensor([0.0, 1e-3, 1.0]),
        scope="fisher",
        tokens=(5, 6, 7),
        str_tokens=("a", " 🦜\u2028", "</script>"),
        position=2,
        target="distribution",
        combine="sum",
        word_groups=(Word("a", 1), Word(" 🦜\u2028</script>", 2)),
        predictions=(Prediction(1, "é", 0.25),),
        metadata={"value": 0.1, "versions": {"torch": "2"}, "seed": None},
    )


@st.composite
def any_fields(draw: st.DrawFn) -> dict[str, Any]:
    """What an attribution is made of; made in the test, where beartype may draw lots of its own."""
    n = draw(st.integers(0, 4))

    def each(item: Any) -> Any:
        return st.lists(item, min_size=n, max_size=n)

    texts = draw(each(TEXT))
    return dict(
        scores=torch.tensor(draw(each(FLOATS)), dtype=torch.float32),
        stderr=draw(st.none() | each(FLOATS).map(lambda x: torch.tensor(x, dtype=torch.float32))),
        scope=draw(TEXT),
        tokens=tuple(draw(each(st.integers(0, 2**40)))),
        str_tokens=tuple(texts),
        position=max(n - 1, 0),
        target=draw(TEXT),
        combine=draw(st.sampled_from(["root_sum_squares", "sum"])),
        word_groups=tuple(Word(t, 1) for t in texts),
        predictions=tuple(draw(st.lists(st.builds(Prediction, st.integers(0), TEXT, st.floats(0, 1)), max_size=2))),
        metadata=draw(st.dictionaries(TEXT, JSON, max_size=3)),
    )


def bits(tensor: torch.Tensor | None) -> bytes:
    return b"" if tensor is None else struct.pack(f"{len(tensor)}f", *tensor.tolist())


@settings(deadline=None)
@given(any_fields())
def test_the_round_trip_is_exact(tmp_path_factory, fields):
    a = Attribution(**fields)
    path = tmp_path_factory.mktemp("a") / "a.json"
    a.save(path)
    b = Attribution.load(path)
    assert b == a
    assert bits(b.scores) == bits(a.scores)
    assert bits(b.stderr) == bits(a.stderr)
    assert type(b.tokens) is tuple
    assert all(isinstance(w, Word) for w in b.word_groups)
    assert all(isinstance(p, Prediction) for p in b.predictions)


@pytest.mark.parametrize("score", [1e-45, -0.0, 3.4028234663852886e38, 1.17549435e-38, 0.1, 16777217.0])
def test_extreme_scores_are_exact(tmp_path, score):
    a = Attribution(
        scores=torch.tensor([score]), scope="s", tokens=(0,), str_tokens=("\ud800",), position=0, target="t"
    )
    a.save(tmp_path / "a.json")
    assert bits(Attribution.load(tmp_path / "a.json").scores) == bits(a.scores)


def test_every_field_survives(tmp_path):
    sample().save(tmp_path / "a.json")
    assert Attribution.load(tmp_path / "a.json") == sample()


def test_words_survive_too(tmp_path):
    words = sample().words()
    words.save(tmp_path / "w.json")
    assert Attribution.load(tmp_path / "w.json") == words
    assert Attribution.load(tmp_path / "w.json").sizes == (1, 2)


def test_the_file_is_plain_ascii_json(tmp_path):
    sample().save(tmp_path / "a.json")
    data = json.loads((tmp_path / "a.json").read_bytes().decode("ascii"))
    assert data["format"] == "tl_jacobian.attribution"
    assert data["version"] == 1


def test_a_file_cut_anywhere_is_refused(tmp_path):
    whole, cut = tmp_path / "whole.json", tmp_path / "cut.json"
    sample().save(whole)
    content = whole.read_bytes()
    assert content.endswith(b"}\n")
    for length in range(len(content) - 1):
        cut.write_bytes(content[:length])
        with pytest.raises(AttributionFileError, match=r"cut\.json is damaged or truncated, expected JSON"):
            Attribution.load(cut)
    cut.write_bytes(content[:-1])  # only the last newline is missing
    assert Attribution.load(cut) == sample()


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95pickle", b"\xff\xfe", b"[" * 100_000, b"hello", b"{'a': 1}"])
def test_what_is_not_json_is_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(AttributionFileError, match="damaged or truncated, expected JSON"):
        Attribution.load(tmp_path / "x")


def test_a_number_too_long_to_read_is_refused(tmp_path):
    (tmp_path / "x").write_text("1" * 5000)
    with pytest.raises(AttributionFileError, match=r"damaged|not a saved attribution"):
        Attribution.load(tmp_path / "x")


@pytest.mark.parametrize("data", [[], {}, 3, None, "x", {"format": "other"}, {"scores": [1.0]}])
def test_foreign_json_is_refused(tmp_path, data):
    (tmp_path / "x.json").write_text(json.dumps(data))
    with pytest.raises(AttributionFileError, match=r'x\.json: not a saved attribution: .*"tl_jacobian\.attribution"'):
        Attribution.load(tmp_path / "x.json")


@pytest.mark.parametrize("version", [2, 0, "1", None, [1]])
def test_another_version_is_refused(version):
    with pytest.raises(AttributionFileError, match=r"version .* is unknown, expected 1; upgrade tl-jacobian"):
        from_json({**to_json(sample()), "version": version})


@pytest.mark.parametrize("field", sorted(set(to_json(sample())) - {"format", "version"}))
def test_a_missing_field_is_named(field):
    data = to_json(sample())
    del data[field]
    with pytest.raises(AttributionFileError, match=f"damaged attribution: KeyError: '{field}'"):
        from_json(data)


@pytest.mark.parametrize("field", sorted(set(to_json(sample())) - {"format", "version", "stderr"}))
def test_a_field_that_is_null_is_refused(field):
    with pytest.raises(AttributionFileError, match="damaged attribution"):
        from_json({**to_json(sample()), field: None})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("scores", [1.0, 2.0, float("nan")], "scores must be finite"),
        ("scores", [1.0, 2.0, float("inf")], "scores must be finite"),
        ("scores", [1.0, 2.0, 1e300], "finite|overflow"),
        ("stderr", [1.0, 2.0, float("nan")], "finite"),
        ("scores", [1.0, 2.0], "one score and one text per unit"),
        ("scores", [1.0, 2.0, "x"], "scores must be numbers"),
        ("scores", [1.0, 2.0, [3.0]], "scores must be numbers"),
        ("stderr", [1.0], "'stderr': 1"),
        ("str_tokens", ["a", "b"], "'str_tokens': 2"),
        ("str_tokens", ["a", "b", 3], "expected str, got 3"),
        ("tokens", [1, 2], "2 tokens"),
        ("sizes", [1, 1, 2], "adding up to 4"),
        ("words", [["a"]], "unpack"),
        ("words", [[3, 1]], "expected str, got 3"),
        ("predictions", [[1, "a"]], "missing 1 required"),
        ("combine", "mean", "combine='mean', expected"),
        ("combine", ["sum"], "expected"),
        ("scope", 3, "expected str, got 3"),
        ("target", None, "expected str, got None"),
        ("metadata", 5, "expected dict, got 5"),
        ("position", "last", "expected int, got 'last'"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_a_damaged_field_is_refused(field, value, message):
    with pytest.raises(AttributionFileError, match=f"damaged attribution: .*(?:{message})"):
        from_json({**to_json(sample()), field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("position", float("inf")), ("tokens", [5, 6, float("inf")]), ("scores", [10**400, 1, 1])],
)
def test_a_number_out_of_range_is_refused(field, value):
    with pytest.raises(AttributionFileError, match="damaged attribution"):
        from_json({**to_json(sample()), field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("position", 1.9),
        ("position", 99),
        ("position", -1),
        ("tokens", [5, 6, 7.9]),
        ("tokens", "567"),
        ("str_tokens", "abc"),
        ("scores", "123"),
        ("words", [["a", 1], ["b", 9]]),
        ("predictions", [[1, "a", float("nan")]]),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_a_wrong_value_is_refused_rather_than_rounded_or_reread(field, value):
    with pytest.raises(AttributionFileError, match="damaged attribution"):
        from_json({**to_json(sample()), field: value})


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(to_json(sample()))), JSON)
def test_any_other_value_of_a_field_gives_an_attribution_or_a_named_error(field, value):
    try:
        loaded = from_json({**to_json(sample()), field: value})
    except AttributionFileError:
        return
    assert isinstance(loaded, Attribution)


def test_nan_scores_are_not_written_and_leave_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    sample().save(path)
    bad = Attribution(
        scores=torch.tensor([float("nan")]), scope="s", tokens=(0,), str_tokens=("a",), position=0, target="t"
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        bad.save(path)
    assert Attribution.load(path) == sample()
    assert list(tmp_path.iterdir()) == [path]


def test_metadata_is_json_from_the_start(tmp_path):
    a = sample_with({"pair": (1, 2), 3: "three", "nested": {"x": [None, True, 1.5]}})
    assert a.metadata == {"pair": [1, 2], "3": "three", "nested": {"x": [None, True, 1.5]}}
    a.save(tmp_path / "a.json")
    assert Attribution.load(tmp_path / "a.json") == a
    with pytest.raises(ValueError, match="metadata holds a dtype, expected numbers, text, lists and dicts"):
        sample_with({"dtype": torch.float32})


def sample_with(metadata):
    return Attribution(
        scores=torch.ones(1), scope="s", tokens=(0,), str_tokens=("a",), position=0, target="t", metadata=metadata
    )


def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.json"):
        Attribution.load(Path(tmp_path) / "nothing.json")
