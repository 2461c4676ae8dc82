"""Doctests load the demo model a dozen times; loading it once is enough."""

from __future__ import annotations

import functools

import pytest


@functools.cache
def _demo_model(kind=None):
    from tl_jacobian.core.host.demo import load_demo_model

    return load_demo_model(kind)


@pytest.fixture(autouse=True)
def _one_demo_model(request, monkeypatch):
    if isinstance(request.node, pytest.DoctestItem):
        import tl_jacobian

        monkeypatch.setattr(tl_jacobian, "load_demo_model", _demo_model)
