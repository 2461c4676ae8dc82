"""What a scope costs: (linearize + Semantic Scope) against a plain forward pass and against saliency.

    python -m benchmarks.scope_cost [--rounds 9] [--lengths 25 100 400]

The plain forward is the same host's ``model(tokens)`` under no_grad. The saliency is the
textbook recipe on the Hugging Face model: forward with ``inputs_embeds``, backward from one
logit, norm of the gradient.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

import tl_jacobian as tj
from benchmarks.ratios import medians
from tl_jacobian.core.host.demo import kinds, load_demo_hf

TEXT = "The old lighthouse keeper counted the ships that passed below, and wrote each of them down. "


def saliency(hf: Any, ids: list[int]) -> torch.Tensor:
    """Gradient saliency with plain Hugging Face autograd, parameters frozen."""
    x = hf.get_input_embeddings()(torch.tensor([ids])).detach().requires_grad_()
    logits = hf(inputs_embeds=x, use_cache=False).logits[0, -1]
    (grad,) = torch.autograd.grad(logits.max(), x)
    return grad[0].norm(dim=-1)


def plain(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(tokens)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--lengths", type=int, nargs="+", default=[25, 100, 400])
    args = parser.parse_args()
    hf, tokenizer = load_demo_hf()
    hf.set_attn_implementation("sdpa")  # Hugging Face's default
    hf.requires_grad_(False)
    models = {kind: tj.load_demo_model(kind) for kind in kinds()}
    print(
        f"{'host':8} {'tokens':>6} {'plain s':>8} {'scope s':>8} {'HF sal. s':>9} {'scope/plain':>11} {'scope/HF':>9}"
    )
    for length in args.lengths:
        ids = tokenizer(TEXT * 40)["input_ids"][:length]
        tokens = torch.tensor([ids])
        for kind, model in models.items():
            t = medians(
                {
                    "plain": lambda m=model: plain(m, tokens),
                    "scope": lambda m=model: tj.semantic_scope(tj.linearize(m, ids)),
                    "saliency": lambda: saliency(hf, ids),
                },
                args.rounds,
            )
            print(
                f"{kind:8} {length:6d} {t['plain']:8.3f} {t['scope']:8.3f} {t['saliency']:9.3f} "
                f"{t['scope'] / t['plain']:11.2f} {t['scope'] / t['saliency']:9.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
