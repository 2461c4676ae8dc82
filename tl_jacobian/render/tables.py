"""The numbers of any panel as a table: for Markdown, and where a picture can't be drawn."""

from __future__ import annotations

import math
from functools import singledispatch
from itertools import chain

from tl_jacobian.render import words
from tl_jacobian.results.panels import Bars, Cell, Curve, Curves, HeatMap, Panel, Table, TokenStrip

_TOP = 10
_OF_A_ROW = 3


@singledispatch
def tables_of(panel: Panel) -> list[Table]:
    """A panel's numbers, most often as one table; texts are raw."""
    raise TypeError(f"no table for {type(panel).__name__}")


@tables_of.register
def _(panel: Table) -> list[Table]:
    return [panel]


@tables_of.register
def _(panel: TokenStrip) -> list[Table]:
    """Of one row the strongest units, of several the few strongest of each."""
    left_out = tuple(filter(None, [words.strip_left_out(panel, panel.rows)]))
    if len(panel.rows) != 1:
        rows = tuple((Cell(row.label), Cell(_listed(panel, i))) for i, row in enumerate(panel.rows))
        return [_table(panel, ("", "strongest"), rows, left_out)]
    row = panel.rows[0]
    rows = tuple(
        (
            Cell(str(i)),
            Cell(words.quoted(panel.units[i].text)),
            Cell(words.number(row.values[i]) + _error(row.errors, i)),
        )
        for i in words.strongest(panel, row, _TOP)
    )
    notes = (f"{len(rows)} strongest of {len(row.values)}", *row.facts, words.scale_range(row.scale), *left_out)
    return [_table(panel, ("", "unit", "score"), rows, notes, (0, 2))]


def _listed(panel: TokenStrip, row: int) -> str:
    values = panel.rows[row].values
    best = words.strongest(panel, panel.rows[row], _OF_A_ROW)
    return ", ".join(f"{words.quoted(panel.units[i].text)} {words.number(values[i])}" for i in best)


def _error(errors: tuple[float, ...] | None, i: int) -> str:
    return "" if errors is None else f" ± {words.number(errors[i])}"


@tables_of.register
def _(panel: HeatMap) -> list[Table]:
    header = (f"{panel.row_axis} / {panel.column_axis}", *words.column_names(panel))
    rows = tuple(
        (Cell(name), *(Cell("-" if math.isnan(value) else words.number(value)) for value in values))
        + (Cell(""),) * (len(panel.columns) - len(values))
        for name, values in zip(panel.rows, panel.values, strict=True)
    )
    facts = tuple(fact for fact in (panel.quantity, words.heat_left_out(panel)) if fact)
    return [_table(panel, header, rows, facts, tuple(range(1, len(header))))]


@tables_of.register
def _(panel: Bars) -> list[Table]:
    kinds = any(bar.kind for bar in panel.bars)
    header = ("", *(("kind",) if kinds else ()), panel.quantity or "value")
    rows = tuple(
        (
            Cell(words.quoted(bar.name) if panel.aside else bar.name),
            *((Cell(bar.kind),) if kinds else ()),
            Cell(words.bar_number(panel, bar)),
        )
        for bar in panel.bars
    )
    return [_table(panel, header, rows, (), (len(header) - 1,))]


@tables_of.register
def _(panel: Curves) -> list[Table]:
    """A row for each x where curves share them; else a table for each curve."""
    shared = len({curve.x for curve in panel.curves}) == 1
    several = [panel.curves] if shared else [(curve,) for curve in panel.curves]
    own = [_curves_table(panel, group) for group in several if group]
    return [*own, *chain.from_iterable(map(tables_of, filter(None, (panel.below, panel.beside))))]


def _curves_table(panel: Curves, curves: tuple[Curve, ...]) -> Table:
    header = (panel.x_axis, *(curve.name or panel.y_axis for curve in curves))
    rows = tuple((Cell(_plain(x)), *(Cell(_point(curve, i)) for curve in curves)) for i, x in enumerate(curves[0].x))
    notes = tuple(guide.label for guide in panel.guides if guide.label)
    return _table(panel, header, rows, notes, tuple(range(len(header))))


def _point(curve: Curve, i: int) -> str:
    around = f" [{words.number(curve.low[i])}, {words.number(curve.high[i])}]" if curve.low and curve.high else ""
    return words.number(curve.y[i]) + around


def _plain(value: float) -> str:
    return f"{value:.6g}"


def _table(
    panel: Panel,
    header: tuple[str, ...],
    rows: tuple[tuple[Cell, ...], ...],
    notes: tuple[str, ...] = (),
    numbers: tuple[int, ...] = (),
) -> Table:
    return Table(
        title=panel.title,
        detail=panel.detail,
        facts=panel.facts,
        legend=panel.legend,
        views=panel.views,
        header=header,
        rows=rows,
        numbers=numbers,
        notes=notes,
    )
