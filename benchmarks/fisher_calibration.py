"""The Fisher estimate against exact scores on many prompts: its error, and whether its error bars tell the truth.

python -m benchmarks.fisher_calibration --data PROMPTS.json ... [--count 20] [--tokens 25] [--kind bridge]
    [--device cuda]
"""

from __future__ import annotations

import argparse
import time

import torch

import tl_jacobian as tj
from benchmarks import prompts


def main() -> None:
    parser = argparse.ArgumentParser()
    prompts.add_arguments(parser, count=20, tokens=25)
    parser.add_argument("--kind", default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, default=3, help="estimates of each prompt")
    args = parser.parse_args()
    model = tj.load_demo_model(args.kind, device=args.device)
    print(
        "| prompt | tokens | products | mean error | worst token | within 1 s.e. | within 2 s.e. | exact / estimate |"
    )
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    for i, ids in enumerate(prompts.read(args, model.tokenizer)):
        rows.append(one_prompt(tj.linearize(model, ids), args.seeds))
        print(f"| {i} | {len(ids)} {shown(rows[-1])}", flush=True)
    print(f"| all | {shown(torch.stack(rows).mean(0))}")


def one_prompt(lin: tj.Linearization, seeds: int) -> torch.Tensor:
    """Products, mean and worst relative error, coverage of one and two standard errors, speed-up."""
    started = time.perf_counter()
    exact = tj.fisher_scope(lin, method="exact").scores
    seconds = time.perf_counter() - started
    measured = []
    for seed in range(seeds):
        started = time.perf_counter()
        a = tj.fisher_scope(lin, generator=torch.Generator().manual_seed(seed))
        ratio = seconds / (time.perf_counter() - started)
        error, z = (a.scores - exact).abs() / exact, (a.scores - exact).abs() / a.stderr
        inside = [(z < n).float().mean().item() for n in (1, 2)]
        measured.append([a.metadata["n_products"], error.mean().item(), error.max().item(), *inside, ratio])
    return torch.tensor(measured).mean(0)


def shown(row: torch.Tensor) -> str:
    products, mean, worst, one, two, ratio = row.tolist()
    return f"| {products:.0f} | {mean:.2%} | {worst:.1%} | {one:.0%} | {two:.0%} | {ratio:.1f} |"


if __name__ == "__main__":
    main()
