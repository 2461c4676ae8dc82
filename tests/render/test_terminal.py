"""The terminal view, with colour, without, and on consoles that can't show everything."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console

from tl_jacobian.render import render_terminal
from tl_jacobian.results.attribution import Attribution

Make = Callable[..., Attribution]

ANSI = re.compile(r"\x1b\[[0-9;]*m")
PAINTED = re.compile(r"\x1b\[38;2;[\d;]+;48;2;(\d+);(\d+);(\d+)m([^\x1b]*)\x1b\[0m")


def printed(attribution: Attribution, *, skip_first: bool = False, encoding: str = "utf-8", **console: Any) -> str:
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding=encoding, newline="\n")
    render_terminal(attribution, skip_first=skip_first, console=Console(file=stream, **{"width": 100, **console}))
    stream.flush()
    return buffer.getvalue().decode(encoding)


def coloured(attribution: Attribution, **options: Any) -> str:
    return printed(attribution, force_terminal=True, color_system="truecolor", **options)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORFGBG", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def test_background_follows_the_score(paris: Attribution) -> None:
    red = {text: int(r) for r, _, _, text in PAINTED.findall(coloured(paris, skip_first=True)) if text.strip()}
    ranked = sorted(red, key=red.__getitem__, reverse=True)
    assert ranked == [" France", " capital", " is", "The", " of"]


def test_the_skipped_token_is_drawn_without_colour(paris: Attribution) -> None:
    output = coloured(paris, skip_first=True)
    assert "\x1b[2;9m<|bos|>" in output
    assert "first left out" in output


def test_legend_and_distribution_are_there(paris: Attribution) -> None:
    text = ANSI.sub("", coloured(paris))
    assert re.search(r"^0 +30  range 1 to 30$", text, re.MULTILINE)
    assert re.search(r"' Paris' +75.0% +█{20}", text)
    assert re.search(r"'<b>↵' +5.0% +█▍\s", text)


def test_signed_scores_have_two_colours_and_a_symmetric_legend(make: Make) -> None:
    output = coloured(make(["a", "b"], [-1.0, 2.0]))
    (_, _, blue_a, _), (_, _, blue_b, _) = [hit for hit in PAINTED.findall(output) if hit[3] in {"a", "b"}]
    assert int(blue_a) > 60 > int(blue_b)
    assert re.search(r"^-2 +2 ", ANSI.sub("", output), re.MULTILINE)


def test_a_light_terminal_gets_light_colours(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    attribution = make(["a", "b"], [1.0, 10.0])
    dark = PAINTED.findall(coloured(attribution))[0]
    monkeypatch.setenv("COLORFGBG", "0;15")
    light = PAINTED.findall(coloured(attribution))[0]
    assert int(dark[0]) < 80 < 200 < int(light[0])


@pytest.mark.parametrize("console", [{}, {"no_color": True, "force_terminal": True}])
def test_without_colour_the_highest_scores_are_listed(paris: Attribution, console: dict[str, Any]) -> None:
    text = ANSI.sub("", printed(paris, skip_first=True, **console))
    assert "<|bos|>The capital of France is" in text
    rows = re.findall(r"^ *(\d+)  '(.*?)' +([\d.]+)  (█+)", text, re.MULTILINE)
    assert [(int(i), t, float(s)) for i, t, s, _ in rows][:2] == [(4, " France", 12.0), (2, " capital", 9.0)]
    assert [len(bar) for *_, bar in rows] == sorted((len(bar) for *_, bar in rows), reverse=True)
    assert len(rows) == 5
    assert re.search(r"' Paris' +75.0%", text)


def test_no_color_variable_is_respected(paris: Attribution, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    output = printed(paris, force_terminal=True)
    assert not re.search(r"\x1b\[[0-9;]*[34]8;", output)
    assert "highest scores of 6" in output


def test_control_sequences_and_markup_are_shown_as_text(nasty: Attribution) -> None:
    output = printed(nasty)
    assert "\x1b" not in output
    assert "\x00" not in output
    assert "\u202e" not in output
    for text in (r"\x1b[31m", r"\x00", r"\u202e", "[red]markup[/red]", "<!--"):
        assert text in output


def test_text_that_the_encoding_lacks_is_escaped(nasty: Attribution) -> None:
    output = printed(nasty, encoding="ascii")
    assert r"\u05e9" in output
    assert "####" in output


@pytest.mark.parametrize("width", [20, 60])
def test_lines_fit_the_console(nasty: Attribution, width: int) -> None:
    for output in (printed(nasty, width=width), coloured(nasty, width=width)):
        assert max(cell_len(line) for line in ANSI.sub("", output).splitlines()) <= width


def test_a_newline_token_breaks_the_line(make: Make) -> None:
    assert "a↵\nb" in ANSI.sub("", coloured(make(["a", "\n", "b"])))


def test_scores_that_are_not_finite_are_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="only finite scores can be drawn"):
        printed(make(["a"], [float("inf")]))


def test_empty_and_zero_attributions_are_drawn(make: Make) -> None:
    for attribution in (make(["a", "b"], [0.0, 0.0]), make(["a"], [2.0])):
        for skip_first in (True, False):
            assert "Semantic Scope" in coloured(attribution, skip_first=skip_first)
            assert "Semantic Scope" in printed(attribution, skip_first=skip_first)


def test_estimates_say_how_precise_they_are(make: Make) -> None:
    exact = make(["a", "b"], [2.0, 4.0])
    estimated = dataclasses.replace(exact, stderr=torch.tensor([0.02, 0.04]))
    assert "standard error ±1.0% on average" in printed(estimated)
    assert "standard error" not in printed(exact)
    assert "±0.0%" in printed(dataclasses.replace(exact, scores=torch.zeros(2), stderr=torch.zeros(2)))
