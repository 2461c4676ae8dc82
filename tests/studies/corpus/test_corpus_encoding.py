"""Records as bytes and back, in either format."""

from __future__ import annotations

import io
import json

import hypothesis.strategies as st
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from tl_jacobian.studies.corpus.store import decoded, encoded

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False), TEXT
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)


@st.composite
def shards(draw):
    """Results with the same names, and errors among them."""
    names = draw(
        st.lists(TEXT.filter(lambda n: n not in ("prompt", "id", "error")), unique=True, min_size=1, max_size=3)
    )
    records = []
    for prompt in range(draw(st.integers(1, 4))):
        head = {"prompt": prompt, "id": draw(TEXT)}
        good = draw(st.booleans())
        records.append({**head, **{n: draw(VALUES) for n in names}} if good else {**head, "error": draw(TEXT)})
    return records


@settings(deadline=None, max_examples=150)
@given(shards(), st.sampled_from(["jsonl", "parquet"]))
def test_records_come_back_as_they_were(records, format):
    back = decoded(encoded(records, format), format)
    if format == "parquet" and all("error" in r for r in records):
        assert back == records
    elif format == "jsonl":
        assert json.dumps(back) == json.dumps(records)
    else:
        assert [json.dumps(r, sort_keys=True) for r in back] == [json.dumps(r, sort_keys=True) for r in records]


def test_numbers_and_texts_are_columns_of_their_kind():
    record = {"prompt": 0, "id": "a", "scores": [0.5, 1.0], "tokens": [1, 2], "meta": {"k": [1]}, "mixed": [["a", 1]]}
    table = pq.read_table(io.BytesIO(encoded([record], "parquet")))
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds["prompt"] == "int64"
    assert "list<" in kinds["scores"]
    assert "double" in kinds["scores"]
    assert "int64" in kinds["tokens"]
    assert kinds["meta"] == kinds["mixed"] == "string"


RESULT = {"prompt": 0, "id": "a", "n": 1, "scores": [0.5], "meta": {"k": 1}, "stderr": None}
FAILED = {"prompt": 1, "id": "b", "error": "too long"}
EXAMPLE = {"n": 1, "scores": [0.5], "meta": {}, "stderr": [0.5]}


def schema_of(records, example=EXAMPLE):
    data = encoded(records, "parquet", example)
    assert decoded(data, "parquet") == records
    return pq.read_schema(io.BytesIO(data))


def test_every_shard_has_a_column_of_errors():
    for records in ([RESULT], [FAILED], [RESULT, FAILED]):
        field = schema_of(records, example={}).field("error")
        assert (str(field.type), field.nullable) == ("string", True)


def test_shards_of_one_job_have_one_schema():
    """Of results, of errors alone, without a value in a column or with values in any."""
    whole = schema_of([RESULT])
    assert str(whole.field("stderr").type) == str(whole.field("scores").type)
    for records in ([FAILED], [RESULT, FAILED], [{**RESULT, "stderr": [1.5], "meta": {}}], [{**RESULT, "scores": []}]):
        assert schema_of(records).equals(whole, check_metadata=True)


@pytest.mark.parametrize("value", ["text", [1], {"a": 1}, 2**70, True, 1.5])
def test_a_value_that_does_not_fit_the_example_is_kept(value):
    assert schema_of([{**RESULT, "n": value}]).names[:4] == ["prompt", "id", "error", "n"]


@pytest.mark.parametrize("value", [[1, 2.0], [True, 1], [1, "a"], 2**70, [None, []], {}])
def test_values_that_parquet_would_change_are_kept(value):
    records = [{"prompt": 0, "id": "a", "x": value}, {"prompt": 1, "id": "b", "x": None}]
    back = decoded(encoded(records, "parquet"), "parquet")
    assert json.dumps(back) == json.dumps(records)


def test_one_record_is_one_line_of_ascii():
    data = encoded([{"prompt": 0, "id": "é\u2028\n", "x": "🙂"}], "jsonl")
    assert data.count(b"\n") == 1
    assert data.isascii()
    assert decoded(data, "jsonl")[0]["id"] == "é\u2028\n"
