"""The benchmark's verdict follows its numbers."""

from __future__ import annotations

import pytest

from benchmarks import alignment as benchmark
from tl_jacobian.studies.language import AlignmentScore


def scores(value, n=12):
    """Pairs whose error rate is about 1 - value, and whose other scores are about value."""
    return [AlignmentScore(1 - v, *[v] * 5) for v in (value + 0.01 * (i % 3) for i in range(n))]


@pytest.mark.parametrize(
    ("mine", "expected"),
    [
        (0.8, "- semantic aligns words beyond their place (AER: better than diagonal, better than chance"),
        (0.3, "- semantic isn't shown to align words beyond their place (AER: worse than diagonal, better than chance"),
        (0.5, "- semantic isn't shown to align words beyond their place (AER: no different from diagonal, better than"),
    ],
)
def test_the_verdict_is_computed(mine, expected):
    found = {"semantic": scores(mine), "diagonal": scores(0.5), "chance": scores(0.1)}
    lines = benchmark.verdict(found, {metric: benchmark.differences(found, metric) for metric in benchmark.JUDGED})
    assert len(lines) == 1
    assert lines[0].startswith(expected)


def test_few_pairs_show_nothing():
    found = {"semantic": scores(0.9, 3), "diagonal": scores(0.5, 3), "chance": scores(0.1, 3)}
    (line,) = benchmark.verdict(found, {m: benchmark.differences(found, m) for m in benchmark.JUDGED})
    assert "isn't shown" in line
