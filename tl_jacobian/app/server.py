"""The page's home: FastAPI and uvicorn serve the front end, and a WebSocket carries a tab's requests and answers.

There is one page, the front end's files (read once, from the package), and the WebSocket. A tab is a session: when it
closes, its work ends. No path of this machine is read or written for a request.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import Response

from tl_jacobian.app.examples import hello
from tl_jacobian.app.guard import Guard, is_loopback
from tl_jacobian.app.session import Place, Session
from tl_jacobian.errors import ArgumentError
from tl_jacobian.render.explore import modules

_TABS = 64
_MESSAGE = 2 << 20  # bytes of a request
_WAITING = 400  # messages to a tab that doesn't read them
_TYPES = {"js": "text/javascript", "css": "text/css"}
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>What drove this?</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/explore/explore.css">
<script type="module" src="/explore/page.js"></script>
</head><body><noscript>This view needs JavaScript; everything runs on this machine.</noscript></body></html>
"""


def application(places: Mapping[str, Place], view: Mapping[str, Any] | None = None) -> FastAPI:
    """The page, its files and the WebSocket; put a :class:`~tl_jacobian.app.guard.Guard` in front of it.

    Args:
        places: the models, by name.
        view: what is looked at first.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    files = {name: text.encode() for name, text in modules().items()}
    first = hello({name: place.bench.facts for name, place in places.items()}, view)
    open_tabs: set[Session] = set()

    @app.get("/")
    async def page() -> Response:
        return Response(_PAGE, media_type="text/html; charset=utf-8")

    @app.get("/explore/{name}")
    async def file(name: str) -> Response:
        if name not in files:
            return Response("no such file\n", 404, media_type="text/plain")
        return Response(files[name], media_type=f"{_TYPES[name.rsplit('.', 1)[1]]}; charset=utf-8")

    @app.websocket("/live")
    async def live(tab: WebSocket) -> None:
        if len(open_tabs) >= _TABS:
            await tab.close(1013, "too many tabs are open here; close some")
            return
        await tab.accept()
        loop, waiting = asyncio.get_running_loop(), asyncio.Queue[bytes](_WAITING)
        overrun = asyncio.Event()

        def put(message: bytes) -> None:
            try:
                waiting.put_nowait(message)
            except asyncio.QueueFull:
                overrun.set()

        def send(head: Mapping[str, Any], body: bytes) -> None:
            message = json.dumps(dict(head)).encode() + b"\n" + body
            with suppress(RuntimeError):  # the server is closing
                loop.call_soon_threadsafe(put, message)

        session = Session(places, send, first)
        open_tabs.add(session)
        send({"type": "hello"}, json.dumps(first).encode())
        tasks = [
            asyncio.create_task(_receive(tab, session)),
            asyncio.create_task(_forward(tab, waiting)),
            asyncio.create_task(overrun.wait()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            session.close()
            open_tabs.discard(session)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with suppress(RuntimeError, WebSocketDisconnect):
                await tab.close()

    return app


async def _receive(tab: WebSocket, session: Session) -> None:
    with suppress(WebSocketDisconnect, KeyError):
        while True:
            session.handle(await tab.receive_text())


async def _forward(tab: WebSocket, waiting: asyncio.Queue[bytes]) -> None:
    while True:
        await tab.send_bytes(await waiting.get())


class Server:
    """The page's server, listening.

    Args:
        places: the models, by name.
        address: where to listen; anything but loopback asks for a token.
        port: 0: any that is free.
        view: what is looked at first.

    Raises:
        ArgumentError: it can't listen there.

    Attributes:
        url: what to open.
    """

    def __init__(
        self,
        places: Mapping[str, Place],
        *,
        address: str = "127.0.0.1",
        port: int = 8765,
        view: Mapping[str, Any] | None = None,
    ) -> None:
        self.places = dict(places)
        self.socket = _listening(address, port)
        self.port = int(self.socket.getsockname()[1])
        self.token = None if is_loopback(address) else secrets.token_urlsafe(24)
        shown = socket.gethostname() if address in ("0.0.0.0", "::") else f"[{address}]" if ":" in address else address
        self.url = f"http://{shown}:{self.port}/" + ("" if self.token is None else f"?token={self.token}")
        app = Guard(application(self.places, view), self.port, self.token)
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                ws="websockets-sansio",
                ws_max_size=_MESSAGE,
                ws_per_message_deflate=False,
                h11_max_incomplete_event_size=32 << 10,
                limit_concurrency=4 * _TABS,
                timeout_keep_alive=10,
                timeout_graceful_shutdown=1,
            )
        )

    def run(self) -> None:
        """Serve until it is interrupted, or :meth:`stop`."""
        try:
            self._server.run(sockets=[self.socket])
        finally:
            self.socket.close()
            for place in self.places.values():
                place.close()

    def stop(self) -> None:
        """End :meth:`run`, from another thread."""
        self._server.should_exit = True


def _listening(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((address.strip("[]"), port))
        found.listen(128)
    except (OSError, OverflowError) as error:
        found.close()
        raise ArgumentError(
            f"can't listen on {address!r}, port {port}: {error}; choose another, --port 0 takes any that is free"
        ) from error
    return found
