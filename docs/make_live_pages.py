"""The gallery's live pages: what readers of the live view would have asked for, computed on the demo model and frozen.

python docs/make_live_pages.py [fact people passages chat]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

import tl_jacobian as tj
from tl_jacobian.app.asks import Ask
from tl_jacobian.app.bench import Bench
from tl_jacobian.app.examples import hello
from tl_jacobian.render.explore import frozen_page

TO = Path(__file__).parent / "extra" / "live"
FACT = {"prompt": "The Eiffel Tower stands in Paris. The Colosseum stands in"}
PEOPLE = {"prompt": "When Mary and John went to the store, John gave a drink to"}
PASSAGES = {
    "prompt": "The harbour of Westport was built by Anna Reed.\nThe library of Westport was built by Simon Clay.\n"
    "The bridge of Westport was built by Martin Gold.\n\nThe library of Westport was built by"
}
CHAT = {
    "messages": [
        {"role": "system", "content": "You are a helpful assistant who answers in one word."},
        {"role": "user", "content": "What is the capital of Italy?"},
    ]
}


def stable(value: Any) -> str:
    """An ask's key, as the page's own modules write it: sorted, without spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def read(view: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"do": "read", "view": {**view, **more}}


class Page:
    """Asks and their answers; the page begins with the last text that was read."""

    def __init__(self, bench: Bench, name: str) -> None:
        self.bench, self.name, self.answers = bench, name, dict[str, bytes]()

    def ask(self, ask: dict[str, Any]) -> dict[str, Any]:
        body = self.bench.answer(msgspec.convert(ask, type=Ask))
        self.answers.pop(stable(ask), None)
        self.answers[stable(ask)] = body
        return json.loads(body)

    def drill(self, view: dict[str, Any], tokens: Iterable[int], heads: Iterable[tuple[int, int]] = ()) -> None:
        for at in tokens:
            self.ask({"do": "drill", "view": view, "positions": [at]})
        for layer, head in heads:
            self.ask({"do": "head", "view": view, "layer": layer, "head": head})

    def written(self, view: dict[str, Any], n_tokens: int) -> list[int]:
        """The model's own answer."""
        ask = {"do": "write", "view": view, "n_tokens": n_tokens}
        return json.loads(self.bench.answer(msgspec.convert(ask, type=Ask)))["facts"]["answer"]

    def write(self) -> None:
        TO.mkdir(parents=True, exist_ok=True)
        page = frozen_page(hello({self.bench.name: self.bench.facts}), self.answers.items())
        (TO / f"{self.name}.html").write_text(page, encoding="utf-8")
        print(f"{self.name}.html: {len(page) / 1e6:.1f} MB, {len(self.answers)} answers")


def fact(page: Page) -> None:
    for scope in ("temperature", "fisher", "entropy", "input_x_gradient"):
        page.ask(read(FACT, scope=scope))
        page.ask(read(FACT, beside=scope))
    page.ask(read(FACT, by="words"))
    page.ask({"do": "map", "view": FACT})
    page.drill(FACT, (3, 6, 9, 10, 11))
    page.ask({"do": "try", "view": FACT, "change": "edit", "positions": [6], "text": " London"})
    page.ask({"do": "try", "view": FACT, "change": "drop", "positions": [10]})
    page.ask(read(FACT))


def people(page: Page) -> None:
    model = page.bench.model
    mary, john = (model.tokenizer.encode(name, add_special_tokens=False)[0] for name in (" Mary", " John"))
    view = {**PEOPLE, "target": mary, "minus": john}
    lin = tj.linearize(model, PEOPLE["prompt"], record=True)
    heads = tj.residual_contributions(lin, target=mary, minus=john).heads.top(3)
    places = [(int(one.row_name), int(one.column_name.removeprefix("H"))) for one in heads]
    page.drill(view, (1, 3, 9), places)
    for layer, head in places:
        page.ask({"do": "try", "view": view, "change": "silence", "kind": "head", "layer": layer, "heads": [head]})
    page.ask({"do": "try", "view": view, "change": "edit", "positions": [9], "text": " Mary"})
    page.ask(read(view))


def passages(page: Page) -> None:
    lines = PASSAGES["prompt"].split("\n")
    segments = [
        {"name": name, "text": line} for name, line in zip(("harbour", "library", "bridge"), lines, strict=False)
    ]
    answered = {**PASSAGES, "answer": page.written(PASSAGES, 2)}
    page.ask(read(answered))
    page.ask(read(answered, scope="leave_one_out"))
    page.ask(read(answered, by="lines"))
    page.ask(read(answered, by="segments", segments=segments, beside="leave_one_out"))
    page.ask(read(answered, by="segments", segments=segments))


def chat(page: Page) -> None:
    answered = {**CHAT, "answer": page.written(CHAT, 4)}
    for by in ("words", "roles", "messages"):
        page.ask(read(answered, by=by))
        page.ask(read(answered, by=by, scope="fisher"))
    page.ask(read(answered, scope="fisher"))
    page.ask(read(answered))


PAGES = {make.__name__: make for make in (fact, people, passages, chat)}


def main(names: Sequence[str]) -> None:
    bench = Bench(tj.load_demo_model("bridge"), "demo", python='tj.load_demo_model("bridge")')
    for name in names or PAGES:
        page = Page(bench, name)
        PAGES[name](page)
        page.write()


if __name__ == "__main__":
    main(sys.argv[1:])
