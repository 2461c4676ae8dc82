"""Peak memory counted allocation by allocation, by PyTorch's profiler: exact, and fast enough for tests."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function


class Allocations:
    """Bytes of tensors on the CPU: ``runs`` has the worst moment and the end of each run of a ``with`` block.

    Starting a profiler takes longer than what is counted, so one is started for all of them.
    """

    def __enter__(self) -> Allocations:
        gc.collect()
        self._names: list[str] = []
        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self._profile.__enter__()
        return self

    def run(self, work: Callable[[], Any]) -> Any:
        """What ``work()`` gives. Hold it until the block ends: what is freed between two runs is in neither."""
        self._names.append(f"counted run {len(self._names)}")
        with record_function(self._names[-1]):
            return work()

    def __exit__(self, *error: Any) -> None:
        self._profile.__exit__(*error)
        events = self._profile.profiler.kineto_results.events()
        spans = {e.name(): (e.start_ns(), e.start_ns() + e.duration_ns()) for e in events if e.name() in self._names}
        changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
        self.runs: list[tuple[int, int]] = [_peak(changes, *spans[name]) for name in self._names]


def _peak(changes: list[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """The worst moment, and the end, of what changed in between."""
    now = most = 0
    for at, size in changes:
        if start <= at <= end:
            now += size
            most = max(most, now)
    return most, now
