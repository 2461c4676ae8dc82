"""Memory that can be had: of the machine, of a container, of a CUDA device."""

from __future__ import annotations

import psutil
import pytest
import torch

from tl_jacobian.core.host import memory as module
from tl_jacobian.core.host.memory import available

CPU = torch.device("cpu")
LAYOUTS = [
    {"memory.max": "{}", "memory.current": "600", "memory.stat": "anon 7\ninactive_file 50\n"},
    {
        "memory/memory.limit_in_bytes": "{}",
        "memory/memory.usage_in_bytes": "600",
        "memory/memory.stat": "inactive_file 3\ntotal_inactive_file 50\n",
    },
]


def container(root, files, limit):
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text.format(limit))
    return root


def test_a_machine_without_containers(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_CGROUPS", tmp_path)
    assert available([CPU]) == pytest.approx(psutil.virtual_memory().available, rel=0.5)


@pytest.mark.parametrize("files", LAYOUTS)
@pytest.mark.parametrize(("limit", "left"), [(1000, 450), (500, 0)])
def test_a_containers_limit(monkeypatch, tmp_path, files, limit, left):
    monkeypatch.setattr(module, "_CGROUPS", container(tmp_path, files, limit))
    assert available([CPU]) == left


@pytest.mark.parametrize("files", LAYOUTS)
@pytest.mark.parametrize("limit", ["max\n", 1 << 62])
def test_a_container_without_a_limit(monkeypatch, tmp_path, files, limit):
    monkeypatch.setattr(module, "_CGROUPS", container(tmp_path, files, limit))
    assert available([CPU, torch.device("cpu", 0)]) == pytest.approx(psutil.virtual_memory().available, rel=0.5)


def test_cuda_devices_add_up(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000 * (device.index + 1), 9999))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 500)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 200)
    assert available([torch.device("cuda", 0), torch.device("cuda", 1)]) == 3000 + 2 * 300
