"""What draws values: they are told how to load it, and know no renderer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from tl_jacobian.results.panels import Panel

_load_renderer: Callable[[], Any] | None = None


@runtime_checkable
class Renderer(Protocol):
    """What draws panels: the module ``tl_jacobian.render``."""

    def show(self, panels: Sequence[Panel]) -> None: ...
    def notebook(self, panels: Sequence[Panel]) -> str: ...
    def write(self, panels: Sequence[Panel], path: str | Path) -> Path: ...
    def figure(self, panels: Sequence[Panel], ax: Any = None) -> Any: ...
    def markdown(self, panels: Sequence[Panel]) -> str: ...


def draw_with(load: Callable[[], Any]) -> None:
    """Say how to load the renderer; it isn't loaded before something is drawn."""
    global _load_renderer
    _load_renderer = load


def renderer() -> Renderer:
    """The renderer, loaded."""
    if _load_renderer is None:
        raise RuntimeError("no renderer is registered: import tl_jacobian, which registers its own")
    return _load_renderer()
