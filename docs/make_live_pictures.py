"""The live view's screenshots: the real app on the demo model, driven in Debian's chromium.

python docs/make_live_pictures.py [empty attribution comparison drilldown intervention features edges chat series dark
                                   narrow wide]

The SAE of *features* is that of ``python -m benchmarks.train_sae``. *notebook* was taken in JupyterLab by hand.
"""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from playwright.sync_api import Page, sync_playwright

import tl_jacobian as tj
from benchmarks import train_sae
from tl_jacobian.app.bench import Bench
from tl_jacobian.app.features import sae_of
from tl_jacobian.app.server import Server
from tl_jacobian.app.session import Place

TO = Path(__file__).parent / "images" / "live"
PEOPLE = "When Mary and John went to the store, John gave a drink to"
FACT = "The Eiffel Tower stands in Paris. The Colosseum stands in"


def settle(page: Page) -> None:
    page.wait_for_timeout(250)
    page.locator(".tlx-status").wait_for(state="hidden")
    page.mouse.move(2, 2)
    page.wait_for_timeout(250)


def explain(page: Page, text: str) -> None:
    page.fill("textarea[aria-label=Prompt]", text)
    page.locator("textarea[aria-label=Prompt]").press("Control+Enter")
    page.wait_for_selector(".tlx-token")
    settle(page)


def click(page: Page, selector: str, n: int = 0, **options: Any) -> None:
    page.locator(selector).nth(n).click(**options)
    settle(page)


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name).first.click()
    settle(page)


def choose(page: Page, at: int, value: str) -> None:
    page.locator(".tlx-how select").nth(at).select_option(value)
    settle(page)


def empty(page: Page) -> None:
    settle(page)


def attribution(page: Page) -> None:
    explain(page, FACT)


def comparison(page: Page) -> None:
    explain(page, FACT)
    choose(page, 1, "fisher")
    click(page, ".tlx-predicted .tlx-bar", 1, modifiers=["Shift"])


def drilldown(page: Page) -> None:
    explain(page, PEOPLE)
    click(page, ".tlx-token .tlx-word", 1)
    canvas = page.locator(".tlx-panel-heatmap canvas").nth(1)
    canvas.focus()
    for key in ["ArrowDown"] * 23 + ["ArrowRight"] * 3 + ["Enter"]:
        page.keyboard.press(key)
    page.wait_for_selector(".tlx-headbox .tlx-panel-tokenstrip")
    settle(page)


def intervention(page: Page) -> None:
    explain(page, FACT)
    page.locator(".tlx-token").nth(6).focus()
    page.keyboard.press("e")
    page.fill("input[aria-label='Other text for the picked tokens']", " London")
    press(page, "Put this in its place")
    press(page, "Take it out (mean)")


def features(page: Page) -> None:
    explain(page, PEOPLE)
    click(page, "[data-tab=features]")
    canvas = page.locator(".tlx-panel-heatmap canvas").first
    canvas.focus()
    for key in ("ArrowRight", "Enter"):
        page.keyboard.press(key)
    settle(page)
    press(page, "take it out and see")


def edges(page: Page) -> None:
    explain(page, PEOPLE)
    click(page, ".tlx-token .tlx-word", 9)
    click(page, "[data-tab=edges]")
    page.fill("input[aria-label='Text of the other prompt']", " Mary")
    press(page, "Find the edges")
    click(page, "tr.tlx-pick", 1)
    press(page, "measure it")


def chat(page: Page) -> None:
    page.locator("select[aria-label='Load an example']").select_option("A chat")
    page.wait_for_selector(".tlx-token")
    settle(page)
    page.fill("input[aria-label='Tokens to write at most']", "4")
    press(page, "Write an answer")
    choose(page, 2, "messages")


def series(page: Page) -> None:
    page.locator("select[aria-label='Load an example']").select_option("A series of numbers")
    page.wait_for_selector(".tlx-panel-curves")
    settle(page)


WIDTHS = {"narrow": 360, "wide": 2560}
PICTURES: dict[str, Callable[[Page], None]] = {
    **{one.__name__: one for one in (empty, attribution, comparison, drilldown, intervention, features, edges)},
    **{one.__name__: one for one in (chat, series)},
    "dark": drilldown,
    "narrow": edges,
    "wide": drilldown,
}


def main(names: Sequence[str]) -> None:
    sae = sae_of(train_sae.load())
    bench = Bench(tj.load_demo_model("bridge"), "demo", python='tj.load_demo_model("bridge")', sae=sae)
    bench.warm()
    server = Server({"demo": Place(bench)}, port=0)
    threading.Thread(target=server.run, daemon=True).start()
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name in names or PICTURES:
            page = browser.new_page(
                viewport={"width": WIDTHS.get(name, 1280), "height": 800},
                color_scheme="dark" if name == "dark" else "light",
                reduced_motion="reduce",
            )
            page.set_default_timeout(120_000)
            page.goto(server.url)
            page.wait_for_selector(".tlx-chip")
            PICTURES[name](page)
            page.screenshot(path=TO / f"{name}.png", full_page=True)
            page.close()
            print(name, flush=True)
        browser.close()
    server.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
