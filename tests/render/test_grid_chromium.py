"""What a real browser makes of grids and contributions: CircuitsVis' buttons, and everything without scripts."""

from __future__ import annotations

import math

import pytest
import test_chromium
import torch
from test_chromium import alpha, harness, notebook

from conftest import NASTY
from tl_jacobian.render.interactive import runtime_scripts, script_json
from tl_jacobian.results.tokens import visible

pytestmark = pytest.mark.slow
chromium, visit = test_chromium.chromium, test_chromium.visit  # fixtures

NAN = math.nan
VALUES = ((50.0, 1.0, NAN), (40.0, -2.0, 4.0))
TEXTS = ("The", " cat", " sat")
REPORT = """
const shown = (e) => !!e && e.getClientRects().length > 0;
window.report = (doc) => ({
  cells: [...doc.querySelectorAll(".tlj-heat td")].map((e) => ({
    color: getComputedStyle(e).backgroundColor, hatched: getComputedStyle(e).backgroundImage !== "none",
    size: [e.offsetWidth, e.offsetHeight], title: e.title})),
  bars: [...doc.querySelectorAll(".tlj-parts td > span")].map((e) => e.offsetWidth),
  rows: [...doc.querySelectorAll(".tlj-row")].map((row) => ({
    caption: [...row.querySelectorAll(".tlj-row-caption")].filter(shown).map((e) => e.textContent),
    labels: [...row.querySelectorAll(".tlj-multi > div > div:first-child > div")].map((e) => e.textContent),
    tokens: [...row.querySelectorAll(".colored-tokens > span > span")].map((e) => ({
      text: e.textContent, color: getComputedStyle(e).backgroundColor, hatched: e.classList.contains("tlj-skipped")})),
    tooltip: [...row.querySelectorAll(".colored-tokens > div tr")].map((e) => e.innerText.split(/\\s+/))})),
});
"""
CHOOSE = """
setTimeout(() => {
  const enter = (e) => ["mouseover", "mouseenter", "mousemove"].forEach((kind) =>
    e.dispatchEvent(new MouseEvent(kind, {bubbles: true})));
  enter(document.querySelectorAll(".tlj-multi > div > div:first-child > div")[1]);
  enter(document.querySelectorAll(".colored-tokens > span")[2]);
}, 2500);
"""


def outputs(*figures: str, then: str = "") -> str:
    return notebook(list(figures), REPORT + then).replace("const report =", "window.report =")


def sandboxed(html: str) -> str:
    """``html`` where no script runs."""
    make = f"""{REPORT}
      const frame = document.createElement("iframe");
      frame.setAttribute("sandbox", "allow-same-origin");
      frame.srcdoc = {script_json(html)};
      document.body.appendChild(frame);"""
    return harness(make, document="frame.contentDocument").replace("const report =", "window.report =")


def test_a_button_for_each_row_on_one_scale(visit, make_grid):
    figure = make_grid(VALUES, TEXTS, rows=("pre", "post"))._repr_html_()
    before, after = (visit(outputs(figure, then=then)).report["rows"][0] for then in ("", CHOOSE))
    assert before["labels"] == ["pre", "post"]
    assert before["caption"] == ["one layer at a time, all on the scale above"]
    assert [t["text"] for t in before["tokens"]] == list(TEXTS)
    assert [t["hatched"] for t in before["tokens"]] == [True, False, True], "the first token, and the gap"
    assert alpha(before["tokens"][1]["color"]) == pytest.approx(0.7 / 4, abs=0.005), "of the whole grid's 4"
    assert [t["hatched"] for t in after["tokens"]] == [True, False, False]
    assert [alpha(t["color"]) for t in after["tokens"]] == pytest.approx([0, 0.35, 0.7], abs=0.005)
    assert after["tokens"][1]["color"].startswith("rgba(0, 114, 178")
    assert after["tooltip"] == [["pre", "NaN"], ["post", "4.000000"]]


def test_the_page_comes_alive_and_asks_nothing_of_the_network(visit, make_grid, tmp_path):
    page = visit(make_grid(VALUES, TEXTS).to_html(tmp_path / "grid.html"))
    assert "tlj-live tlj-multi" in page.dom
    assert page.requests == []


def test_a_single_row_has_no_buttons(visit, make_grid):
    (row,) = visit(outputs(make_grid(((9.0, 1.0, 2.0),), TEXTS)._repr_html_())).report["rows"]
    assert row["labels"] == []
    assert [t["text"] for t in row["tokens"]] == list(TEXTS)


def test_text_full_of_markup_is_text(visit, nasty_grid, make_parts, tmp_path):
    parts = make_parts(dict.fromkeys(NASTY, 1.0), target=NASTY[0], sources=nasty_grid)
    seen = visit(outputs(nasty_grid._repr_html_(), parts._repr_html_()))
    for row in seen.report["rows"]:
        assert [t["text"] for t in row["tokens"]] == [visible(text) for text in NASTY]
        assert row["labels"] == [visible(text) for text in NASTY]
    assert "<title>untouched</title>" in seen.dom
    assert seen.requests == []
    title = "&lt;/script&gt;&lt;script&gt;document.title='PWNED'&lt;/script&gt;"
    assert f"<title>{title} = 20</title>" in visit(parts.to_html(tmp_path / "c.html")).dom


def test_without_scripts_the_heat_map_is_complete(visit, make_grid, tmp_path):
    html = make_grid(VALUES, TEXTS).to_html(tmp_path / "grid.html").read_text(encoding="utf-8")
    report = visit(sandboxed(html)).report
    assert [cell["hatched"] for cell in report["cells"]] == [False, False, True, False, False, False]
    assert [alpha(report["cells"][i]["color"]) for i in (1, 4, 5)] == pytest.approx([0.175, 0.35, 0.7], abs=0.005)
    assert min(min(cell["size"]) for cell in report["cells"]) >= 15
    assert report["cells"][4]["title"] == "layer 1, token 1 ' cat': -2"
    assert report["rows"] == [{"caption": [], "labels": [], "tokens": [], "tooltip": []}]


def test_a_bundle_that_fails_leaves_the_heat_map(visit, make_grid):
    bundle, _ = runtime_scripts()
    broken = make_grid(VALUES, TEXTS)._repr_html_().replace(bundle, "window.CircuitsVis = {render() { throw 1; }};")
    report = visit(outputs(broken)).report
    assert len(report["cells"]) == 6
    assert report["rows"][0]["caption"] == []


def test_grids_share_the_bundle_of_other_figures(visit, paris, make_grid):
    seen = visit(outputs(paris._repr_html_(), make_grid(VALUES, TEXTS)._repr_html_()))
    assert len(seen.report["rows"][0]["tokens"]) == 3


def test_bars_have_their_lengths_in_a_page_without_scripts(visit, make_parts, make_grid, tmp_path):
    heads = make_grid(torch.ones(30, 9), tuple("012345678"), column_axis="head")
    c = make_parts({"embed": 2.0, "0.attn": -1.0, "0.mlp": 4.0}, heads=heads)
    seen = visit(c.to_html(tmp_path / "c.html"))
    assert "<script" not in seen.dom
    report = visit(sandboxed((tmp_path / "c.html").read_text(encoding="utf-8"))).report
    assert sorted(report["bars"]) == [32, 65, 130]
    assert len(report["cells"]) == 270
