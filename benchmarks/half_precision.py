"""Half-precision models: how far scores are from float32 computation on the same weights, and what that costs.

    python -m benchmarks.half_precision [--models gpt2 gemma3 demo] [--qwen DIR] [--dtypes bfloat16] [--kinds bridge]

``weights``   the default: what the weights define, computed in float32 without a float32 copy of them
``model``     ``precision="model"``: as the model computes, rounding included
``copy``      a float32 copy of the model, the truth that both are held against

Each row is a model, host, precision and prompt; errors are relative norms, the worst of Semantic Scope, Temperature
Scope (where the final norm allows it) and rank-1 Fisher Scope. Seconds and memory are of linearize and these scopes;
memory is what the process takes at most, model included. Every model has a process of its own, and its copy another.
DIR holds a model for ``TransformerBridge.boot_transformers``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import tl_jacobian as tj
from benchmarks.memory import forget_peak, resident
from tl_jacobian.core.host.demo import kinds

PROMPTS = (
    "The capital of France is",
    "As a state-of-the-art AI, instead of lying and deceiving, I always try to be",
    "Columbia is in New York, so the senator who studied there is most likely a",
    "29,30,31,33,35,38,40,43,45,46,47,46,45,",
)
HEADER = (
    "| model | host | dtype | tokens | error: weights | error: model | seconds: weights | model | copy "
    "| GiB: weights | model | copy |"
)


def load(name: str, kind: str, dtype: torch.dtype) -> Any:
    if name == "demo":
        return tj.load_demo_model(kind).to(dtype)
    if Path(name).is_dir():
        from transformer_lens.model_bridge import TransformerBridge

        return TransformerBridge.boot_transformers(name, dtype=dtype, device="cpu")
    from tests.cases import make

    return make(name, kind, dtype)


def copied(model: Any, name: str, kind: str) -> Any:
    """A float32 model with these weights; nothing else of it was ever rounded."""
    weights = {n: p.detach() for n, p in model.named_parameters()}
    exact = load(name, kind, torch.float32)
    for n, p in exact.named_parameters():
        p.data.copy_(weights[n])
    return exact


def measure(model: Any, prompt: str, **options: Any) -> dict[str, Any]:
    forget_peak()
    started = time.perf_counter()
    lin = tj.linearize(model, prompt, **options)
    scopes = [tj.semantic_scope(lin), tj.fisher_scope(lin, method="low_rank", rank=1)]
    scopes += [] if lin.bare_norm else [tj.temperature_scope(lin)]
    seconds = time.perf_counter() - started
    return {"scores": [a.scores for a in scopes], "seconds": seconds, "peak": resident("VmHWM"), "n": len(lin.tokens)}


def one(name: str, kind: str, dtype: str, out: str) -> None:
    """In a process of its own: everything about a model, or about its copy."""
    model, exact = load(name, kind, getattr(torch, dtype.removeprefix("copy-"))), dtype.startswith("copy-")
    model = copied(model, name, kind) if exact else model
    tj.linearize(model, PROMPTS[0][:8])  # what is set up once
    prompts = PROMPTS if name == "demo" or Path(name).is_dir() else [p[:48] for p in PROMPTS]  # tiny ones read bytes
    modes: dict[str, dict[str, Any]] = {"copy": {}} if exact else {"weights": {}, "model": {"precision": "model"}}
    torch.save({mode: [measure(model, p, **options) for p in prompts] for mode, options in modes.items()}, out)


def rows(name: str, kind: str, dtype: str) -> list[str]:
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for which in (dtype, f"copy-{dtype}"):
            out = str(Path(folder) / which)
            command = [sys.executable, "-m", "benchmarks.half_precision", "--one", name, kind, which, out]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                return [f"| {name} | {kind} | {dtype} | {done.stderr.strip().splitlines()[-1]} |" + " |" * 8]
            found |= torch.load(out)
    lines = []
    for i in range(len(PROMPTS)):
        at = {mode: found[mode][i] for mode in ("weights", "model", "copy")}
        errors = [f"{_error(at[mode]['scores'], at['copy']['scores']):.1e}" for mode in ("weights", "model")]
        seconds = [f"{m['seconds']:.2g}" for m in at.values()]
        peaks = [f"{m['peak'] / 2**30:.2f}" for m in at.values()]
        cells = [Path(name).name, kind, dtype, str(at["copy"]["n"]), *errors, *seconds, *peaks]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _error(found: list[torch.Tensor], true: list[torch.Tensor]) -> float:
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, true, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--one", nargs=4, help="MODEL KIND DTYPE OUT: one model's measurements")
    parser.add_argument("--models", nargs="*", default=["gpt2", "gemma3", "demo"])
    parser.add_argument("--qwen", help="a local folder, measured on the bridge")
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float16"])
    parser.add_argument("--kinds", nargs="+", default=list(kinds()))
    args = parser.parse_args()
    if args.one:
        one(*args.one)
        return
    print(HEADER)
    print("|---" * 12 + "|")
    asked = [(name, kind) for name in args.models for kind in args.kinds]
    for name, kind in [*asked, *([(args.qwen, "bridge")] if args.qwen else [])]:
        for dtype in args.dtypes:
            for line in rows(name, kind, dtype):
                print(line, flush=True)


if __name__ == "__main__":
    main()
