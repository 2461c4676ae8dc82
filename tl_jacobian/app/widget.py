"""The notebook's home: an anywidget whose kernel side computes with the user's own model."""

from __future__ import annotations

import html
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anywidget
import msgspec
import traitlets

from tl_jacobian.app.asks import Read
from tl_jacobian.app.bench import Bench
from tl_jacobian.app.examples import hello
from tl_jacobian.app.session import Place, Session
from tl_jacobian.errors import JacobianScopeError
from tl_jacobian.render import notebook
from tl_jacobian.render.explore import frozen_page, module, style
from tl_jacobian.results.files import atomic


class Explore(anywidget.AnyWidget):
    """The live view of a model in a notebook: what :func:`tl_jacobian.explore` gives.

    Its messages are those of :class:`~tl_jacobian.app.session.Session`. Beside the widget a notebook stores the first
    picture as static HTML, which is seen where no kernel runs; the widget hides it.
    """

    _esm = traitlets.Unicode(module()).tag(sync=True)
    _css = traitlets.Unicode(style()).tag(sync=True)
    hello = traitlets.Unicode("{}").tag(sync=True)
    still = traitlets.Unicode("").tag(sync=True)  # the id of the static picture
    state = traitlets.Unicode("").tag(sync=True)  # what is looked at now, JSON of the front end's: it outlives a reload

    def __init__(self, bench: Bench, view: Mapping[str, Any]) -> None:
        first = hello({bench.name: bench.facts}, view)
        super().__init__(hello=json.dumps(first), still=f"tlx-still-{uuid.uuid4().hex}")
        self._view = dict(view)
        self._place = Place(bench)
        self._session = Session({bench.name: self._place}, self._carry, first)
        self.on_msg(lambda _, content, buffers: self._session.handle(content))

    def _carry(self, head: Mapping[str, Any], body: bytes) -> None:
        self.send(dict(head), [body] if body else None)

    def close(self) -> None:
        """Stop what is computed, and take the view off the page."""
        self._session.close()
        self._place.close()
        super().close()

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained page of everything that was computed in this view; returns its path.

        It hovers, folds, and switches among what was computed; it needs no kernel and no connection.
        """
        page = frozen_page(self._session.hello, self._session.log.items())
        with atomic(path) as file:
            file.write(page)
        return Path(path)

    def _static(self) -> str:
        """The first picture, for a notebook that is opened again without a kernel."""
        if not self._view:
            return ""
        try:
            seen = self._place.bench.see(msgspec.convert({"do": "read", "view": self._view}, Read))
        except JacobianScopeError as error:
            return f"<p>{html.escape(str(error))}</p>"
        return notebook(seen.panels["attribution"])

    def _ipython_display_(self) -> None:
        """The first picture, static, and the widget, which hides it: without a kernel it is what is left."""
        from IPython.display import HTML, display  # pyright: ignore[reportMissingImports]  # present in every kernel

        if static := self._static():
            display(HTML(f'<div id="{self.still}">{static}</div>'))
        made = self._repr_mimebundle_()
        data, metadata = made if isinstance(made, tuple) else (made or {}, {})
        display(data, metadata=metadata, raw=True)
