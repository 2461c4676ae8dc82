"""Where a scope's time goes: PyTorch's profiler on a plain pass, linearize and Semantic Scope, with one thread.

    python -m benchmarks.scope_profile [--kind bridge] [--tokens 100] [--rows 30]

Milliseconds of each operation itself, then processor milliseconds of each step without the profiler (median of ten).
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import tl_jacobian as tj
from benchmarks.scope_cost import TEXT, plain

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm")


def operations(run: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        made = run()
    return made, {e.key: e.self_cpu_time_total / 1e3 for e in seen.key_averages() if e.self_cpu_time_total > 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", default="bridge")
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--rows", type=int, default=30)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model: Any = tj.load_demo_model(args.kind)
    ids = model.tokenizer(TEXT * 100)["input_ids"][: args.tokens]
    tokens = torch.tensor([ids])
    for _ in range(2):
        plain(model, tokens)
        lin = tj.linearize(model, ids)
        tj.semantic_scope(lin)
    found = {"plain": operations(lambda: plain(model, tokens))[1]}
    lin, found["linearize"] = operations(lambda: tj.linearize(model, ids))
    _, found["scope"] = operations(lambda: tj.semantic_scope(lin))
    keys = {key for table in found.values() for key in table}
    most = sorted(keys, key=lambda key: -max(table.get(key, 0) for table in found.values()))[: args.rows]
    for name, inside in (("all", keys), ("matrix products", PRODUCTS), *((key, (key,)) for key in most)):
        print(f"{name[:50]:50}", *(f"{sum(table.get(key, 0) for key in inside):9.1f}" for table in found.values()))
    steps: dict[str, Callable[[], Any]] = {
        "plain": lambda: plain(model, tokens),
        "linearize": lambda: tj.linearize(model, ids),
        "scope": lambda: tj.semantic_scope(lin),
    }
    for name, step in steps.items():
        times = []
        for _ in range(10):
            began = time.process_time()
            step()
            times.append(time.process_time() - began)
        print(f"{name}: {1e3 * statistics.median(times):.1f} ms")


if __name__ == "__main__":
    main()
