"""The HTML that goes out: text is text, colours are inline, every kind is drawn."""

from __future__ import annotations

import base64
import re
import stat
import struct
import zlib
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import panel_samples as samples
import pytest
from hypothesis import given
from hypothesis import strategies as st
from panel_samples import INJECTION, NAN, NASTY, PARTS, contributions, grid, heat, paris, predicted, row, strip

from tl_jacobian import render
from tl_jacobian.errors import ArgumentError
from tl_jacobian.render import html as rendering
from tl_jacobian.render.circuitsvis import runtime_scripts
from tl_jacobian.render.png import png
from tl_jacobian.results.panels import Bar, Bars, Panel, scale_of
from tl_jacobian.results.tokens import visible

# Inline CSS that JupyterLab's sanitiser lets through in an untrusted notebook (packages/apputils/src/sanitizer.ts).
SAFE_CSS = {
    *("background-color", "background-image", "background-size", "border", "border-collapse", "display"),
    *("font-size", "font-weight", "height", "margin", "margin-left", "margin-right", "margin-top", "opacity"),
    *("overflow", "overflow-x", "max-height", "max-width", "padding", "padding-right", "text-align", "vertical-align"),
    *("border-left", "image-rendering", "white-space", "width", "word-wrap", "writing-mode"),
}


class Reader(HTMLParser):
    """Collects tokens (text, style, title), scripts, attributes and tags."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tokens: list[tuple[str, str, str]] = []
        self.scripts: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self._open.append(tag)
        found = dict(attrs)
        if tag == "bdi" and "style" in found:
            self.tokens.append(("", found.get("style") or "", found.get("title") or ""))
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "bdi" and self.tokens:
            text, style, title = self.tokens[-1]
            self.tokens[-1] = (text + data, style, title)
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data


def still(*panels: Panel) -> str:
    """The HTML without style sheets and scripts."""
    html = render.notebook(panels)
    return re.sub(r"<(script|style)>.*?</\1>", "", html, flags=re.DOTALL)


def tokens(panel: Panel, at: int = 0) -> str:
    html = rendering.draw(panel, "x").html
    return html.split('class="tlj-tokens"')[at + 1].split(">", 1)[1].split("</div>")[0]


def opacities(html: str) -> list[int]:
    found = (re.search(r"background-color:#[0-9a-f]{6}([0-9a-f]{2})", style) for _, style, _ in Reader(html).tokens)
    return [int(match[1], 16) for match in found if match]


# -- text stays text -------------------------------------------------------------------------


@given(st.lists(st.text(st.characters()), min_size=1, max_size=8))
def test_parsing_the_static_view_gives_back_exactly_the_visible_texts(texts: list[str]) -> None:
    reader = Reader(tokens(strip(texts)))
    assert [text for text, _, _ in reader.tokens] == [visible(text) for text in texts]
    assert set(reader.tags) <= {"bdi", "br"}


@pytest.mark.parametrize("panel", samples.every_nasty_kind(), ids=lambda p: type(p).__name__)
def test_text_full_of_markup_adds_no_element(panel):
    html = render.page([panel])
    reader = Reader(html)
    assert not {"img", "iframe", "object", "link"} & set(reader.tags)
    assert (
        reader.tags.count("script")
        == html.count("</script>")
        == (3 if "tlj-figure" in html and "mount(" in html else 0)
    )
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert not [name for name, _ in reader.attributes if name in {"src", "href", "srcset", "action", "data"}]
    body = html.split("</head>")[1].replace(runtime_scripts()[0], "") if reader.scripts else html.split("</head>")[1]
    assert "document.title" not in re.sub(r"[^\n]*PWNED[^\n]*", "", body)
    assert INJECTION not in html
    for text in ("\u202e", "\x1b", "\x00"):
        assert text not in body


def test_nasty_texts_have_the_elements_of_plain_ones():
    plain = strip(
        ["x\n" if "\n" in text else "x" for text in NASTY],
        rows=[row([float(i + 1) for i in range(len(NASTY))], label="x", facts=("x",), coming="x")],
        facts=("x",),
        legend=("x",),
    )
    assert Reader(still(samples.nasty_strip())).tags == Reader(still(plain)).tags


def test_title_and_header_are_escaped():
    html = render.page([samples.nasty_strip(title="Semantic Scope")])
    assert "<title>Semantic Scope: &lt;/script&gt;" in html
    assert "<title>Semantic Scope: logit of &#39; Paris&#39;</title>" in render.page([paris()])


def test_a_newline_token_breaks_the_line_once():
    assert tokens(strip(["a", "\n\n\n", "b"])).count("<br>") == 1
    assert tokens(strip(["a", "b"])).count("<br>") == 0


def test_mathjax_and_translators_are_kept_off():
    assert 'class="tlj tex2jax_ignore mathjax_ignore" dir="ltr" translate="no"' in still(paris())


# -- texts on colours ---------------------------------------------------------------------------


def test_background_follows_the_value():
    values = [0.0, 3.0, 1.0, 2.0, 4.0]
    drawn = opacities(tokens(strip("abcde", values)))
    assert sorted(range(5), key=drawn.__getitem__) == sorted(range(5), key=values.__getitem__)
    assert drawn[0] == 0


def test_signed_values_have_two_hues_and_a_legend_on_both_sides():
    html = still(strip("ab", [-1.0, 1.0]))
    assert "#0072b2b2" in html
    assert "#d55e00b2" in html
    assert "<span>−1</span>" in html


def test_hidden_units_are_hatched_and_the_legend_says_so():
    html = still(strip(["The", "a", "b"], [90.0, 1.0, 2.0], hidden=(0,)))
    (_, style, title), (_, _, second), _ = Reader(
        tokens(strip(["The", "a", "b"], [90.0, 1.0, 2.0], hidden=(0,)))
    ).tokens
    assert "background-color" not in style
    assert "linear-gradient" in style
    assert title == "0: 90 (left out of the colour range)"
    assert second == "1: 1"
    assert "first &#39;The&#39; left out" in html
    assert "range 1 to 2" in html


def test_tooltips_give_value_and_standard_error():
    panel = strip(["a"], rows=[row([3.14159], errors=(0.25,))])
    assert Reader(tokens(panel)).tokens == [("a", "background-color:#d55e00b2", "0: 3.14 ± 0.25")]


def test_units_without_a_value_are_plain_later_ones_pale_and_framed_ones_in_a_frame():
    html = tokens(samples.words_of_alignment(), 0)
    assert '<bdi style="background-color:#80808000">X:</bdi>' in html
    assert '<bdi style="background-color:#80808000;opacity:0.45"> is</bdi>' in html
    assert ' <bdi style="background-color:#80808000;border:2px solid #0072b2ff;padding:0 1px">red</bdi>' in html
    assert '<bdi style="background-color:#d55e00b2" title="1: 4"> rot</bdi>' in html


def test_markup_stays_compact():
    assert len(tokens(strip([" token"] * 2000))) < 90 * 2000


def test_the_head_says_what_was_explained_and_by_what():
    panel = paris(facts=("prediction after token 5 ' is'", "demo", ""), legend=("change of logit",))
    html = unescape(still(panel, predicted()))
    for text in (
        "<b><bdi>Semantic Scope</bdi></b> <bdi>logit of ' Paris'</bdi>",
        "<bdi>prediction after token 5 ' is'</bdi> · <bdi>demo</bdi></div>",
        "<bdi>change of logit</bdi> · <bdi>range 1 to 30</bdi>",
        'title="token 1"> Paris</bdi>',
        "75.0%",
        "<b>↵</bdi>",
        "5.0%",
    ):
        assert text in html, text


def test_footnotes_stand_beside_the_panel_before_them():
    html = still(paris(), predicted(), paris())
    assert html.count('class="tlj ') == 2
    first, second = html.split('class="tlj ')[1:]
    assert 'class="tlj-next"' in first
    assert 'class="tlj-next"' not in second


def test_a_comparison_has_a_row_and_a_label_each():
    rows = [row([1.0, 2.0], label="Semantic Scope"), row([1e-4, 3e-5], label="Fisher Scope", facts=("nats",))]
    html = still(strip("ab", rows=rows))
    assert html.count('class="tlj-tokens"') == html.count('class="tlj-label"') == 2
    assert re.findall(r"full colour = ([\d.e-]+)", html) == ["2", "0.0001"]
    assert "<details" in html
    assert "each on its own scale" in html
    signed = still(strip("ab", rows=[*rows, row([-1.0, 1.0])]))
    assert "−full" in signed


def test_of_a_choice_the_chosen_row_shows():
    html = unescape(still(samples.map_strip()))
    assert html.count('class="tlj-tokens"') == 1
    assert "4 ' is' → ' Paris' · full colour = 5 · logits" in html
    assert "' Paris' (predicted)</bdi>" in html
    assert "first 'The' left out" in html


# -- heat maps ------------------------------------------------------------------------------------


def cells(html: str) -> list[list[tuple[str, str]]]:
    """Colour and title of every cell, row by row."""
    rows = html.split("<tr>")[2:]
    found = [re.findall(r'<td[^>]*style="background-color:(#\w+)[^"]*" title="([^"]*)"', row) for row in rows]
    return [[(color, unescape(title)) for color, title in row] for row in found]


def test_colours_follow_the_values_on_one_scale_without_the_hidden_column():
    table = cells(still(grid()))
    assert [[title for _, title in row] for row in table] == [
        [
            "layer 0, token 0 ' t0': 50 (left out of the colours)",
            "layer 0, token 1 ' t1': 1",
            "layer 0, token 2 ' t2': none",
        ],
        [
            "layer 1, token 0 ' t0': 40 (left out of the colours)",
            "layer 1, token 1 ' t1': -2",
            "layer 1, token 2 ' t2': 4",
        ],
    ]
    assert [row[0][0] for row in table] == ["#80808040"] * 2
    opacity = [[int(color[7:], 16) / 255 / 0.7 for color, _ in row] for row in table]
    assert opacity[0][1] == pytest.approx(1 / 4, abs=0.01), "full colour is the whole map's largest, 4"
    assert opacity[1][1:] == pytest.approx([2 / 4, 1], abs=0.01)
    assert [color[:7] for color, _ in table[1]][1:] == ["#0072b2", "#d55e00"]


def test_gaps_and_hidden_cells_are_hatched_and_named():
    html = still(grid())
    assert html.count('<td class="tlj-none"') == 3
    assert "hatched: no value" in html
    assert "hatched" not in still(heat([[1.0, 2.0]]))


def test_a_heat_map_says_what_it_shows():
    html = unescape(still(grid(facts=("demo", "bridge"))))
    for text in (
        "<b><bdi>influence on logit of ' Paris'</bdi></b>",
        "<bdi>2 layers × 3 tokens</bdi> · <bdi>demo</bdi> · <bdi>bridge</bdi>",
        "layer ↓  token →",
        "<span>−4</span>",
        "<bdi>logits</bdi> · <bdi>range -2 to 4</bdi> · <bdi>strongest: layer 1, token 2 ' t2'</bdi>",
        "first ' t0' left out (up to 50)",
        "<bdi>1  t1</bdi>",
    ):
        assert text in html, text


def test_unsigned_values_have_one_colour():
    html = still(heat([[1.0, 2.0]], scales=(scale_of([1.0, 2.0]),)))
    assert "<span>0</span>" in html
    assert "#0072b2" not in html


def test_rows_have_scales_of_their_own_and_end_early():
    html = still(samples.map_heat())
    table = cells(html)
    assert [len(row) for row in table] == [1, 2, 3, 4, 5]
    for line in table[1:]:
        n = len(line)
        assert [int(color[7:], 16) for color, _ in line[1:]] == [round(255 * 0.7 * (i + 2) / n) for i in range(n - 1)]
    assert "each row on its own scale" in html
    assert "<span>largest of its row</span>" in html
    assert '<td colspan="4"></td>' in html


def test_frames_are_solid_or_dashed():
    html = still(samples.links())
    assert html.count("border:2px solid #0072b2ff") == 1
    assert html.count("border:2px dashed #0072b2ff") == 1
    assert "framed: gold links (dashed: possible)" in html


def test_short_names_stand_upright():
    assert "writing-mode" not in still(heat([[1.0]], ["0"], numbered=False))
    assert "writing-mode" in still(heat([[1.0]], ["long"]))


def decode(data: bytes) -> list[list[tuple[int, ...]]]:
    """The pixels of a PNG that png() wrote."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    start = data.index(b"IDAT")
    (size,) = struct.unpack(">I", data[start - 4 : start])
    raw = zlib.decompress(data[start + 4 : start + 4 + size])
    lines = [raw[i * (4 * width + 1) + 1 : (i + 1) * (4 * width + 1)] for i in range(height)]
    return [[tuple(line[4 * x : 4 * x + 4]) for x in range(width)] for line in lines]


def test_png_gives_back_its_pixels():
    rows = [[(1, 2, 3, 4), (5, 6, 7, 8)], [(9, 10, 11, 12), (0, 0, 0, 0)]]
    assert decode(png(rows)) == rows


def test_many_cells_become_a_picture_with_its_axes_in_words():
    values = [[0.0] * 200 for _ in range(60)]
    values[0][1:4] = [2.0, -1.0, NAN]
    html = still(heat(values, hidden=(0,)))
    assert "<td" not in html
    found = re.search(r'<img src="data:image/png;base64,([^"]*)" width="760" height="228" alt="([^"]*)"', html)
    assert found
    assert found[2] == "Heat map: 60 layers × 200 tokens, layers from top to bottom, tokens from left to right"
    pixels = decode(base64.b64decode(found[1]))
    assert (len(pixels), len(pixels[0])) == (60, 200)
    full = round(255 * 0.7)
    hatched = [rendering._HIDDEN, (213, 94, 0, full), (0, 114, 178, round(255 * 0.35)), rendering._NONE]
    assert pixels[0][:4] == hatched
    assert "img-src data:" in render.page([heat(values)])


def test_a_picture_of_many_rows_is_no_tower():
    assert 'width="760" height="760"' in still(heat([[0.0] * 6] * 1200))


def test_many_rows_scroll():
    assert "max-height:620px" in still(heat([[0.0] * 3] * 60))
    assert "max-height:620px" not in still(heat([[0.0] * 3] * 30))


# -- bars ----------------------------------------------------------------------------------------


def bars(html: str) -> dict[str, tuple[str, int]]:
    """Colour and length of every bar by the title of its cell, negative to the left of zero."""
    cell = r'<td style="([^"]*)" title="([^"]*)">(?:<span style="[^"]*width:(\d+)px;[^"]*background-color:(#\w+)")?'
    return {
        unescape(title): (color, int(width) * (1 if "border-left" in style else -1))
        for style, title, width, color in re.findall(cell, html)
        if width
    }


def test_bars_are_as_long_as_their_numbers_and_on_their_side():
    found = bars(still(contributions(PARTS)))
    assert {title.split(":")[0]: length for title, (_, length) in found.items()} == {
        "embed": 65,
        "0.attn": -32,
        "0.mlp": 16,
        "1.attn": 130,
        "1.mlp": 0,
        "unembedding bias": -8,
    }
    assert "1.attn: 4; running total 5.5" in found
    colors = {title.split(":")[0]: color for title, (color, _) in found.items()}
    assert colors["0.attn"] == colors["1.attn"]
    assert len({colors["0.attn"], colors["0.mlp"], colors["embed"]}) == 3


def test_a_layers_parts_share_a_line():
    html = still(contributions(PARTS))
    names = re.findall(r"<tr><th[^>]*><bdi>([^<]*)</bdi>", html)
    assert names == ["embed", "0", "1", "unembedding bias"]
    assert re.findall(r"</span> <bdi>(\w+)</bdi></th>", html) == ["attn", "mlp", "other"]


def test_a_part_named_like_a_layer_keeps_a_line_of_its_own():
    html = still(contributions({"0": 1.0, "0.mlp": 2.0}))
    assert re.findall(r"<tr><th[^>]*><bdi>([^<]*)</bdi>", html) == ["0", "0"]


def test_positive_bars_leave_no_room_for_negative_ones():
    assert "width:130px;text-align:right" not in still(contributions({"a": 1.0, "b": 2.0}))
    assert "width:130px;text-align:right" in still(contributions({"a": 1.0, "b": -2.0}))


def test_many_lines_scroll():
    assert "max-height" in still(contributions({f"part {i}": 1.0 for i in range(60)}))
    layers = {f"{i}.{kind}": 1.0 for i in range(40) for kind in ("attn", "mlp")}
    assert "max-height" not in still(contributions(layers))


def test_errors_are_said():
    assert "0.5 ± 0.01" in still(Bars(bars=(Bar(name="a", value=0.5, error=0.01),)))


# -- curves and tables ------------------------------------------------------------------------------


def svg(panel: Panel) -> str:
    return re.search(r"<svg.*?</svg>", still(panel), re.DOTALL)[0]  # pyright: ignore[reportOptionalSubscript]


def test_curves_have_points_intervals_axes_and_a_legend():
    panel = samples.evaluation()
    drawn = svg(panel)
    titles = re.findall(r"<title>(\w+: [^<]*)</title>", drawn)
    assert len(titles) == 12
    assert "semantic: 5, 8 [7.6, 8.5]" in titles
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", drawn)
    assert {"0", "5", "10", "20", panel.x_axis, "fall of the log-probability (nats)"} <= set(texts)
    names = re.findall(r"</span><bdi>(\w+)</bdi>", still(panel))
    assert names == ["random", "semantic", "fisher"]
    assert "currentColor" in drawn
    assert "http" not in drawn


def test_the_numbers_of_curves_are_there_as_a_table():
    html = still(samples.evaluation())
    assert "<summary>numbers</summary>" in html
    assert "8 [7.6, 8.5]" in html.split("</svg>")[1]


def test_logarithmic_axes():
    drawn = svg(samples.decay())
    points = [float(y) for y in re.findall(r'<path d="M[\d.]+,([\d.]+)a', drawn)]
    steps = [b - a for a, b in pairwise(points)]
    assert max(steps) - min(steps) < 0.3, "what decays by a factor is a straight line"
    assert {"0.01", "1"} <= set(re.findall(r"<text[^>]*>([^<]*)</text>", drawn))


def test_a_series_has_curves_below_and_beside():
    html = still(samples.series(hidden=1))
    drawn = svg(samples.series(hidden=1))
    assert len(re.findall(r"<rect", drawn)) == 3 + 4, "the hidden bar isn't drawn"
    assert re.findall(r"</span><bdi>(\w+)</bdi>", html) == ["value", "influence", "forecast", "truth"]
    assert drawn.count(">truth</title>") == 1
    wide = re.search(r'<svg width="(\d+)"', svg(samples.series(width=3.4)))
    assert wide
    assert int(wide[1]) == 320


def test_a_scatter_plot_is_square():
    found = re.search(r'<svg width="(\d+)" height="(\d+)"', svg(samples.scatter()))
    assert found
    assert abs(int(found[1]) - int(found[2])) < 40


def test_tables_are_aligned_and_shaded():
    html = still(samples.edits())
    assert html.index(">3 d<") < html.index(">0 a<")
    assert "#0072b2b2" in html
    assert "#d55e00b2" in html
    assert "text-align:right;background-color:#80808000" in html
    assert "a b↵<br>c d" in html
    assert "Spearman 0.50" in html


# -- pages, outputs and files ---------------------------------------------------------------------------


def test_inline_css_survives_a_notebook_sanitiser():
    styles = [v for name, v in Reader(render.notebook(samples.every_kind())).attributes if name == "style"]
    used = {rule.split(":")[0].strip() for style in styles for rule in style.split(";") if rule}
    assert used <= SAFE_CSS


def test_without_a_strip_no_script_is_needed():
    html = render.page([grid(), contributions(PARTS), samples.evaluation(), samples.edits()])
    assert "<script" not in html
    assert "script-src 'none'" in html


def test_the_page_forbids_requests_and_foreign_scripts():
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', render.page([paris()]))
    assert policy
    assert policy[1].startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")
    assert "unsafe-inline" not in policy[1].split("script-src")[1]


def test_no_reference_to_a_resource():
    html = render.page([*samples.every_kind(), *samples.every_nasty_kind()])
    assert not [name for name, _ in Reader(html).attributes if name in {"src", "href", "srcset", "action", "data"}]
    assert not re.search(r"https?://|@import|url\(|import\(", html.replace(runtime_scripts()[0], ""))


def test_the_same_panels_give_the_same_page():
    assert render.page(samples.every_kind()) == render.page(samples.every_kind())


def test_write_returns_the_path_and_overwrites(tmp_path):
    target = tmp_path / "page.html"
    target.write_text("old")
    assert render.write([paris()], str(target)) == target
    assert target.read_bytes().decode("utf-8").startswith("<!DOCTYPE html>")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert stat.S_IMODE(target.stat().st_mode) & 0o400


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(OSError, match="folder"):
        render.write([paris()], target)
    with pytest.raises(FileNotFoundError):
        render.write([paris()], tmp_path / "missing" / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_views_are_respected_and_nothing_is_refused():
    html = render.page([paris(title="one"), paris(title="two", views=("terminal",))])
    assert "two" not in html.split("<body>")[1].split("<script>")[0]
    with pytest.raises(ArgumentError, match="has a picture for pages"):
        render.notebook([paris(views=("figure",))])
    with pytest.raises(ArgumentError, match="nothing to draw: got an empty list"):
        render.page([])


@pytest.mark.parametrize("panel", samples.every_empty_kind(), ids=lambda p: type(p).__name__)
def test_empty_panels(panel):
    assert "</html>" in render.page([panel])


def test_huge_panels_stay_small():
    n = 3000
    big: list[Any] = [
        strip([" word"] * n, *([[float(i % 7) for i in range(n)]] * 10), together=False),
        heat([[float(i % 9) for i in range(n)]] * 20),
    ]
    assert len(render.page(big)) < 2_000_000


def test_a_long_grid_is_folded_by_layer_below_its_strongest_rows():
    names = [f"L{layer}H{head}" for layer in range(10) for head in range(9)]
    html = render.page([heat([[float(i), -1.0] for i in range(90)], ["a", "b"], rows=names)])
    folds = re.findall(r"<summary><bdi>(layer \d+, 9 layers)</bdi>", html)
    assert folds == [f"layer {layer}, 9 layers" for layer in range(10)]
    shown = re.findall(r"<bdi>(L\d+H\d+)</bdi>", html)
    assert shown == [*names[:-13:-1], *names]  # the strongest twelve, the strongest first; then each layer's
    plain = render.page([heat([[1.0]] * 90, ["a"], rows=[f"{i}" for i in range(90)])])
    assert "max-height:620px" in plain
    assert "<summary>" not in plain
