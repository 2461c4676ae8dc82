"""Grids as static HTML: the table or the picture, what a script gets, and text that stays text."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
from test_map import decode

from tl_jacobian.errors import ArgumentError
from tl_jacobian.render import grid_figure, heatmap
from tl_jacobian.results.grid import Grid
from tl_jacobian.results.tokens import visible

MakeGrid = Callable[..., Grid]
NAN = math.nan
VALUES = ((50.0, 1.0, NAN), (40.0, -2.0, 4.0))


def without_scripts(g: Grid, tmp_path: Path, **options: Any) -> str:
    html = g.to_html(tmp_path / "grid.html", **options).read_text(encoding="utf-8")
    return re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)


def cells(html: str) -> list[list[tuple[str, str]]]:
    """Colour and title of every cell, row by row."""
    rows = html.split("<tr>")[2:]
    found = [re.findall(r'<td[^>]*style="background-color:(#\w+)" title="([^"]*)"', row) for row in rows]
    return [[(color, unescape(title)) for color, title in row] for row in found]


def call(g: Grid, **options: Any) -> dict[str, Any]:
    """What the runtime is called with."""
    script = grid_figure.grid_figure(g, "x", **options).script
    return json.loads(re.search(r"mountGrid\((.*)\);\n", script)[1])


def test_colours_follow_the_values_on_one_scale_without_the_first_token(make_grid, tmp_path):
    table = cells(without_scripts(make_grid(VALUES), tmp_path))
    assert [[title for _, title in row] for row in table] == [
        ["layer 0, token 0 ' t0': 50", "layer 0, token 1 ' t1': 1", "layer 0, token 2 ' t2': none"],
        ["layer 1, token 0 ' t0': 40", "layer 1, token 1 ' t1': -2", "layer 1, token 2 ' t2': 4"],
    ]
    assert [row[0][0] for row in table] == ["#80808040"] * 2, "left out of the colours"
    opacity = [[int(color[7:], 16) / 255 / 0.7 for color, _ in row] for row in table]
    assert opacity[0][1] == pytest.approx(1 / 4, abs=0.01), "full colour is the whole grid's largest, 4"
    assert opacity[1][1:] == pytest.approx([2 / 4, 1], abs=0.01)
    assert [color[:7] for color, _ in table[1]][1:] == ["#0072b2", "#d55e00"]


def test_the_first_token_can_be_drawn(make_grid, tmp_path):
    html = without_scripts(make_grid(VALUES), tmp_path, skip_first=False)
    (color, _), *_ = cells(html)[0]
    assert int(color[7:], 16) == round(255 * 0.7)
    assert "left out" not in html


def test_gaps_are_hatched_and_named(make_grid, tmp_path):
    html = without_scripts(make_grid(VALUES), tmp_path)
    assert html.count('<td class="tlj-none"') == 1
    assert "hatched: no value" in html
    assert "hatched" not in re.sub(r"<style>.*?</style>", "", without_scripts(make_grid(((1.0, 2.0),)), tmp_path))


def test_the_page_says_what_it_shows(make_grid, tmp_path):
    html = unescape(without_scripts(make_grid(VALUES, metadata={"model": "demo", "host": "bridge"}), tmp_path))
    for text in (
        "<title>influence on logit of ' Paris'</title>",
        "<b>influence on logit of ' Paris'</b> <bdi>2 layers × 3 tokens</bdi>",
        "<bdi>demo</bdi> · <bdi>bridge</bdi>",
        "layer ↓  token →",
        "<span>−4</span>",
        "<bdi>logits</bdi> · <bdi>range -2 to 4</bdi> · <bdi>strongest: layer 1, token 2 ' t2'</bdi>",
        "first ' t0' left out (up to 50)",
        "<bdi>1  t1</bdi>",
    ):
        assert text in html, text


def test_a_grid_that_is_not_signed_has_one_colour(make_grid, tmp_path):
    g = make_grid(((1.0, 2.0),), column_axis="head", signed=False)
    html = without_scripts(g, tmp_path)
    assert "<span>0</span>" in html
    assert "#0072b2" not in html
    signed = without_scripts(make_grid(((1.0, 2.0),), column_axis="head"), tmp_path)
    assert "<span>−2</span>" in signed, "also where no number happens to be negative"


def test_a_single_token_is_not_left_out(make_grid, tmp_path):
    assert "left out" not in without_scripts(make_grid(((1.0,), (2.0,))), tmp_path)


def test_other_columns_are_never_left_out_and_need_no_script(make_grid, tmp_path):
    g = make_grid(VALUES, column_axis="head", columns=("0", "1", "2"))
    html = g.to_html(tmp_path / "grid.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert "script-src 'none'" in html
    assert "left out" not in html
    assert "writing-mode" not in html, "short names stand upright"
    with pytest.raises(ArgumentError, match="this grid's columns are heads; expected skip_first=False"):
        g.to_html(tmp_path / "grid.html", skip_first=True)


def test_nothing_but_gaps_and_zeros_can_be_drawn(make_grid, tmp_path):
    for value in (NAN, 0.0):
        table = cells(without_scripts(make_grid(torch.full((2, 2), value)), tmp_path))
        assert [len(row) for row in table] == [2, 2]


def test_text_full_of_markup_is_text(nasty_grid, tmp_path):
    html = without_scripts(nasty_grid, tmp_path)
    assert not re.search(r"<(script|img)\b", html)
    assert "\u202e" not in html
    whole = (tmp_path / "grid.html").read_text(encoding="utf-8")
    assert whole.count("</script>") == 3
    assert "default-src 'none'" in whole


def test_many_cells_become_a_picture_with_its_axes_in_words(make_grid, tmp_path):
    values = torch.zeros(60, 200)
    values[0, 1:4] = torch.tensor([2.0, -1.0, NAN])
    html = without_scripts(make_grid(values), tmp_path)
    assert "<td" not in html
    found = re.search(r'<img src="data:image/png;base64,([^"]*)" width="760" height="228" alt="([^"]*)"', html)
    assert found[2] == "Heat map: 60 layers × 200 tokens, layers from top to bottom, tokens from left to right"
    pixels = decode(base64.b64decode(found[1]))
    assert (len(pixels), len(pixels[0])) == (60, 200)
    full = round(255 * 0.7)
    assert pixels[0][:4] == [heatmap._SKIPPED, (213, 94, 0, full), (0, 114, 178, round(255 * 0.35)), heatmap._NONE]


def test_a_picture_of_many_rows_is_no_tower(make_grid, tmp_path):
    html = without_scripts(make_grid(torch.zeros(1200, 6)), tmp_path)
    assert 'width="760" height="760"' in html


def test_many_rows_scroll(make_grid, tmp_path):
    assert "max-height:620px" in without_scripts(make_grid(torch.zeros(60, 3)), tmp_path)
    assert "max-height:620px" not in without_scripts(make_grid(torch.zeros(30, 3)), tmp_path)


# -- what a script gets -----------------------------------------------------------------


def test_every_row_is_a_button_on_one_scale(make_grid):
    props = call(make_grid(VALUES, rows=("0.attn", "\x1b[31m")))
    assert props["labels"] == ["0.attn", visible("\x1b[31m")]
    assert props["columns"] == [[50, 1, None], [40, -2, 4]]
    assert (props["limit"], props["skipped"]) == (4, 1)
    assert props["caption"] == "one layer at a time, all on the scale above"


def test_small_numbers_get_a_unit_that_six_decimals_can_show(make_grid):
    props = call(make_grid(torch.tensor(VALUES) * 1e-7))
    assert props["limit"] == pytest.approx(4)
    assert props["columns"][1] == pytest.approx([40, -2, 4])
    assert props["caption"].endswith("; the numbers are in units of 1e-07")


@pytest.mark.parametrize("shape", [(131, 3), (100, 201)])
def test_too_many_rows_or_cells_need_no_script(make_grid, shape):
    assert grid_figure.grid_figure(make_grid(torch.ones(shape)), "x").script == ""


def test_a_notebook_holds_the_bundle_once_and_only_if_needed(make_grid):
    heads, tokens = make_grid(VALUES, column_axis="head"), make_grid(VALUES)
    assert [g._repr_html_().count("</script>") for g in (heads, tokens, tokens, heads)] == [0, 3, 1, 0]
