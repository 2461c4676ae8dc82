"""A page's server in a thread, on a free port; skipped where the extra ``app`` isn't installed, but in CI."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

if "CI" not in os.environ:
    pytest.importorskip("uvicorn", reason="the extra app isn't installed")
    pytest.importorskip("fastapi", reason="the extra app isn't installed")
    pytest.importorskip("websockets", reason="the extra app isn't installed")

from tl_jacobian.app.server import Server
from tl_jacobian.app.session import Place


@contextmanager
def serving(places: dict[str, Place], **options: Any) -> Iterator[Server]:
    server = Server(places, port=0, **options)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 20
    while not server._server.started:
        assert time.monotonic() < end, "the server didn't start"
        time.sleep(0.02)
    try:
        yield server
    finally:
        server.stop()
        thread.join(20)
