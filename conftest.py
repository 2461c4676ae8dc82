"""One thread a process of tests; and doctests, which load the demo model dozens of times: once is enough."""

from __future__ import annotations

import functools
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before anything imports torch: each core has a process of its own

import pytest
import torch

torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """Doctests of the demo model wait for ``make test-all``, like every test of it."""
    for item in items:
        if isinstance(item, pytest.DoctestItem) and any("demo_model" in e.source for e in item.dtest.examples):
            item.add_marker(pytest.mark.slow)


@functools.cache
def _demo_model(kind=None):
    from tl_jacobian.core.host.demo import load_demo_model

    return load_demo_model(kind)


@pytest.fixture(autouse=True)
def _one_demo_model(request, monkeypatch):
    if isinstance(request.node, pytest.DoctestItem):
        import tl_jacobian

        monkeypatch.setattr(tl_jacobian, "load_demo_model", _demo_model)
