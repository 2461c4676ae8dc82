"""A reader of a view, for tests: sends requests to a session and keeps what it is sent."""

from __future__ import annotations

import json
import threading
from typing import Any

from tl_jacobian.app.bench import Bench, Limits
from tl_jacobian.app.session import Place, Session


class Reader:
    """One session, with everything that it was sent."""

    def __init__(self, places: dict[str, Place]) -> None:
        self.got: list[tuple[dict[str, Any], Any]] = []
        self._new = threading.Condition()
        self.session = Session(places, self._take, {"models": {}})
        self._last = 0

    def _take(self, head: Any, body: bytes) -> None:
        with self._new:
            self.got.append((dict(head), json.loads(body) if body else None))
            self._new.notify_all()

    def send(self, ask: dict[str, Any] | None, **more: Any) -> int:
        self._last += 1
        message = {"id": self._last, "key": json.dumps(ask), **more}
        self.session.handle(message if ask is None else {**message, "ask": ask})
        return self._last

    def of(self, id: int) -> list[str]:
        return [head["type"] for head, _ in self.got if head["id"] == id]

    def wait(self, id: int, types: tuple[str, ...] = ("done", "failed", "cancelled"), seconds: float = 60) -> Any:
        """The head and the body of the answer."""

        def found() -> Any:
            return next(((h, b) for h, b in self.got if h["id"] == id and h["type"] in types), None)

        with self._new:
            assert self._new.wait_for(found, seconds), f"nothing came for {id}: {self.of(id)}"
            return found()

    def ask(self, ask: dict[str, Any], **more: Any) -> Any:
        return self.wait(self.send(ask, **more))


def place(model: Any, name: str = "tiny", **limits: Any) -> Place:
    return Place(Bench(model, name, limits=Limits(**limits)))
