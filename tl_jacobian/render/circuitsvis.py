"""The interactive view of a token strip: CircuitsVis' coloured tokens in the place of the static ones.

CircuitsVis' own Python helpers can't be used. ``RenderedHTML._repr_html_`` opens a connection to an outside host on
every display, ``str()`` gives a page that loads from a CDN, and both put prompt text into a script unescaped. Here the
library's bundle and ``assets/mount.js`` are embedded once per page or notebook (:func:`runtime_scripts`), and every
strip makes one call with JSON that can't leave its script element (:func:`strip_script`).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import re
import sys
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib import resources
from typing import Any, ClassVar

from tl_jacobian.render import words
from tl_jacobian.render.colors import MAX_OPACITY, NEGATIVE, POSITIVE
from tl_jacobian.results.panels import StripRow, TokenStrip
from tl_jacobian.results.tokens import visible

# More can't be chosen from, or take the browser too long.
MAX_BUTTONS = 130
MAX_LIVE_CELLS = 20_000
_PLAIN = (1e-2, 1e6)  # limits whose numbers can be read as they are: CircuitsVis writes six decimals

# The runtime may come after the figure (front ends order outputs as they like): ask for 10 s.
_CALL = """(function call(left) {
  if (window.tlJacobian && window.CircuitsVis) window.tlJacobian.mount(%s);
  else if (left) setTimeout(call, 200, left - 1);
})(50);"""


def strip_script(strip: TokenStrip, figure_id: str) -> str:
    """JavaScript that asks the runtime to make a strip interactive; "" where it is too large for that.

    Args:
        strip: what is drawn.
        figure_id: the HTML id of the element that holds the static tokens.
    """
    small = len(strip.rows) <= MAX_BUTTONS and len(strip.rows) * len(strip.units) <= MAX_LIVE_CELLS
    return _CALL % script_json(_props(strip, figure_id)) if small and strip.rows and strip.units else ""


def _props(strip: TokenStrip, figure_id: str) -> dict[str, Any]:
    several, texts = len(strip.rows) > 1, [unit.text for unit in strip.units]
    limits, common = _units(strip.rows)
    return {
        "id": figure_id,
        "tokens": [visible(text) for text in texts],
        "breaks": [i for i, text in enumerate(texts) if "\n" in text],
        "columns": [
            [None if math.isnan(value) else _six_digits(value / unit) for value in row.values]
            for row, unit in zip(strip.rows, limits, strict=True)
        ],
        # As text: one that isn't a number must not stop the figure.
        "errors": [words.number(error) for error in strip.rows[0].errors] if strip.rows[0].errors is not None else None,
        "limit": _six_digits(strip.rows[0].scale.limit / common) if common else 1.0,
        "labels": [_label(row, common) for row in strip.rows],
        "captions": [] if strip.together or not several else [caption(strip, row, common) for row in strip.rows],
        "hidden": list(strip.hidden),
        "framed": [list(row.framed) for row in strip.rows],
        "coming": [visible(row.coming) for row in strip.rows],
        "chosen": 0 if strip.together else strip.chosen,
        "together": strip.together,
        "positive": POSITIVE,
        "negative": NEGATIVE,
        "opacity": MAX_OPACITY,
    }


def _units(rows: Sequence[StripRow]) -> tuple[list[float], float]:
    """What each row's values are written in, and that unit where it is common to all (else 0).

    ColoredTokensMulti keeps the first column's colour range when another is chosen, so columns with ranges of their
    own are written as shares of their full colour; others in a power of ten that six decimals can show.
    """
    if not words.one_scale(rows):
        return [row.scale.limit or 1.0 for row in rows], 0.0
    limit = rows[0].scale.limit
    unit = (
        1.0 if len(rows) == 1 or not limit or _PLAIN[0] <= limit < _PLAIN[1] else 10.0 ** math.floor(math.log10(limit))
    )
    return [unit] * len(rows), unit


def _label(row: StripRow, common: float) -> str:
    share = f" (1 = {words.number(row.scale.limit)})" if row.scale.limit and not common else ""
    return visible(row.label) + share


def caption(strip: TokenStrip, row: StripRow, common: float = 1.0) -> str:
    """What the chosen row shows."""
    unit = f"numbers in units of {common:g}" if common not in (0.0, 1.0) else ""
    return " · ".join(filter(None, (visible(row.label), *words.row_facts(strip, row), unit)))


def _six_digits(value: float) -> float:
    return float(f"{value:.6g}")


def script_json(value: Any) -> str:
    r"""JSON that is safe inside a script element, whatever text it holds.

    >>> script_json("</script>\u2028")
    '"\\u003c/script\\u003e\\u2028"'
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def runtime_scripts() -> tuple[str, str]:
    """CircuitsVis' bundle, and the code that mounts its components on token strips."""
    bundle = resources.files("circuitsvis").joinpath("dist/cdn/iife.js").read_text(encoding="utf-8")
    return _embeddable(bundle), asset("mount.js")


def _embeddable(script: str) -> str:
    """``script`` with nothing that ends or hides its element, and no source map to fetch.

    The bundle holds ``"<script></script>"`` in a string of React's: in a string or regular
    expression the escaped forms mean the same.
    """
    script = re.sub(r"//# sourceMappingURL=\S*", "", script)
    return re.sub("</(?=script)", r"<\\/", script, flags=re.IGNORECASE).replace("<!--", r"\x3C!--")


@cache
def asset(name: str) -> str:
    """Text of a file in ``render/assets``."""
    return resources.files("tl_jacobian.render").joinpath("assets", name).read_text(encoding="utf-8")


@lru_cache(maxsize=8)  # the bundle is large, and the same on every page
def csp_hash(script: str) -> str:
    """The source expression that lets exactly this inline script run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


# The bundle as a notebook stores it, a third of its size; whoever has it already doesn't unpack it again.
_UNPACK = """(function () {
  if (window.CircuitsVis || window.tlJacobianUnpacks) return;
  window.tlJacobianUnpacks = true;
  var bytes = Uint8Array.from(atob("%s"), function (c) { return c.charCodeAt(0); });
  var stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  new Response(stream).text().then(function (text) {
    var script = document.createElement("script");
    script.textContent = text;
    document.head.append(script);
  });
})();"""


@cache
def packed_scripts() -> tuple[str, str]:
    """:func:`runtime_scripts` for a notebook's output."""
    bundle, mount = runtime_scripts()
    packed = gzip.compress(bundle.encode(), 9, mtime=0)
    return _UNPACK % base64.b64encode(packed).decode("ascii"), mount


class Notebook:
    """Which outputs of this notebook carry the scripts (0.5 MB): those of two cells, so that either may be cleared.

    A cell that carries them and is run again carries them again: its old output is gone.
    """

    CARRIERS = 2
    cells: ClassVar[list[object]] = []  # that carry them
    runs: ClassVar[set[object]] = set()  # of cells, in which they were sent

    @classmethod
    def scripts(cls) -> tuple[str, ...]:
        """The runtime, if this output is to carry it."""
        cell, run = _running_cell()
        if run in cls.runs or (cell not in cls.cells and len(cls.cells) >= cls.CARRIERS):
            return ()
        scripts = packed_scripts()
        cls.runs.add(run)  # only now: reading the bundle may fail
        if cell not in cls.cells:
            cls.cells.append(cell)
        return scripts


def _running_cell() -> tuple[object, object]:
    """Names of the cell that runs and of this run of it; None of either outside notebooks."""
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    if getattr(shell, "kernel", None) is None:
        return None, None
    asked = shell.get_parent()  # the front end's request: those that number their cells say which one it is
    return asked.get("metadata", {}).get("cellId", shell.execution_count), shell.execution_count


def embed_scripts_again() -> None:
    """Let the next notebook output carry the scripts again.

    For when the outputs that held them were cleared, and the notebook is to be interactive after it is saved and
    reopened.
    """
    Notebook.cells.clear()
    Notebook.runs.clear()
