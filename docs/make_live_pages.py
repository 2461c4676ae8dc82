"""The gallery's live pages: what readers of the live view would have asked for, computed on the demo model and frozen.

python docs/make_live_pages.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable
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

    def write(self) -> None:
        TO.mkdir(parents=True, exist_ok=True)
        page = frozen_page(hello({self.bench.name: self.bench.host.facts()}), self.answers.items())
        (TO / f"{self.name}.html").write_text(page, encoding="utf-8")
        print(f"{self.name}.html: {len(page) / 1e6:.1f} MB, {len(self.answers)} answers")


def main() -> None:
    model = tj.load_demo_model("bridge")
    bench = Bench(model, "demo", python='tj.load_demo_model("bridge")')

    fact = Page(bench, "fact")
    for scope in ("temperature", "fisher", "entropy", "input_x_gradient"):
        fact.ask(read(FACT, scope=scope))
        fact.ask(read(FACT, beside=scope))
    fact.ask(read(FACT, by="words"))
    fact.ask({"do": "map", "view": FACT})
    fact.drill(FACT, (3, 6, 9, 10, 11))
    fact.ask({"do": "try", "view": FACT, "change": "edit", "positions": [6], "text": " London"})
    fact.ask({"do": "try", "view": FACT, "change": "drop", "positions": [10]})
    fact.ask(read(FACT))

    people = Page(bench, "people")
    mary, john = (model.tokenizer.encode(name, add_special_tokens=False)[0] for name in (" Mary", " John"))
    view = {**PEOPLE, "target": mary, "minus": john}
    lin = tj.linearize(model, PEOPLE["prompt"], record=True)
    heads = tj.residual_contributions(lin, target=mary, minus=john).heads.top(3)
    places = [(int(one.row_name), int(one.column_name.removeprefix("H"))) for one in heads]
    people.drill(view, (1, 3, 9), places)
    for layer, head in places:
        people.ask({"do": "try", "view": view, "change": "silence", "kind": "head", "layer": layer, "heads": [head]})
    people.ask({"do": "try", "view": view, "change": "edit", "positions": [9], "text": " Mary"})
    people.ask(read(view))

    passages = Page(bench, "passages")
    lines = PASSAGES["prompt"].split("\n")
    segments = [
        {"name": name, "text": line} for name, line in zip(("harbour", "library", "bridge"), lines, strict=False)
    ]
    written = passages.ask({"do": "write", "view": PASSAGES, "n_tokens": 2})["facts"]["answer"]
    answered = {**PASSAGES, "answer": written}
    passages.ask(read(answered))
    passages.ask(read(answered, scope="leave_one_out"))
    passages.ask(read(answered, by="lines"))
    passages.ask(read(answered, by="segments", segments=segments, beside="leave_one_out"))
    passages.ask(read(answered, by="segments", segments=segments))

    chat = Page(bench, "chat")
    written = chat.ask({"do": "write", "view": CHAT, "n_tokens": 4})["facts"]["answer"]
    answered = {**CHAT, "answer": written}
    for by in ("words", "roles", "messages"):
        chat.ask(read(answered, by=by))
        chat.ask(read(answered, by=by, scope="fisher"))
    chat.ask(read(answered, scope="fisher"))
    chat.ask(read(answered))

    for page in (fact, people, passages, chat):
        page.write()


if __name__ == "__main__":
    main()
