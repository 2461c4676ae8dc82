"""Panels as matplotlib figures, for papers. matplotlib is loaded when something is drawn.

User text never becomes mathematics: every text is set with ``parse_math=False``.
"""

from __future__ import annotations

import math
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import singledispatch
from typing import TYPE_CHECKING, Any, NamedTuple

from tl_jacobian.errors import ArgumentError
from tl_jacobian.render import axes, figure_curves, words
from tl_jacobian.render.colors import (
    MAX_OPACITY,
    NEGATIVE,
    POSITIVE,
    blend,
    hue,
    kind_colors,
    kinds_of,
    unit,
)
from tl_jacobian.results.panels import Bars, Curves, HeatMap, Panel, StripRow, Table, TokenStrip
from tl_jacobian.results.tokens import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDEST, _HIGHEST = 14.0, 14.0  # inches
_INK = "#222222"

_LINE = 80  # characters of a text's line
_NOTE = 135  # of a line of small print
_NOTE_HEIGHT = 0.75  # of a line of small print, in lines
_LINE_HEIGHT = 0.25  # inches
_STRIP_WIDTH = 7.5  # inches
_MONO = 0.6  # width of a monospaced character, in font sizes
_FILLED = 0.96  # of a line, for axes have margins


def figure(panels: Sequence[Panel], ax: Axes | None = None) -> Axes:
    """Draw panels into a figure; returns the first one's axes.

    Args:
        panels: those that are drawn in figures, in order: one figure holds them all, heat maps and curves of one kind
            side by side.
        ax: matplotlib axes that the first is drawn into, alone; default a new figure's.

    Raises:
        ArgumentError: there is nothing to draw, or ``ax`` is something else.
        ImportError: matplotlib isn't installed.
    """
    shown = words.seen(panels, "figure")
    plt = _pyplot()
    if ax is not None and not hasattr(ax, "get_figure"):
        raise ArgumentError(f"ax={ax!r:.80} is a {type(ax).__name__}, expected matplotlib axes: plt.subplots()[1]")
    if ax is not None or len(shown) == 1:
        only: Axes = plt.subplots(figsize=_size(shown[0]), layout="constrained")[1] if ax is None else ax
        draw(shown[0], only)
        return only
    bands = _bands(shown)
    heights = [max(_size(panel)[1] for panel in band) for band in bands]
    width = max(sum(_size(panel)[0] for panel in band) for band in bands)
    made = plt.figure(figsize=(min(width, 2 * _WIDEST), sum(heights)), layout="constrained")
    grid = made.add_gridspec(len(bands), 1, height_ratios=heights)
    places = []
    for place, band in enumerate(bands):
        inside = grid[place].subgridspec(1, len(band), width_ratios=[_size(panel)[0] for panel in band])
        places += [(panel, made.add_subplot(inside[i])) for i, panel in enumerate(band)]
    for i, (panel, place) in enumerate(places):
        after = places[i + 1][0] if i + 1 < len(places) else None
        if isinstance(panel, HeatMap):
            _heat_map(panel, place, bar=not _same_scale(panel, after))
        else:
            draw(panel, place)
    return places[0][1]


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise ImportError("a plot needs matplotlib: pip install 'tl-jacobian[plot]'") from error
    return plt


def _bands(panels: Sequence[Panel]) -> list[list[Panel]]:
    """Panels side by side where they compare: heat maps of the same rows and what is plotted of them; curves."""
    bands: list[list[Panel]] = []
    for panel in panels:
        band = bands[-1] if bands else []
        fits = bool(band) and sum(_size(other)[0] for other in (*band, panel)) <= 2 * _WIDEST
        if fits and _beside(band[-1], panel):
            band.append(panel)
        else:
            bands.append([panel])
    return bands


def _beside(panel: Panel, after: Panel) -> bool:
    if isinstance(after, HeatMap):
        return isinstance(panel, HeatMap) and panel.rows == after.rows
    if isinstance(after, Curves):
        return isinstance(panel, Curves) or (after.square and isinstance(panel, HeatMap))
    return isinstance(after, Bars) and after.aside


def _same_scale(panel: HeatMap, after: Panel | None) -> bool:
    alike = isinstance(after, HeatMap) and _beside(panel, after) and len(panel.scales) == len(after.scales) == 1
    return alike and isinstance(after, HeatMap) and panel.scales[0].limit == after.scales[0].limit


@singledispatch
def draw(panel: Panel, ax: Axes) -> None:
    """Draw a panel into axes."""
    raise TypeError(f"figures draw no {type(panel).__name__}")


@singledispatch
def _size(panel: Panel) -> tuple[float, float]:
    """Inches of a figure of its own."""
    raise TypeError(f"figures draw no {type(panel).__name__}")


# -- texts on colours ----------------------------------------------------------------------


class _Placed(NamedTuple):
    """A unit, or a part of one, on a line of monospaced text."""

    unit: int
    text: str
    line: int
    column: int


@_size.register(TokenStrip)
def _(panel: TokenStrip) -> tuple[float, float]:
    rows, several = _strip_rows(panel), len(panel.rows) > 1
    lines = sum(_lines(panel, row) for row in rows)
    lines += sum(1.2 + _NOTE_HEIGHT * len(_noted(words.row_facts(panel, row))) for row in rows) if several else 0
    lines += _NOTE_HEIGHT * len(_noted(_strip_facts(panel)))
    return _STRIP_WIDTH, min(0.55 + _LINE_HEIGHT * lines, 3 * _HIGHEST)


def _strip_rows(panel: TokenStrip) -> Sequence[StripRow]:
    return panel.rows if panel.together else panel.rows[panel.chosen : panel.chosen + 1]


def _strip_facts(panel: TokenStrip) -> list[str]:
    rows = _strip_rows(panel)
    facts = [*map(visible, panel.legend), words.strip_left_out(panel, rows)]
    if len(panel.rows) != 1:
        return facts
    return [*words.row_facts(panel, rows[0]), words.scale_range(rows[0].scale), *facts]


def _lines(panel: TokenStrip, row: StripRow) -> int:
    if panel.inside is not None:
        return sum(height for _, height, _ in _block_lines(panel, row))
    return max((part.line for part in _placed(_texts(panel, row))), default=0) + 1


def _texts(panel: TokenStrip, row: StripRow) -> list[str]:
    """Of the units, and of what comes after them."""
    return [*(item.text for item in panel.units), *([f" {row.coming}"] if row.coming else [])]


@draw.register(TokenStrip)
def _(panel: TokenStrip, ax: Axes) -> None:
    """Coloured words on lines, one row below the other, and what full colour is."""
    rows, line = _strip_rows(panel), 0.0
    size = _FILLED * axes.points(ax)[0] / _LINE / _MONO
    for row in rows:
        if len(panel.rows) > 1:
            ax.text(
                0, line, _clipped(visible(row.label)), size=size, weight="bold", va="center_baseline", parse_math=False
            )
            line += 1
        if panel.inside is not None:
            _draw_blocks(ax, panel, panel.inside, row, line, size)
        else:
            for part in _placed(_texts(panel, row)):
                _draw_unit(ax, panel, row, part, line, size)
        line += _lines(panel, row)
        if len(panel.rows) > 1:
            line += _note(ax, line - 0.1, words.row_facts(panel, row), size) + 0.2
    ax.set_axis_off()
    line += _note(ax, line, _strip_facts(panel), size)
    room = (
        axes.points(ax)[1] / 72 / _LINE_HEIGHT
    )  # lines are as high as in a figure of their own, whatever stands beside
    ax.set(xlim=(-0.5, _LINE + 0.5), ylim=(max(line, room - 0.6) - 0.1, -0.6))
    axes.head(ax, words.heading(panel) or (visible(rows[0].label) if len(rows) == 1 else ""))


_BLOCK_NAME, _BLOCK_BAR = 44, 24  # letters of a block's name, and of full colour's bar


def _block_lines(panel: TokenStrip, row: StripRow) -> list[tuple[words.Block, int, list[_Placed]]]:
    """Blocks, how many lines each takes, and its tokens on those below the first, where figures draw them."""
    inner, found = panel.inside, []
    for block in words.blocks(panel, row):
        draws = inner is not None and "figure" in inner.views and len(block.tokens) > 1
        texts = [inner.units[j].text.replace("\n", " ") for j in block.tokens] if draws and inner is not None else []
        placed = list(_placed(texts))
        found.append((block, 1 + max((part.line + 1 for part in placed), default=0), placed))
    return found


def _draw_blocks(ax: Axes, panel: TokenStrip, inner: TokenStrip, row: StripRow, line: float, size: float) -> None:
    """Names on their colours, bars and numbers; below them tokens."""
    from matplotlib.patches import Rectangle

    tokens = inner.rows[panel.rows.index(row)]
    for block, height, placed in _block_lines(panel, row):
        name = _Placed(block.unit, _clipped(block.name, _BLOCK_NAME), 0, 0)
        _draw_unit(ax, panel, row, name, line, size)
        if not math.isnan(block.share):
            color = unit(hue(row.values[block.unit]))
            corner = (_BLOCK_NAME + 2, line - 0.3)
            ax.add_patch(Rectangle(corner, _BLOCK_BAR * block.share, 0.6, facecolor=color, edgecolor="none"))
        look: dict[str, Any] = dict(size=0.9 * size, va="center_baseline", ha="right", parse_math=False)
        ax.text(_LINE, line, block.number, **look)
        for part in placed:
            _draw_unit(ax, inner, tokens, part._replace(unit=block.tokens[part.unit]), line + 1, size)
        line += height


def _note(ax: Axes, line: float, facts: Iterable[str], size: float) -> float:
    """Small print; returns its height in lines."""
    lines = _noted(facts)
    look: dict[str, Any] = dict(size=0.8 * size, color="0.4", va="center_baseline", parse_math=False, gid="note")
    for i, text in enumerate(lines):
        ax.text(0, line + _NOTE_HEIGHT * i, text, **look)
    return _NOTE_HEIGHT * len(lines)


def _noted(facts: Iterable[str]) -> list[str]:
    return textwrap.wrap("; ".join(filter(None, facts)), _NOTE)


def _clipped(text: str, most: int = _LINE) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _draw_unit(ax: Axes, panel: TokenStrip, row: StripRow, part: _Placed, line: float, size: float) -> None:
    """A piece of text on its colour, hatched, or in its frame."""
    from matplotlib.patches import Rectangle

    i, length, at = part.unit, _cells(part.text), line + part.line
    value = row.values[i] if i < len(row.values) else math.nan
    corner = (part.column, at - 0.42)
    if i in panel.hidden:
        ax.add_patch(
            Rectangle(corner, length, 0.84, facecolor="#eeeeee", edgecolor="#b0b0b0", hatch="////", linewidth=0)
        )
    elif not math.isnan(value):
        shade = (*unit(hue(value)), MAX_OPACITY * row.scale.strength(value))
        ax.add_patch(Rectangle(corner, length, 0.84, facecolor=shade, edgecolor="none"))
    if i in row.framed:
        around = (part.column - 0.2, at - 0.46)
        ax.add_patch(Rectangle(around, length + 0.4, 0.92, fill=False, edgecolor=unit(NEGATIVE), lw=1.6))
    coming = i >= len(panel.units)
    look: dict[str, Any] = dict(family="monospace", size=size, ha="center", va="center_baseline", parse_math=False)
    look |= dict(style="italic" if coming else "normal", alpha=0.4 if words.is_later(row, i) and not coming else 1.0)
    ax.text(part.column + length / 2, at, part.text, **look)


def _placed(texts: Iterable[str]) -> Iterator[_Placed]:
    """Units on lines of _LINE characters; spaces before words are left unshaded."""
    line, column = 0, 0
    for i, text in enumerate(texts):
        for part in visible(text).replace("↵", "↵\n").splitlines(keepends=True) or [""]:
            word = part.strip("\n")
            space = len(word) - len(word.lstrip(" "))
            if column and column + _cells(word) > _LINE:
                line, column, space, word = line + 1, 0, 0, word.lstrip(" ")
            yield _Placed(i, word[space:], line, column + space)
            column += _cells(word)
            if part.endswith("\n"):
                line, column = line + 1, 0


def _cells(text: str) -> int:
    """Width in monospaced characters: those of East Asian scripts are two wide, marks none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


# -- heat maps ------------------------------------------------------------------------------


@_size.register(HeatMap)
def _(panel: HeatMap) -> tuple[float, float]:
    """A fifth of an inch for each row and column, as far as a page allows; columns named upright are wider."""
    names = words.column_names(panel)
    wide = 0.45 if len(names) <= 20 and panel.frames else 0.2
    return min(3.5 + wide * len(names), _WIDEST), min(1.5 + 0.2 * len(panel.rows), _HIGHEST)


@draw.register(HeatMap)
def _(panel: HeatMap, ax: Axes) -> None:
    _heat_map(panel, ax, bar=True)


def _heat_map(panel: HeatMap, ax: Axes, *, bar: bool) -> None:
    """Rows from top to bottom, columns from left to right; ``bar`` says whether to draw the colour bar."""
    axes.head(ax, words.heading(panel))
    if not panel.rows or not panel.columns:
        ax.set_axis_off()
        return
    per_row = len(panel.scales) > 1
    signed = words.heat_signed(panel)
    full = 1.0 if per_row or not panel.scales else panel.scales[0].limit or 1.0
    look: dict[str, Any] = dict(vmin=-full if signed else 0.0, vmax=full, aspect="auto", interpolation="none")
    image = ax.imshow(_shades(panel, per_row), cmap=_color_map(signed=signed), **look)
    ax.patch.set(facecolor="#f4f4f4", edgecolor="#b8b8b8", hatch="////")  # seen where there is no number
    for row, values in enumerate(panel.values):  # what comes later isn't missing: it can't matter
        rest = len(panel.columns) - len(values)
        if rest:
            ax.barh(row, rest, height=1.0, left=len(values) - 0.5, color="white", linewidth=0)
    for column in panel.hidden:
        ax.axvspan(column - 0.5, column + 0.5, facecolor="#dddddd", edgecolor="#b0b0b0", hatch="////", linewidth=0)
    _frames(panel, ax)
    _label_heat(panel, ax)
    if bar:
        _color_bar(panel, ax, image, per_row)


def _shades(panel: HeatMap, per_row: bool) -> Any:
    """Values, as shares of full colour where rows have ranges of their own; NaN where there is no colour."""
    import numpy as np

    shares = np.full((len(panel.rows), len(panel.columns)), np.nan)
    for row, column, value in words.numbers(panel):
        shares[row, column] = max(-1.0, min(1.0, value / (panel.scale(row).limit or 1.0))) if per_row else value
    return shares


def _color_map(*, signed: bool) -> Any:
    """The page's colours on white, from zero or (signed) from minus the limit; nothing for NaN."""
    from matplotlib import colors

    stops = [unit(NEGATIVE), (1.0, 1.0, 1.0), unit(POSITIVE)][0 if signed else 1 :]
    return colors.LinearSegmentedColormap.from_list("tl_jacobian", stops).with_extremes(bad="#00000000")


def _frames(panel: HeatMap, ax: Axes) -> None:
    from matplotlib.patches import Rectangle

    for frame in panel.frames:
        place, style = (frame.column - 0.44, frame.row - 0.44), "dashed" if frame.dashed else "solid"
        ax.add_patch(Rectangle(place, 0.88, 0.88, fill=False, edgecolor=unit(NEGATIVE), linestyle=style, lw=1.4))


def _label_heat(panel: HeatMap, ax: Axes) -> None:
    columns = [f"{visible(c.text)} {i}" if panel.numbered else visible(c.text) for i, c in enumerate(panel.columns)]
    axes.name_ticks(ax, "y", words.row_names(panel))
    axes.name_ticks(ax, "x", columns)
    ax.xaxis.tick_top()
    ax.tick_params(axis="x", rotation=0 if max(map(len, columns), default=0) <= 3 else 90)
    ax.tick_params(length=0)
    ax.set_ylabel(visible(panel.row_axis), fontsize=8, parse_math=False)
    notes = [
        visible(panel.column_axis),
        words.heat_left_out(panel),
        *map(visible, panel.legend if panel.frames else ()),
    ]
    ax.set_xlabel("\n".join(filter(None, notes)), fontsize=8, parse_math=False)


def _color_bar(panel: HeatMap, ax: Axes, image: Any, per_row: bool) -> None:
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8)
    bar.ax.tick_params(labelsize=8)
    if per_row:
        low = [-1.0] if words.heat_signed(panel) else []
        bar.set_ticks([*low, 0.0, 1.0], labels=[*(["−full"] if low else []), "0", "largest of its row"], fontsize=8)
    facts = ["each row on its own scale" if per_row else "", visible(panel.quantity)]
    most = max(20, int(axes.points(ax)[1] / (axes.LETTER * 8)))
    bar.set_label("\n".join(textwrap.fill(fact, most) for fact in facts if fact), fontsize=8)
    bar.ax.yaxis.label.set_parse_math(False)


# -- bars --------------------------------------------------------------------------------------


@_size.register(Bars)
def _(panel: Bars) -> tuple[float, float]:
    return (3.2 if panel.aside else 7.0), min(1.6 + 0.15 * len(panel.bars), _HIGHEST)


@draw.register(Bars)
def _(panel: Bars, ax: Axes) -> None:
    """A bar for each from top to bottom, and the line of their running total."""
    values = [bar.value if math.isfinite(bar.value) else math.nan for bar in panel.bars]
    colors = kind_colors(panel)
    many = len(colors) > 1 or panel.running
    for kind in kinds_of(panel):
        at = [i for i, bar in enumerate(panel.bars) if bar.kind == kind]
        name = (words.kind_name(panel, kind) or "other") if many else None
        ax.barh(at, [values[i] for i in at], height=0.8, color=unit(colors[kind]), label=name)
    errors = [math.nan if bar.error is None else bar.error for bar in panel.bars]
    if any(map(math.isfinite, errors)):
        ax.errorbar(values, range(len(values)), xerr=errors, fmt="none", ecolor=_INK, elinewidth=0.7)
    if panel.running:
        totals = words.running_totals(panel)
        ax.step(totals, range(len(totals)), where="pre", color="0.25", linewidth=1, label="running total")
    ax.axvline(0, color="0.5", linewidth=0.6)
    axes.name_ticks(ax, "y", [words.quoted(bar.name) if panel.aside else visible(bar.name) for bar in panel.bars], 7)
    ax.set_ylim(len(panel.bars) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    if panel.percent:
        from matplotlib import ticker

        ax.xaxis.set_major_formatter(ticker.PercentFormatter(1.0))
    ax.set_xlabel(visible(panel.quantity), fontsize=8, parse_math=False)
    axes.head(ax, words.heading(panel))
    if many:
        axes.add_legend(ax)


# -- curves ---


_size.register(Curves)(figure_curves.size)
draw.register(Curves)(figure_curves.draw)


# -- tables ------------------------------------------------------------------------------------------


@_size.register(Table)
def _(panel: Table) -> tuple[float, float]:
    letters = sum(max(map(len, column)) + 2 for column in _columns(panel)) if panel.header else 1
    notes = len(panel.notes) + bool(panel.above)
    return min(max(0.09 * letters, 3.0), _WIDEST), min(0.9 + 0.22 * (len(panel.rows) + 1) + 0.16 * notes, 2 * _HIGHEST)


def _columns(panel: Table) -> list[list[str]]:
    """Texts by column, headings first."""
    names = list(map(visible, panel.header))
    return [[name, *(visible(row[i].text) for row in panel.rows)] for i, name in enumerate(names)]


@draw.register(Table)
def _(panel: Table, ax: Axes) -> None:
    ax.set_axis_off()
    columns = _columns(panel)
    if columns:
        lengths = [max(map(len, column)) + 2 for column in columns]
        whole: Any = (0.0, 0.0, 1.0, 1.0)
        table = ax.table(
            cellText=[list(row) for row in zip(*columns, strict=True)],
            colWidths=[length / sum(lengths) for length in lengths],
            bbox=whole,
            edges="horizontal",
        )
        table.auto_set_font_size(False)
        table.set_fontsize(7)
        for (row, column), cell in table.get_celld().items():
            cell.get_text().set(parse_math=False, ha="right" if column in panel.numbers else "left")
            cell.set(edgecolor="0.8", linewidth=0.5)
            shade = panel.rows[row - 1][column].shade if row else 0.0
            if shade:
                cell.visible_edges = "closed"
                cell.set_facecolor(unit(blend(hue(shade), (255, 255, 255), MAX_OPACITY * min(abs(shade), 1.0))))
            if not row:
                cell.get_text().set_color("0.35")
    notes = "\n".join(textwrap.fill(visible(note), 110) for note in (*panel.legend, *panel.notes) if note)
    ax.text(0, -0.02, notes, transform=ax.transAxes, va="top", fontsize=7, color="0.4", parse_math=False)
    above = textwrap.fill(visible(panel.above), 110)
    axes.head(ax, "\n".join(filter(None, (words.heading(panel), above))), wrap=not above)
