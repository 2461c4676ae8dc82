"""Interrupts (Ctrl-C) at any moment of a call, and threads that share a model: what is left behind, and what comes out.

    python -m benchmarks.fuzz_interrupts [--tries 900] [--calls 200]

An interrupt is raised by a trace function at the n-th line of Python that runs, in whatever function that is, PyTorch's
and TransformerLens's included; n is spread over the whole call. After each, the model must be as it was.
"""

from __future__ import annotations

import argparse
import gc
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

import tl_jacobian as tj
from tests.cases import make
from tl_jacobian.core.host.hosts import resolve
from tl_jacobian.core.host.loan import lock_of, modules_of

PROMPT, OTHER = list(b"Paris is in"), list(b"Rome")


def state(model: Any) -> dict[str, Any]:
    """Everything that an interrupt may not change."""
    host = resolve(model)
    modules = list(modules_of(*host._roots()))
    return {
        "hooks": [(n, k, i) for n, m in modules for k, v in vars(m).items() if k.endswith("hooks") and v for i in v],
        "forward": [(n, "forward" in vars(m)) for n, m in modules],
        "requires_grad": [p.requires_grad for p in host._parameters()],
        "training": [m.training for _, m in modules],
        "locked": not lock_is_free(model),
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "rng": torch.get_rng_state().sum().item(),
    }


def lock_is_free(model: Any) -> bool:
    """As another thread sees it."""
    found = []

    def look() -> None:
        lock = lock_of(model)
        if lock.acquire(timeout=1):
            lock.release()
            found.append(True)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return bool(found)


def lines_of(call: Callable[[], Any]) -> int:
    """How many lines of Python a call runs."""
    return interrupted(call, sys.maxsize)[1]


# Not between taking a lock and noting it, nor in the type checks of a test run: whoever waits then, waits for good.
_NOT_IN = ("threading.py", "weakref.py", "logging/__init__.py", "importlib", "beartype", "jaxtyping")


def interrupted(call: Callable[[], Any], at: int) -> tuple[bool, int]:
    """Whether an interrupt at a line ended the call, and how many lines ran."""
    seen = 0

    def trace(frame: Any, event: str, arg: Any) -> Any:
        nonlocal seen
        if any(name in frame.f_code.co_filename for name in _NOT_IN):
            return None
        if event in ("line", "call"):
            seen += 1
            if seen == at:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True, seen
    finally:
        sys.settrace(None)
    return False, seen


def fuzz(model: Any, call: Callable[[], Any], tries: int, offset: int = 0) -> Counter[str]:
    """What was left behind, by kind, in so many tries; the model is repaired by nobody."""
    call()
    before, total = state(model), lines_of(call)
    found: Counter[str] = Counter()
    for i in range(tries):
        at = 1 + (i * total + offset) // tries
        ended, _ = interrupted(call, min(at, total))
        found["interrupted" if ended else "came to the end"] += 1
        after = state(model)
        for kind in [kind for kind in before if before[kind] != after[kind]]:
            found[kind] += 1
            before = after  # counted once
    return found


def threads(model: Any, call: Callable[[], torch.Tensor], calls: int, n: int = 2) -> Counter[str]:
    """Calls of several threads at once, and another thread's plain forward passes beside them."""
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        expected, logits = call(), model(ids)
    found: Counter[str] = Counter()
    over = threading.Event()

    def count(name: str, run: Callable[[], torch.Tensor], right: torch.Tensor) -> None:
        try:
            got = run()
            good = got.shape == right.shape and torch.allclose(got, right, rtol=1e-6, atol=1e-9)
            found[f"{name}: {'right' if good else 'wrong'}"] += 1
        except Exception as error:
            found[f"{name}: {type(error).__name__}: {str(error)[:80]}"] += 1

    def ours() -> None:
        for _ in range(calls // n):
            count("ours", call, expected)

    def plain() -> None:
        while not over.is_set():
            with torch.no_grad():
                count("plain", lambda: model(ids), logits)

    beside = threading.Thread(target=plain)
    workers = [threading.Thread(target=ours) for _ in range(n)]
    for thread in (beside, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    over.set()
    beside.join()
    return found


def calls_of(model: Any) -> dict[str, Callable[[], torch.Tensor]]:
    """Calls to interrupt: everything kept, blocks recomputed, a batch, runs under other hooks than today's."""
    host = resolve(model)
    tight = host.footprint(1, len(PROMPT), 1)
    budget = (tight.peak(recompute=True) + tight.peak(recompute=False)) // 2
    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", lambda value, hook: 2 * value)]):
        steered = tj.linearize(model, PROMPT)
    return {
        "scope": lambda: tj.temperature_scope(tj.linearize(model, PROMPT), confidence="logit_norm").scores,
        "recomputed": lambda: tj.semantic_scope(tj.linearize(model, PROMPT, max_memory=budget), 65).scores,
        "batch": lambda: tj.semantic_scope(tj.linearize(model, [PROMPT, OTHER]), 65)[1].scores,
        "rerun": lambda: tj.baselines.leave_one_out(steered, 65).scores,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=900)
    parser.add_argument("--calls", type=int, default=200)
    options = parser.parse_args()
    for architecture, host in (("gpt2", "hooked"), ("llama", "bridge"), ("gemma2", "bridge-compat")):
        model = make(architecture, host)
        model(torch.tensor([PROMPT]))  # TransformerBridge installs hooks of its own at its first pass
        for name, call in calls_of(model).items():
            print(architecture, host, name, dict(fuzz(model, call, options.tries // 12)), flush=True)
            gc.collect()
        for name, call in calls_of(model).items():
            print(architecture, host, name, dict(threads(model, call, options.calls // 12)), flush=True)


if __name__ == "__main__":
    main()
