"""What running a shared beginning once gains: leave_one_out from keys and values against whole runs.

    python -m benchmarks.shared_prefix [--lengths 25 100] [--rounds 1] [--kinds hooked bridge]

One token after the other is left out; a batch of 16 runs goes on from what comes before its first. Both ways take
turns; seconds are of the processor with one thread. The difference is the largest of the scores, relative to the
largest score.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from typing import Any

import torch

import tl_jacobian as tj
from benchmarks.cpu_rows import clock
from benchmarks.scope_cost import TEXT
from tl_jacobian.core.host.demo import kinds
from tl_jacobian.core.host.transformer_lens import TransformerLensHost


def scores(lin: Any, whole: bool) -> tuple[torch.Tensor, float]:
    past: Any = TransformerLensHost.past
    if whole:
        TransformerLensHost.past = lambda *args, **options: None  # type: ignore[method-assign]
    try:
        began = clock()
        return tj.baselines.leave_one_out(lin).scores, clock() - began
    finally:
        TransformerLensHost.past = past  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[25, 100])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", default=list(kinds()))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"| host ({torch.get_num_threads()} threads) | tokens | whole, s", end=" ")
    print("| from keys and values, s | gain | difference |")
    print("|---" * 6 + "|")
    for kind in args.kinds:
        model = tj.load_demo_model(kind)
        for n in args.lengths:
            lin = tj.linearize(model, model.tokenizer(TEXT * 100)["input_ids"][:n])
            found = [(scores(lin, True), scores(lin, False)) for _ in range(args.rounds)]
            (a, _), (b, _) = found[0]
            whole, fast = (statistics.median(one[i][1] for one in found) for i in (0, 1))
            gain = statistics.median(one[0][1] / one[1][1] for one in found)
            off = ((a - b).abs().max() / a.abs().max()).item()
            print(f"| {kind} | {n} | {whole:.1f} | {fast:.1f} | {gain:.2f} | {off:.1e} |", flush=True)


if __name__ == "__main__":
    main()
