"""Memory that can be had now: of a machine, of a container on it, of a CUDA device."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import psutil
import torch

_CGROUPS = Path("/sys/fs/cgroup")
# Files of a container's limit, its use, and its statistics with the name there of file pages that
# the kernel would give up: control groups version 2, then version 1.
_LAYOUTS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def available(devices: Iterable[torch.device]) -> int:
    """Bytes free on all the devices together, those that PyTorch holds but doesn't use included."""
    cuda, others = [], []
    for device in devices:
        (cuda if device.type == "cuda" else others).append(device)
    return sum(map(_on_cuda, cuda)) + (_on_host() if others else 0)


def _on_cuda(device: torch.device) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _on_host() -> int:
    limits = [left for layout in _LAYOUTS if (left := _in_container(_CGROUPS, *layout)) is not None]
    return min([psutil.virtual_memory().available, *limits])


def _in_container(root: Path, limit: str, used: str, statistics: str, reclaimable: str) -> int | None:
    """Bytes that a container's limit leaves; None without one."""
    try:
        left = int((root / limit).read_text()) - int((root / used).read_text())
        rows = dict(line.split() for line in (root / statistics).read_text().splitlines())
    except (OSError, ValueError):  # no such files, or no limit ("max")
        return None
    return max(0, left + int(rows.get(reclaimable, 0)))
