"""Grids in the terminal: what fits its width, with colour and without."""

from __future__ import annotations

import io
import math
import re
from typing import Any

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console
from test_terminal import ANSI, PAINTED, plain_environment  # noqa: F401  # a fixture

from tl_jacobian.render import render_grid_terminal
from tl_jacobian.results.grid import Grid

NAN = math.nan
VALUES = ((50.0, 1.0, NAN), (40.0, -2.0, 4.0))


def printed(g: Grid, *, encoding: str = "utf-8", width: int = 80, options: Any = (), **console: Any) -> str:
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding=encoding, newline="\n")
    render_grid_terminal(g, console=Console(file=stream, width=width, **console), **dict(options))
    stream.flush()
    return buffer.getvalue().decode(encoding)


def coloured(g: Grid, **options: Any) -> str:
    return printed(g, force_terminal=True, color_system="truecolor", **options)


def test_without_colour_there_are_numbers(make_grid):
    lines = printed(make_grid(VALUES, metadata={"model": "demo"})).splitlines()
    assert lines[:2] == ["influence on logit of ' Paris'", "2 layers × 3 tokens, demo"]
    assert [line.split() for line in lines[3:6]] == [
        ["layer", "t0", "t1", "t2"],
        ["0", "50.00", "1.00", "-"],
        ["1", "40.00", "-2.00", "4.00"],
    ]
    assert lines[7] == "logits, first ' t0' left out (up to 50), -: none"


def test_colours_follow_the_values(make_grid):
    painted = {text.strip(): (int(r), int(b)) for r, _, b, text in PAINTED.findall(coloured(make_grid(VALUES)))}
    assert set(painted) >= {"1.00", "-2.00", "4.00"}
    assert "50.00" not in painted, "the first token is left out of the colours"
    assert painted["4.00"][0] > painted["1.00"][0]
    assert painted["-2.00"][1] > painted["4.00"][1]
    text = ANSI.sub("", coloured(make_grid(VALUES)))
    assert re.search(r"^-4 +4$", text, re.MULTILINE), "the colour bar"


def test_the_numbers_in_cells_are_not_dimmed(make_grid):
    out = coloured(make_grid(((1.0, 4.0),), column_axis="head"))
    row = next(line for line in out.splitlines() if "4.00" in line)
    assert re.search(r"\x1b\[38;2;[\d;]+;48;2;[\d;]+m *4\.00", row)


@pytest.mark.parametrize("width", [120, 80, 50, 30, 20])
@pytest.mark.parametrize("paint", [True, False])
def test_no_line_is_wider_than_the_terminal(make_grid, width, paint):
    g = make_grid(
        torch.randn(5, 40, generator=torch.Generator().manual_seed(0)),
        columns=["日本語", " the", "", "\n"] * 10,
        rows=tuple(f"blocks.{i}.hook_post" for i in range(5)),
    )
    out = ANSI.sub("", (coloured if paint else printed)(g, width=width))
    assert max(map(cell_len, out.splitlines())) <= width
    rows = [line for line in out.splitlines() if "post" in line]
    assert len(rows) == 5, "a row is one line"


def test_colours_alone_where_numbers_do_not_fit(make_grid):
    g = make_grid(torch.arange(1.0, 13)[None].repeat(2, 1), columns=[f" word{i}" for i in range(12)])
    assert "12.0" in ANSI.sub("", coloured(g, width=80))
    narrow = ANSI.sub("", coloured(g, width=45))
    assert "12.0" not in narrow.splitlines()[4]
    assert "strongest" not in narrow, "all columns fit"
    assert "wo" in narrow.splitlines()[3]


def test_what_does_not_fit_is_said_and_the_strongest_is_kept(make_grid):
    values = torch.ones(100, 50)
    values[77, 33] = 9
    out = printed(make_grid(values, rows=tuple(f"r{i}" for i in range(100))), width=40, options={"max_rows": 10})
    assert re.search(r"the strongest 10 of 100\s+layers", out)
    assert re.search(r"the\s+strongest\s+\d+\s+of\s+50\s+tokens", out)
    assert re.search(r"^ *r77 .*9\.00", out, re.MULTILINE)
    assert "t33" in out.splitlines()[3]


def test_rows_keep_their_order(make_grid):
    values = torch.tensor([1.0, 5.0, 2.0, 4.0])[:, None]
    out = printed(make_grid(values, column_axis="head"), options={"max_rows": 2})
    assert re.findall(r"^ +(\d) +\d\.\d\d$", out, re.MULTILINE) == ["1", "3"]


@pytest.mark.parametrize(
    ("factor", "cell", "unit"),
    [(1, "4.00", ""), (0.1, "0.400", ""), (1e-5, "40.0", "units of 1e-06"), (1e4, "40.0", "units of 1000")],
)
def test_numbers_are_short_in_any_unit(make_grid, factor, cell, unit):
    out = printed(make_grid(torch.tensor(VALUES) * factor))
    assert cell in out.split()
    assert unit in out
    assert bool(unit) == ("in units of" in out)


def test_there_is_no_negative_zero(make_grid):
    assert "-0.00" not in printed(make_grid(((1.0, -0.001),), column_axis="head"))


def test_long_names_are_told_apart_by_their_ends(make_grid):
    rows = ("blocks.10.hook_resid_pre_of_the_model", "blocks.10.hook_resid_mid_of_the_model")
    out = printed(make_grid(((1.0,), (2.0,)), rows=rows), width=60)
    assert "..d_pre_of_the_model" in out
    assert "..d_mid_of_the_model" in out


def test_escape_sequences_are_text(nasty_grid):
    out = printed(nasty_grid)
    assert "\x1b" not in out
    assert "[red]" in out


def test_a_console_that_knows_ascii_alone(nasty_grid):
    assert printed(nasty_grid, encoding="ascii").isascii()


def test_show_prints(make_grid, capsys):
    make_grid(VALUES).show(skip_first=False)
    out = capsys.readouterr().out
    assert "influence on logit of ' Paris'" in out
    assert "left out" not in out
