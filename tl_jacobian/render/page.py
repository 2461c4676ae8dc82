"""Figures put together: a self-contained page, or the HTML of a notebook output."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

from tl_jacobian.render import words
from tl_jacobian.render.figure import Figure, figure, style_tag
from tl_jacobian.render.interactive import asset, csp_hash, runtime_scripts, script_tag
from tl_jacobian.render.map_figure import map_figure
from tl_jacobian.render.static import escape
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.attribution_map import AttributionMap
from tl_jacobian.results.files import atomic

Group = Sequence[Attribution]

_runtime_sent = False  # whether this process has already put the runtime into a notebook output


def write_html(attributions: Sequence[Attribution], path: str | Path, *, skip_first: bool = False) -> Path:
    """Write one self-contained page with a figure per attribution; returns its path.

    The page works offline and makes no request: its content security policy allows none,
    and only its own scripts, named by their hashes. It appears whole or not at all.

    Args:
        attributions: what to draw, in order.
        path: the file; its folder must exist.
        skip_first: draw the first unit hatched and leave it out of the colour range.

    Raises:
        ValueError: there is nothing to draw, or a score isn't finite.
        OSError: the file can't be written.
    """
    return write_page([[a] for a in _checked(attributions)], path, skip_first=skip_first)


def write_page(groups: Sequence[Group], path: str | Path, *, skip_first: bool = False) -> Path:
    """:func:`write_html` for figures that may hold several attributions each."""
    figures = [figure(group, f"tlj-{i}", skip_first=skip_first) for i, group in enumerate(groups)]
    first = groups[0][0]
    return write_figures(figures, f"{words.scope_name(first)}: {words.target(first)}", path)


def write_map(m: AttributionMap, path: str | Path, *, skip_first: bool = True, per_row: bool = True) -> Path:
    """:func:`write_html` for a map; ``per_row`` gives each row a colour range of its own."""
    drawn = map_figure(m, "tlj-0", skip_first=skip_first, per_row=per_row)
    return write_figures([drawn], f"{words.scope_name(m[-1])}: attribution map", path)


def write_figures(figures: Sequence[Figure], title: str, path: str | Path) -> Path:
    """Write a page of any figures; it appears whole or not at all."""
    with atomic(path) as file:
        file.write(page_html(figures, title))
    return Path(path)


def page_html(figures: Sequence[Figure], title: str) -> str:
    """The whole page: figures first, so that they show before the scripts have loaded."""
    calls = _calls(figures)
    scripts = [*runtime_scripts(), *calls] if calls else []
    sources = " ".join(map(csp_hash, scripts)) or "'none'"
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {sources}"
    policy += "; img-src data:"  # the pictures of large maps, which are in the page
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{asset('page.css')}</style>\n{style_tag()}\n</head><body>\n"
        + "\n".join(f.html for f in figures)
        + "\n"
        + "\n".join(map(script_tag, scripts))
        + "\n</body></html>\n"
    )


def notebook_html(attributions: Sequence[Attribution], *, skip_first: bool = False) -> str:
    """HTML for a notebook output, one figure per attribution.

    The scripts (1.3 MB) are in the first output that this process makes; later figures find
    them in the notebook page, and stay static where they don't. :func:`embed_scripts_again`
    puts them into the next output once more.

    Raises:
        ValueError: there is nothing to draw, or a score isn't finite.
    """
    return notebook_figures([[a] for a in _checked(attributions)], skip_first=skip_first)


def notebook_figures(groups: Sequence[Group], *, skip_first: bool = False) -> str:
    """:func:`notebook_html` for figures that may hold several attributions each."""
    return output([figure(group, new_id(), skip_first=skip_first) for group in groups])


def notebook_map(m: AttributionMap, *, skip_first: bool = True, per_row: bool = True) -> str:
    """:func:`notebook_html` for a map."""
    return output([map_figure(m, new_id(), skip_first=skip_first, per_row=per_row)])


def new_id() -> str:
    """An HTML id that nothing else in the notebook has."""
    return f"tlj-{uuid.uuid4().hex}"


def output(figures: Sequence[Figure]) -> str:
    """The HTML of a notebook output with any figures."""
    calls = _calls(figures)
    scripts = [*_runtime_once(), *calls] if calls else []
    return style_tag() + "".join(f.html for f in figures) + "".join(map(script_tag, scripts))


def _calls(figures: Sequence[Figure]) -> list[str]:
    """The figures' scripts: some figures are complete without one, and need no runtime either."""
    return [f.script for f in figures if f.script]


def _runtime_once() -> tuple[str, ...]:
    global _runtime_sent
    if _runtime_sent:
        return ()
    scripts = runtime_scripts()
    _runtime_sent = True  # only now: reading the bundle may fail
    return scripts


def embed_scripts_again() -> None:
    """Let the next notebook output carry the scripts again.

    For when the output that held them was cleared or overwritten, and the notebook is to be
    interactive after it is saved and reopened.
    """
    global _runtime_sent
    _runtime_sent = False


def _checked(attributions: Sequence[Attribution]) -> Sequence[Attribution]:
    if not attributions:
        raise ValueError("nothing to draw: got an empty list, expected at least one attribution")
    return attributions
