"""Attribution patching against TransformerLens's measured activation patching, on pairs of prompts.

    python -m benchmarks.patching [--kinds bridge] [--at resid_pre heads] [--pairs 12]

For each pair and kind of activation: rank correlation, sign agreement and relative error of the
first-order prediction and of its refinements, and what predicting costs in plain forward passes of
the same model (timed in the same run). Pairs whose prompts predict the same token are left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from typing import Any, NamedTuple

import torch

import tl_jacobian as tj
from benchmarks.ratios import medians
from tl_jacobian.analyses.patching import n_passes

# Indirect objects, facts, agreement and copying; each pair has the same number of tokens.
PAIRS = (
    ("When John and Mary left, John thanked", "When John and Mary left, Mary thanked"),
    ("Tom and Sarah went home. Tom called", "Tom and Sarah went home. Sarah called"),
    ("When Mark and Anna met, Mark gave a book to", "When Mark and Anna met, Anna gave a book to"),
    ("When Emma and David spoke, Emma told", "When Emma and David spoke, David told"),
    ("The capital of France is", "The capital of Italy is"),
    ("The capital of Japan is", "The capital of China is"),
    ("In Germany the people speak", "In France the people speak"),
    ("The currency of Japan is the", "The currency of India is the"),
    ("The opposite of hot is", "The opposite of big is"),
    ("The keys to the old cabinet", "The key to the old cabinet"),
    ("The dogs in the garden", "The dog in the garden"),
    ("The capital of Spain is", "The capital of Germany is"),
    ("The opposite of up is", "The opposite of old is"),
)
METHODS: dict[str, dict[str, Any]] = {
    "gradient": dict(method="gradient"),
    "two_point": dict(method="two_point"),
    "integrated, 4 steps": dict(method="integrated", steps=4),
    "integrated, 8 steps": dict(method="integrated", steps=8),
}


class Agreement(NamedTuple):
    spearman: float
    sign_agreement: float
    relative_error: float


def usable(model: Any, pair: tuple[str, str]) -> bool:
    """Whether the prompts have one length and predict different tokens."""
    lins = [tj.linearize(model, prompt) for prompt in pair]
    return len(lins[0].tokens) == len(lins[1].tokens) and lins[0].logits.argmax() != lins[1].logits.argmax()


def agreement(model: Any, pair: tuple[str, str], at: Any) -> dict[str, Agreement]:
    """Of every method with one and the same measurement."""
    base = tj.compare_patching(model, *pair, at)
    found = {}
    for name, options in METHODS.items():
        c = dataclasses.replace(base, predicted=tj.predict_patching(model, *pair, at, **options))
        found[name] = Agreement(c.spearman, c.sign_agreement, c.relative_error)
    return found


def cost(model: Any, pair: tuple[str, str]) -> float:
    """Predicting all residual stream patches, in plain forward passes."""
    ids = model.tokenizer(pair[0])["input_ids"]

    def forward() -> None:
        with torch.no_grad():
            model(torch.tensor([ids]))

    t = medians({"predict": lambda: tj.predict_patching(model, *pair), "forward": forward}, 5)
    return t["predict"] / t["forward"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kinds", nargs="+", default=["bridge"])
    parser.add_argument("--at", nargs="+", default=["resid_pre", "attn_out", "mlp_out", "heads"])
    parser.add_argument("--pairs", type=int, default=len(PAIRS))
    args = parser.parse_args()
    for kind in args.kinds:
        model = tj.load_demo_model(kind)
        pairs = [pair for pair in PAIRS if usable(model, pair)][: args.pairs]
        costs = [cost(model, pair) for pair in pairs]
        print(f"\n{kind}: {len(pairs)} pairs; predicting all (layer, position) patches costs a median of", end=" ")
        print(f"{statistics.median(costs):.1f} plain forward passes (worst {max(costs):.1f})\n")
        print("| activations | method | forward passes | Spearman, median (range) | signs agree | relative error |")
        print("|---|---|---|---|---|---|", flush=True)
        for at in args.at:
            report(at, [agreement(model, pair, at) for pair in pairs])


def report(at: str, found: list[dict[str, Agreement]]) -> None:
    for name, options in METHODS.items():
        spearman, signs, errors = zip(*(one[name] for one in found), strict=True)
        passes = n_passes(options["method"], options.get("steps", 1))
        print(
            f"| {at} | {name} | {passes} | {statistics.median(spearman):.2f} ({min(spearman):.2f} to "
            f"{max(spearman):.2f}) | {statistics.median(signs):.0%} | {statistics.median(errors):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
