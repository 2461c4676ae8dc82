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
from cases import EVERY, HAS_HOOKED

logging.getLogger("transformer_lens").setLevel(logging.ERROR)


# Of the architectures that a test is parametrized with, so many run: other ones for each test, and on TransformerLens 4
# other ones than on 3. Of tests marked "each_architecture" the others are slow, and TL_JACOBIAN_TESTS=all runs all.
_AT_ONCE = 0 if EVERY else int(os.environ.get("TL_JACOBIAN_TESTS", "1"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if EVERY:
        return
    families: dict[str, dict[pytest.Item, str]] = defaultdict(dict)
    for item in items:
        spec = getattr(item, "callspec", None)
        if spec is not None and "architecture" in spec.params:
            families[item.nodeid.partition("[")[0]][item] = str(spec.params["architecture"])
    left: set[pytest.Item] = set()
    for family, members in families.items():
        names = list(dict.fromkeys(members.values()))
        start = zlib.crc32(family.encode()) + (0 if HAS_HOOKED else _AT_ONCE)
        now = {names[(start + i) % len(names)] for i in range(_AT_ONCE)}
        for item in (item for item, name in members.items() if name not in now):
            if item.get_closest_marker("each_architecture") is None:
                left.add(item)
            else:
                item.add_marker(pytest.mark.slow)
    config.hook.pytest_deselected(items=list(left))
    items[:] = [item for item in items if item not in left]


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


@pytest.fixture(scope="module")
def browser():
    """Debian's chromium, for tests that are marked ``chromium.NEEDED``."""
    from chromium import CHROMIUM
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        found = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()
