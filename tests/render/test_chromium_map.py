"""What a real browser makes of maps: the text that answers the pointer, and CircuitsVis' attention view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import test_chromium
from test_chromium import alpha, harness, notebook

from tl_jacobian.render.interactive import runtime_scripts, script_json, script_tag
from tl_jacobian.results.tokens import visible

pytestmark = pytest.mark.slow
chromium, visit = test_chromium.chromium, test_chromium.visit  # fixtures
Open = Callable[[Any], test_chromium.Visit]

REPORT = """
const seenAt = (e) => !!e && e.getClientRects().length > 0;
report = (doc) => [...doc.querySelectorAll(".tlj-map")].map((figure) => ({
  caption: figure.querySelector(".tlj-caption").textContent,
  tokens: [...figure.querySelectorAll(".tlj-tokens > bdi")].map((e) => ({
    text: e.textContent, color: getComputedStyle(e).backgroundColor, chosen: e.classList.contains("tlj-chosen"),
    title: e.title, pick: e.classList.contains("tlj-pick")})),
  canvases: [...figure.querySelectorAll(".tlj-attention canvas")].map((e) => [seenAt(e), e.clientWidth]),
  table: seenAt(figure.querySelector(".tlj-heat table")),
  folded: !!figure.querySelector("details .tlj-attention"),
  drawn: window.drawn || [],
}));
"""
TEXTS = ["The", " capital", " of", " France", " is"]


# Notes what is written on canvases while the pointer is over the map's second column, fourth row.
TOOLTIP = """
window.drawn = [];
const fill = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
  window.drawn.push(text);
  fill.call(this, text, ...rest);
};
setTimeout(() => {
  window.drawn.length = 0;
  const canvas = document.querySelectorAll(".tlj-attention canvas")[2];
  const box = canvas.getBoundingClientRect();
  const at = {clientX: box.left + box.width * 0.41, clientY: box.top + box.height * 0.6, bubbles: true};
  for (const kind of ["mouseenter", "mousemove"]) canvas.dispatchEvent(new MouseEvent(kind, at));
}, 2500);
"""


def outputs(*figures: str, then: str = "") -> str:
    return notebook(list(figures), REPORT.replace("report =", "window.report = ") + then).replace(
        "const report =", "window.report ="
    )


def test_the_attention_view_takes_the_tables_place(visit, make_map, tmp_path):
    m = make_map(TEXTS)
    (figure,) = visit(outputs(m._repr_html_())).report
    assert [seen for seen, _ in figure["canvases"]] == [True] * 3
    assert figure["canvases"][2][1] > 400, "the map itself is large"
    assert not figure["table"]
    page = visit(m.to_html(tmp_path / "map.html"))
    assert page.dom.count("<canvas") == 3, "the page's content security policy lets it draw"
    assert page.requests == []


def test_the_text_shows_the_last_target_until_pointed_at(visit, make_map):
    output = make_map(TEXTS)._repr_html_()
    point = """setTimeout(() => document.querySelectorAll(".tlj-tokens > bdi")[3]
      .dispatchEvent(new MouseEvent("mouseenter")), 2500);"""
    (before,), (after,) = (visit(outputs(output, then=then)).report for then in ("", point))
    assert before["caption"] == "→ ' x' (predicted): target 4 = 2.5"
    assert [t["chosen"] for t in before["tokens"]] == [False] * 5 + [True]
    assert [t["pick"] for t in before["tokens"]] == [False] + [True] * 5
    assert [alpha(t["color"]) for t in before["tokens"][1:5]] == pytest.approx([0.28, 0.42, 0.56, 0.7], abs=0.005)
    assert after["caption"] == "→ ' France': target 2 = 2.5"
    assert [t["chosen"] for t in after["tokens"]] == [False] * 3 + [True] + [False] * 2
    assert [alpha(t["color"]) for t in after["tokens"]][1:] == pytest.approx([0.7 * 2 / 3, 0.7, 0, 0, 0], abs=0.005)
    assert [t["title"] for t in after["tokens"]] == ["0: 1", "1: 2", "2: 3", "", "", ""]


def test_a_cells_tooltip_gives_score_and_target(visit, make_map):
    # Headless Chromium draws no frames while its clock is a virtual one, and Chart.js waits for them.
    frames = script_tag("window.requestAnimationFrame = (call) => setTimeout(call, 16);")
    (figure,) = visit(outputs(frames, make_map(TEXTS)._repr_html_(), then=TOOLTIP)).report
    told = [text for text in figure["drawn"] if text.startswith("Val: ")]
    assert set(told) == {"Val: 2; → ' is': target 3 = 2.5"}, figure["drawn"]


def test_every_word_has_a_row_of_its_own(visit, make_map, paris):
    words = make_map(["The", " cap", "ital", " is"], words=[("The", 1), (" capital", 2), (" is", 1)]).words()
    watch = """window.drawn = []; window.CircuitsVis = {render: (id, view, props) =>
      window.drawn.push(props.attention.map((head) => head.map((row) => row.length)))};"""
    (figure,) = visit(outputs(paris._repr_html_(), script_tag(watch), words._repr_html_())).report
    assert figure["drawn"] == [[[2, 2, 3]] * 2], "' capital' is driven by 'The' and its own beginning"


def test_few_targets_keep_the_table_and_fold_the_square(visit, make_map):
    open_it = 'setTimeout(() => { document.querySelector("details.tlj-rows").open = true; }, 2000);'
    (figure,) = visit(outputs(make_map(TEXTS, positions=[3, 4])._repr_html_(), then=open_it)).report
    assert figure["table"]
    assert figure["folded"]
    assert figure["canvases"][2][0]
    assert figure["canvases"][2][1] > 400, "opened, it takes its size"


def test_a_prompt_full_of_markup_is_text(visit, nasty_map, tmp_path):
    seen = visit(outputs(nasty_map._repr_html_()))
    (figure,) = seen.report
    assert [t["text"] for t in figure["tokens"][:-1]] == [visible(text) for text in nasty_map.str_tokens]
    assert "<title>untouched</title>" in seen.dom
    assert len(figure["canvases"]) == 3
    assert seen.requests == []
    assert "<title>Semantic Scope: attribution map</title>" in visit(nasty_map.to_html(tmp_path / "map.html")).dom


def test_without_scripts_the_table_is_what_shows(visit, make_map, tmp_path):
    html = make_map(TEXTS).to_html(tmp_path / "map.html").read_text(encoding="utf-8")
    make = f"""
      const frame = document.createElement("iframe");
      frame.setAttribute("sandbox", "allow-same-origin");
      frame.srcdoc = {script_json(html)};
      document.body.appendChild(frame);"""
    page = harness(REPORT.replace("report =", "window.report = ") + make, document="frame.contentDocument")
    (figure,) = visit(page.replace("const report =", "window.report =")).report
    assert figure["table"]
    assert figure["canvases"] == []
    assert [t["text"] for t in figure["tokens"][:5]] == TEXTS
    assert not any(t["pick"] for t in figure["tokens"])


def test_a_bundle_that_fails_leaves_the_table(visit, make_map):
    bundle, _ = runtime_scripts()
    broken = make_map(TEXTS)._repr_html_().replace(bundle, "window.CircuitsVis = {render() { throw 1; }};")
    (figure,) = visit(outputs(broken)).report
    assert figure["table"]
    assert figure["canvases"] == []
    assert any(t["pick"] for t in figure["tokens"]), "the text needs no bundle"


def test_maps_and_attributions_share_one_bundle(visit, make_map, paris):
    seen = visit(outputs(paris._repr_html_(), make_map(TEXTS)._repr_html_(), make_map(TEXTS)._repr_html_()))
    assert [len(figure["canvases"]) for figure in seen.report] == [3, 3]
    assert seen.requests == []


def test_a_long_text_draws_its_picture(visit, make_map, tmp_path):
    m = make_map([f" word{i}" for i in range(260)])
    page = visit(m.to_html(tmp_path / "map.html"))
    assert "<canvas" not in page.dom
    assert 'src="data:image/png' in page.dom
    assert page.requests == []
