"""From click to picture in the live view, against the library's call alone; writes benchmarks/results/live.md.

Each action is clicked in a real chromium on the demo model, on a prompt of its own each time; the library's call for
the same is timed beside it, in this process.

    python -m benchmarks.live [--part actions|map|prompt]
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
from benchmarks import train_sae
from tl_jacobian.analyses.edges import edge_attribution
from tl_jacobian.analyses.interventions import intervene
from tl_jacobian.analyses.routes import token_route
from tl_jacobian.app import answers
from tl_jacobian.app.bench import Bench
from tl_jacobian.app.features import sae_of
from tl_jacobian.app.server import Server
from tl_jacobian.app.session import Place

RUNS = 3
TO = Path("benchmarks/results/live.md")
HEAD = f"""# From click to picture

The demo model in the live view, driven by Chromium on 2 CPU cores; medians of {RUNS}. *Click to
picture* is from the pointer's or key's event to the frame after the picture is on the page; the library's call for the
same is timed beside it in the same process. *CPU* is what the calling thread spent, in the library's call and in all
answers that the click asked for: it hardly depends on who else computes, where the clock does. Each run of an action
has a prompt of its own, but what is kept of that prompt (its forward pass) is used, as a reader's clicks use it: ratios
below 1 come of that. A server is warm here: its first prompts cost about 0.25 s more each, for memory that is new.
"""
ACTIONS = """
## Actions

| action | library alone | click to picture | within 1.15 times + 50 ms | library, CPU | view, CPU | ratio of CPU |
|---|---|---|---|---|---|---|
{rows}
"""
LARGE = """
## Large things

*Beyond it* is what the answer takes besides the library's own calls, which are timed inside of it: reading
the text, panels, JSON. *Drawing* is click to picture when the answer is in the page already: to the first frame that
shows it. On the bridge.

| what | library, CPU | the answer, CPU | beyond it | click to picture | drawing |
|---|---|---|---|---|---|
{rows}
"""
LARGE_PARTS = {"map": "a map of 200 x 200", "prompt": "a prompt of 2,000 tokens"}
NAMES = ("Ada", "Ben", "Dan", "Eve", "Finn", "Gil", "Tom")


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

    def answer(self, ask: Any, begins: Callable[[], None] = lambda: None) -> bytes:
        began = time.thread_time()
        try:
            return super().answer(ask, begins)
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
    for n in range(4):  # a warm server
        here.fill(f"{prompt(n)} the")
        clicked(page, here.run, ".tlx-head")

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

    def paired(n: int) -> None:
        here.explained(n)
        page.locator("[data-tab=pairs]").click()

    here.add(
        "pairs of tokens",
        lambda n: tj.token_interactions(lin(n), "semantic"),
        paired,
        lambda: page.get_by_role("button", name="Compare every pair").click(),
        ".tlx-panel-table",
    )
    if bench.sae is not None:
        sae, hook, read = bench.sae.given, bench.sae.at, bench.sae.of
        here.add(
            "features of an SAE",
            lambda n: tj.feature_scope(lin(n, record=[hook]), sae),
            here.explained,
            lambda: page.locator("[data-tab=features]").click(),
            ".tlx-panel-bars",
        )

        def featured(n: int) -> None:
            here.explained(n)
            clicked(page, lambda: page.locator("[data-tab=features]").click(), ".tlx-panel-bars")
            page.locator(".tlx-panel-heatmap canvas").first.focus()
            page.keyboard.press("ArrowRight")

        def of_first(n: int) -> None:
            inside = tj.linearize(model, prompt(n), output_hook=hook, position=1)
            tj.feature_scope(inside, sae, int(read.activations(inside.y[None])[0].argmax()))

        here.add(
            "tokens of a feature", of_first, featured, lambda: page.keyboard.press("Enter"), ".tlx-headbox .tlx-head"
        )

    def other(n: int) -> str:
        return prompt(n).replace("John gave", f"{NAMES[n % len(NAMES)]} gave")

    def edged(n: int) -> None:
        here.explained(n)
        clicked(page, lambda: page.locator(".tlx-token .tlx-word").nth(9).click(), ".tlx-panel-curves svg")
        page.locator("[data-tab=edges]").click()
        page.fill("input[aria-label='Text of the other prompt']", f" {NAMES[n % len(NAMES)]}")

    here.add(
        "edges of all heads",
        lambda n: edge_attribution(model, prompt(n), other(n), check=0),
        edged,
        lambda: page.get_by_role("button", name="Find the edges").click(),
        ".tlx-panel-table",
    )

    def found(n: int) -> None:
        edged(n)
        clicked(page, lambda: page.get_by_role("button", name="Find the edges").click(), ".tlx-panel-table")
        clicked(page, lambda: page.locator("tr.tlx-pick").first.click(), ".tlx-headbox .tlx-panel-tokenstrip")

    here.add(
        "measure an edge",
        lambda n: edge_attribution(model, prompt(n), other(n), check=1, progress=False),
        found,
        lambda: page.get_by_role("button", name="measure it").click(),
        ".tlx-result",
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


def sizes(page: Page, bench: Metered, part: str) -> list[str]:
    """Of large things: the answer's CPU, click to picture, and what of it is drawing (all of it is kept already)."""
    rows, model = [], bench.model
    words = (prompt(0) + ". ") * 200

    def text_of(n_tokens: int) -> str:
        tokens = model.tokenizer.encode(words)[:n_tokens]
        return model.tokenizer.decode(tokens)

    inside = [0.0]

    def metered(call: Callable[..., Any]) -> Callable[..., Any]:
        def timed_call(*args: Any, **options: Any) -> Any:
            began = time.thread_time()
            try:
                return call(*args, **options)
            finally:
                inside[0] += time.thread_time() - began

        return timed_call

    for name in ("_attribution", "attribution_map"):
        setattr(answers, name, metered(getattr(answers, name)))

    def measure(name: str, click: Callable[[], Any], back: Callable[[], Any], seen: str) -> None:
        bench.spent = inside[0] = 0.0
        shown = clicked(page, click, seen)
        spent, library = bench.spent, inside[0]
        drawn = []
        for _ in range(RUNS):
            back()
            drawn.append(clicked(page, click, seen))
        drawing = statistics.median(drawn)
        rows.append(
            f"| {name} | {library:.1f} s | {spent:.1f} s | {spent - library:.2f} s "
            f"| {shown:.1f} s | {1000 * drawing:.0f} ms |"
        )
        print(rows[-1], flush=True)

    reader = Reader(page, bench)
    short, long = text_of(200), text_of(2000)
    if part == "map":
        reader.fill(short)
        clicked(page, reader.run, ".tlx-head")
        page.locator("[data-tab=map]").click()

        def the_map() -> None:
            button = page.get_by_role("button", name="Compute the map")
            (button if button.count() else page.locator("[data-tab=map]")).click()

        measure(
            LARGE_PARTS[part],
            the_map,
            lambda: page.locator("[data-tab=python]").click(),
            ".tlx-panel-heatmap canvas",
        )
        return rows

    def another() -> None:
        reader.fill(short)
        clicked(page, reader.run, ".tlx-head")
        reader.fill(long)

    reader.fill(long)
    measure(
        LARGE_PARTS[part],
        reader.run,
        another,
        ".tlx-head",
    )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    choices = ["actions", *LARGE_PARTS]
    parser.add_argument("--part", choices=choices, help="only this one; the others stay as they were")
    part = parser.parse_args().part
    sae = sae_of(train_sae.load()) if (train_sae.folder() / "cfg.json").exists() else None
    bench = Metered(tj.load_demo_model("hooked" if part == "actions" else "bridge"), "demo", sae=sae)
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
        if part in (None, "actions"):
            found["Actions"] = ACTIONS.format(rows="\n".join(actions(page, bench)))
        for one in LARGE_PARTS:
            if part in (None, one):
                found[one] = "\n".join(sizes(page, bench, one))
        browser.close()
    server.stop()
    old = TO.read_text() if TO.exists() else ""
    for name, text in LARGE_PARTS.items():
        found.setdefault(name, next((line for line in old.splitlines() if line.startswith(f"| {text} ")), ""))
    if "Actions" not in found and "## Actions" in old:
        found["Actions"] = f"\n## {old.split('## ')[1].rstrip()}\n"
    large = LARGE.format(rows="\n".join(filter(None, (found[name] for name in LARGE_PARTS))))
    TO.write_text(HEAD + found.get("Actions", "") + large)


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
