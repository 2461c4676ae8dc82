"""The leading singular values of one token's Jacobian: block Lanczos against all of it, timed in turn in one run.

    python -m benchmarks.jacobian_spectrum [--rounds 1] [--length 25] [--k 1 4 16 32]

Both find the values and the effective rank. The table gives the time and the products of block
Lanczos as parts of those that the whole Jacobian takes, and the worst error of a value over s_1.
"""

from __future__ import annotations

import argparse

import torch

import tl_jacobian as tj
from benchmarks.ratios import medians
from benchmarks.scope_cost import TEXT
from tl_jacobian.analyses.spectra import JacobianBlock
from tl_jacobian.core.linalg.singular import dense, krylov, moments


def measure(lin: tj.Linearization, position: int, k: int, rounds: int) -> str:
    whole, block = JacobianBlock(lin, (position,)), JacobianBlock(lin, (position,))

    def lanczos() -> torch.Tensor:
        block.n_products = 0
        generator = torch.Generator().manual_seed(0)
        found = krylov(block.pull, block.push, block.shape, k, 1e-4, generator)
        moments(found, block.pull, generator)
        return found.triples.values

    def everything() -> torch.Tensor:
        whole.n_products = 0
        return dense(whole.pull, lin.d_model, k).triples.values

    times = medians({"lanczos": lanczos, "everything": everything}, rounds, warm=False)
    true = everything()
    error = ((lanczos() - true).abs().max() / true[0]).item()
    part = times["lanczos"] / times["everything"]
    return f"| {k} | {part:.2f} | {block.n_products / whole.n_products:.2f} | {error:.0e} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--length", type=int, default=25)
    parser.add_argument("--k", type=int, nargs="+", default=[1, 4, 16, 32])
    args = parser.parse_args()
    model = tj.load_demo_model("bridge")
    lin = tj.linearize(model, model.to_tokens(TEXT)[0, : args.length].tolist())
    print("| k | time | products | error |\n|---|---|---|---|")
    for k in args.k:
        print(measure(lin, args.length // 2, k, args.rounds), flush=True)


if __name__ == "__main__":
    main()
