"""The codec: an exact round trip of whatever an attribution may hold, and forged files that are read or named."""

from __future__ import annotations

import json
import struct
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from examples import attribution, grid
from hypothesis import given, settings
from jaxtyping import jaxtyped

from tl_jacobian.errors import AttributionFileError
from tl_jacobian.results import codec
from tl_jacobian.results.attribution import Attribution, Prediction
from tl_jacobian.results.attribution_map import AttributionMap
from tl_jacobian.results.tokens import Word

TEXT = st.text(st.characters(), max_size=8)  # lone surrogates too
FLOATS = st.floats(width=32, allow_subnormal=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from(["$float", "$map"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.sampled_from(["$float", "$map"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def any_fields(draw: st.DrawFn) -> dict[str, Any]:
    """What an attribution is made of; made in the test, where beartype may draw lots of its own."""
    n = draw(st.integers(0, 4))

    def each(item: Any) -> Any:
        return st.lists(item, min_size=n, max_size=n)

    texts = draw(each(TEXT))
    order = draw(st.permutations(range(n)))
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
        units=tuple((i,) for i in order),
        predictions=tuple(draw(st.lists(st.builds(Prediction, st.integers(0), TEXT, st.floats(0, 1)), max_size=2))),
        metadata=draw(st.dictionaries(TEXT, JSON, max_size=3)),
    )


def bits(tensor: torch.Tensor | None) -> bytes:
    return b"" if tensor is None else struct.pack(f"{len(tensor)}f", *tensor.tolist())


@settings(deadline=None)
@given(any_fields())
def test_the_round_trip_is_exact(fields):
    a = Attribution(**fields)
    b = codec.decode(codec.encode(a, a.format), {a.format: Attribution})
    assert b == a
    assert bits(b.scores) == bits(a.scores)
    assert bits(b.stderr) == bits(a.stderr)
    assert type(b.tokens) is tuple
    assert all(isinstance(w, Word) for w in b.word_groups)
    assert all(isinstance(p, Prediction) for p in b.predictions)


@pytest.mark.parametrize("score", [1e-45, -0.0, 3.4028234663852886e38, 1.17549435e-38, 0.1, 16777217.0])
def test_extreme_scores_are_exact(tmp_path, score):
    a = attribution((score,), str_tokens=("\ud800",))
    a.save(tmp_path / "a.json")
    assert bits(Attribution.load(tmp_path / "a.json").scores) == bits(a.scores)


def made(**changes: Any) -> Attribution:
    return codec.from_plain(Attribution, {**codec.to_plain(attribution()), **changes})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("scores", [1.0, 2.0], "one score and one text per unit"),
        ("scores", [1.0, 2.0, "x"], "expected numbers, got 'x'"),
        ("scores", [1.0, 2.0, True], "expected numbers, got True"),
        ("scores", [1.0, 2.0, [3.0]], r"must be real number|expected sequence|not list|Expected"),
        ("scores", "123", "expected numbers, got '123'"),
        ("scores", [10**400, 1, 1], "too large"),
        ("stderr", [1.0], "'stderr': 1"),
        ("str_tokens", ["a", "b"], "'str_tokens': 2"),
        ("str_tokens", ["a", "b", 3], r"Expected `str`, got `int` - at `\$\.str_tokens\[2\]`"),
        ("str_tokens", "abc", "Expected `array`, got `str`"),
        ("tokens", [1, 2], "position=2, expected 0 to 1"),
        ("tokens", [5, 6, 7.9], r"Expected `int`, got `float` - at `\$\.tokens\[2\]`"),
        ("units", [[0], [1], [9]], "unit 2 has token position 9"),
        ("units", [[0], [1], [1]], "token position 1 is in two units"),
        ("word_groups", [["a"]], "Expected `array` of (at least )?length"),
        ("word_groups", [[3, 1]], "Expected `str`, got `int`"),
        ("word_groups", [["a", 1], ["b", 9]], "don't add up to 3 tokens"),
        ("predictions", [[1, "a"]], "Expected `array` of (at least )?length"),
        ("combine", "mean", "Invalid enum value 'mean'"),
        ("scope", 3, "Expected `str`, got `int`"),
        ("target", None, "Expected `str`, got `null`"),
        ("metadata", 5, "Expected `object`, got `int`"),
        ("position", "last", "Expected `int`, got `str`"),
        ("position", True, "Expected `int`, got `bool`"),
        ("position", 1.9, "Expected `int`, got `float`"),
        ("position", 99, "position=99, expected 0 to 2"),
        ("position", -1, "position=-1, expected 0 to 2"),
    ],
)
def test_a_damaged_field_is_refused_rather_than_rounded_or_reread(field, value, message):
    with pytest.raises((ValueError, TypeError, OverflowError), match=message):
        made(**{field: value})


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(sorted(codec.to_plain(attribution()))), JSON)
def test_any_other_value_of_a_field_gives_an_attribution_or_a_named_error(field, value):
    head = b'{"format":"tl_jacobian.attribution","version":2,"sha256":"'
    tail = b'","value":' + json.dumps({**codec.to_plain(attribution()), field: codec._plain(value)}).encode() + b"}\n"
    blank = head + b"0" * 64 + tail
    content = blank.replace(b"0" * 64, codec._checksum(blank), 1)
    try:
        loaded = codec.decode(content, {"tl_jacobian.attribution": Attribution})
    except AttributionFileError:
        return
    assert isinstance(loaded, Attribution)


def test_rows_of_all_lengths_are_read_where_the_caller_checks_shapes(tmp_path):
    rows = (attribution((1.0,)), attribution((1.0, 2.0)))
    m = AttributionMap(attributions=rows, next_texts=("a", None))
    m.save(tmp_path / "m")

    @jaxtyped(typechecker=None)
    def caller():
        return AttributionMap.load(tmp_path / "m")

    assert caller() == m


def test_fields_for_records_of_other_files():
    fields = json.loads(json.dumps(codec.to_plain(grid())))
    assert codec.from_plain(type(grid()), fields) == grid()
