"""What a real browser makes of the pages: headless Chromium loads them, and tells what it sees.

Chromium is Debian's package. Without it these tests are skipped on a developer's machine, and
fail where the variable CI is set.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import panel_samples as samples
import pytest
from panel_samples import NAN, grid, nasty_strip, paris, row, strip

from tl_jacobian import render
from tl_jacobian.render.circuitsvis import packed_scripts, script_json
from tl_jacobian.results.panels import Scale
from tl_jacobian.results.tokens import visible

pytestmark = pytest.mark.slow

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions"),
    *("--disable-default-apps", "--metrics-recording-only", "--virtual-time-budget=15000", "--window-size=1000,800"),
    "--host-resolver-rules=MAP * ~NOTFOUND",  # Chromium's own housekeeping stays at home
)

# As JupyterLab's renderHTML does with a trusted output: innerHTML first, then every script made anew.
NOTEBOOK = """
for (const output of OUTPUTS) {
  const cell = document.body.appendChild(document.createElement("div"));
  cell.innerHTML = output;
  for (const old of cell.querySelectorAll("script")) {
    const script = document.createElement("script");
    script.textContent = old.textContent;
    old.replaceWith(script);
  }
}
"""

# Reports, as JSON in the title, what a reader of DOCUMENT sees of every figure.
REPORT = """
const seen = (e) => e.getClientRects().length > 0;
const look = (e) => ({text: e.textContent, color: getComputedStyle(e).backgroundColor, seen: seen(e),
  classes: [...e.classList]});
const report = (doc) => [...doc.querySelectorAll(".tlj-figure[id]")].map((figure) => ({
  live: [...figure.querySelectorAll(".tlj-live .colored-tokens > span > span")].map(look),
  still: [...figure.querySelectorAll(".tlj-tokens > bdi:not(.tlj-coming)")].map(look),
  caption: [...figure.querySelectorAll(".tlj-live .tlj-caption")].filter(seen).map((e) => e.textContent),
  coming: [...figure.querySelectorAll(".tlj-live .colored-tokens")].map((e) => e.dataset.coming || ""),
  labels: [...figure.querySelectorAll(".tlj-multi > div > div:first-child > div")].map((e) => e.textContent),
  tooltip: [...figure.querySelectorAll(".colored-tokens > div")].map((e) => e.innerText),
}));
"""


@dataclass(frozen=True)
class Visit:
    """What one visit of Chromium left: the DOM at the end, and its network log."""

    dom: str
    requests: list[str]

    @property
    def report(self) -> Any:
        found = re.search(r'<script type="application/json" id="report">(.*?)</script>', self.dom, re.DOTALL)
        assert found, "the page's report is missing"
        return json.loads(found[1])


Open = Callable[[Path | str], Visit]


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None and not os.environ.get("CI"):
        pytest.skip("chromium isn't installed (apt-get install chromium)")
    assert found, "CI needs chromium: apt-get install chromium"
    return found


@pytest.fixture
def visit(chromium: str, tmp_path: Path) -> Open:
    def load(page: Path | str) -> Visit:
        if isinstance(page, str):
            (tmp_path / "harness.html").write_text(page, encoding="utf-8")
            page = tmp_path / "harness.html"
        log, profile = tmp_path / "net.json", tmp_path / "profile"
        command = [chromium, *FLAGS, f"--user-data-dir={profile}", f"--log-net-log={log}", "--dump-dom"]
        done = subprocess.run([*command, page.as_uri()], capture_output=True, timeout=120, check=True)
        shutil.rmtree(profile, ignore_errors=True)
        return Visit(done.stdout.decode("utf-8"), requested(log))

    return load


def requested(log: Path) -> list[str]:
    """Addresses on the network that a page asked for, from Chromium's own log.

    Chromium's housekeeping (updates, clock) has no page as its initiator: "not an origin".
    """
    record = json.loads(log.read_text(encoding="utf-8"))
    start = record["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    jobs = [event["params"] for event in record["events"] if event["type"] == start and "url" in event["params"]]
    urls = [job["url"] for job in jobs if job.get("initiator") != "not an origin"]
    return [url for url in urls if url.startswith(("http:", "https:", "ws:", "wss:"))]


def harness(script: str, *, after_ms: int = 4000, body: str = "", document: str = "document") -> str:
    """A bare page (no content security policy) that runs ``script``, then reports."""
    tell = (
        f"setTimeout(() => {{ const node = document.createElement('script'); node.type = 'application/json';"
        f" node.id = 'report'; node.textContent = JSON.stringify(report({document})).replaceAll('<', '\\\\u003c');"
        f" document.body.appendChild(node); }}, {after_ms});"
    )
    return (
        '<!DOCTYPE html><meta charset="utf-8"><title>untouched</title><body>'
        f"{body}<script>{REPORT + script + tell}</script></body>"
    )


def notebook(outputs: list[str], then: str = "") -> str:
    return harness(f"const OUTPUTS = {script_json(outputs)};{NOTEBOOK}{then}")


def alpha(color: str) -> float:
    """Opacity of a computed colour: ``rgba(213, 94, 0, 0.35)``."""
    found = re.fullmatch(r"rgba\(\d+, \d+, \d+, ([\d.]+)\)", color)
    assert found, f"not a translucent colour: {color}"
    return float(found[1])


class LiveTokens(HTMLParser):
    """Texts and colours of CircuitsVis' tokens in a dumped DOM."""

    def __init__(self, dom: str) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self.colors: list[str] = []
        self._live = self._token = False
        self.feed(dom)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self._live = self._live or "tlj-live" in (found.get("class") or "")
        color = re.search(r"background-color: ([^;]*)", found.get("style") or "")
        if self._live and tag == "span" and color:
            self.texts.append("")
            self.colors.append(color[1])
        self._token = self._live and tag == "bdi" and "title" not in found
        self._live = self._live and "tlj-tokens" not in (found.get("class") or "")

    def handle_endtag(self, tag: str) -> None:
        self._token = False

    def handle_data(self, data: str) -> None:
        if self._token:
            self.texts[-1] += data


# -- pages ------------------------------------------------------------------------------

PARIS = [unit.text for unit in paris().units]
VALUES = [30.0, 2.0, 9.0, 1.0, 12.0, 4.0]
NASTY = [visible(text) for text in samples.NASTY]


def test_the_page_shows_circuitsvis_tokens_whose_colour_follows_the_value(visit: Open, tmp_path: Path) -> None:
    dom = visit(render.write([paris()], tmp_path / "page.html")).dom
    live = LiveTokens(dom)
    assert live.texts == PARIS
    alphas = [alpha(color) for color in live.colors]
    assert alphas == pytest.approx([0.7 * value / 30 for value in VALUES], abs=0.005)
    assert re.search(r'<div class="tlj-tokens"[^>]*hidden=""', dom), "the static tokens make way"


def test_no_request_leaves_the_page(visit: Open, tmp_path: Path) -> None:
    seen = visit(render.write([*samples.every_kind(), *samples.every_nasty_kind()], tmp_path / "page.html"))
    assert LiveTokens(seen.dom).texts, "the page must have come alive for this to mean anything"
    assert seen.requests == []
    assert "<title>Semantic Scope: logit of" in seen.dom


def test_the_request_log_does_catch_a_request(visit: Open) -> None:
    seen = visit(harness("fetch('http://127.0.0.1:9/caught').catch(() => 0);"))
    assert seen.requests == ["http://127.0.0.1:9/caught"]


def test_a_prompt_full_of_markup_is_text(visit: Open, tmp_path: Path) -> None:
    seen = visit(render.write([nasty_strip(title="Semantic Scope")], tmp_path / "page.html"))
    assert LiveTokens(seen.dom).texts == NASTY
    assert "<title>Semantic Scope" in seen.dom
    assert seen.requests == []


def sandboxed(html: str) -> str:
    """``html`` where no script runs."""
    make = f"""
      const frame = document.createElement("iframe");
      frame.setAttribute("sandbox", "allow-same-origin");
      frame.srcdoc = {script_json(html)};
      document.body.appendChild(frame);"""
    return harness(make, document="frame.contentDocument")


def test_without_scripts_the_static_view_is_what_shows(visit: Open) -> None:
    first, second, chosen = visit(sandboxed(render.page([paris(), nasty_strip(), samples.map_strip()]))).report
    check_static(first)
    assert [token["text"] for token in second["still"]] == NASTY
    assert second["live"] == []
    assert all(token["seen"] for token in chosen["still"])
    assert len(chosen["still"]) == 5


def check_static(figure: Any) -> None:
    assert figure["live"] == []
    assert all(token["seen"] for token in figure["still"])
    assert [token["text"] for token in figure["still"]] == PARIS
    alphas = [alpha(token["color"]) for token in figure["still"]]
    assert alphas == pytest.approx([0.7 * value / 30 for value in VALUES], abs=0.005)


def test_a_bundle_that_fails_leaves_the_static_view(visit: Open) -> None:
    bundle, _ = packed_scripts()
    output = render.notebook([paris()]).replace(bundle, "window.CircuitsVis = {render() { throw 1; }};")
    (figure,) = visit(notebook([output])).report
    check_static(figure)


# -- notebooks: no content security policy shields these ---------------------------------------


def test_a_notebook_shows_every_strip_with_one_bundle(visit: Open) -> None:
    outputs = [render.notebook([panel]) for panel in (paris(), nasty_strip())]
    seen = visit(notebook(outputs))
    for figure, texts in zip(seen.report, (PARIS, NASTY), strict=True):
        assert [token["text"] for token in figure["live"]] == texts
        assert not any(token["seen"] for token in figure["still"])
    assert all(token["seen"] for token in seen.report[0]["live"])
    assert seen.report[1]["coming"] == [samples.INJECTION]
    assert "<title>untouched</title>" in seen.dom
    assert seen.requests == []


def test_a_strip_before_the_bundle_waits_for_it(visit: Open) -> None:
    outputs = [render.notebook([paris()]) for _ in range(2)]
    early, late = visit(notebook(outputs[::-1])).report
    assert len(early["live"]) == len(late["live"]) == len(PARIS)


def test_a_notebook_that_lost_the_bundle_shows_the_static_view(visit: Open) -> None:
    render.notebook([paris()])
    (figure,) = visit(notebook([render.notebook([paris()])])).report
    check_static(figure)


HOVER = """
setTimeout(() => {
  const token = document.querySelectorAll(".colored-tokens > span")[INDEX];
  for (const kind of ["mouseenter", "mousemove"]) token.dispatchEvent(new MouseEvent(kind, {bubbles: true}));
}, 2500);
"""
CHOOSE = """
setTimeout(() => document.querySelectorAll(".tlj-multi > div > div:first-child > div")[INDEX]
  .dispatchEvent(new MouseEvent("mouseover", {bubbles: true})), 2500);
"""


def test_a_tooltip_shows_the_token_as_it_is_and_its_value(visit: Open) -> None:
    panel = strip(["a", "</s>&amp;"], rows=[row([1.0, 2.5], errors=(0.1, 0.25))])
    (figure,) = visit(notebook([render.notebook([panel])], HOVER.replace("INDEX", "1"))).report
    assert figure["tooltip"] == ["</s>&amp;\n1: 2.5 ± 0.25"]


def test_hidden_units_are_hatched_and_units_without_a_value_plain(visit: Open) -> None:
    panel = strip("abcd", rows=[row([90.0, NAN, 2.0], (0,), framed=(3,), coming="' e' (predicted)")], hidden=(0,))
    (figure,) = visit(notebook([render.notebook([panel])])).report
    assert [alpha(token["color"]) for token in figure["live"]] == pytest.approx([0, 0, 0.7, 0], abs=0.005)
    assert [token["classes"] for token in figure["live"]] == [["tlj-skipped"], [], [], ["tlj-framed"]]
    assert figure["coming"] == ["' e' (predicted)"]


def test_a_comparison_has_a_button_each_and_recolours(visit: Open) -> None:
    rows = [row([1.0, 2.0, 4.0], label="Semantic Scope"), row([2e-4, -1e-4, 0.0], label="Fisher Scope")]
    output = render.notebook([strip("abc", rows=rows)])
    (before,), (after,) = (visit(notebook([output], then)).report for then in ("", CHOOSE.replace("INDEX", "1")))
    assert before["labels"] == ["Semantic Scope (1 = 4)", "Fisher Scope (1 = 0.0002)"]
    assert [alpha(t["color"]) for t in before["live"]] == pytest.approx([0.175, 0.35, 0.7], abs=0.005)
    assert [alpha(t["color"]) for t in after["live"]] == pytest.approx([0.7, 0.35, 0], abs=0.005)
    assert after["live"][1]["color"].startswith("rgba(0, 114, 178")
    assert len(before["still"]) == 6
    assert all(token["seen"] for token in before["still"]), "side by side compares better: they stay"
    assert before["caption"] == []


def test_a_choice_starts_with_the_chosen_row_and_follows_the_pointer(visit: Open) -> None:
    output = render.notebook([samples.map_strip()])
    (before,), (after,) = (visit(notebook([output], then)).report for then in ("", CHOOSE.replace("INDEX", "1")))
    assert before["caption"] == ["4 ' is' → ' Paris' · full colour = 5 · logits · 'The' would be 1"]
    assert [alpha(t["color"]) for t in before["live"]] == pytest.approx([0, 0.28, 0.42, 0.56, 0.7], abs=0.005)
    assert before["coming"] == ["' Paris' (predicted)"]
    assert not any(token["seen"] for token in before["still"])
    assert after["caption"] == ["1 ' capital' → ' of' · full colour = 2 · logits · 'The' would be 1"]
    assert [alpha(t["color"]) for t in after["live"]] == pytest.approx([0, 0.7, 0, 0, 0], abs=0.005)
    assert [t["classes"] for t in after["live"]][2:] == [["tlj-framed"], ["tlj-later"], ["tlj-later"]]
    assert after["coming"] == [""]


def test_rows_on_one_scale_are_coloured_alike(visit: Open) -> None:
    scale = Scale(limit=4.0, low=-2.0, high=4.0, signed=True)
    rows = [row(values, scale=scale, label=str(i)) for i, values in enumerate(samples.VALUES)]
    panel = strip("abc", rows=rows, together=False, hidden=(0,), chosen=1)
    (figure,) = visit(notebook([render.notebook([panel])])).report
    assert figure["labels"] == ["0", "1"]
    assert [alpha(t["color"]) for t in figure["live"]] == pytest.approx([0, 0.35, 0.7], abs=0.005)


SHAPES = """
window.report = (doc) => ({
  cells: [...doc.querySelectorAll(".tlj-heat td")].map((e) => ({
    hatched: getComputedStyle(e).backgroundImage !== "none", size: [e.offsetWidth, e.offsetHeight]})),
  bars: [...doc.querySelectorAll(".tlj-parts td > span")].map((e) => e.offsetWidth),
  ink: [...doc.querySelectorAll("svg text")].map((e) => getComputedStyle(e).fill)[0],
  charts: [...doc.querySelectorAll("svg")].map((e) => e.getBoundingClientRect().width),
});
"""


def test_other_kinds_need_no_script(visit: Open) -> None:
    html = render.page([grid(), samples.contributions(samples.PARTS), samples.series()])
    page = (
        sandboxed(html).replace("const report =", "window.report =").replace("setTimeout(", SHAPES + "setTimeout(", 1)
    )
    found = visit(page).report
    assert [cell["hatched"] for cell in found["cells"]] == [True, False, True, True, False, False]
    assert all(width >= 20 and height >= 15 for width, height in (cell["size"] for cell in found["cells"]))
    assert sorted(found["bars"]) == [0, 8, 16, 32, 65, 130]
    assert found["ink"] == "rgb(31, 35, 40)", "the page's own colour"
    assert 200 < found["charts"][0] < 300, "a chart shrinks to the room that there is"
