"""From click to picture in the live view, against the library's call alone; writes benchmarks/results/live.md.

Each action is clicked in a real chromium on the demo model, on a prompt of its own each time; the library's call for
the same is timed beside it, in this process.

    python -m benchmarks.live [--part actions|large]
"""

from __future__ import annotations

import argparse
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

RUNS = 3
TO = Path("benchmarks/results/live.md")
HEAD = f"""# From click to picture

The demo model in the live view, driven by Chromium on 2 CPU cores that other work shared; medians of {RUNS}. *Click to
picture* is from the pointer's or key's event to the frame after the picture is on the page; the library's call for the
same is timed beside it in the same process. *CPU* is what the calling thread spent, in the library's call and in all
answers that the click asked for: it doesn't depend on who else computes. Each run of an action has a prompt of its own,
but what is kept of that prompt (its forward pass) is used, as a reader's clicks use it: ratios below 1 come of that.
"""
ACTIONS = """
## Actions

| action | library alone | click to picture | within 1.15 times + 50 ms | library, CPU | view, CPU | ratio of CPU |
|---|---|---|---|---|---|---|
{rows}
"""
LARGE = """
## Large things

*Drawing* is click to picture when the answer is in the page already.

| what | the answer, CPU | click to picture | drawing |
|---|---|---|---|
{rows}
"""
NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gil")


def prompt(n: int) -> str:
    return f"When {NAMES[n % len(NAMES)]} and John went to the store, John gave a drink to"


def drill(lin: Any) -> None:
    token_route(lin, [1])
    tj.layer_influence(lin, at=[f"blocks.{i}.hook_resid_pre" for i in range(30)], kind="relative")
    tj.head_influence(lin, kind="gradient_x_activation")
    tj.residual_contributions(lin)


def timed(fn: Callable[[], Any]) -> tuple[float, float]:
    """Seconds by the clock and of this thread's CPU."""
    began, spent = time.perf_counter(), time.thread_time()
    fn()
    return time.perf_counter() - began, time.thread_time() - spent


class Metered(Bench):
    """A bench that adds up what its answers spend."""

    spent = 0.0

    def answer(self, ask: Any) -> bytes:
        began = time.thread_time()
        try:
            return super().answer(ask)
        finally:
            self.spent += time.thread_time() - began


class Reader:
    """A page, and what is done on it; ``rows`` of the table come of :meth:`add`."""

    def __init__(self, page: Page, bench: Metered) -> None:
        self.page, self.bench, self.rows = page, bench, list[str]()

    def add(
        self,
        name: str,
        alone: Callable[[int], Any],
        ready: Callable[[int], Any],
        click: Callable[[], Any],
        seen: str = ".tlx-head",
        runs: int = RUNS,
    ) -> None:
        library, shown, spent = [], [], []
        for n in range(runs):
            library.append(timed(lambda n=n: alone(n)))
            ready(n)
            self.bench.spent = 0.0
            shown.append(clicked(self.page, click, seen))
            spent.append(self.bench.spent)
        clock, cpu = (statistics.median(one[i] for one in library) for i in (0, 1))
        picture, own = statistics.median(shown), statistics.median(spent)
        within = "yes" if picture <= 1.15 * clock + 0.05 else "no"
        times = [f"{1000 * t:.0f} ms" for t in (clock, picture, cpu, own)]
        cells = [name, times[0], times[1], within, times[2], times[3], f"{own / cpu:.2f}"]
        self.rows.append(f"| {' | '.join(cells)} |")
        print(self.rows[-1], flush=True)

    def fill(self, text: str) -> None:
        self.page.fill("textarea[aria-label=Prompt]", text)

    def run(self) -> None:
        self.page.locator(".tlx-main").first.click()

    def explained(self, n: int) -> None:
        self.fill(prompt(n))
        clicked(self.page, self.run, ".tlx-head")

    def choose(self, at: int, value: str) -> None:
        self.page.locator(".tlx-how select").nth(at).select_option(value)


def actions(page: Page, bench: Metered) -> list[str]:
    """Each action's row."""
    here, model = Reader(page, bench), bench.model

    def lin(n: int, **options: Any) -> Any:
        return tj.linearize(model, prompt(n), **options)

    here.add("explain a prompt", lambda n: tj.semantic_scope(lin(n)), lambda n: here.fill(prompt(n)), here.run)
    predicted = page.locator(".tlx-predicted .tlx-bar")
    here.add(
        "explain another token",
        lambda n: tj.semantic_scope(lin(n + RUNS), 260),
        lambda n: here.explained(n + RUNS),
        lambda: predicted.nth(3).click(),
    )
    here.add(
        "contrast with a token",
        lambda n: tj.semantic_scope(lin(n), 260, minus=300),
        here.explained,
        lambda: predicted.nth(2).click(modifiers=["Shift"]),
    )
    here.add(
        "explain an earlier position",
        lambda n: tj.semantic_scope(lin(n, position=9)),
        here.explained,
        lambda: page.locator(".tlx-place").nth(9).click(),
    )

    def with_scope(value: str) -> Callable[[], None]:
        """A choice fires no pointer event: the clock begins here."""
        return lambda: (page.evaluate("() => (window.began = performance.now())"), here.choose(0, value))[1]

    def semantic(n: int) -> None:
        if page.locator(".tlx-how select").nth(0).input_value() != "semantic":
            clicked(page, with_scope("semantic"), ".tlx-head")
        here.explained(n)

    for name, scope in (("Fisher Scope", tj.fisher_scope), ("Temperature Scope", tj.temperature_scope)):
        value = scope.__name__.removesuffix("_scope")
        here.add(f"choose {name}", lambda n, scope=scope: scope(lin(n)), semantic, with_scope(value))
    semantic(0)
    here.add(
        "drill down",
        lambda n: drill(lin(n, record=True)),
        here.explained,
        lambda: page.locator(".tlx-token .tlx-word").nth(1).click(),
        ".tlx-panel-curves svg",
    )

    def drilled(n: int) -> None:
        here.explained(n)
        clicked(page, lambda: page.locator(".tlx-token .tlx-word").nth(1).click(), ".tlx-panel-curves svg")
        canvas = page.locator(".tlx-panel-heatmap canvas").nth(1)
        canvas.focus()
        for _ in range(n + 1):
            page.keyboard.press("ArrowDown")

    here.add(
        "open a head",
        lambda n: tj.path_scope(lin(n, record=True), f"blocks.{n + 1}.attn.hook_z", heads=[0]),
        drilled,
        lambda: page.keyboard.press("Enter"),
        ".tlx-headbox .tlx-panel-tokenstrip",
    )

    def focused(n: int) -> None:
        here.explained(n)
        page.locator(".tlx-token").nth(3).focus()

    here.add(
        "take a token out",
        lambda n: intervene(lin(n), positions=[3]),
        focused,
        lambda: page.keyboard.press("x"),
        ".tlx-result",
    )

    def tests(n: int) -> None:
        here.explained(n)
        page.locator("[data-tab=test]").click()
        page.fill("input[aria-label=Layer]", str(20 + n))

    here.add(
        "silence a head",
        lambda n: intervene(lin(n, record="heads"), f"blocks.{20 + n}.attn.hook_z", heads=[0]),
        tests,
        lambda: page.get_by_role("button", name="Silence").click(),
        ".tlx-result",
    )

    def mapped(n: int) -> None:
        here.explained(n)
        page.locator("[data-tab=map]").click()

    here.add(
        "a map of every position",
        lambda n: tj.attribution_map(model, prompt(n)),
        mapped,
        lambda: page.get_by_role("button", name="Compute the map").click(),
        ".tlx-panel-heatmap canvas",
    )

    def few(n: int) -> None:
        here.explained(n)
        page.fill("input[aria-label='Tokens to write at most']", "4")

    here.add(
        "let it write four tokens",
        lambda n: tj.semantic_scope(lin(n, answer=tj.GENERATE, max_new_tokens=4)),
        few,
        lambda: page.get_by_role("button", name="Write an answer").click(),
        ".tlx-answer",
    )
    return here.rows


def sizes(page: Page, bench: Metered) -> list[str]:
    """Of large things: the answer's CPU, click to picture, and what of it is drawing (all of it is kept already)."""
    rows, model = [], bench.model
    words = (prompt(0) + ". ") * 200

    def text_of(n_tokens: int) -> str:
        tokens = model.tokenizer.encode(words)[:n_tokens]
        return model.tokenizer.decode(tokens)

    def measure(name: str, click: Callable[[], Any], back: Callable[[], Any], seen: str) -> None:
        bench.spent = 0.0
        shown = clicked(page, click, seen)
        spent = bench.spent
        drawn = []
        for _ in range(RUNS):
            back()
            drawn.append(clicked(page, click, seen))
        drawing = statistics.median(drawn)
        rows.append(f"| {name} | {spent:.1f} s | {shown:.1f} s | {1000 * drawing:.0f} ms |")
        print(rows[-1], flush=True)

    reader = Reader(page, bench)
    short, long = text_of(200), text_of(2000)
    reader.fill(short)
    clicked(page, reader.run, ".tlx-head")
    page.locator("[data-tab=map]").click()

    def the_map() -> None:
        button = page.get_by_role("button", name="Compute the map")
        (button if button.count() else page.locator("[data-tab=map]")).click()

    measure(
        "a map of 200 x 200",
        the_map,
        lambda: page.locator("[data-tab=python]").click(),
        ".tlx-panel-heatmap canvas",
    )
    page.locator("[data-tab=python]").click()

    def another() -> None:
        reader.fill(short)
        clicked(page, reader.run, ".tlx-head")
        reader.fill(long)

    reader.fill(long)
    measure(
        "a prompt of 2,000 tokens",
        reader.run,
        another,
        ".tlx-head",
    )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", choices=["actions", "large"], help="only this one; the other stays as it was")
    part = parser.parse_args().part
    bench = Metered(tj.load_demo_model(), "demo")
    bench.warm()
    server = Server({"demo": Place(bench)}, port=0)
    threading.Thread(target=server.run, daemon=True).start()
    time.sleep(1)
    found = dict[str, str]()
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(300_000)
        page.goto(server.url)
        page.wait_for_selector(".tlx-chip")
        if part != "large":
            found["Actions"] = ACTIONS.format(rows="\n".join(actions(page, bench)))
        if part != "actions":
            found["Large things"] = LARGE.format(rows="\n".join(sizes(page, bench)))
        browser.close()
    server.stop()
    old = TO.read_text().split("\n## ")[1:] if TO.exists() else []
    parts = {text.partition("\n")[0]: f"\n## {text.rstrip()}\n" for text in old} | found
    tables = [parts[name] for name in ("Actions", "Large things") if name in parts]
    TO.write_text(HEAD + "".join(tables))


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
