"""Which estimator of the Fisher traces needs the fewest products? The comparison behind the choice.

    python -m benchmarks.fisher_estimators [--data PROMPTS.json ...] [--count 4] [--tokens 24]

From the exact Jacobians of each prompt, every contender's variance is computed in closed form: for
random signs in an orthonormal basis, 2 (||R||^2 - ||diag R||^2) for one probe of the remainder R of
F^1/2 J_t J_t^T F^1/2. Listed are the probes that bring the mean relative error of the tokens to 1%, and
all products: directions taken exactly, Jacobian-vector products, and probes. Exact takes d_model.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import torch
from torch import Tensor

import tl_jacobian as tj
from benchmarks import prompts
from tl_jacobian.core.linalg.fisher import FisherFactor

TARGET = 0.01


class Prompt:
    """F^1/2 J_t J_t^T F^1/2 for every token, in the eigenbasis of F (leading directions first)."""

    def __init__(self, lin: tj.Linearization) -> None:
        values, vectors = torch.linalg.eigh(FisherFactor(lin.unembedding, lin.logits.double()).dense())
        self.root = values.flip(0).clamp(min=0).sqrt()
        pulled = (self.root[:, None] * vectors.T.flip(0)) @ lin.jacobian().double()  # (pos, d, d)
        self.pulled = pulled
        self.metric = pulled @ pulled.transpose(1, 2)
        self.scores = self.metric.diagonal(dim1=1, dim2=2).sum(1)

    def probes(self, basis: Tensor, spread: Callable[[Tensor], Tensor]) -> float:
        """Probes to 1% mean relative error once the span of ``basis`` is taken exactly."""
        project = torch.eye(len(basis), dtype=basis.dtype) - basis @ basis.T
        deviation = spread(project @ self.metric @ project).clamp(min=0).sqrt() / self.scores
        return (math.sqrt(2 / math.pi) * deviation.mean().item() / TARGET) ** 2

    def leading(self, k: int) -> Tensor:
        return torch.eye(len(self.root), dtype=torch.float64)[:, :k]

    def iterated(self, k: int, steps: int, weighted: bool = True) -> Tensor:
        """Leading eigenvectors, and ``steps`` of block subspace iteration on the tokens' weighted sum."""
        basis = last = self.leading(k)
        weights = 1 / self.metric[:, range(k), range(k)].sum(1) if weighted else torch.ones_like(self.scores)
        common = (weights[:, None, None] * self.metric).sum(0)
        for _ in range(steps):
            last = common @ last
            last = torch.linalg.qr(last - basis @ (basis.T @ last))[0]
            basis = torch.linalg.qr(torch.cat([basis, last], dim=1))[0]
        return basis

    def range_finder(self, k: int) -> Tensor:
        """Random changes of all embeddings pushed forward: J sees them, F's eigenvectors play no part."""
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(*self.pulled.shape[::2], k, generator=generator, dtype=torch.float64)
        return torch.linalg.qr((self.pulled @ noise).sum(0))[0]

    def best(self, k: int) -> Tensor:
        """What no method can beat with k directions shared by all tokens."""
        common = (self.metric / self.scores[:, None, None]).sum(0)
        return torch.linalg.eigh(common)[1].flip(1)[:, :k]


def signs(rest: Tensor) -> Tensor:
    return 2 * (rest.square().sum((1, 2)) - rest.diagonal(dim1=1, dim2=2).square().sum(1))


def gaussian(rest: Tensor) -> Tensor:
    return 2 * rest.square().sum((1, 2))


# name -> (exact directions and products before the probes, basis, spread of one probe)
CONTENDERS: dict[str, tuple[int, Callable[[Prompt], Tensor], Callable[[Tensor], Tensor]]] = {
    "signs alone (Hutchinson)": (0, lambda p: p.leading(0), signs),
    "Gaussian probes alone": (0, lambda p: p.leading(0), gaussian),
    "32 eigenvectors of F + signs": (32, lambda p: p.leading(32), signs),
    "64 eigenvectors of F + signs": (64, lambda p: p.leading(64), signs),
    "16 random changes pushed forward + signs": (32, lambda p: p.range_finder(16), signs),
    "24 random changes pushed forward + signs": (48, lambda p: p.range_finder(24), signs),
    "8 eigenvectors, 1 step + signs": (24, lambda p: p.iterated(8, 1), signs),
    "8 eigenvectors, 2 steps + signs": (40, lambda p: p.iterated(8, 2), signs),
    "12 eigenvectors, 1 step, unweighted + signs": (36, lambda p: p.iterated(12, 1, weighted=False), signs),
    "12 eigenvectors, 1 step + signs (used)": (36, lambda p: p.iterated(12, 1), signs),
    "12 eigenvectors, 1 step + Gaussian": (36, lambda p: p.iterated(12, 1), gaussian),
    "12 eigenvectors, 2 steps + signs": (60, lambda p: p.iterated(12, 2), signs),
    "16 eigenvectors, 1 step + signs": (48, lambda p: p.iterated(16, 1), signs),
    "(the best 24 directions, not to be had, + signs)": (24, lambda p: p.best(24), signs),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    prompts.add_arguments(parser, count=4, tokens=24)
    args = parser.parse_args()
    model = tj.load_demo_model()
    measured = [Prompt(tj.linearize(model, ids)) for ids in prompts.read(args, model.tokenizer)]
    print(f"{len(measured)} prompts; d_model={model.cfg.d_model}")
    print("| estimator | before the probes | probes to 1% | all products, mean | worst prompt |\n|---|---|---|---|---|")
    for name, (products, basis, spread) in CONTENDERS.items():
        needed = torch.tensor([p.probes(basis(p), spread) for p in measured])
        total = products + needed
        print(f"| {name} | {products} | {needed.mean():.0f} | {total.mean():.0f} | {total.max():.0f} |")


if __name__ == "__main__":
    main()
