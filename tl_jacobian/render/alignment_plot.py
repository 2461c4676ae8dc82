"""Word alignments as matplotlib figures, for papers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from tl_jacobian.render.alignment_figure import facts_of
from tl_jacobian.render.axes import head, new_axes, unit
from tl_jacobian.render.colors import MAX_OPACITY, NEGATIVE, POSITIVE, Scale, scale_of
from tl_jacobian.render.grid_plot import plot_grid
from tl_jacobian.render.words import scope_name
from tl_jacobian.results.alignment import AlignedWord, Links, WordAlignment, links_inside
from tl_jacobian.results.tokens import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE = 80  # characters
_WIDTH = 7.5  # inches of a figure of its own
_LETTER = 0.6  # width of a monospaced character, in font sizes
_FILLED = 0.96  # of a line, for axes have margins


def plot_alignment(
    a: WordAlignment,
    ax: Axes | None = None,
    *,
    sure: Links = (),
    possible: Links = (),
) -> Axes:
    """Draw the heat map; gold links are framed: sure ones solid, possible ones dashed.

    Raises:
        ArgumentError: what is given aren't links, or one is to a word that isn't there.
        ImportError: matplotlib isn't installed.
    """
    from matplotlib.patches import Rectangle

    n, m = len(a.source_words), len(a.target_words)
    certain, likely = links_inside(sure, n, m, "sure"), links_inside(possible, n, m, "possible")
    size = (2.0 + 0.45 * n, 1.4 + 0.32 * m)
    ax = plot_grid(a.to_grid(), ax or new_axes(*size), title=f"{scope_name(a)}: shares of each row")
    for links, style in ((certain, "solid"), (likely - certain, "dashed")):
        for source, target in links:
            place = (source - 0.44, target - 0.44)
            ax.add_patch(Rectangle(place, 0.88, 0.88, fill=False, edgecolor=unit(NEGATIVE), linestyle=style, lw=1.4))
    if certain or likely:
        label = "source word\nframed: gold links" + (" (dashed: possible)" if likely else "")
        ax.set_xlabel(label, fontsize=8, parse_math=False)
    return ax


class _Placed(NamedTuple):
    """A unit, or a part of one, on a line of monospaced text."""

    unit: int
    text: str
    line: int
    column: int


def plot_aligned_word(row: AlignedWord, ax: Axes | None = None) -> Axes:
    """Draw the text, source words shaded by their influence and the target word framed; returns the axes.

    Raises:
        ImportError: matplotlib isn't installed.
    """
    scale = scale_of(row.scores)
    placed = list(_placed(row.alignment.units))
    lines = placed[-1].line + 1
    width = _WIDTH if ax is None else _width(ax)
    ax = ax or new_axes(_WIDTH, 0.45 + 0.25 * lines)
    size = _FILLED * width * 72 / _LINE / _LETTER
    for part in placed:
        _draw(ax, row, part, scale, size)
    ax.set(xlim=(-0.5, _LINE + 0.5), ylim=(lines - 0.4, -0.6))
    ax.set_axis_off()
    facts = [f"{scope_name(row.alignment)}, {visible(row.word)}", facts_of(row, scale)[2]]
    head(ax, "; ".join(fact for fact in facts if fact))
    return ax


def _draw(ax: Axes, row: AlignedWord, part: _Placed, scale: Scale, size: float) -> None:
    """A piece of text on its shade or in its frame."""
    from matplotlib.patches import Rectangle

    a, length = row.alignment, len(part.text)
    framed = a.targets[row.index]
    if part.unit in a.sources:
        strength = scale.strength(a.influence[row.index, part.unit].item())
        shade, corner = (*unit(POSITIVE), MAX_OPACITY * strength), (part.column, part.line - 0.42)
        ax.add_patch(Rectangle(corner, length, 0.84, facecolor=shade, edgecolor="none"))
    if part.unit == framed:
        corner = (part.column - 0.2, part.line - 0.46)
        ax.add_patch(Rectangle(corner, length + 0.4, 0.92, fill=False, edgecolor=unit(NEGATIVE), lw=1.6))
    ax.text(
        part.column + length / 2,
        part.line,
        part.text,
        family="monospace",
        size=size,
        ha="center",
        va="center_baseline",
        alpha=0.4 if part.unit > framed else 1.0,
        parse_math=False,
    )


def _placed(units: tuple[str, ...]) -> Iterator[_Placed]:
    """Units on lines of _LINE characters; spaces before words are left unshaded."""
    line, column = 0, 0
    for i, text in enumerate(units):
        for part in visible(text).replace("↵", "↵\n").splitlines(keepends=True) or [""]:
            word = part.strip("\n")
            space = len(word) - len(word.lstrip(" "))
            if column and column + len(word) > _LINE:
                line, column, space, word = line + 1, 0, 0, word.lstrip(" ")
            yield _Placed(i, word[space:], line, column + space)
            column += len(word)
            if part.endswith("\n"):
                line, column = line + 1, 0


def _width(ax: Axes) -> float:
    """Of axes, in inches."""
    return ax.get_window_extent().width / ax.figure.get_dpi()
