"""How the cost of linearize + a scope grows: with the prompt, the batch and the model's width.

    python -m benchmarks.scaling [--kinds hooked bridge] [--rounds 3] [--longest 1600]
                                  [--parts batch peak length width]

"peak": the rate at which Fisher's products run, against that of a plain matrix product of their size.
Prints seconds, and the exponent b of a fit  seconds = a x^b  (the upper half of the points, where
fixed costs no longer hide it).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import tl_jacobian as tj
from benchmarks.ratios import medians
from benchmarks.scope_cost import TEXT
from tl_jacobian.core.host.demo import kinds, load_demo_hf

SCOPES: Mapping[str, Callable[[Any], Any]] = {
    "semantic": tj.semantic_scope,
    "temperature": tj.temperature_scope,
    "fisher (rank 1)": lambda lin: tj.fisher_scope(lin, method="low_rank"),
    "fisher (estimate, 52 products)": lambda lin: tj.fisher_scope(lin, method="estimate", n_products=52),
}


def exponent(points: Mapping[int, float]) -> float:
    xs, ys = (torch.tensor(list(part), dtype=torch.float64).log() for part in zip(*points.items(), strict=True))
    xs, ys = xs[len(xs) // 2 - 1 :], ys[len(ys) // 2 - 1 :]
    return (((xs - xs.mean()) * (ys - ys.mean())).sum() / (xs - xs.mean()).square().sum()).item()


def report(name: str, points: Mapping[int, float], per: str = "") -> None:
    cells = "  ".join(f"{x}: {t:.2f}" for x, t in points.items())
    print(f"| {name} | {cells} | {exponent(points):.2f}{per} |", flush=True)


def by_length(model: Any, lengths: list[int], rounds: int, name: str) -> None:
    ids = model.tokenizer(TEXT * 200)["input_ids"]
    for scope, run in SCOPES.items():
        points = {}
        for n in lengths if "estimate" not in scope else lengths[:-2]:
            points[n] = medians({"it": lambda n=n, run=run: run(tj.linearize(model, ids[:n]))}, rounds, warm=False)[
                "it"
            ]
        report(f"{name}, tokens, {scope}", points)


def by_batch(model: Any, sizes: list[int], rounds: int, name: str) -> None:
    ids = model.tokenizer(TEXT * 200)["input_ids"][:25]
    for scope, run in SCOPES.items():
        runs = {str(n): lambda n=n, run=run: run(tj.linearize(model, [ids] * n)) for n in sizes}
        seconds = medians(runs, rounds)  # sizes take turns: only their ratios matter
        points = {n: seconds[str(n)] / n for n in sizes}
        report(f"{name}, prompts in a batch (seconds each), {scope}", points)


def of_peak(model: Any, rounds: int, name: str) -> None:
    """How near Fisher's products come to the machine's matrix products: what a larger batch could still gain."""
    ids = model.tokenizer(TEXT * 200)["input_ids"][:25]
    rows, inner = torch.randn(800, model.cfg.d_model), torch.randn(model.cfg.d_model, model.cfg.d_mlp)
    lin = tj.linearize(model, ids)
    found: dict[str, tj.Attribution] = {}

    def estimate() -> None:
        found["it"] = tj.fisher_scope(lin, method="estimate", n_products=52)

    def products() -> None:
        for _ in range(100):
            rows @ inner

    t = medians({"estimate": estimate, "matmul": products}, rounds)
    weights = sum(p.numel() for block in model.blocks for p in block.parameters() if p.ndim > 1)
    work = 2 * weights * len(ids) * found["it"].metadata["n_products"]
    rate, peak = work / t["estimate"] / 1e9, 100 * 2 * rows.numel() * inner.shape[1] / t["matmul"] / 1e9
    print(
        f"| {name}, one prompt, fisher (estimate, 52 products) | {rate:.0f} of {peak:.0f} GFLOP/s | {rate / peak:.0%} |"
    )


def by_width(widths: list[int], rounds: int) -> None:
    """Four random-weight layers of a Llama, 25 tokens."""
    for scope, run in SCOPES.items():
        points = {}
        for d in widths:
            model = random_llama(d)
            points[d] = medians({"it": lambda m=model, run=run: run(tj.linearize(m, list(range(25))))}, rounds)["it"]
        report(f"bridge, d_model, {scope}", points)


def random_llama(d_model: int) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    tokenizer = load_demo_hf()[1]
    config = LlamaConfig(
        hidden_size=d_model,
        intermediate_size=3 * d_model,
        num_hidden_layers=4,
        num_attention_heads=d_model // 64,
        num_key_value_heads=d_model // 64,
        vocab_size=len(tokenizer),
    )
    torch.manual_seed(0)
    hf = LlamaForCausalLM(config).eval()
    torch.nn.init.uniform_(hf.model.norm.weight, 0.5, 1.5)  # an untrained gain of ones leaves ||y|| constant
    return TransformerBridge.boot_transformers("random-llama", hf_model=hf, tokenizer=tokenizer, device="cpu")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kinds", nargs="+", default=list(kinds()))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--longest", type=int, default=1600)
    parser.add_argument("--parts", nargs="+", default=["batch", "peak", "length", "width"])
    args = parser.parse_args()
    print("| what grows | seconds | exponent |\n|---|---|---|")
    lengths = [n for n in (25, 50, 100, 200, 400, 800, 1600) if n <= args.longest]
    for kind in args.kinds if {"batch", "length", "peak"} & set(args.parts) else ():
        model = tj.load_demo_model(kind)
        if "batch" in args.parts:
            by_batch(model, [1, 4, 16], args.rounds, kind)
        if "peak" in args.parts:
            of_peak(model, args.rounds, kind)
        if "length" in args.parts:
            by_length(model, lengths, args.rounds, kind)
    if "width" in args.parts:
        by_width([128, 256, 512, 1024], args.rounds)


if __name__ == "__main__":
    main()
