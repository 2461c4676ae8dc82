"""Fixtures of the renderers' tests; the panels are in ``panel_samples``."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tl_jacobian import render


@pytest.fixture(autouse=True)
def fresh_notebook() -> None:
    """Each test starts like a new kernel: no output has carried the scripts yet."""
    render.embed_scripts_again()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORFGBG", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def plt() -> Iterator[Any]:
    """pyplot that draws into memory; its figures are closed in the end."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


@pytest.fixture
def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if matplotlib weren't installed."""
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A fake Jupyter kernel; collects what is displayed."""
    shown: list[Any] = []
    html = SimpleNamespace(HTML=lambda data: data, display=shown.append)
    shell = SimpleNamespace(kernel=object(), execution_count=1, get_parent=dict)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, display=html))
    monkeypatch.setitem(sys.modules, "IPython.display", html)
    return shown
