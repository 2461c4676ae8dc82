"""Timing by ratio: the contenders take turns in one process, so a busy machine slows all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def medians(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each contender over rounds in which all take turns, after one warm-up (if ``warm``)."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + warm):
        for name, run in contenders.items():
            started = clock()
            run()
            if turn or not warm:  # the first round warms caches up
                seconds[name].append(clock() - started)
    return {name: statistics.median(times) for name, times in seconds.items()}
