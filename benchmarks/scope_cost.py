"""What scopes cost: (linearize + Semantic Scope), and three scopes together, against a plain forward pass and saliency.

    python -m benchmarks.scope_cost [--rounds 9] [--lengths 25 100 400 1600] [--kinds hooked bridge]

All take turns; ratios are medians over rounds of the ratio within a round, so other work on the machine counts little.
The three are Semantic, Temperature and rank-1 Fisher Scope from shared backward passes. The plain forward is the same
host's ``model(tokens)`` under no_grad. The saliency is the textbook recipe on the Hugging Face model: forward with
``inputs_embeds``, backward from one logit, norm of the gradient.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch

import tl_jacobian as tj
from benchmarks.ratios import in_turn
from tl_jacobian.analyses.scopes.choose import attributed, choose
from tl_jacobian.core.host.demo import kinds, load_demo_hf

TEXT = "The old lighthouse keeper counted the ships that passed below, and wrote each of them down. "


THREE = [choose("semantic"), choose("temperature"), choose("fisher", rank=1)]


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--lengths", type=int, nargs="+", default=[25, 100, 400])
    parser.add_argument("--kinds", nargs="+", default=list(kinds()))
    args = parser.parse_args()
    hf, tokenizer = load_demo_hf()
    hf.set_attn_implementation("sdpa")  # Hugging Face's default
    hf.requires_grad_(False)
    models = {kind: tj.load_demo_model(kind) for kind in args.kinds}
    print(f"{torch.get_num_threads()} threads, {args.rounds} rounds")
    print("| host | tokens | plain, s | scope / plain | three scopes / plain | saliency / plain | scope / saliency |")
    print("|---" * 7 + "|")
    for length in args.lengths:
        ids = tokenizer(TEXT * 100)["input_ids"][:length]
        tokens = torch.tensor([ids])
        for kind, model in models.items():
            runs = {
                "plain": lambda m=model: plain(m, tokens),
                "scope": lambda m=model: tj.semantic_scope(tj.linearize(m, ids)),
                "three": lambda m=model: attributed(tj.linearize(m, ids), THREE),
                "saliency": lambda: saliency(hf, ids),
            }
            t = in_turn(runs, args.rounds)

            def ratio(a: str, b: str = "plain", t: dict[str, list[float]] = t) -> str:
                return f"{statistics.median(x / y for x, y in zip(t[a], t[b], strict=True)):.2f}"

            own = [ratio("scope"), ratio("three"), ratio("saliency"), ratio("scope", "saliency")]
            print(f"| {kind} | {length} | {statistics.median(t['plain']):.3f} |", " | ".join(own), "|", flush=True)


if __name__ == "__main__":
    main()
