"""Shared fixtures."""

from __future__ import annotations

import logging
import os
import zlib
from collections import defaultdict

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before anything imports huggingface_hub: no test needs a model hub

import jaxtyping
import pytest
import torch

logging.getLogger("transformer_lens").setLevel(logging.ERROR)


# Of the architectures that a test is parametrized with, so many run in `make test`, other ones for each test; the rest
# are slow. Tests marked "each_architecture" run on all of them.
_IN_MINUTES = 3


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    families: dict[str, list[tuple[str, pytest.Item]]] = defaultdict(list)
    for item in items:
        spec = getattr(item, "callspec", None)
        name = None if spec is None else spec.params.get("architecture")
        if name is not None and item.get_closest_marker("each_architecture") is None:
            families[item.nodeid.partition("[")[0]].append((str(name), item))
    for family, members in families.items():
        names = list(dict.fromkeys(name for name, _ in members))
        start = zlib.crc32(family.encode())
        now = {names[(start + i) % len(names)] for i in range(_IN_MINUTES)}
        for name, item in members:
            if name not in now:
                item.add_marker("slow")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def _global_rng_is_left_alone():
    """No test and no library call may move the global random number generator."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state()), "the global RNG has moved"


@pytest.fixture
def unchecked():
    """jaxtyping's checks off, as for a user: the library's own messages must do."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
