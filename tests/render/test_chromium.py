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

import pytest
import torch

from tl_jacobian import render
from tl_jacobian.render.interactive import runtime_scripts, script_json, script_tag
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.tokens import visible

Make = Callable[..., Attribution]

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
const look = (e) => ({text: e.textContent, color: getComputedStyle(e).backgroundColor, seen: seen(e)});
const report = (doc) => [...doc.querySelectorAll(".tlj-figure")].map((figure) => ({
  live: [...figure.querySelectorAll(".tlj-live .colored-tokens > span > span")].map(look),
  still: [...figure.querySelectorAll(".tlj-tokens > bdi")].map(look),
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
        f"{body}{script_tag(REPORT + script + tell)}</body>"
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


def test_the_page_shows_circuitsvis_tokens_whose_colour_follows_the_score(
    visit: Open, paris: Attribution, tmp_path: Path
) -> None:
    dom = visit(paris.to_html(tmp_path / "page.html")).dom
    live = LiveTokens(dom)
    assert live.texts == list(paris.str_tokens)
    alphas = [alpha(color) for color in live.colors]
    scores = paris.scores.tolist()
    assert alphas == pytest.approx([0.7 * score / max(scores) for score in scores], abs=0.005)


def test_the_static_tokens_make_way(visit: Open, paris: Attribution, tmp_path: Path) -> None:
    dom = visit(paris.to_html(tmp_path / "page.html")).dom
    assert re.search(r'<div class="tlj-tokens"[^>]*hidden=""', dom)


def test_no_request_leaves_the_page(visit: Open, paris: Attribution, nasty: Attribution, tmp_path: Path) -> None:
    seen = visit(render.write_html([paris, nasty], tmp_path / "page.html"))
    assert LiveTokens(seen.dom).texts, "the page must have come alive for this to mean anything"
    assert seen.requests == []


def test_the_request_log_does_catch_a_request(visit: Open) -> None:
    seen = visit(harness("fetch('http://127.0.0.1:9/caught').catch(() => 0);"))
    assert seen.requests == ["http://127.0.0.1:9/caught"]


def test_a_prompt_full_of_markup_is_text(visit: Open, nasty: Attribution, tmp_path: Path) -> None:
    seen = visit(nasty.to_html(tmp_path / "page.html"))
    assert LiveTokens(seen.dom).texts == [visible(text) for text in nasty.str_tokens]
    assert "<title>Semantic Scope" in seen.dom
    assert seen.requests == []


def test_without_scripts_the_static_view_is_what_shows(
    visit: Open, paris: Attribution, nasty: Attribution, tmp_path: Path
) -> None:
    html = render.write_html([paris, nasty], tmp_path / "page.html").read_text(encoding="utf-8")
    make = f"""
      const frame = document.createElement("iframe");
      frame.setAttribute("sandbox", "allow-same-origin");
      frame.srcdoc = {script_json(html)};
      document.body.appendChild(frame);"""
    first, second = visit(harness(make, document="frame.contentDocument")).report
    check_static(first, paris)
    assert [token["text"] for token in second["still"]] == [visible(text) for text in nasty.str_tokens]
    assert second["live"] == []


def check_static(figure: Any, attribution: Attribution) -> None:
    assert figure["live"] == []
    assert all(token["seen"] for token in figure["still"])
    assert [token["text"] for token in figure["still"]] == list(attribution.str_tokens)
    largest = attribution.scores.max().item()
    alphas = [alpha(token["color"]) for token in figure["still"]]
    assert alphas == pytest.approx([0.7 * score / largest for score in attribution.scores.tolist()], abs=0.005)


def test_a_bundle_that_fails_leaves_the_static_view(visit: Open, paris: Attribution) -> None:
    bundle, _ = runtime_scripts()
    output = render.notebook_html([paris]).replace(bundle, "window.CircuitsVis = {render() { throw 1; }};")
    (figure,) = visit(notebook([output])).report
    check_static(figure, paris)


# -- notebooks: no content security policy shields these ---------------------------------------


def test_a_notebook_shows_every_figure_with_one_bundle(visit: Open, paris: Attribution, nasty: Attribution) -> None:
    outputs = [render.notebook_html([a]) for a in (paris, nasty)]
    seen = visit(notebook(outputs))
    for figure, attribution in zip(seen.report, (paris, nasty), strict=True):
        assert [token["text"] for token in figure["live"]] == [visible(text) for text in attribution.str_tokens]
        assert not any(token["seen"] for token in figure["still"])
    assert all(token["seen"] for token in seen.report[0]["live"])
    assert "<title>untouched</title>" in seen.dom
    assert seen.requests == []


def test_a_figure_before_the_bundle_waits_for_it(visit: Open, paris: Attribution) -> None:
    outputs = [render.notebook_html([paris]) for _ in range(2)]
    early, late = visit(notebook(outputs[::-1])).report
    assert len(early["live"]) == len(late["live"]) == len(paris)


def test_a_notebook_that_lost_the_bundle_shows_the_static_view(visit: Open, paris: Attribution) -> None:
    render.notebook_html([paris])
    (figure,) = visit(notebook([render.notebook_html([paris])])).report
    check_static(figure, paris)


HOVER = """
setTimeout(() => {
  const token = document.querySelectorAll(".colored-tokens > span")[INDEX];
  for (const kind of ["mouseenter", "mousemove"]) token.dispatchEvent(new MouseEvent(kind, {bubbles: true}));
}, 2500);
"""


def test_a_tooltip_shows_the_token_as_it_is_and_its_score(visit: Open, make: Make) -> None:
    attribution = make(["a", "</s>&amp;"], [1.0, 2.5], stderr=torch.tensor([0.1, 0.25]))
    (figure,) = visit(notebook([attribution._repr_html_()], HOVER.replace("INDEX", "1"))).report
    assert figure["tooltip"] == ["</s>&amp;\n1: 2.5 ± 0.25"]


def test_the_first_token_is_left_without_colour_where_skipped(visit: Open, paris: Attribution) -> None:
    (figure,) = visit(notebook([render.notebook_html([paris], skip_first=True)])).report
    alphas = [alpha(token["color"]) for token in figure["live"]]
    assert alphas[0] == 0
    assert alphas[1:] == pytest.approx([0.7 * score / 12 for score in paris.scores.tolist()[1:]], abs=0.005)


def test_a_comparison_has_a_button_each_and_recolours(visit: Open, make: Make) -> None:
    one, two = make(["a", "b", "c"], [1.0, 2.0, 4.0]), make(["a", "b", "c"], [2e-4, -1e-4, 0.0], scope="fisher")
    output = render.compare([one, two])._repr_html_()
    choose = """
      setTimeout(() => document.querySelectorAll(".tlj-multi > div > div:first-child > div")[1]
        .dispatchEvent(new MouseEvent("mouseover", {bubbles: true})), 2500);"""
    (before,), (after,) = (visit(notebook([output], then)).report for then in ("", choose))
    assert before["labels"] == [
        "Semantic Scope: logit of ' Paris' (1 = 4)",
        "Fisher Scope: logit of ' Paris' (1 = 0.0002)",
    ]
    assert [alpha(t["color"]) for t in before["live"]] == pytest.approx([0.175, 0.35, 0.7], abs=0.005)
    assert [alpha(t["color"]) for t in after["live"]] == pytest.approx([0.7, 0.35, 0], abs=0.005)
    assert after["live"][1]["color"].startswith("rgba(0, 114, 178")
    assert len(before["still"]) == 6
    assert all(token["seen"] for token in before["still"])
