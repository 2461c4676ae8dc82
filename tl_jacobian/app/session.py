"""The state machine behind every view: from requests to answers, whatever carries the messages.

A session is one reader: a tab of the page, or a widget in a notebook. It never computes; it checks what is asked, hands
it to the worker of a model, and sends what comes of it. Messages to a view are small heads (dicts) with a body (JSON):

==============  ================================================================================================
``"queued"``    taken; so many requests are before it
``"started"``   it is computed now; ``expected`` seconds, where something like it was computed before
``"progress"``  ``done`` of ``total`` steps of ``what``
``"done"``      the body is the answer
``"failed"``    ``message`` says why, and what can be done about it
``"cancelled"`` it was cancelled, or a newer request took its place
``"frozen"``    the body is the page
==============  ================================================================================================
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import torch

from tl_jacobian.app.asks import Ask, Request
from tl_jacobian.app.bench import Bench
from tl_jacobian.app.cache import Cache
from tl_jacobian.app.worker import Job, Worker
from tl_jacobian.core.cancel import cancellable
from tl_jacobian.core.progress import telling
from tl_jacobian.errors import Cancelled, JacobianScopeError, PromptError
from tl_jacobian.render.explore import frozen_page

Send = Callable[[Mapping[str, Any], bytes], None]
_PACE = 0.2  # seconds between two messages of progress
_LOG = 48 << 20  # bytes of answers that a frozen page can hold
_MOST = 400  # requests that wait, of all sessions
_PATH = re.compile(r"(?:/[\w.@+-]+){2,}/?")


class Place:
    """A model, the bench at which it is asked, and the one thread that works there."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.worker = Worker(bench.name)

    def close(self) -> None:
        self.worker.close()


class Session:
    """One reader's requests.

    Args:
        places: by the names that views call models; the first is the default.
        send: carries a message to the view; called from any thread, one at a time.
        hello: what the view begins with, JSON values.
    """

    def __init__(self, places: Mapping[str, Place], send: Send, hello: Mapping[str, Any] | None = None) -> None:
        self._places = dict(places)
        self._carry = send
        self._sending = threading.Lock()
        self._open = True
        self.hello = dict(hello or {})
        self.log = Cache[bytes](_LOG)  # answers by the view's own keys

    def handle(self, message: Any) -> None:
        """Take a message of the view: JSON text, or what it says. What is wrong with it is answered, never raised."""
        number = message.get("id", 0) if isinstance(message, dict) else 0
        number = number if isinstance(number, int) and not isinstance(number, bool) else 0
        try:
            if isinstance(message, (str, bytes)):
                message = json.loads(message)
                number = message.get("id", 0) if isinstance(message, dict) else 0
            request = msgspec.convert(message, type=Request, strict=True)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            message = f"this view sent what isn't understood here: {error}"
            self._send({"type": "failed", "id": number, "error": "not understood", "message": message})
            return
        try:
            self._take(request)
        except Exception as error:  # whatever it is, the session lives on
            self._send({"type": "failed", "id": request.id, **told(error)})

    def close(self) -> None:
        """The reader has gone: what was asked isn't wanted any more."""
        self._open = False
        for place in self._places.values():
            place.worker.cancel(self)

    # -- requests ----------------------------------------------------------------------

    def _take(self, request: Request) -> None:
        if request.cancel is not None:
            for place in self._places.values():
                place.worker.cancel(self, request.cancel)
        if request.freeze:
            page = frozen_page(self.hello, self.log.items())
            self._send({"type": "frozen", "id": request.id}, json.dumps(page).encode())
        if (ask := request.ask) is None:
            return
        place = self._place(ask)
        if sum(p.worker.waiting for p in self._places.values()) > _MOST:
            raise PromptError("too much is being asked of this server at once; try again in a moment")
        job = Job(
            self,
            request.lane,
            request.id,
            run=lambda job: self._compute(place, request, ask, job),
            dropped=lambda job: self._send({"type": "cancelled", "id": request.id}),
        )
        ahead = place.worker.submit(job)
        if ahead:
            self._send({"type": "queued", "id": request.id, "ahead": ahead})

    def _place(self, ask: Ask) -> Place:
        name = ask.view.model or next(iter(self._places))
        if name not in self._places:
            raise PromptError(f"no model is called {name!r} here, expected one of {', '.join(map(repr, self._places))}")
        return self._places[name]

    def _compute(self, place: Place, request: Request, ask: Ask, job: Job) -> None:
        """In the worker's thread."""
        began, last = time.monotonic(), 0.0

        def step(what: str, done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _PACE:
                last = now
                left = (now - began) * (total - done) / max(done, 1)
                head = {"type": "progress", "id": request.id, "what": what, "done": done, "total": total, "left": left}
                self._send(head)

        def begins() -> None:
            self._send({"type": "started", "id": request.id, "expected": place.bench.expected(ask)})

        head: dict[str, Any]
        body = b""
        try:
            if job.unwanted:
                raise Cancelled("cancelled")
            with cancellable(lambda: job.unwanted), telling(step):
                found = place.bench.answer(ask, begins)
            head, body = {"type": "done", "id": request.id, "seconds": time.monotonic() - began}, found
            if request.key:
                self.log.put(request.key, found, len(found) + len(request.key))
        except Cancelled:
            head = {"type": "cancelled", "id": request.id}
        except Exception as error:
            head = {"type": "failed", "id": request.id, **told(error)}
        self._send(head, body)

    def _send(self, head: Mapping[str, Any], body: bytes = b"") -> None:
        with self._sending:
            if self._open:
                self._carry(head, body)


def told(error: BaseException) -> dict[str, str]:
    """An error in words for the reader: what is wrong, and what can be done about it."""
    if isinstance(error, JacobianScopeError):
        return {"error": type(error).__name__, "message": str(error)}
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        remedy = "shorten the text, choose a smaller model, or free memory; the session goes on"
        return {"error": "out of memory", "message": f"this doesn't fit into memory: {remedy}"}
    if isinstance(error, ImportError):
        return {"error": "not installed", "message": f"{error}"}
    # Something of the model's, or of a hook of the caller's: which function it was, without any place on the disk.
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = f" in {frame.tb_frame.f_code.co_name}()" if frame is not None else ""
    what = _PATH.sub("…", str(error))[:500]
    remedy = "The model or one of its hooks failed; remove its hooks (model.reset_hooks()) or try another text"
    return {
        "error": type(error).__name__,
        "message": f"{type(error).__name__}{where}: {what}. {remedy}. The session goes on",
    }
