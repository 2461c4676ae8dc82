"""Who may talk to the page's server: checked before anything else sees a request.

A page of another site can make a reader's browser send requests to this machine, and can point a name of its own at it
(DNS rebinding). So every request must name this server in ``Host``; a connection that can compute must come from a page
of this server (``Origin``); and where others than this machine can connect, a token that only the printed address holds
is asked for. What is sent can't be large or slow either: there is nothing here to send a body to.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
SendMessage = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, SendMessage], Awaitable[None]]

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data: blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


def is_loopback(address: str) -> bool:
    """Whether only this machine can connect there.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Guard:
    """An ASGI application in front of another.

    Attributes:
        app: the one behind it.
        port: where the server listens.
        token: what the address must hold; None: it listens on loopback alone.
        names: of this machine, besides its numeric addresses.
    """

    app: App
    port: int
    token: str | None = None
    names: frozenset[str] = field(default_factory=lambda: frozenset({socket.gethostname().lower()}))

    async def __call__(self, scope: Scope, receive: Receive, send: SendMessage) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refused(scope, headers)
        if refused is None:
            await self.app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": refused[1]})
        else:
            await _answer(send, *refused)

    def _refused(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, str, Mapping[str, str]] | None:
        """Status, reason and headers of a refusal; None: let it through."""
        if sum(name == b"host" for name, _ in scope["headers"]) != 1 or not self._is_here(headers["host"]):
            return 421, "this server isn't called that: open the address that it printed", {}
        live, origin = scope["type"] == "websocket", headers.get("origin")
        if (origin is None and live) or (origin is not None and not self._is_ours(origin, headers["host"])):
            return 403, "a page of another site may not talk to this server", {}
        if not live and scope["method"] not in ("GET", "HEAD"):
            return 405, "there is nothing to send here", {"allow": "GET, HEAD"}
        if not live and (headers.get("content-length", "0") != "0" or "transfer-encoding" in headers):
            return 413, "there is nothing to send here", {}
        if self.token is None or self._known(headers):
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["type"] == "http" and hmac.compare_digest(given.encode(), self.token.encode()):
            # From here on a cookie says it, so that the token stands in no link that the page makes.
            cookie = f"{self._cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/"
            return 303, "", {"location": "/", "set-cookie": cookie}
        return 401, "open the address that the server printed: it ends with a token", {}

    @property
    def _cookie(self) -> str:
        return f"tl_jacobian_{self.port}"

    def _known(self, headers: Mapping[str, str]) -> bool:
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return False
        return found is not None and hmac.compare_digest(found.value.encode(), (self.token or "").encode())

    def _is_here(self, host: str) -> bool:
        try:
            name, port = (parts := urlsplit(f"//{host}")).hostname or "", parts.port
        except ValueError:
            return False
        if (80 if port is None else port) != self.port or parts.username is not None or parts.path:
            return False
        if self.token is None:
            return is_loopback(name)
        try:
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return name == "localhost" or name in self.names

    @staticmethod
    def _is_ours(origin: str, host: str) -> bool:
        return origin.lower() == f"http://{host.lower()}"


def _with_headers(send: SendMessage) -> SendMessage:
    async def sent(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message["headers"] = [*message.get("headers", ()), *more]
        await send(message)

    return sent


async def _answer(send: SendMessage, status: int, reason: str, headers: Mapping[str, str]) -> None:
    every = {**HEADERS, "content-type": "text/plain; charset=utf-8", "connection": "close", **headers}
    encoded = [(name.encode(), value.encode()) for name, value in every.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": f"{reason}\n".encode()})
