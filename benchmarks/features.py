"""Features, edges and heads by token: predictions beside interventions, and what predicting costs.

    python -m benchmarks.train_sae      # once
    python -m benchmarks.features [--pairs 20] [--places 20] [--device cuda]
    python -m benchmarks.features --costs    # on two quiet cores

For each pair of prompts: the strongest features of a clean prompt, each removed from the stream at its token and the
logit difference measured; the strongest edges by path patching; the strongest heads at tokens by patching. Spearman is
over the places that were measured, which are those predicted to be largest: a harder test than over all, most of which
do nothing. Costs are ratios of medians in one run.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

import tl_jacobian as tj
from benchmarks import train_sae
from benchmarks.ratios import medians
from tl_jacobian.analyses.edges import edge_attribution

NAMES = ("John", "Mary", "Tom", "Anna", "Mark", "Sarah", "Emma", "David", "Paul", "Lucy")
COUNTRIES = ("France", "Italy", "Spain", "Germany", "Japan", "China", "Russia", "Egypt", "Greece", "Poland")


def pairs(n: int) -> list[tuple[str, str]]:
    """Half indirect objects, half capitals."""
    found = []
    for i in range(n // 2):
        a, b = NAMES[i % 10], NAMES[(i + 3) % 10]
        found.append((f"When {a} and {b} met, {a} gave a book to", f"When {a} and {b} met, {b} gave a book to"))
        x, y = COUNTRIES[i % 10], COUNTRIES[(i + 1) % 10]
        found.append((f"The capital of {x} is", f"The capital of {y} is"))
    return found


def removed(model: Any, lin: tj.Linearization, hook: str, sae: Any, cell: Any, token: int, other: int) -> float:
    """Change of the logit difference when a feature is taken out of the stream at one token."""

    def edit(stream: torch.Tensor, hook: Any) -> torch.Tensor:
        stream = stream.clone()
        stream[0, cell.token] -= cell.activation * sae.W_dec[cell.feature]
        return stream

    with torch.no_grad():
        logits = model.run_with_hooks(lin.tokens[None].to(lin.y.device), fwd_hooks=[(hook, edit)])[0, -1]
    return (logits[token] - logits[other] - (lin.logits[token] - lin.logits[other])).item()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--places", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--costs", action="store_true", help="costs alone")
    args = parser.parse_args()
    model, sae = tj.load_demo_model("bridge", device=args.device), train_sae.load(device=args.device)
    hook = sae.cfg.metadata.hook_name
    if args.costs:
        return costs(model, sae, hook)
    quality = sae.cfg.metadata.quality
    print(
        f"SAE at {hook}: {len(sae.W_dec)} features, k={sae.cfg.k}. Held out: "
        + ", ".join(f"{name} {value:.3g}" for name, value in quality.items() if name != "seconds")
    )
    print()
    found: dict[str, list[tuple[float, float, float]]] = {"features": [], "heads at tokens": [], "edges": []}
    shares = []
    for clean, corrupted in pairs(args.pairs):
        lin, other = (tj.linearize(model, prompt, record=[hook]) for prompt in (clean, corrupted))
        a, b = int(lin.logits.argmax()), int(other.logits.argmax())
        if a == b or len(lin.tokens) != len(other.tokens):
            continue
        f = tj.feature_scope(lin, sae, target=a, minus=b, top=64)
        cells = f.top(args.places)
        effects = [(-c.effect, removed(model, lin, hook, sae, c, a, b)) for c in cells]
        found["features"].append(agreement(effects))
        named = sum(
            abs(v) for n, v in zip(f.parts.names, f.parts.values.tolist(), strict=True) if n.startswith("feature")
        )
        shares.append((abs(f.parts["reconstruction error"]), named))
        c = tj.compare_patching(model, clean, corrupted, "z", target=a, minus=b, top=args.places, progress=False)
        at = ~c.measured.values.isnan()
        both = zip(c.predicted.values[at].tolist(), c.measured.values[at].tolist(), strict=True)
        found["heads at tokens"].append(agreement(list(both)))
        e = edge_attribution(model, clean, corrupted, target=a, minus=b, check=10, progress=False)
        found["edges"].append(agreement([(x.predicted, x.measured) for x in e.checked]))
    print("| what | pairs | Spearman, median (worst) | signs agree, median (worst) | relative error, median (worst) |")
    print("|---|---|---|---|---|")
    for what, rows in found.items():
        rho, signs, errors = zip(*rows, strict=True)
        print(
            f"| {what} | {len(rows)} | {statistics.median(rho):.2f} ({min(rho):.2f}) | {statistics.median(signs):.0%} "
            f"({min(signs):.0%}) | {statistics.median(errors):.2f} ({max(errors):.2f}) |",
            flush=True,
        )
    error, named = (statistics.median(x) for x in zip(*shares, strict=True))
    print(
        f"\nMedian effect of the reconstruction error {error:.2f} logits, of the named features together {named:.2f}."
    )


def agreement(effects: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Spearman, share of signs that agree, relative error."""
    predicted, measured = np.array(effects).T
    signs = float((np.sign(predicted) == np.sign(measured)).mean())
    error = float(np.linalg.norm(predicted - measured) / np.linalg.norm(measured))
    return float(spearmanr(predicted, measured).statistic), signs, error


LONGER = "The committee met on Tuesday to discuss the new library and its opening hours. "


def costs(model: Any, sae: Any, hook: str) -> None:
    """Against plain forward passes of one prompt."""
    print("| tokens | plain forward pass | scope | features x tokens, in scopes | all edges, in forward passes |")
    print("|---|---|---|---|---|")
    for more in (0, 2, 5):
        pair = (f"{LONGER * more}When John and Mary met, {name} gave a book to" for name in ("John", "Mary"))
        _costs(model, sae, hook, *pair)


def _costs(model: Any, sae: Any, hook: str, clean: str, corrupted: str) -> None:
    tokens = tj.linearize(model, clean).tokens[None]
    task = dict(target=" Mary", minus=" John")

    def forward() -> None:
        with torch.no_grad():
            model(tokens)

    t = medians(
        {
            "forward": forward,
            "scope": lambda: tj.semantic_scope(tj.linearize(model, clean), **task),
            "features": lambda: tj.feature_scope(tj.linearize(model, clean, record=[hook]), sae, **task),
            "edges": lambda: edge_attribution(model, clean, corrupted, check=0, **task),
        },
        7,
    )
    print(
        f"| {tokens.shape[1]} | {t['forward'] * 1e3:.0f} ms | {t['scope'] / t['forward']:.1f} passes "
        f"| {t['features'] / t['scope']:.2f} | {t['edges'] / t['forward']:.1f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
