"""Contributions drawn: bars by layer and kind as static HTML, and lines in the terminal."""

from __future__ import annotations

import io
import re
from html import unescape

import pytest
from rich.cells import cell_len
from rich.console import Console

from conftest import INJECTION, NASTY
from tl_jacobian.render import render_contributions_terminal
from tl_jacobian.render.contributions_words import kinds, lines

PARTS = {"embed": 2.0, "0.attn": -1.0, "0.mlp": 0.5, "1.attn": 4.0, "1.mlp": 0.0, "unembedding bias": -0.25}


@pytest.fixture
def parts(make_parts, make_grid):
    heads = make_grid(((1.0, -1.0),), column_axis="head", title="by head")
    return make_parts(PARTS, heads=heads, metadata={"model": "demo"})


@pytest.fixture
def nasty(make_parts, nasty_grid):
    texts = dict.fromkeys((*NASTY, f"0.{INJECTION}"), 1.0)
    return make_parts(texts, target=INJECTION, metadata={"model": INJECTION}, sources=nasty_grid)


def page(c, tmp_path):
    html = c.to_html(tmp_path / "c.html").read_text(encoding="utf-8")
    return re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)


def bars(html):
    """Colour and length of every bar by the title of its cell, negative to the left of zero."""
    cell = r'<td style="([^"]*)" title="([^"]*)">(?:<span style="[^"]*width:(\d+)px;[^"]*background-color:(#\w+)")?'
    return {
        unescape(title): (color, int(width) * (1 if "border-left" in style else -1))
        for style, title, width, color in re.findall(cell, html)
        if width
    }


# -- how parts are arranged -----------------------------------------------------------------


def test_a_layers_parts_share_a_line(make_parts):
    c = make_parts(PARTS)
    assert [(line.name, list(line.parts)) for line in lines(c)] == [
        ("embed", [""]),
        ("0", ["attn", "mlp"]),
        ("1", ["attn", "mlp"]),
        ("unembedding bias", [""]),
    ]
    assert kinds(c) == ["attn", "mlp"]


def test_a_part_named_like_a_layer_keeps_a_line_of_its_own(make_parts):
    assert [line.name for line in lines(make_parts({"0": 1.0, "0.mlp": 2.0}))] == ["0", "0"]


# -- HTML -------------------------------------------------------------------------------------


def test_bars_are_as_long_as_their_parts_and_on_their_side(parts, tmp_path):
    found = bars(page(parts, tmp_path))
    assert {title.split(":")[0]: length for title, (_, length) in found.items()} == {
        "embed": 65,
        "0.attn": -32,
        "0.mlp": 16,
        "1.attn": 130,
        "1.mlp": 0,
        "unembedding bias": -8,
    }
    assert "1.attn: 4; running total 5.5" in found


def test_kinds_have_colours_of_their_own(parts, tmp_path):
    colors = {title.split(":")[0]: color for title, (color, _) in bars(page(parts, tmp_path)).items()}
    assert colors["0.attn"] == colors["1.attn"]
    assert len({colors["0.attn"], colors["0.mlp"], colors["embed"]}) == 3


def test_the_page_says_what_it_shows(parts, tmp_path):
    html = unescape(page(parts, tmp_path))
    for text in (
        "<b>logit of ' Paris' = 5.25</b> <bdi>in 6 parts</bdi>",
        "<bdi>the parts add up to it</bdi> · <bdi>demo</bdi>",
        "<bdi>attn</bdi>",
        "<bdi>mlp</bdi>",
        "<bdi>other</bdi>",
        "<bdi>unembedding bias</bdi>",
        "<b>by head</b> <bdi>1 layer × 2 heads</bdi>",
    ):
        assert text in html, text
    assert "<script" not in (tmp_path / "c.html").read_text(encoding="utf-8"), "nothing here needs one"


def test_positive_parts_leave_no_room_for_negative_ones(make_parts, tmp_path):
    assert "width:130px;text-align:right" not in page(make_parts({"a": 1.0, "b": 2.0}), tmp_path)
    assert "width:130px;text-align:right" in page(make_parts({"a": 1.0, "b": -2.0}), tmp_path)


def test_many_parts_scroll(make_parts, tmp_path):
    assert "max-height" in page(make_parts({f"part {i}": 1.0 for i in range(60)}), tmp_path).split("</style>")[-1]
    layers = {f"{i}.{kind}": 1.0 for i in range(40) for kind in ("attn", "mlp")}
    assert "max-height" not in page(make_parts(layers), tmp_path).split("</style>")[-1]


def test_text_full_of_markup_is_text(nasty, tmp_path):
    html = page(nasty, tmp_path)
    assert not re.search(r"<(script|img)\b", html)
    assert (tmp_path / "c.html").read_text(encoding="utf-8").count("</script>") == 3
    assert nasty._repr_html_().count("</script>") == 3


def test_nothing_but_zeros_can_be_drawn(make_parts, tmp_path, capsys):
    c = make_parts({"a": 0.0, "b": 0.0})
    assert {length for _, length in bars(page(c, tmp_path)).values()} == {0}
    c.show()
    assert "█" not in capsys.readouterr().out


# -- the terminal --------------------------------------------------------------------------------


def printed(c, *, encoding="utf-8", width=80):
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding=encoding, newline="\n")
    render_contributions_terminal(c, console=Console(file=stream, width=width))
    stream.flush()
    return buffer.getvalue().decode(encoding)


def test_the_terminal_has_a_bar_for_each_part_and_the_heads(parts):
    out = printed(parts).splitlines()
    assert out[:2] == ["logit of ' Paris' = 5.25 in 6 parts", "the parts add up to it, demo"]
    sides = {line[:16].strip(): [side.count("█") for side in line.split("│")] for line in out[3:9]}
    assert sides["1.attn"] == [0, 32]
    assert sides["0.attn"] == [8, 0]
    assert sides["embed"] == [0, 16]
    assert "by head" in out


@pytest.mark.parametrize("width", [100, 40, 20])
def test_no_line_is_wider_than_the_terminal(parts, width):
    assert max(map(cell_len, printed(parts, width=width).splitlines())) <= width


def test_the_largest_of_very_many_parts_in_order(make_parts):
    out = printed(make_parts({f"p{i}": float(i) for i in range(100)}))
    assert "80 of 100 parts shown, the largest" in out
    assert re.findall(r"^p(\d+) ", out, re.MULTILINE) == [str(i) for i in range(20, 100)]


def test_escape_sequences_are_text(nasty):
    assert "\x1b" not in printed(nasty)
    assert printed(nasty, encoding="ascii").isascii()
