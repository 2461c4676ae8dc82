"""Leading eigenpairs of the Fisher matrix of a large vocabulary, against the dense product.

    python -m benchmarks.fisher_factor [--d-vocab 128256] [--d-model 2048] [--ranks 1 12 32]

The unembedding is random with a decaying spectrum; the distribution falls off like Zipf's law
around a few likely tokens, as a language model's does.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import torch

from tl_jacobian.core.linalg.eigen import Eigenpairs, eigenpairs, nucleus, nucleus_eigenpairs
from tl_jacobian.core.linalg.fisher import FisherFactor
from tl_jacobian.core.unembedding import Unembedding


def made_up(d_model: int, d_vocab: int) -> FisherFactor:
    generator = torch.Generator().manual_seed(0)
    decay = torch.arange(1, d_model + 1) ** -0.25
    weight = torch.randn(d_model, d_vocab, generator=generator).mul_(
        decay[:, None]
    )  # no second copy: memory is measured
    ranks = torch.randperm(d_vocab, generator=generator) + 1
    return FisherFactor(Unembedding(weight), -1.2 * ranks.log() + torch.randn(d_vocab, generator=generator))


def dense(factor: FisherFactor) -> tuple[torch.Tensor, torch.Tensor]:
    """F as the formula reads, and its eigenvalues."""
    w, p = factor.head.weight, factor.logits.softmax(-1)
    mean = w @ p
    return torch.linalg.eigh((w * p) @ w.T - torch.outer(mean, mean))


def contenders(rank: int) -> dict[str, Callable[[FisherFactor], Eigenpairs]]:
    return {
        "nucleus of 90% of the trace, at most 1,024 tokens": lambda f: nucleus_eigenpairs(nucleus(f, 0.1, 1024), rank),
        "residuals below 1e-3": lambda f: eigenpairs(f, rank, rtol=1e-3),
        "residuals below 1e-5": lambda f: eigenpairs(f, rank),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--d-vocab", type=int, default=128_256)
    parser.add_argument("--d-model", type=int, default=2048)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 12, 32])
    args = parser.parse_args()
    factor = made_up(args.d_model, args.d_vocab)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = []
    for rank in args.ranks:
        for name, run in contenders(rank).items():
            fresh = FisherFactor(factor.head, factor.logits)
            started = time.perf_counter()
            found.append((rank, name, run(fresh), time.perf_counter() - started))
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    started = time.perf_counter()
    values = dense(factor)[0].flip(0)
    seconds = time.perf_counter() - started
    print(f"V={args.d_vocab}, d={args.d_model}: dense {seconds:.1f} s; all below took {more:.2f} GiB more at most")
    print("| rank | method | s | dense / this | bound / largest | true error / largest |\n|---|---|---|---|---|---|")
    for rank, name, pairs, took in found:
        error, bound = (pairs.values - values[:rank]).abs().max() / values[0], pairs.bound / values[0]
        print(f"| {rank} | {name} | {took:.2f} | {seconds / took:.1f} | {bound:.1e} | {error:.1e} |")


if __name__ == "__main__":
    main()
