"""Time and memory of scopes, on short and on long prompts: the peak that was predicted, and the one that was.

    python -m benchmarks.memory [--lengths 25 100 400 1024 2048] [--scopes temperature ...] [--budgets none least]
                                [--kinds hooked bridge] [--device cpu] [--keep FILE] [--show]

A budget of "none" keeps all activations wherever they fit into this machine; "least" is the smallest that is accepted;
others are handed to ``linearize`` as they are. Scopes joined by ``+`` are taken of one linearization, one after the
other. Of Fisher Scope's estimate a few products are taken, as many directions at once as the budget lets travel
together: leading ones and random ones from the output's side, and one from the input's side through the last block. A
whole estimate needs the same memory again and again, for it goes through one block after another.

Every prompt has a process of its own, whose peak resident memory the kernel reports ("process", libraries and model
included); "beyond the model" leaves out what it took before ``linearize``, after a forward pass of one token. On a GPU
that is what PyTorch allocated there, and "process" all that its allocator took from the device. "predicted" is what
``linearize`` plans with. Rows that FILE has already aren't measured again; ``--show`` measures none.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tl_jacobian.core.memory import text_of

TEXT = "The old lighthouse keeper counted the ships that passed below, and wrote each of them down. "
ASKED = ("host", "device", "tokens", "scope", "budget")
FOUND = ("attention", "activations", "at once", "predicted", "beyond the model", "ratio", "process", "seconds", "CPU")
BYTES = ("predicted", "beyond the model", "process")


def resident(what: str) -> int:
    """``VmRSS``, now, or ``VmHWM``, the most since :func:`forget_peak`; in bytes, from the kernel (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


class Meter:
    """Bytes of the process, or on its GPU, and seconds."""

    def __init__(self, device: str) -> None:
        import torch

        self.cuda = torch.cuda if device.startswith("cuda") else None
        self.before = resident("VmRSS") if self.cuda is None else self.cuda.memory_allocated()

    def timed(self, work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
        """What ``work()`` gives; its peaks, and how long it took."""
        if self.cuda is None:
            forget_peak()
        else:
            self.cuda.reset_peak_memory_stats()
        started, busy = time.perf_counter(), time.process_time()
        made = work()
        if self.cuda is None:
            total = most = resident("VmHWM")
        else:
            self.cuda.synchronize()
            total, most = self.cuda.max_memory_reserved(), self.cuda.max_memory_allocated()
        spent = {"seconds": time.perf_counter() - started, "CPU": time.process_time() - busy}
        return made, {"process": total, "beyond the model": most - self.before, **spent}


def loaded(kind: Any, device: str) -> Any:
    """The demo model, after a forward pass of one token: libraries are loaded then."""
    import torch

    import tl_jacobian as tj

    model = tj.load_demo_model(kind, device=device)
    with torch.no_grad():
        model(torch.tensor([[1]], device=device))
    return model


def a_few_products(lin: Any, n: int) -> None:
    """Of Fisher Scope's estimate: n leading directions and n random ones pulled back, one pushed through a block."""
    from tl_jacobian.analyses.scopes.estimate import Traces, begin, run

    traces = [Traces.of(lin, seed=0)]
    lin.graph.pusher()  # tries it on the last block
    begin(traces, n, None)
    traces[0].draw(n)
    run(traces)


def measure(kind: str, length: int, scopes: Sequence[str], device: str, budget: str) -> list[dict[str, Any]]:
    """One row a scope, each with what ``linearize`` took."""
    import tl_jacobian as tj
    from tl_jacobian.core.host.hosts import resolve

    model = loaded(kind, device)
    ids = model.tokenizer(TEXT * (1 + length // 15))["input_ids"][:length]
    footprint, meter = resolve(model).footprint(1, length, 1), Meter(device)
    least = footprint.peak(recompute=True)
    most = {"none": None, "least": least}.get(budget, budget)
    lin, made = meter.timed(lambda: tj.linearize(model, ids, max_memory=most))
    recompute, at_once, rows = "again" in lin.facts["activations"], lin.graph.chunk, []
    run: Mapping[str, Callable[[Any], Any]] = {
        "semantic": tj.semantic_scope,
        "temperature": tj.temperature_scope,
        "fisher": lambda lin: a_few_products(lin, at_once),
    }
    for scope in scopes:
        _, taken = meter.timed(lambda scope=scope: run[scope](lin))
        peaks = {name: max(taken[name], made[name]) for name in ("process", "beyond the model")}
        spent = {name: taken[name] + made[name] for name in ("seconds", "CPU")}
        fisher = scope == "fisher"
        predicted = footprint.peak(recompute, directions=at_once if fisher else 1, push=fisher)
        rows.append(
            {
                **dict(zip(ASKED, (kind, device, length, scope, budget), strict=True)),
                "attention": "in blocks" if "attention" in lin.facts else "whole",
                "activations": "recomputed" if recompute else "kept",
                "at once": at_once,
                "predicted": predicted,
                "ratio": predicted / max(1, peaks["beyond the model"]),
                **peaks,
                **spent,
            }
        )
    return rows


def in_a_process(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.memory", "--one", json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.returncode:
        return json.loads(done.stdout.splitlines()[-1])
    asked = dict(zip(ASKED, (task["kind"], task["device"], task["length"], "", task["budget"]), strict=True))
    error = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit status {done.returncode}"
    return [{**asked, "scope": scope, "error": error} for scope in task["scopes"]]


def cell(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def line(row: Mapping[str, Any]) -> str:
    shown = {name: text_of(value) if name in BYTES else value for name, value in row.items()}
    shown |= {name: round(row[name]) for name in ("seconds", "CPU") if name in row}
    return f"| {' | '.join(cell(shown.get(name, '')) for name in (*ASKED, *FOUND))} | {row.get('error', '')}".rstrip()


def tasks(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The largest last."""
    for length in sorted(args.lengths):
        for scopes in args.scopes:
            for kind in args.kinds:
                for budget in args.budgets:
                    task = {"kind": kind, "length": length, "scopes": scopes.split("+"), "budget": budget}
                    yield {**task, "device": args.device}


def kept(path: Path | None) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()] if path and path.exists() else []


def main(lengths: Sequence[int], scopes: Sequence[str], budgets: Sequence[str]) -> None:
    """The command line, with these for its defaults."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--one", help="one measurement, as JSON")
    parser.add_argument("--lengths", type=int, nargs="+", default=lengths)
    parser.add_argument("--budgets", nargs="+", default=budgets)
    parser.add_argument("--scopes", nargs="+", default=scopes)
    parser.add_argument("--kinds", nargs="+", default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--keep", type=Path, default=None, help="a file of rows, one a line, to go on with")
    parser.add_argument("--show", action="store_true")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(**json.loads(args.one))))
        return
    from tl_jacobian.core.host.demo import kinds

    args.kinds = args.kinds or kinds()
    rows = kept(args.keep)
    print(f"| {' | '.join((*ASKED, *FOUND))} |\n" + "|---" * len((*ASKED, *FOUND)) + "|")
    for row in rows:
        print(line(row), flush=True)
    known = {tuple(row[name] for name in ASKED) for row in rows if "error" not in row}
    for task in () if args.show else tasks(args):
        asked = (task["kind"], task["device"], task["length"])
        missing = [scope for scope in task["scopes"] if (*asked, scope, task["budget"]) not in known]
        for row in in_a_process({**task, "scopes": missing}) if missing else ():
            print(line(row), flush=True)
            if args.keep:
                with args.keep.open("a") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main([25, 100, 400, 1024, 2048], ["temperature"], ["none", "least"])
