"""Serialising: every kind of tokenizer there is, round trips, and what is refused."""

from __future__ import annotations

import hypothesis.strategies as st
import number_tokenizers as kinds
import numpy as np
import pandas as pd
import pytest
import torch
from cases import shared
from cases import tokenizer as byte_tokenizer
from hypothesis import given, settings

from tl_jacobian.errors import ArgumentError, PromptError
from tl_jacobian.studies.timeseries import serialize

GOOD = [byte_tokenizer, kinds.digit_per_token, kinds.up_to_three_digits, kinds.dummy_prefix]
WIDTHS = {"up_to_three_digits": {1: 1, 2: 1, 3: 1}}
every_kind = pytest.mark.parametrize("tokenizer", GOOD, ids=lambda kind: kind.__name__)


@every_kind
@pytest.mark.parametrize("digits", [1, 2, 3])
@given(data=st.data())
@settings(max_examples=3, deadline=None)
def test_round_trip(tokenizer, digits, data):
    low = 10 ** (digits - 1) if digits > 1 else 0
    high = 10**digits - 1
    integers = data.draw(st.lists(st.integers(low, high), min_size=2, max_size=20))
    separator = data.draw(st.sampled_from([",", ";", " ", ", ", "|"]))
    bos_too = data.draw(st.booleans())
    options = dict(digits=digits, separator=separator, data_range=(float(low), float(high)), prepend_bos=bos_too)
    series = serialize(integers, tokenizer(), **options)
    # numbers -> text -> tokens, by the tokenizer itself
    bos = [tokenizer().bos_token_id] if bos_too else []
    text = "".join(f"{i}{separator}" for i in integers)
    assert list(series.tokens) == bos + tokenizer().encode(text, add_special_tokens=False)
    assert series.text == text
    # tokens -> numbers
    assert series.integers.tolist() == integers
    assert list(series.codec.decode(series.tokens[series.groups[0][0] :])) == integers
    np.testing.assert_allclose(series.quantized, integers, atol=1e-9)
    # groups are the numbers' tokens, and nothing else
    width = WIDTHS.get(tokenizer.__name__, {}).get(digits, digits)
    for integer, (start, stop) in zip(integers, series.groups, strict=True):
        pieces = tokenizer().convert_ids_to_tokens(list(series.tokens[start:stop]))
        assert "".join(pieces) == str(integer)
        assert stop - start == width == series.codec.width
    assert series.groups[-1][1] == len(series.tokens) - len(series.codec.separator)


VARIED = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=2, max_size=30)


@given(VARIED.filter(lambda v: max(v) - min(v) > 1), st.integers(1, 3), st.floats(0, 2))
@settings(max_examples=10, deadline=None)
def test_values_come_back_up_to_rounding(values, digits, margin):
    series = serialize(values, kinds.digit_per_token(), digits=digits, margin=margin, prepend_bos=False)
    np.testing.assert_allclose(series.quantized, values, atol=series.scale * (0.5 + 1e-6))
    np.testing.assert_array_equal(series.to_numbers(series.values), series.integers)
    ends = series.to_data(np.array([series.codec.low, series.codec.high]))
    width = max(values) - min(values)
    np.testing.assert_allclose(ends, [min(values) - margin * width, max(values) + margin * width], atol=1e-6)


def test_three_digits_a_token_cut_four_in_the_same_place():
    series = serialize([1000.0, 9999.0], kinds.up_to_three_digits(), digits=4, margin=0.0, prepend_bos=False)
    assert kinds.up_to_three_digits().convert_ids_to_tokens(list(series.tokens)) == [
        "100", "0", ",", "999", "9", ",",
    ]  # fmt: skip
    assert series.codec.width == 2


def test_a_space_that_goes_with_the_number_is_refused_and_a_comma_is_not():
    tokenizer = kinds.merges_spaces_with_numbers()
    series = serialize([12.0, 34.0], tokenizer, data_range=(10.0, 99.0), prepend_bos=False)
    assert tokenizer.convert_ids_to_tokens(list(series.tokens)) == ["12", ",", "34", ","]
    with pytest.raises(ArgumentError, match=r"'10, 10' gives the tokens \['10', ',', ' 10'\], expected it to begin"):
        serialize([12.0, 34.0], tokenizer, separator=", ", data_range=(10.0, 99.0), prepend_bos=False)


@pytest.mark.parametrize(
    ("tokenizer", "digits", "message"),
    [
        (
            kinds.merges_some_digits,
            2,
            r"'10,12' gives the tokens \['1', '0', ',', '12'\], expected tokens of 1 \+ 1",
        ),
        (kinds.merges_some_digits, 3, r"'100,112' .*expected tokens of 1 \+ 1 \+ 1 digits, as in 100"),
        (kinds.merges_separators_with_digits, 2, r"'10,10' gives the tokens \['1', '0', ',1', '0'\]"),
        (kinds.merges_digits_with_separators, 2, r"'10,17,' gives the tokens .*'7,'\], expected it to begin"),
        (kinds.merging_dummy_prefix, 2, r"'10,' gives the tokens \['▁1', '0', ','\], expected it to end"),
        (kinds.merges_spaces_with_numbers, 3, r"expected it to begin with the tokens of|digits, as in 100"),
    ],
    ids=lambda case: getattr(case, "__name__", ""),
)
def test_tokenizers_that_merge_are_refused(tokenizer, digits, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        serialize([1.0, 2.0], tokenizer(), digits=digits, prepend_bos=False)
    assert "Try another separator" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        # each number alone is what it should be, and yet 55 and 56 in a row aren't
        ("55,56", "55|56", r"'… 54,55,56, …' gives .*'5', '5', '\|', '5', '6'.* expected .*'5', '5', ','"),
        ("10,55,", "10,55|", r"'10,55,' gives .*expected the separator to be \[','\] after 55 as after other numbers"),
    ],
)
def test_other_tokens_in_company_are_refused(old, new, message):
    tokenizer = kinds.digit_per_token()
    real = tokenizer.encode

    class Odd:
        bos_token_id = None
        convert_ids_to_tokens = staticmethod(tokenizer.convert_ids_to_tokens)

        @staticmethod
        def encode(text, add_special_tokens):
            return real(text.replace(old, new), add_special_tokens=add_special_tokens)

    with pytest.raises(ArgumentError, match=message):
        serialize([1.0, 2.0], Odd(), prepend_bos=False)


def test_a_models_own_setting_for_bos():
    model = shared("llama", "bridge")
    with_bos = serialize([1.0, 2.0, 3.0], model)
    assert model.cfg.default_prepend_bos
    assert with_bos.tokens[0] == byte_tokenizer().bos_token_id
    without = serialize([1.0, 2.0, 3.0], model, prepend_bos=False)
    assert with_bos.tokens[1:] == without.tokens
    assert with_bos.groups == tuple((a + 1, b + 1) for a, b in without.groups)


def test_decoding_what_a_model_wrote():
    codec = serialize([1.0, 2.0], kinds.digit_per_token(), prepend_bos=False).codec
    ids = kinds.digit_per_token().encode("12,99,34", add_special_tokens=False)
    assert codec.decode(ids) == (12, 99, 34)
    for text in ("12,9", "12,09,", "12;34", "1,,2", "12,345,"):
        with pytest.raises(PromptError, match="expected a number from 10 to 99 and the separator ','"):
            codec.decode(kinds.digit_per_token().encode(text, add_special_tokens=False))
    with pytest.raises(ArgumentError, match="7 can't be written, expected numbers from 10 to 99"):
        codec.encode([12, 7])


def test_arrays_of_other_kinds():
    expected = serialize([1.0, 2.0, 4.0], kinds.digit_per_token(), prepend_bos=False)
    whole = torch.tensor([1, 2, 4])
    for values in (whole, whole.numpy().astype(np.float32), (1, 2, 4), whole.half()):
        assert serialize(values, kinds.digit_per_token(), prepend_bos=False).tokens == expected.tokens


def test_the_result_owns_its_numbers():
    values = np.array([1.0, 2.0, 4.0])
    series = serialize(values, kinds.digit_per_token(), prepend_bos=False)
    values[0] = 9
    assert series.values[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        series.integers[0] = 3
    assert repr(series) == "SerializedSeries(3 numbers, 9 tokens: '17,42,92,')"


def test_the_context_says_how_many_numbers_fit():
    model = shared("llama", "bridge")  # 64 tokens: with BOS and one more digit to come, 20 numbers of 3 tokens
    assert len(serialize(np.arange(20.0), model).tokens) == 61
    with pytest.raises(PromptError, match=r"30 numbers take 91 tokens, .*n_ctx=64: at most 20 numbers fit, .*-20:\]"):
        serialize(np.arange(30.0), model)
    assert len(serialize(np.arange(20.0), model, prepend_bos=False)) == 20
    with pytest.raises(PromptError, match="at most 20 numbers fit"):
        serialize(np.arange(21.0), model)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([1.0, float("nan"), 2.0], {}, r"values\[1\] is nan \(1 of 3 aren't finite\)"),
        ([float("inf"), 1.0], {}, r"values\[0\] is inf"),
        ([[1.0, 2.0]], {}, r"values have shape \(1, 2\), expected \(n,\)"),
        ([1.0], {}, "values are 1 numbers, expected at least 2"),
        ([1j, 2.0], {}, "values have dtype complex128, expected real numbers"),
        (["a", "b"], {}, "expected real numbers"),
        ([[1.0], [2.0, 3.0]], {}, "can't read values as an array of numbers"),
        ([3.0, 3.0], {}, r"all 2 values are 3: pass data_range"),
        ([0.0, 5.0], {"data_range": (0, 4)}, r"values\[1\] is 5, outside data_range=\(0, 4\) \(1 of 2 are\)"),
        ([0.0, 5.0], {"data_range": (4, 0)}, r"data_range=\(4, 0\), expected low below high"),
        ([0.0, 5.0], {"data_range": 4}, r"data_range=4 is an int, expected \(a number, a number\) or None"),
        ([0.0, 5.0], {"margin": -0.1}, "margin=-0.1, expected a finite number, at least 0"),
        ([0.0, 5.0], {"digits": 0}, "digits=0, expected an integer, 1 to 4"),
        ([0.0, 5.0], {"digits": 5}, "digits=5, expected an integer, 1 to 4"),
        ([0.0, 5.0], {"separator": ""}, "separator='', expected text without digits"),
        ([0.0, 5.0], {"separator": " 0 "}, "separator=' 0 ', expected text without digits"),
        ([0.0, 5.0], {"prepend_bos": None}, "prepend_bos=None, expected True or False"),
        ([-1e308, 1e308], {"margin": 0.0}, "can't be rescaled in double precision"),
        ([1e16, 1e16 + 2], {}, "can't be rescaled in double precision"),
    ],
)
def test_bad_input_is_named(values, options, message, unchecked):
    with pytest.raises(ArgumentError, match=message):
        serialize(values, kinds.digit_per_token(), **{"prepend_bos": False, **options})


def test_what_isnt_a_tokenizer(unchecked):
    with pytest.raises(ArgumentError, match="got a dict, expected a TransformerLens model"):
        serialize([1.0, 2.0], {})
    odd = kinds.digit_per_token()
    bos, odd.bos_token = odd.bos_token, None
    try:
        with pytest.raises(ArgumentError, match="this tokenizer has no BOS token"):
            serialize([1.0, 2.0], odd, prepend_bos=True)
    finally:
        odd.bos_token = bos


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ma.array([1.0, 99.0, 3.0], mask=[0, 1, 0]), r"values\[1\] is masked \(1 of 3 are\): leave those out"),
        (pd.Series([1, pd.NA, 3], dtype="Int64"), r"values\[1\] is (nan|<NA>)"),
        (pd.Series([1.0, 2.0, pd.NA], dtype="Float64"), r"values\[2\] is (nan|<NA>)"),
        ([1.0, pd.NA, 3.0], r"values\[1\] is <NA> \(1 of 3 are missing\)"),
        ([1.0, 2.0, None], r"values\[2\] is None \(1 of 3 are missing\)"),
        ([1.0, np.nan, 3.0], r"values\[1\] is nan"),
    ],
    ids=str,
)
def test_what_is_missing_is_refused_by_its_place(values, message):
    with pytest.raises(ArgumentError, match=message):
        serialize(values, kinds.digit_per_token(), prepend_bos=False)


@pytest.mark.parametrize(
    "values",
    [np.ma.array([1.0, 2.0, 3.0], mask=[0, 0, 0]), np.ma.array([1, 2, 3]), pd.Series([1, 2, 3], dtype="Int64")],
    ids=["masked nowhere", "no mask", "nullable"],
)
def test_what_only_could_be_missing_is_read(values):
    given, plain = (serialize(v, kinds.digit_per_token(), prepend_bos=False) for v in (values, [1.0, 2.0, 3.0]))
    assert given.text == plain.text
