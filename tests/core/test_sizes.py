"""Amounts of memory as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tl_jacobian.core.memory import n_bytes, text_of
from tl_jacobian.errors import ArgumentError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8GiB", 8 * 1024**3),
        ("8 gib", 8 * 1024**3),
        (" 8GB ", 8 * 1000**3),
        ("1.5KiB", 1536),
        (".5 MB", 500_000),
        ("2TiB", 2 * 1024**4),
        ("100", 100),
        ("100B", 100),
        (100, 100),
    ],
)
def test_reading(text, expected):
    assert n_bytes(text) == expected


@pytest.mark.parametrize("bad", ["", "GiB", "8 Gib per second", "-1GiB", "8G", "1e3", "eight", "1.2.3MB", "inf"])
def test_text_that_is_no_size(bad):
    with pytest.raises(ArgumentError, match=r"isn't an amount of memory; expected a number and a unit, like '8GiB'"):
        n_bytes(bad)


@pytest.mark.parametrize(("bad", "kind"), [(1.5, "float"), (True, "bool"), (None, "NoneType"), ([8], "list")])
def test_things_that_are_no_size(unchecked, bad, kind):
    with pytest.raises(ArgumentError, match=f"is a {kind}, expected bytes as an int, or text like '8GiB'"):
        n_bytes(bad)


@pytest.mark.parametrize("bad", [0, -5, "0GiB", "0.1B"])
def test_nothing_is_no_budget(bad):
    with pytest.raises(ArgumentError, match="expected at least one"):
        n_bytes(bad)


@given(st.integers(1, 2**50))
def test_what_is_written_is_never_too_little(size):
    assert size <= n_bytes(text_of(size)) <= 1.1 * size + 1
