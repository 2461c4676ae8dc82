"""Peak memory, predicted and measured: (linearize + Temperature Scope) and Fisher Scope's estimate on long prompts.

    python -m benchmarks.memory [--lengths 25 100 400 1024 2048] [--scopes temperature fisher] [--budgets none least]

A budget of "none" keeps all activations wherever they fit into this machine; "least" is the smallest
that is accepted; others are handed to ``linearize`` as they are.

Every measurement runs in a process of its own, whose peak resident memory the kernel reports. The
model's share is what the same process took before ``linearize`` (a plain forward pass of one
token included, so that libraries are loaded). Predictions are those that ``linearize`` plans with.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tl_jacobian.core.memory import text_of

TEXT = "The old lighthouse keeper counted the ships that passed below, and wrote each of them down. "
HEADER = "| host | tokens | scope | budget | activations | at once | predicted | measured | process | seconds |"
PRODUCTS = 24  # of Fisher Scope's estimate: what the memory of one more looks like doesn't change


def resident(what: str) -> int:
    """``VmRSS``, now, or ``VmHWM``, the most since :func:`forget_peak`; in bytes, from the kernel (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def measure(kind: str, length: int, scope: str, budget: str | None) -> dict[str, Any]:
    """In a process of its own: what one linearization and one scope take beyond the model."""
    import torch

    import tl_jacobian as tj
    from tl_jacobian.core.host.hosts import resolve

    model = tj.load_demo_model(kind)
    ids = model.tokenizer(TEXT * 120)["input_ids"][:length]
    with torch.no_grad():
        model(torch.tensor([ids[:1]]))
    forget_peak()
    footprint, before, started = resolve(model).footprint(1, length, 1), resident("VmRSS"), time.perf_counter()
    lin = tj.linearize(model, ids, max_memory=footprint.peak(recompute=True) if budget == "least" else budget)
    recompute = "again" in lin.facts["activations"]
    if scope == "fisher":
        tj.fisher_scope(lin, method="estimate", n_products=PRODUCTS)
        predicted = footprint.peak(recompute, directions=min(lin.graph.chunk, PRODUCTS))
    else:
        tj.temperature_scope(lin)
        predicted = footprint.peak(recompute, push=False)
    return {
        "recomputed": recompute,
        "predicted": predicted,
        "measured": resident("VmHWM") - before,
        "process": resident("VmHWM"),
        "seconds": time.perf_counter() - started,
        "chunk": lin.graph.chunk,
    }


def in_a_process(*args: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "--one", *args], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def row(kind: str, length: int, scope: str, budget: str) -> str:
    m = in_a_process(kind, str(length), scope, budget)
    start = f"| {kind} | {length} | {scope} | {budget} |"
    if "error" in m:
        return f"{start} {m['error']} | | | | | |"
    activations = "recomputed" if m["recomputed"] else "kept"
    sizes = " | ".join(text_of(m[name]) for name in ("predicted", "measured", "process"))
    return f"{start} {activations} | {m['chunk']} | {sizes} | {m['seconds']:.0f} |"


def main() -> None:
    from tl_jacobian.core.host.demo import kinds

    parser = argparse.ArgumentParser()
    parser.add_argument("--one", nargs=4, help="KIND LENGTH SCOPE BUDGET: one measurement, as JSON")
    parser.add_argument("--lengths", type=int, nargs="+", default=[25, 100, 400, 1024, 2048])
    parser.add_argument("--budgets", nargs="+", default=["none", "least"])
    parser.add_argument("--scopes", nargs="+", default=["temperature"])
    parser.add_argument("--kinds", nargs="+", default=None)
    args = parser.parse_args()
    if args.one:
        kind, length, scope, budget = args.one
        print(json.dumps(measure(kind, int(length), scope, None if budget == "none" else budget)))
        return
    print(HEADER)
    print("|---" * 10 + "|")
    for kind in args.kinds or kinds():
        for length in args.lengths:
            for scope in args.scopes:
                for budget in args.budgets:
                    print(row(kind, length, scope, budget), flush=True)


if __name__ == "__main__":
    main()
