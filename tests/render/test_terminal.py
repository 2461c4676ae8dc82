"""Panels in the terminal, with colour, without, and on consoles that can't show everything."""

from __future__ import annotations

import io
import re
from typing import Any

import panel_samples as samples
import pytest
from panel_samples import NAN, PARTS, contributions, grid, heat, nasty_strip, paris, predicted, row, strip
from rich.cells import cell_len
from rich.console import Console

from tl_jacobian import render
from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.panels import Bar, Bars, Panel

ANSI = re.compile(r"\x1b\[[0-9;]*m")
PAINTED = re.compile(r"\x1b\[(?:\d;)?38;2;[\d;]+;48;2;(\d+);(\d+);(\d+)m([^\x1b]*)\x1b\[0m")
VALUES = samples.VALUES


def printed(*panels: Panel, encoding: str = "utf-8", **console: Any) -> str:
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding=encoding, newline="\n")
    render.terminal(panels, console=Console(file=stream, **{"width": 100, **console}))
    stream.flush()
    return buffer.getvalue().decode(encoding)


@pytest.fixture(autouse=True)
def dark(monkeypatch):
    monkeypatch.setenv("COLORFGBG", "15;0")


def coloured(*panels: Panel, **options: Any) -> str:
    return printed(*panels, force_terminal=True, color_system="truecolor", **options)


# -- texts on colours -----------------------------------------------------------------


def test_background_follows_the_value():
    found = PAINTED.findall(coloured(paris(hidden=(0,))))
    red = {text: int(r) for r, _, _, text in found if text.strip()}
    assert sorted(red, key=red.__getitem__, reverse=True) == [" France", " capital", " is", "The", " of"]


def test_a_hidden_token_is_drawn_without_colour():
    output = coloured(paris(hidden=(0,)))
    assert "\x1b[2;9m<|bos|>" in output
    assert "first '<|bos|>' left out" in output
    assert re.search(r"^0 +12  range 1 to 12,", ANSI.sub("", output), re.MULTILINE)


def test_legend_and_distribution_are_there():
    text = ANSI.sub("", coloured(paris(legend=("logits",)), predicted()))
    assert re.search(r"^0 +30  logits, range 1 to 30$", text, re.MULTILINE)
    assert re.search(r"' Paris' +75.0% +█{20}", text)
    assert re.search(r"'<b>↵' +5.0% +█▍\s", text)


def test_signed_values_have_two_colours_and_a_symmetric_legend():
    output = coloured(strip(["a", "b"], [-1.0, 2.0]))
    (_, _, blue_a, _), (_, _, blue_b, _) = [hit for hit in PAINTED.findall(output) if hit[3] in {"a", "b"}]
    assert int(blue_a) > 60 > int(blue_b)
    assert re.search(r"^-2 +2 ", ANSI.sub("", output), re.MULTILINE)


def test_a_light_terminal_gets_light_colours(monkeypatch):
    panel = strip(["a", "b"], [1.0, 10.0])
    dark = PAINTED.findall(coloured(panel))[0]
    monkeypatch.setenv("COLORFGBG", "0;15")
    light = PAINTED.findall(coloured(panel))[0]
    assert int(dark[0]) < 80 < 200 < int(light[0])


@pytest.mark.parametrize(
    "console",
    [
        {},
        {"no_color": True, "force_terminal": True},
        *({"force_terminal": True, "color_system": system} for system in ("standard", "256", "truecolor")),
    ],
)
def test_the_highest_values_are_listed(console):
    text = ANSI.sub("", printed(paris(hidden=(0,)), predicted(), **console))
    assert "<|bos|>The capital of France is" in text
    rows = re.findall(r"^ *(\d+)  '(.*?)' +([\d.]+)  (█+)", text, re.MULTILINE)
    assert [(int(i), t, float(s)) for i, t, s, _ in rows][:2] == [(4, " France", 12.0), (2, " capital", 9.0)]
    assert [len(bar) for *_, bar in rows] == sorted((len(bar) for *_, bar in rows), reverse=True)
    assert len(rows) == 5
    assert re.search(r"' Paris' +75.0%", text)


def test_no_more_than_ten_are_listed():
    text = printed(strip([f" t{i}" for i in range(30)]))
    assert "10 highest scores of 30" in text
    assert len(re.findall(r"^ *\d+  ' t", text, re.MULTILINE)) == 10


def test_no_color_variable_is_respected(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    output = printed(paris(), force_terminal=True)
    assert not re.search(r"\x1b\[[0-9;]*[34]8;", output)
    assert "highest scores of 6" in output


def test_a_newline_token_breaks_the_line():
    assert "a↵\nb" in ANSI.sub("", coloured(strip(["a", "\n", "b"])))


def test_estimates_say_how_precise_they_are():
    def of(values, errors):
        return strip(["a", "b"], rows=[row(values, errors=errors)])

    assert "standard error ±1.0% on average" in printed(of([2.0, 4.0], (0.02, 0.04)))
    assert "standard error" not in printed(strip(["a", "b"], [2.0, 4.0]))
    assert "±0.0%" in printed(of([0.0, 0.0], (0.0, 0.0)))


def test_a_comparison_has_a_text_and_a_legend_each():
    rows = [row([1.0, 2.0], label="Semantic Scope"), row([2e-4, -1e-4], label="Fisher Scope")]
    text = ANSI.sub("", coloured(strip(["a", "b"], rows=rows, title="2 attributions")))
    assert text.count("ab\n") == 2
    assert re.search(r"^0 +2  range", text, re.MULTILINE)
    assert re.search(r"^-0.0002 +0.0002  range", text, re.MULTILINE)


def test_framed_words_are_in_brackets_and_the_strongest_named():
    for text in (printed(samples.words_of_alignment()), ANSI.sub("", coloured(samples.words_of_alignment()))):
        assert "X: rot ist = [red] is." in text
        assert "source words hold 38%" in text
        assert re.search(r"' rot' +4", text)
    assert "\x1b[2m is" in coloured(samples.words_of_alignment()), "what comes after is pale"


def test_of_a_choice_each_rows_strongest_are_listed():
    lines = printed(samples.map_strip()).splitlines()
    assert "4 ' is' → ' Paris'    ' is' 5, ' France' 4, ' of' 3" in [line.rstrip() for line in lines]
    assert "'The' 1" not in "".join(lines)


# -- heat maps -------------------------------------------------------------------------


def test_without_colour_there_are_numbers():
    lines = printed(grid(facts=("demo",))).splitlines()
    assert lines[:2] == ["influence on logit of ' Paris'", "2 layers × 3 tokens, demo"]
    assert [line.split() for line in lines[3:6]] == [
        ["layer", "t0", "t1", "t2"],
        ["0", "50.00", "1.00", "-"],
        ["1", "40.00", "-2.00", "4.00"],
    ]
    assert lines[7] == "logits, first ' t0' left out (up to 50), -: none"


def test_colours_follow_the_values_without_the_hidden_column():
    output = coloured(grid())
    painted = {text.strip(): (int(r), int(b)) for r, _, b, text in PAINTED.findall(output)}
    assert set(painted) >= {"1.00", "-2.00", "4.00"}
    assert "50.00" not in painted
    assert painted["4.00"][0] > painted["1.00"][0]
    assert painted["-2.00"][1] > painted["4.00"][1]
    assert re.search(r"^-4 +4$", ANSI.sub("", output), re.MULTILINE), "the colour bar"


def test_rows_of_their_own_scale_are_painted_alike():
    output = coloured(samples.map_heat())
    full = {text.strip(): r for r, _, _, text in PAINTED.findall(output) if text.strip()}
    assert full["2.00"] != full["5.00"] or "each row" in output
    assert "each row on its own scale" in output


def test_a_row_ends_early():
    lines = [line.split() for line in printed(samples.map_heat()).splitlines()[4:8]]
    assert [len(line) for line in lines] == [4, 5, 6, 7]


@pytest.mark.parametrize("width", [120, 80, 50, 30, 20])
@pytest.mark.parametrize("paint", [True, False])
def test_no_line_of_a_heat_map_is_wider_than_the_terminal(width, paint):
    values = [[float((i * 7 + j * 3) % 11 - 5) for j in range(40)] for i in range(5)]
    names = tuple(f"blocks.{i}.hook_post" for i in range(5))
    panel = heat(values, ["日本語", " the", "", "\n"] * 10, rows=names)
    out = ANSI.sub("", (coloured if paint else printed)(panel, width=width))
    assert max(map(cell_len, out.splitlines())) <= width
    assert len([line for line in out.splitlines() if "post" in line]) == 5, "a row is one line"


def test_colours_alone_where_numbers_do_not_fit():
    panel = heat([[float(i) for i in range(1, 13)]] * 2, [f" word{i}" for i in range(12)])
    assert "12.0" in ANSI.sub("", coloured(panel, width=80))
    narrow = ANSI.sub("", coloured(panel, width=45))
    assert "12.0" not in narrow.splitlines()[4]
    assert "strongest" not in narrow, "all columns fit"
    assert "wo" in narrow.splitlines()[3]


def test_what_does_not_fit_is_said_and_the_strongest_is_kept():
    values = [[1.0] * 50 for _ in range(100)]
    values[77][33] = 9.0
    out = printed(heat(values, rows=tuple(f"r{i}" for i in range(100))), width=40)
    assert re.search(r"the strongest 64 of 100\s+layers", out)
    assert re.search(r"the\s+strongest\s+\d+\s+of\s+50\s+tokens", out)
    assert re.search(r"^ *r77 .*9\.00", out, re.MULTILINE)
    assert "t33" in out.splitlines()[3]


@pytest.mark.parametrize(
    ("factor", "cell", "unit"),
    [(1, "4.00", ""), (0.1, "0.400", ""), (1e-5, "40.0", "units of 1e-06"), (1e4, "40.0", "units of 1000")],
)
def test_numbers_are_short_in_any_unit(factor, cell, unit):
    out = printed(heat([[v * factor for v in values] for values in VALUES], hidden=(0,)))
    assert cell in out.split()
    assert unit in out
    assert bool(unit) == ("in units of" in out)


def test_there_is_no_negative_zero():
    assert "-0.00" not in printed(heat([[1.0, -0.001]]))


def test_long_names_are_told_apart_by_their_ends():
    rows = ("blocks.10.hook_resid_pre_of_the_model", "blocks.10.hook_resid_mid_of_the_model")
    out = printed(heat([[1.0], [2.0]], rows=rows), width=60)
    assert "..d_pre_of_the_model" in out
    assert "..d_mid_of_the_model" in out


def test_framed_cells_have_a_mark():
    out = printed(samples.links())
    assert "0.670*" in out
    assert "0.890+" in out
    assert "*: in a frame, +: dashed" in out


# -- bars ------------------------------------------------------------------------------------


def test_a_bar_for_each_part_on_its_side():
    out = printed(contributions(PARTS), width=80).splitlines()
    assert out[:2] == ["logit of ' Paris' = 5.25", "the parts add up to it, demo"]
    sides = {line[:16].strip(): [side.count("█") for side in line.split("│")] for line in out[3:9]}
    assert sides["1.attn"] == [0, 32]
    assert sides["0.attn"] == [8, 0]
    assert sides["embed"] == [0, 16]


def test_the_largest_of_very_many_bars_in_order():
    out = printed(contributions({f"p{i}": float(i) for i in range(100)}))
    assert "80 of 100 shown, the largest" in out
    assert re.findall(r"^p(\d+) ", out, re.MULTILINE) == [str(i) for i in range(20, 100)]


def test_errors_and_shares():
    out = printed(Bars(bars=(Bar(name="a", value=0.5, error=0.01), Bar(name="b", value=NAN)), percent=True))
    assert "50.0% ± 1.0%" in out
    assert "none" in out


def test_kinds_are_named_where_there_is_colour():
    out = ANSI.sub("", coloured(contributions(PARTS)))
    assert "█ attn  █ mlp  █ other" in out


# -- curves and tables ------------------------------------------------------------------------


def test_a_chart_has_axes_marks_and_names():
    out = printed(samples.evaluation())
    assert "fall of the log-probability (nats)" in out
    assert "tokens removed, highest scores first (%)" in out
    assert "* random  o semantic  + fisher" in out
    rows = [line.split("│", 1) for line in out.splitlines() if "│" in line]
    top, bottom = rows[1], rows[-2]
    assert "+" in top[1], "the largest is on top"
    assert "*" in bottom[1]
    assert any("10" in tick for tick, _ in rows)
    assert re.search(r"^ +5 +10 +15 +20", out, re.MULTILINE)


def test_the_curves_below_and_beside_are_charts_too():
    out = printed(samples.series(hidden=1))
    for text in ("* value", "█ influence", "█ forecast", ": truth", "first point left out (would be 50)"):
        assert text in out


def test_where_there_is_no_room_there_are_numbers():
    out = printed(samples.evaluation(curves=samples.evaluation().curves[:1]), width=30)
    assert "*" not in out
    assert re.search(r"20 │ +2.8", out)


def test_tables_are_shaded_where_there_is_colour():
    assert "' a' 50% *" in printed(samples.edits())
    shaded = {text.strip() for *_, text in PAINTED.findall(coloured(samples.edits()))}
    assert {"3", "2", "-1", "+0.5"} <= shaded
    assert "+0" not in shaded
    lines = [line.rstrip() for line in printed(samples.edits()).splitlines()]
    assert lines[3:5] == ["a b↵", "c d"]


# -- anything -----------------------------------------------------------------------------------


@pytest.mark.parametrize("panel", samples.every_nasty_kind(), ids=lambda p: type(p).__name__)
def test_control_sequences_and_markup_are_shown_as_text(panel):
    for output in (printed(panel), ANSI.sub("", coloured(panel))):
        assert "\x1b" not in output
        assert "\x00" not in output
        assert "\u202e" not in output
        assert r"\x1b[31m" in output.replace("\n", "") or not isinstance(panel, Bars)
    assert printed(panel, encoding="ascii").isascii()


def test_text_that_the_encoding_lacks_is_escaped():
    output = printed(nasty_strip(), predicted(), encoding="ascii")
    assert r"\u05e9" in output
    assert "####" in output
    assert "[red]markup[/red]" in output


@pytest.mark.parametrize("width", [20, 60])
@pytest.mark.parametrize("panel", [*samples.every_kind(), *samples.every_nasty_kind()], ids=lambda p: type(p).__name__)
def test_lines_fit_the_console(panel, width):
    for output in (printed(panel, width=width), coloured(panel, width=width)):
        assert max(cell_len(line) for line in ANSI.sub("", output).splitlines()) <= width


@pytest.mark.parametrize("panel", samples.every_empty_kind(), ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("width", [20, 80])
def test_empty_panels(panel, width):
    printed(panel, width=width)
    coloured(panel, width=width)


def test_views_are_respected_and_nothing_is_refused():
    out = printed(paris(title="one"), paris(title="two", views=("page",)))
    assert "one" in out
    assert "two" not in out
    with pytest.raises(ArgumentError, match="none of these 1 panels has a picture for terminals"):
        printed(paris(views=("page",)))
    with pytest.raises(ArgumentError, match="got an empty list"):
        printed()


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_panel_is_refused():
    for draw in (render.terminal, render.page, render.notebook, render.figure, render.markdown):
        with pytest.raises(ArgumentError, match="can't draw str, expected panels"):
            draw(["a"])  # pyright: ignore[reportArgumentType]


def test_show_prints(capsys):
    render.show([paris(), predicted()])
    assert "Semantic Scope" in capsys.readouterr().out


def test_show_displays_html_in_a_kernel(kernel, capsys):
    render.show([paris(hidden=(0,))])
    assert str(kernel[0]).startswith("<style>")
    assert "left out of the colour range" in kernel[0]
    assert capsys.readouterr().out == ""
