"""From click to picture in the live view, against the library's call alone; writes benchmarks/results/live.md.

Each action is clicked in a real chromium on the demo model, a prompt of its own each time, so that nothing is kept; the
library's call for the same is timed beside it, in this process. Medians of five.

    python -m benchmarks.live
"""

from __future__ import annotations

import shutil
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

import tl_jacobian as tj
from tl_jacobian.analyses.interventions import intervene
from tl_jacobian.analyses.routes import token_route
from tl_jacobian.app.bench import Bench
from tl_jacobian.app.server import Server
from tl_jacobian.app.session import Place

RUNS = 5
NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gil")


def prompt(n: int) -> str:
    return f"When {NAMES[n % len(NAMES)]} and John went to the store, John gave a drink to"


def drill(lin: Any) -> None:
    token_route(lin, [1])
    tj.layer_influence(lin, at=[f"blocks.{i}.hook_resid_pre" for i in range(30)], kind="relative")
    tj.head_influence(lin, kind="gradient_x_activation")
    tj.residual_contributions(lin)


def main() -> None:
    model = tj.load_demo_model()
    bench = Bench(model, "demo")
    bench.warm()
    server = Server({"demo": Place(bench)}, port=0)
    threading.Thread(target=server.run, daemon=True).start()
    time.sleep(1)
    lines = ["| action | library alone | click to picture | ratio |", "|---|---|---|---|"]

    def timed(fn: Callable[[], Any]) -> float:
        began = time.perf_counter()
        fn()
        return time.perf_counter() - began

    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(server.url)
        page.wait_for_selector(".tlx-chip")

        def add(
            name: str, alone: Callable[[int], Any], ready: Callable[[int], Any], click: Callable[[], Any], seen: str
        ) -> None:
            library, shown = [], []
            for n in range(RUNS):
                library.append(timed(lambda n=n: alone(n)))
                ready(n)
                shown.append(clicked(page, click, seen))
            a, b = statistics.median(library), statistics.median(shown)
            lines.append(f"| {name} | {1000 * a:.0f} ms | {1000 * b:.0f} ms | {b / a:.2f} |")
            print(lines[-1], flush=True)

        def fill(n: int) -> None:
            page.fill("textarea[aria-label=Prompt]", prompt(n))

        def explained(n: int) -> None:
            fill(n)
            clicked(page, run, ".tlx-head")

        run = page.locator(".tlx-main").first.click
        add("explain a prompt", lambda n: tj.semantic_scope(tj.linearize(model, prompt(n))), fill, run, ".tlx-head")
        bench.answers.clear()
        add(
            "explain another token",
            lambda n: tj.semantic_scope(tj.linearize(model, prompt(n)), 260),
            lambda n: explained(n + RUNS),
            lambda: page.locator(".tlx-predicted .tlx-bar").nth(3).click(),
            ".tlx-head",
        )
        add(
            "drill down",
            lambda n: drill(tj.linearize(model, prompt(n), record=True)),
            explained,
            lambda: page.locator(".tlx-token .tlx-word").nth(1).click(),
            ".tlx-panel-curves svg",
        )

        def tests(n: int) -> None:
            explained(n)
            page.locator(".tlx-token").nth(3).focus()

        add(
            "take a token out",
            lambda n: intervene(tj.linearize(model, prompt(n)), positions=[3]),
            tests,
            lambda: page.keyboard.press("x"),
            ".tlx-result",
        )
        browser.close()
    server.stop()
    text = "\n".join(lines)
    head = (__doc__ or "").partition("\n")[0].partition(";")[0]
    note = (
        "To the frame after the picture is on the page; what is kept of a prompt is used, as a reader's clicks use it."
    )
    Path("benchmarks/results/live.md").write_text(f"# From click to picture\n\n{head}.\n\n{text}\n\n{note}\n")


def clicked(page: Page, click: Callable[[], Any], seen: str) -> float:
    """Seconds from a click to the frame in which what it shows is on the page."""
    page.evaluate(
        """(seen) => {
          for (const old of document.querySelectorAll(seen)) old.setAttribute("data-old", "");
          window.shown = new Promise((done) => {
            const look = () => document.querySelector(`${seen}:not([data-old])`)
              ? requestAnimationFrame(() => done(performance.now() - window.began)) : requestAnimationFrame(look);
            const begin = () => (window.began = performance.now());
            const once = { capture: true, once: true };
            for (const kind of ["pointerdown", "keydown"]) document.addEventListener(kind, begin, once);
            look();
          });
        }""",
        seen,
    )
    click()
    return page.evaluate("() => window.shown") / 1000


if __name__ == "__main__":
    main()
