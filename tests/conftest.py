"""Shared fixtures."""

from __future__ import annotations

import logging
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before anything imports huggingface_hub: no test needs a model hub

import jaxtyping
import pytest
import torch

logging.getLogger("transformer_lens").setLevel(logging.ERROR)


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
