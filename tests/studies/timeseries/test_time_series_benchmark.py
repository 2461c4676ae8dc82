"""The benchmark's verdict on pattern matching follows its numbers, and the control's."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import time_series as benchmark


def measured(mean: float, n: int = benchmark.ENOUGH) -> list[dict[str, benchmark.Measured]]:
    """Series whose influence matches motifs by about ``mean``."""
    values = mean + 0.1 * np.sin(np.arange(n))
    return [{"temperature": benchmark.Measured(np.ones(3), v, 0.0, 0.5, v, 0.0, 0.5, 1.0, 9.0)} for v in values]


def cells(system: float, control: float, n: int = benchmark.ENOUGH) -> list[list[str]]:
    """The rows of the table; of a system, and of the control."""
    found = {"Lorenz": measured(system, n), benchmark.CONTROL: measured(control, n)}
    lines = list(benchmark.patterns(found, ["temperature"], "level"))
    assert len({line.count("|") for line in lines[2:]}) == 1, "a table"
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[4:]]


@pytest.mark.parametrize(
    ("system", "control", "expected"),
    [
        (0.4, 0.0, "follows motifs, beyond the control"),
        (0.4, 0.2, "follows motifs, beyond the control"),
        (0.4, 0.4, "follows nearness, not detectably more than the control"),
        (0.2, 0.4, "follows nearness, not detectably more than the control"),
        (0.0, -0.4, "neither way"),
        (0.0, 0.4, "neither way"),
        (-0.4, 0.0, "avoids matching motifs"),
    ],
)
def test_motifs_are_followed_where_a_system_exceeds_the_control(system, control, expected):
    row, _ = cells(system, control)
    assert row[-1] == expected
    assert float(row[3].split()[0]) == pytest.approx(system - control, abs=0.006)


def test_the_control_is_its_own_measure():
    _, row = cells(0.4, 0.4)
    assert row[3:5] == ["", ""]
    assert row[-1] == "follows nearness, where a motif predicts nothing"


def test_few_series_show_nothing():
    row, _ = cells(0.4, 0.0, 5)
    assert row[-1] == "too few series to say (5 of 30)"
