"""Panels as Markdown, for files and notebooks: their numbers as tables."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tl_jacobian.render import words
from tl_jacobian.render.tables import tables_of
from tl_jacobian.results.panels import Panel, Table
from tl_jacobian.results.tokens import visible

_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def markdown(panels: Sequence[Panel]) -> str:
    r"""A heading, a table and notes for each panel; no text of theirs can become a tag, a link or another column.

    >>> from tl_jacobian.results.panels import Cell
    >>> print(markdown([Table(title="Edits", header=("a|b", "n"), rows=((Cell("<i>"), Cell("1")),), numbers=(1,))]))
    **Edits**
    <BLANKLINE>
    | a\|b | n |
    | --- | ---: |
    | &lt;i&gt; | 1 |
    <BLANKLINE>

    Raises:
        ArgumentError: there is nothing to draw.
    """
    parts = [part for panel in words.seen(panels, "page") for table in tables_of(panel) for part in _parts(table)]
    return "\n\n".join(parts) + "\n"


def _parts(table: Table) -> list[str]:
    title, detail = escaped(table.title), escaped(table.detail)
    head = ": ".join(filter(None, (f"**{title}**" if title else "", detail)))
    lines = [" ".join(("|", " | ".join(map(escaped, table.header)), "|")), _rule(table)]
    lines += [" ".join(("|", " | ".join(escaped(cell.text) for cell in row), "|")) for row in table.rows]
    facts = ", ".join(map(escaped, filter(None, (*table.facts, *table.legend))))
    return [part for part in (head, facts, escaped(table.above), "\n".join(lines), *map(escaped, table.notes)) if part]


def _rule(table: Table) -> str:
    marks = ("---:" if i in table.numbers else "---" for i in range(len(table.header)))
    return f"| {' | '.join(marks)} |"


def escaped(text: str) -> str:
    r"""``text`` that Markdown shows as it is.

    >>> escaped("a|b <script> [x](y) *z*")
    'a\\|b &lt;script&gt; [x\\](y) \\*z\\*'
    """
    shown = "".join(_HTML.get(c, c) for c in visible(text))
    shown = re.sub(r"([\\`*_|$~])", r"\\\1", shown)
    shown = re.sub(r"\](?=[(\[:])", r"\\]", shown)
    return re.sub(r"^(\s*\d*)([#+=.)-]+)(?=\s|$)", r"\1\\\2", shown)
