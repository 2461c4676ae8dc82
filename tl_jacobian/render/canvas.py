"""A chart of characters, for terminals."""

from __future__ import annotations

from itertools import pairwise

from rich.text import Text

from tl_jacobian.render import chart
from tl_jacobian.render.colors import hex_color


class Canvas:
    """Characters with a colour each."""

    def __init__(self, width: int, height: int, across: chart.Axis, up: chart.Axis) -> None:
        self.width, self.height, self.across, self.up = width, height, across, up
        self.cells = [[(" ", "")] * width for _ in range(height)]

    def column(self, x: float) -> int:
        return round(self.across.share(x) * (self.width - 1))

    def row(self, y: float) -> int:
        return round((1 - self.up.share(y)) * (self.height - 1))

    def put(self, row: int, column: int, mark: str, color: str, *, weak: bool = False) -> None:
        if 0 <= row < self.height and 0 <= column < self.width and not (weak and self.cells[row][column][0] != " "):
            self.cells[row][column] = (mark, color)

    def guide(self, axis: str, at: float) -> None:
        if axis == "x" and self.across.holds(at):
            for row in range(self.height):
                self.put(row, self.column(at), ":", "dim")
        elif axis == "y" and self.up.holds(at):
            for column in range(self.width):
                self.put(self.row(at), column, "-", "dim")
        elif axis == "diagonal":
            for column in range(self.width):
                x = self.across.low + (self.across.high - self.across.low) * column / max(1, self.width - 1)
                self.put(self.row(x), column, "/", "dim")

    def hatch(self, hidden: int) -> None:
        for column in range(max(0, self.column(-0.5)), self.column(hidden - 0.5)):
            for row in range(self.height):
                self.put(row, column, "/" if (row + column) % 2 else " ", "dim")

    def curve(self, drawn: chart.Drawn, mark: str, full: str) -> None:
        color = "" if drawn.color is None else hex_color(drawn.color)
        if drawn.curve.marks == "bars":
            zero = self.row(max(0.0, self.up.low)) if self.up.low <= 0 <= self.up.high else self.height - 1
            for point in drawn.points:
                top, bottom = sorted((self.row(point.y), zero))
                for row in range(top, bottom + 1):
                    if point.y:
                        self.put(row, self.column(point.x), full, color)
            return
        if drawn.curve.marks == "line":
            for one, other in pairwise(drawn.points):
                self._join(self.column(one.x), self.row(one.y), self.column(other.x), self.row(other.y), color)
        for point in drawn.points:
            for row in range(self.row(point.high), self.row(point.low) + 1):
                self.put(row, self.column(point.x), "|", color, weak=True)
        for point in drawn.points:
            self.put(self.row(point.y), self.column(point.x), mark, color)

    def _join(self, x: int, y: int, to_x: int, to_y: int, color: str) -> None:
        steps = max(abs(to_x - x), abs(to_y - y))
        for i in range(1, steps):
            self.put(y + round((to_y - y) * i / steps), x + round((to_x - x) * i / steps), ".", color, weak=True)

    def lines(self, colored: bool) -> list[Text]:
        found = []
        for cells in self.cells:
            line = Text()
            for mark, color in cells:
                line.append(mark, style=color if colored else "")
            line.rstrip()
            found.append(line)
        return found
