"""Maps drawn: the static table or picture, what a script gets, sizes, words, the terminal, matplotlib."""

from __future__ import annotations

import base64
import io
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from tl_jacobian import render
from tl_jacobian.render import heatmap, map_figure, map_words
from tl_jacobian.render.png import png
from tl_jacobian.results.attribution_map import AttributionMap

MakeMap = Callable[..., AttributionMap]


@pytest.fixture
def small(make_map: MakeMap) -> AttributionMap:
    return make_map(["The", " cap", "ital", " is"])


def page_without_scripts(m: AttributionMap, tmp_path: Path, **options: bool) -> str:
    html = m.to_html(tmp_path / "map.html", **options).read_text(encoding="utf-8")
    return re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)


def cells(html: str) -> list[list[tuple[str, float]]]:
    """Colour and score of every cell, row by row."""
    found = [re.findall(r'<td style="background-color:(#\w+)" title="\d+: ([^"]*)"', row) for row in html.split("<tr>")]
    return [[(color, float(score)) for color, score in row] for row in found if row]


def test_the_table_is_lower_triangular_and_its_colours_follow_the_scores(small, tmp_path):
    table = cells(page_without_scripts(small, tmp_path))
    assert [len(row) for row in table] == [1, 2, 3, 4]
    assert [[score for _, score in row] for row in table] == [a.scores.tolist() for a in small]
    for row in table:
        assert row[0][0] == "#80808040", "the first token is left out of the colours"
        limit = max([score for _, score in row[1:]], default=1)
        opacities = [int(color[7:], 16) for color, _ in row[1:]]
        assert opacities == [round(255 * 0.7 * score / limit) for _, score in row[1:]]


def test_one_scale_for_all_rows_with_the_first_token(small, tmp_path):
    html = page_without_scripts(small, tmp_path, skip_first=False, per_row=False)
    largest = small.scores.max().item()
    for row in cells(html):
        assert [int(color[7:], 16) for color, _ in row] == [round(255 * 0.7 * score / largest) for _, score in row]
    assert "one scale for all rows</bdi> · <bdi>logits</bdi></span>" in html
    assert f"<span>{map_words.words.number(largest)}</span>" in html


def test_the_page_says_what_it_shows(small, tmp_path):
    html = page_without_scripts(small, tmp_path)
    for text in (
        "attribution map, 4 predictions × 4 tokens",
        "largest of its row",
        "each row on its own scale",
        "first &#x27;The&#x27; left out",
        "1 &#x27; cap&#x27; → &#x27;ital&#x27;",
        "3 &#x27; is&#x27; → &#x27; x&#x27; (predicted)",
    ):
        assert text in html, text


def test_captions_give_the_probability_of_what_follows(make_map):
    m = make_map(["a", "b"], next_texts=[" x", None])
    assert map_words.caption(m, 0) == "→ ' x' (p = 50.0%): target 0 = 2.5"
    assert map_words.caption(m, 1) == "→ ' x' (predicted): target 1 = 2.5"


def test_which_unit_a_target_predicts(make_map):
    m = make_map(["The", " cap", "ital", " is"], words=[("The", 1), (" capital", 2), (" is", 1)])
    assert map_words.predicted_units(m) == [1, 2, 3, 4]
    assert map_words.predicted_units(m.words()) == [1, 2, 3]


def test_prompts_full_of_markup_are_text(nasty_map, tmp_path):
    html = page_without_scripts(nasty_map, tmp_path)
    assert not re.search(r"<(script|img)\b", html)
    assert "PWNED" in html
    whole = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert whole.count("</script>") == 3
    assert "\u202e" not in whole


def test_a_page_of_many_tokens_stays_small(make_map, tmp_path):
    m = make_map([f" word{i}" for i in range(400)])
    html = m.to_html(tmp_path / "map.html").read_text(encoding="utf-8")
    assert len(html) < 4_000_000
    static = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert "<td" not in static
    (picture,) = re.findall(r'<img src="data:image/png;base64,([^"]*)" width="760" height="760" alt="([^"]*)"', static)
    assert picture[1].startswith("Heat map: 400 predictions × 400 tokens")
    pixels = decode(base64.b64decode(picture[0]))
    assert (len(pixels), len(pixels[0])) == (400, 400)
    assert pixels[5][:8] == [
        heatmap._SKIPPED,
        *((213, 94, 0, round(178.5 * s / 6)) for s in range(2, 7)),
        *[(0,) * 4] * 2,
    ]
    assert '"attention":false' in html


def decode(content: bytes) -> list[list[tuple[int, ...]]]:
    """The pixels of a PNG file without filters."""
    width, height = struct.unpack(">II", content[16:24])
    raw = zlib.decompress(content[content.index(b"IDAT") + 4 : content.index(b"IEND") - 8])
    lines = [raw[y * (4 * width + 1) + 1 : (y + 1) * (4 * width + 1)] for y in range(height)]
    return [[tuple(line[4 * x : 4 * x + 4]) for x in range(width)] for line in lines]


def test_png_round_trip():
    rows = [[(1, 2, 3, 4), (5, 6, 7, 8)], [(9, 10, 11, 12), (0, 0, 0, 255)], [(0, 0, 0, 0), (255, 255, 255, 255)]]
    assert decode(png(rows)) == rows


def test_few_targets_of_a_long_text_keep_the_rectangular_map(make_map):
    texts = [f"t{i}" for i in range(20)]
    most, few = make_map(texts), make_map(texts, positions=[18, 19])
    assert '"square":true' in map_figure.map_figure(most, "x").script
    assert '"square":false' in map_figure.map_figure(few, "x").script


def test_a_notebook_holds_the_bundle_once(small):
    first, second = small._repr_html_(), small._repr_html_()
    assert first.count("</script>") == 3
    assert second.count("</script>") == 1
    assert len(second) < 20_000


def test_scores_that_are_not_finite_are_refused(make_map, tmp_path):
    m = make_map(["a", "b"], scale=float("inf"))
    with pytest.raises(ValueError, match="only finite scores can be drawn"):
        m.to_html(tmp_path / "map.html")
    assert not (tmp_path / "map.html").exists()


def test_the_terminal_lists_the_strongest_sources_of_each_target(small):
    console = Console(file=io.StringIO(), width=100, highlight=False)
    render.render_map_terminal(small, console=console)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "Semantic Scope  attribution map, 4 predictions × 4 tokens"
    assert re.sub(" +", " ", lines[-1]).strip() == "3 ' is' → ' x' (predicted) ' is' 4, 'ital' 3, ' cap' 2"


def test_show_in_a_terminal_neutralises_escape_sequences(nasty_map, capsys):
    nasty_map.show()
    out = capsys.readouterr().out
    assert "\x1b[31m" not in out
    assert "[red]markup[/red]" in out


# -- matplotlib -----------------------------------------------------------------------


def test_the_figure_holds_the_shares_of_each_row(plt, small):
    ax = small.plot()
    drawn = torch.tensor(ax.images[0].get_array().filled(torch.nan))
    assert drawn.shape == (4, 4)
    assert drawn[:, 0].isnan().all()
    torch.testing.assert_close(drawn[3, 1:], small.scores[3, 1:] / 4)
    assert drawn[1, 2:].isnan().all()
    assert [t.get_text() for t in ax.get_yticklabels()][1] == "1 ' cap' → 'ital'"


def test_axes_of_ones_own_and_one_scale(plt, small):
    figure, mine = plt.subplots()
    assert small.plot(mine, skip_first=False, per_row=False) is mine
    drawn = mine.images[0].get_array()
    assert drawn[0, 0] == pytest.approx((small.scores[0, 0] / small.scores.max()).item())
    figure.canvas.draw()


def test_dollar_signs_are_not_mathematics(plt, make_map):
    ax = make_map(["$x_{", "}$", "\\frac"]).plot()
    ax.figure.canvas.draw()  # would raise on broken mathtext


@pytest.mark.usefixtures("no_matplotlib")
def test_without_matplotlib_the_extra_is_named(small):
    with pytest.raises(ImportError, match=r"pip install 'tl-jacobian\[plot\]'"):
        small.plot()
