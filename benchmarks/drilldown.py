"""What the drill-down costs, against linearize + Semantic Scope alone.

    python -m benchmarks.drilldown [--rounds 7] [--lengths 25 100 400]

all layers    gradient norms of the residual stream (pre, mid, post), attention and MLP outputs and every head
resid         of the residual stream alone
contributions the exact split of the logit into components, heads and source tokens, on top of "plain"
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import tl_jacobian as tj
from benchmarks.ratios import medians
from benchmarks.scope_cost import TEXT
from tl_jacobian.core.host.demo import kinds

EVERYTHING = ("resid", "components", "heads")


def contenders(model: Any, ids: list[int]) -> dict[str, Callable[[], object]]:
    return {
        "plain": lambda: tj.semantic_scope(tj.linearize(model, ids)),
        "all layers": lambda: tj.layer_influence(tj.linearize(model, ids, record=EVERYTHING), at=EVERYTHING),
        "resid": lambda: tj.layer_influence(tj.linearize(model, ids, record="resid")),
        "contributions": lambda: _split(tj.linearize(model, ids, record=True)),
    }


def _split(lin: tj.Linearization) -> object:
    return tj.semantic_scope(lin), tj.residual_contributions(lin)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--lengths", type=int, nargs="+", default=[25, 100, 400])
    args = parser.parse_args()
    print("| host | tokens | plain, s | all layers / plain | resid / plain | contributions / plain |")
    print("|---|---|---|---|---|---|")
    for kind in kinds():
        model = tj.load_demo_model(kind)
        for length in args.lengths:
            ids = model.tokenizer(TEXT * 40)["input_ids"][:length]
            t = medians(contenders(model, ids), args.rounds)
            ratios = " | ".join(f"{t[name] / t['plain']:.2f}" for name in ("all layers", "resid", "contributions"))
            print(f"| {kind} | {length} | {t['plain']:.3f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
