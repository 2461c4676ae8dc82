"""The live view's front end: plain ES modules, as files for a server, one module for a notebook, or frozen in a page.

The modules under ``assets/explore/`` draw panels and nothing else. A checkout needs no build step: a notebook's widget
wants a single module, which is the files one after the other without their import and export lines (so no two of them
may give a name of their own to different things).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from tl_jacobian.render.circuitsvis import csp_hash

ENTRY = "explore.js"  # of the module that gives ``{ render }``
STYLE = "explore.css"
_FOLDER = files("tl_jacobian.render") / "assets" / "explore"
_IMPORT = re.compile(r"^import\s*\{[^}]*\}\s*from\s*\"\./([\w.]+)\";\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function|const|let|class)", re.MULTILINE)
_DEFAULT = re.compile(r"^export default .*\n", re.MULTILINE)


@cache
def modules() -> Mapping[str, str]:
    """The text of every file of the front end, by its name."""
    return {
        one.name: one.read_text(encoding="utf-8") for one in _FOLDER.iterdir() if one.name.endswith((".js", ".css"))
    }


@cache
def _body(entry: str) -> str:
    """The modules that ``entry`` needs, each once, before those that use it."""
    order: list[str] = []

    def add(name: str) -> None:
        if name not in order:
            for needed in _IMPORT.findall(modules()[name]):
                add(needed)
            order.append(name)

    add(entry)
    parts = [_DEFAULT.sub("", _EXPORT.sub("", _IMPORT.sub("", modules()[name]))) for name in order]
    return "\n".join(parts)


def module() -> str:
    """The whole front end as one ES module, for anywidget: ``export default { render }``."""
    return f"{_body(ENTRY)}\nexport default {{ render }};\n"


def style() -> str:
    """Its style sheet."""
    return modules()[STYLE]


def frozen_page(hello: Mapping[str, Any], answers: Iterable[tuple[Any, bytes]]) -> str:
    """A page that needs no server: it shows whatever was computed, and says so where something wasn't.

    Args:
        hello: what the view begins with.
        answers: what was computed, JSON by the view's own keys; the last one is shown first.
    """
    parts = [f"{json.dumps(str(key))}:{body.decode('utf-8', 'backslashreplace')}" for key, body in answers]
    data = f'{{"hello":{json.dumps(dict(hello))},"answers":{{{",".join(parts)}}}}}'
    script = f"(() => {{\n{_body('frozen.js')}\n}})();"
    policy = (
        f"default-src 'none'; script-src {csp_hash(script)}; style-src {csp_hash(style())}; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>What drove this?</title>\n<style>{style()}</style>\n</head><body>\n"
        f'<script type="application/json" id="tlx-data">{_in_script(data)}</script>\n'
        f"<script>{script}</script>\n</body></html>\n"
    )


def _in_script(data: str) -> str:
    """JSON that no text in it can end early: ``<`` stands inside strings alone, where it can be escaped."""
    return data.replace("<", "\\u003c")
