"""The interactive view: calls that swap static tokens for CircuitsVis' coloured tokens.

CircuitsVis' own Python helpers can't be used. ``RenderedHTML._repr_html_`` opens a
connection to an outside host on every display, ``str()`` gives a page that loads from a CDN,
and both put prompt text into a script unescaped. Here the library's bundle and
``assets/mount.js`` are embedded once per page or notebook (:func:`runtime_html`), and every
figure makes one call with JSON that can't leave its script element (:func:`figure_script`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from tl_jacobian.render import words
from tl_jacobian.render.colors import MAX_OPACITY, NEGATIVE, POSITIVE, Scale
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.tokens import visible

# The runtime may come after the figure (front ends order outputs as they like): ask for 10 s.
_CALL = """(function call(left) {
  if (window.tlJacobian && window.tlJacobian.%(name)s) window.tlJacobian.%(name)s(%(json)s);
  else if (left) setTimeout(call, 200, left - 1);
})(50);"""


def figure_script(figure_id: str, attributions: Sequence[Attribution], scales: Sequence[Scale]) -> str:
    """JavaScript that asks the runtime to make figure ``figure_id`` interactive."""
    return call_script("mount", _props(figure_id, attributions, scales))


def call_script(name: str, props: Any) -> str:
    """JavaScript that calls a function of the runtime, as soon as there is one."""
    return _CALL % {"name": name, "json": script_json(props)}


def _props(figure_id: str, attributions: Sequence[Attribution], scales: Sequence[Scale]) -> dict[str, Any]:
    texts = attributions[0].str_tokens
    columns = [_values(a, s, relative=len(attributions) > 1) for a, s in zip(attributions, scales, strict=True)]
    pairs = zip(attributions, scales, strict=True)
    return {
        "id": figure_id,
        "tokens": [visible(text) for text in texts],
        "breaks": [i for i, text in enumerate(texts) if "\n" in text],
        "columns": columns,
        "errors": _errors(attributions[0]),
        "limit": 1.0 if len(attributions) > 1 else _six_digits(scales[0].limit),
        "labels": [f"{words.scope_name(a)}: {words.target(a)} (1 = {words.number(s.limit)})" for a, s in pairs],
        "skipped": scales[0].skipped,
        "positive": POSITIVE,
        "negative": NEGATIVE,
        "opacity": MAX_OPACITY,
    }


def _values(attribution: Attribution, scale: Scale, *, relative: bool) -> list[float]:
    """Scores to six digits, as shares of the full colour where several are compared.

    ColoredTokensMulti keeps the first column's colour range when another is chosen, so
    columns with different units need one common range.
    """
    unit = scale.limit if relative and scale.limit else 1.0
    return [_six_digits(score / unit) for score in attribution.scores.tolist()]


def _errors(attribution: Attribution) -> list[str] | None:
    """Standard errors as text: one that isn't a number must not stop the figure."""
    return None if attribution.stderr is None else [words.number(error) for error in attribution.stderr.tolist()]


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
    """CircuitsVis' bundle, and the code that mounts its components on tokens, maps and grids."""
    bundle = resources.files("circuitsvis").joinpath("dist/cdn/iife.js").read_text(encoding="utf-8")
    return _embeddable(bundle), "".join(map(asset, ("mount.js", "map.js", "grid.js")))


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


def script_tag(script: str) -> str:
    """An inline classic script: its top-level names are globals, which later figures find."""
    return f"<script>{script}</script>"


def csp_hash(script: str) -> str:
    """The source expression that lets exactly this inline script run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
