"""Peak memory counted allocation by allocation, by PyTorch's profiler: exact, and fast enough for tests."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile


def peak_of(run: Callable[[], Any]) -> tuple[int, int, Any]:
    """Bytes of tensors on the CPU at the worst moment of ``run()`` and at its end, and what it gave."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        result = run()
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most, now, result
