"""The whole context window: time, and memory predicted and used, of all three scopes on long prompts.

    python -m benchmarks.long [--lengths 1024 2048 4096 8192] [--kinds hooked bridge] [--scopes first fisher]
    python -m benchmarks.long --series 2500 [--kinds bridge]

"first" is Temperature and Semantic Scope of one linearization; "fisher" is Fisher Scope's estimate with the fewest
products that it takes (10; a whole one has about 60, which use the same memory again). Each row is a process of its
own, whose peak resident memory the kernel reports, libraries and model included; on a GPU it is what PyTorch allocated
there, the model included. "predicted" is what ``linearize`` plans with, and "beyond the model" what it is about.
``--budget`` is ``max_memory=``; "least" is the smallest that is accepted.

``--series`` linearizes a series of so many numbers (Lorenz's x, two digits and a comma each), and says what drives the
forecast of the next one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

from benchmarks.memory import TEXT, forget_peak, resident
from tl_jacobian.core.memory import text_of

COLUMNS = (
    "host",
    "device",
    "tokens",
    "scopes",
    "attention",
    "activations",
    "predicted",
    "beyond the model",
    "ratio",
    "process",
    "seconds",
)
PRODUCTS = 10


class Meter:
    """Bytes, of the process or on its GPU."""

    def __init__(self, device: str) -> None:
        import torch

        self.cuda = torch.cuda if device.startswith("cuda") else None
        if self.cuda is None:
            forget_peak()
        else:
            self.cuda.reset_peak_memory_stats()
        self.before = resident("VmRSS") if self.cuda is None else self.cuda.memory_allocated()
        self.started = time.perf_counter()

    @property
    def peak(self) -> int:
        return resident("VmHWM") if self.cuda is None else self.cuda.max_memory_allocated()

    @property
    def seconds(self) -> float:
        if self.cuda is not None:
            self.cuda.synchronize()
        return time.perf_counter() - self.started


def loaded(kind: Any, device: str) -> Any:
    """The model, after a forward pass of one token: libraries are loaded then."""
    import torch

    import tl_jacobian as tj

    model = tj.load_demo_model(kind, device=device)
    with torch.no_grad():
        model(torch.tensor([[1]], device=device))
    return model


def measure(kind: str, length: int, scopes: str, device: str, budget: str) -> dict[str, Any]:
    import tl_jacobian as tj
    from tl_jacobian.core.host.hosts import resolve

    model = loaded(kind, device)
    ids = model.tokenizer(TEXT * 600)["input_ids"][:length]
    footprint, meter = resolve(model).footprint(1, length, 1), Meter(device)
    lin = tj.linearize(model, ids, max_memory=footprint.peak(recompute=True) if budget == "least" else budget)
    recompute = "again" in lin.facts["activations"]
    if scopes == "fisher":
        tj.fisher_scope(lin, method="estimate", n_products=PRODUCTS)
        predicted = footprint.peak(recompute, directions=min(lin.graph.chunk, PRODUCTS))
    else:
        tj.temperature_scope(lin)
        tj.semantic_scope(lin)
        predicted = footprint.peak(recompute, push=False)
    return {
        "attention": "in blocks" if "attention" in lin.facts else "whole",
        "activations": "recomputed" if recompute else "kept",
        "predicted": predicted,
        "beyond the model": meter.peak - meter.before,
        "ratio": predicted / (meter.peak - meter.before),
        "process": meter.peak,
        "seconds": meter.seconds,
    }


def series(kind: str, n: int, device: str) -> dict[str, Any]:
    """What drives the forecast of the number after n others."""
    import tl_jacobian as tj
    from tl_jacobian import timeseries as ts
    from tl_jacobian.core.host.hosts import resolve

    model = loaded(kind, device)
    values = ts.lorenz(n + 1, dt=0.08)
    written = ts.serialize(values[:-1], model)
    least, meter = resolve(model).footprint(1, len(written.tokens), 1).peak(recompute=True), Meter(device)
    lin = tj.linearize(model, list(written.tokens), max_memory=least)
    found = ts.number_influence(tj.temperature_scope(lin), written)
    match = ts.pattern_match(found.values, found.influence, exclude=9)
    influence = found.influence / found.influence.sum()
    parts = [float(influence[-max(1, int(len(influence) * share)) :].sum()) for share in (0.01, 0.1, 0.5)]
    return {
        "numbers": n,
        "tokens": len(written.tokens),
        "influence of the last 1%, 10%, 50%": [round(part, 3) for part in parts],
        "forgetting, nats": float(ts.forgetting_slope(found.influence).total),
        "motifs like the present": float(match.estimate),
        "process": text_of(meter.peak),
        "seconds": round(meter.seconds),
    }


def in_a_process(task: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.long", "--one", json.dumps(task)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def cell(name: str, value: Any) -> str:
    if name in ("predicted", "beyond the model", "process"):
        return text_of(value)
    return f"{value:.2f}" if name == "ratio" else f"{value:.0f}" if name == "seconds" else str(value)


def row(task: dict[str, Any]) -> str:
    start = {"host": task["kind"], "device": task["device"], "tokens": task["length"], "scopes": task["scopes"]}
    found = start | in_a_process(task)
    cells = [cell(name, found[name]) if name in found else "" for name in COLUMNS]
    return f"| {' | '.join(cells)} |" + (f" {found['error']}" if "error" in found else "")


def main() -> None:
    from tl_jacobian.core.host.demo import kinds

    parser = argparse.ArgumentParser()
    parser.add_argument("--one", help="one measurement, as JSON")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048, 4096, 8192])
    parser.add_argument("--kinds", nargs="+", default=None)
    parser.add_argument("--scopes", nargs="+", default=["first", "fisher"], choices=["first", "fisher"])
    parser.add_argument("--budget", default="least")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--series", type=int, default=None)
    args = parser.parse_args()
    if args.one:
        task = json.loads(args.one)
        print(json.dumps(measure(**task)))
        return
    if args.series:
        for kind in args.kinds or kinds():
            print(kind, json.dumps(series(kind, args.series, args.device)), flush=True)
        return
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for length in args.lengths:
        for kind in args.kinds or kinds():
            for scopes in args.scopes:
                task = dict(kind=kind, length=length, scopes=scopes, device=args.device, budget=args.budget)
                print(row(task), flush=True)


if __name__ == "__main__":
    main()
