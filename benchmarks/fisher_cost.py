"""What Fisher Scope costs, each contender timed in turn in one run.

    python -m benchmarks.fisher_cost [--rounds 1] [--lengths 25 100 400] [--kinds hooked bridge]

exact          fisher_scope(lin, method="exact")
estimate       fisher_scope(lin), 1% mean relative error
one by one     the textbook: one backward pass per hidden dimension, all of J stored
batched        the same in batches of 16
rank 1         fisher_scope(lin, method="low_rank"), with linearize
temperature    temperature_scope(lin), with linearize
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

import tl_jacobian as tj
from benchmarks.ratios import medians
from benchmarks.scope_cost import TEXT
from tl_jacobian.core.host.demo import kinds


def textbook(lin: tj.Linearization, batch: int) -> torch.Tensor:
    """tr(J_t^T F J_t) from all of J and all of F, as the formula reads."""
    x, y = lin.graph.x, lin.graph.y
    rows = []
    for part in torch.eye(lin.d_model).split(batch):
        batched = {"is_grads_batched": True} if batch > 1 else {}
        (grads,) = torch.autograd.grad(y, x, part[:, None] if batch > 1 else part, retain_graph=True, **batched)
        rows.append(grads.reshape(-1, *x.shape[1:]))
    jacobian = torch.cat(rows).transpose(0, 1)
    w, p = lin.unembedding.weight, lin.probs
    fisher = (w * p) @ w.T - torch.outer(w @ p, w @ p)
    return torch.einsum("toi,op,tpi->t", jacobian, fisher, jacobian)


def measure(model: Any, ids: list[int], rounds: int, with_textbook: bool) -> dict[str, float]:
    lin = tj.linearize(model, ids)
    contenders = {
        "exact": lambda: tj.fisher_scope(lin, method="exact"),
        "estimate": lambda: tj.fisher_scope(lin),
    }
    if with_textbook:
        contenders["one by one"] = lambda: textbook(lin, 1)
        contenders["batched"] = lambda: textbook(lin, 16)
    small = {
        "rank 1": lambda: tj.fisher_scope(tj.linearize(model, ids), method="low_rank"),
        "temperature": lambda: tj.temperature_scope(tj.linearize(model, ids)),
    }
    return {**medians(contenders, rounds, warm=False), **medians(small, 4 * rounds + 1)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--lengths", type=int, nargs="+", default=[25, 100, 400])
    parser.add_argument("--kinds", nargs="+", default=list(kinds()))
    args = parser.parse_args()
    print(
        "| host | tokens | exact, s | estimate, s | exact / estimate | one by one / exact | batched / exact |", end=""
    )
    print(" rank 1 / temperature |\n|---|---|---|---|---|---|---|---|")
    for kind in args.kinds:
        model = tj.load_demo_model(kind)
        for length in args.lengths:
            ids = model.tokenizer(TEXT * 40)["input_ids"][:length]
            t = measure(model, ids, args.rounds, with_textbook=length <= 25)
            naive = [f"{t[name] / t['exact']:.2f}" if name in t else "" for name in ("one by one", "batched")]
            print(
                f"| {kind} | {length} | {t['exact']:.1f} | {t['estimate']:.2f} | {t['exact'] / t['estimate']:.1f} "
                f"| {naive[0]} | {naive[1]} | {t['rank 1'] / t['temperature']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
