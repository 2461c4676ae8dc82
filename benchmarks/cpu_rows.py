"""How many rows a processor's products should have: `CPU_ROWS` of core/graph.py, from 200 to unbounded.

    python -m benchmarks.cpu_rows [--rounds 3] [--shapes 25x1 100x1 400x1 25x16] [--kinds hooked bridge] [--estimate]

16 directions pulled back through the graph of so many tokens x prompts (or, with ``--estimate``, Fisher Scope's whole
estimate, products from the input's side included), cut into parts of at most so many rows (directions x prompts x
tokens). All bounds take turns in one run, another first in each round; the table gives seconds without a bound, and
for each bound the median over rounds of the ratio to that in the same round.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

import tl_jacobian as tj
from benchmarks.scope_cost import TEXT
from tl_jacobian.core import graph as module
from tl_jacobian.core.host.demo import kinds

BOUNDS = (200, 400, 800, 1600, 3200)
UNBOUNDED = 1 << 40
DIRECTIONS = 16


def clock() -> float:
    """Of the processor with one thread, which other work disturbs less."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def under(bound: int, run: Callable[[], Any]) -> float:
    before, module.CPU_ROWS = module.CPU_ROWS, bound
    try:
        began = clock()
        run()
        return clock() - began
    finally:
        module.CPU_ROWS = before


def ratios(run: Callable[[], Any], rounds: int) -> tuple[float, list[float]]:
    """Median seconds without a bound, and the median ratio to it of each bound."""
    under(UNBOUNDED, run)  # warms caches up
    found: list[dict[int, float]] = []
    for turn in range(rounds):
        order = [UNBOUNDED, *BOUNDS]
        order = order[turn % len(order) :] + order[: turn % len(order)]
        found.append({bound: under(bound, run) for bound in order})
    each = [[one[bound] / one[UNBOUNDED] for one in found] for bound in BOUNDS]
    return statistics.median(one[UNBOUNDED] for one in found), [statistics.median(r) for r in each]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", nargs="+", default=["25x1", "100x1", "400x1", "25x16"])
    parser.add_argument("--kinds", nargs="+", default=list(kinds()))
    parser.add_argument("--estimate", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    what = "fisher_scope(lin)" if args.estimate else f"{DIRECTIONS} directions"
    print(f"| host ({what}, {torch.get_num_threads()} threads) | tokens x prompts | unbounded, s |", end=" ")
    print(" | ".join(f"{bound} rows" for bound in BOUNDS), "|")
    print("|---" * (3 + len(BOUNDS)) + "|")
    for kind in args.kinds:
        model: Any = tj.load_demo_model(kind)
        for shape in args.shapes:
            n, batch = map(int, shape.split("x"))
            ids = model.tokenizer(TEXT * 100)["input_ids"][:n]
            lins: Any = tj.linearize(model, [ids] * batch)
            graph = lins[0].graph
            v = torch.randn(DIRECTIONS, *graph.y.shape, generator=torch.Generator().manual_seed(0))

            def pull(graph: Any = graph, v: torch.Tensor = v) -> None:
                for _ in graph.stream(v):
                    pass

            def estimate(lins: Any = lins) -> None:
                tj.fisher_scope(lins, generator=[torch.Generator().manual_seed(0) for _ in lins])

            seconds, parts = ratios(estimate if args.estimate else pull, args.rounds)
            print(f"| {kind} | {shape} | {seconds:.2f} |", " | ".join(f"{r:.2f}" for r in parts), "|", flush=True)


if __name__ == "__main__":
    main()
