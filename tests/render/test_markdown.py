"""Panels as Markdown: their numbers, and text that stays text."""

from __future__ import annotations

import re

import panel_samples as samples
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tl_jacobian import render
from tl_jacobian.errors import ArgumentError
from tl_jacobian.render.markdown import escaped


def test_a_table_with_its_heading_and_notes():
    lines = render.markdown([samples.edits()]).splitlines()
    assert lines[:5] == ["**Counterfactuals**: log-probability", "", "scores: semantic", "", "a b↵c d"]
    assert lines[6:9] == [
        "| word | score | edit | change | predicted |",
        "| --- | ---: | --- | ---: | --- |",
        r"| 3 d | 3 | removed | -1 | ' a' 50% \* |",
    ]
    assert lines[-1] == "Spearman 0.50 (p = 0.100, one-sided)"


def test_every_kind_has_its_numbers():
    text = render.markdown(samples.every_kind())
    for found in (
        "| 4 | ' France' | 12 |",
        "| ' Paris' | 75.0% |",
        "| red | ' rot' 4, ' ist' 2 |",
        r"| 0 | 50 | 1 | \- |",
        "| 0.attn | attn | -1 |",
        "| 5 | 0.7 [0.3, 1.2] | 8 [7.6, 8.5] | 7.7 [7.3, 8.2] |",
        "| measured | signs agree |",
    ):
        assert found in text, found
    assert "| 0 | ' <" not in text, "the first token is left out"
    assert "first '&lt;\\|bos\\|&gt;' left out" in text


@given(st.text(st.characters()))
def test_nothing_in_a_text_is_markup(text):
    shown = escaped(text)
    assert "\n" not in shown
    assert "<" not in shown
    assert not re.search(r"(?<!\\)(?:\\\\)*[|`*_$]", shown)
    assert not re.search(r"(?<!\\)\]\(", shown)


def test_texts_full_of_markup_keep_every_tables_shape():
    text = render.markdown(samples.every_nasty_kind())
    assert "<script" not in text
    assert "<img" not in text
    assert "\x1b" not in text
    for block in text.split("\n\n"):
        if block.startswith("|"):
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(widths) == 1, block


def test_nothing_is_refused():
    with pytest.raises(ArgumentError, match="nothing to draw: got an empty list"):
        render.markdown([])


@pytest.mark.parametrize("panel", samples.every_empty_kind(), ids=lambda p: type(p).__name__)
def test_empty_panels(panel):
    assert render.markdown([panel])
