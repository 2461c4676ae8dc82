"""What the drill-down's tests share: a prompt, the cases, and a linearization with everything recorded."""

from __future__ import annotations

import pytest
import torch
from cases import cases, shared

import tl_jacobian as tj

PROMPT = list(b"Paris is in")
N, TARGET, OTHER = len(PROMPT), 101, 32
PARALLEL, POST_NORM = ("neox", "phi"), ("gemma2", "gemma3")
every_case = pytest.mark.parametrize(("architecture", "state"), cases())
every_raw_case = pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge"))
one_a_host = pytest.mark.parametrize(
    ("architecture", "state"), cases("hooked", "bridge", "bridge-compat", of=("gpt2", "gemma2"))
)
v32 = torch.linspace(-1, 2, 32, dtype=torch.float64)


def recorded(architecture, state, **options):
    return tj.linearize(shared(architecture, state), PROMPT, **{"record": True, **options})
