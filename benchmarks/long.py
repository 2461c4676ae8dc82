"""The whole context window: time and memory of all three scopes on long prompts, and a series that fills it.

    python -m benchmarks.long [--lengths 1024 2048 4096 8192] [--scopes temperature+semantic fisher]
    python -m benchmarks.long --series 2500 [--kind bridge] [--device cpu] [--out FOLDER]

The table is that of ``benchmarks.memory``, with its options, under the smallest budgets.

``--series`` asks what drives the forecast of the number that comes after so many others (Lorenz's x, two digits and a
comma each: 3 tokens a number), and of what comes after the same numbers in another order, where nothing can be
matched. It leaves the influences in FOLDER (``series.json``, ``shuffled.json``) and a picture of them (``series.png``,
of 2,500 numbers benchmarks/results/long_series.png).
``--draw`` draws them again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks import memory
from tl_jacobian.core.memory import text_of

FOLDER = Path(__file__).parent / "results" / "long"
TURN = 9  # numbers in one turn around a lobe of the attractor
MOTIF = 12  # numbers that are compared with the present


def influences(model: Any, values: Any, device: str) -> tuple[Any, dict[str, Any]]:
    """Of each number on the forecast of the next one, and what that took."""
    import tl_jacobian as tj
    from tl_jacobian import timeseries as ts
    from tl_jacobian.core.host.hosts import resolve

    series = ts.serialize(values, model)
    tokens, meter = list(series.tokens), memory.Meter(device)
    least = resolve(model).footprint(1, len(tokens), 1).peak(recompute=True)
    scope, taken = meter.timed(lambda: tj.temperature_scope(tj.linearize(model, tokens, max_memory=least)))
    return ts.number_influence(scope, series), {"tokens": len(tokens), **taken}


def told(found: Any) -> str:
    """Where influence sits: late or early, and whether after motifs that are like the present."""
    from tl_jacobian import timeseries as ts

    share = found.influence / found.influence.sum()
    late = ", ".join(f"{share[-max(1, round(len(share) * part)) :].sum():.0%}" for part in (0.01, 0.1, 0.5))
    match = ts.pattern_match(found.values, found.influence, exclude=TURN)
    return f"{late} | {share[0]:.1%} | {match.estimate:.3f} | {match.p_value:.3f} | {match.lift:.2f}"


def series(kind: Any, n: int, device: str, out: Path) -> None:
    import numpy as np

    from tl_jacobian import timeseries as ts

    model, values = memory.loaded(kind, device), ts.lorenz(n, dt=0.08)
    out.mkdir(parents=True, exist_ok=True)
    print("| series | numbers | tokens | process | CPU seconds |\n|---|---|---|---|---|", flush=True)
    for name, order in {"series": np.arange(n), "shuffled": np.random.default_rng(0).permutation(n)}.items():
        found, taken = influences(model, values[order], device)
        found.save(out / f"{name}.json")
        spent = f"{text_of(taken['process'])} | {taken['CPU']:.0f}"
        print(f"| {name} | {n} | {taken['tokens']} | {spent} |", flush=True)


def draw(out: Path) -> None:
    """Influence by position; and the present beside the earlier motifs whose next number is most influential."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    from tl_jacobian.results.numbers import NumberInfluence

    files = {name: out / f"{name}.json" for name in ("series", "shuffled")}
    found = {name: NumberInfluence.load(path) for name, path in files.items() if path.exists()}
    columns = ("series", "influence of the last 1%, 10%, 50%", "of the first number", "match", "p", "lift")
    print(f"| {' | '.join(columns)} |\n" + "|---" * len(columns) + "|")
    for name, one in found.items():
        print(f"| {name} | {told(one)} |")
    drawn, (above, below) = plt.subplots(2, 1, figsize=(9, 6), layout="constrained")
    for name, colour in zip(found, ("C0", "0.6"), strict=False):
        influence = found[name].influence
        above.semilogy(influence, lw=0.3, alpha=0.5, color=colour)
        parts = np.array_split(np.arange(1, len(influence)), 50)
        above.semilogy([p.mean() for p in parts], [np.median(influence[p]) for p in parts], color=colour, label=name)
    above.set(xlabel="position of the number", ylabel="influence")
    above.set_title("Temperature Scope on the next number (lines: medians)")
    above.legend()
    one = found["series"]
    values, n = one.values, len(one)
    candidates = np.arange(MOTIF, n - MOTIF * 4)  # those that a motif comes before, and the present isn't near
    best = candidates[np.argsort(-one.influence[candidates])][:5]
    below.plot(values[n - MOTIF :], "k", lw=2.5, label="the present")
    for at in best:
        below.plot(values[at - MOTIF : at + 1], lw=1, label=f"up to number {at}")
    below.set(xlabel=f"number of the motif; {MOTIF} is the one to forecast", ylabel="value")
    below.set_title("the five most influential numbers long before, and what led to them")
    below.legend(fontsize="small", ncols=2)
    drawn.savefig(out / "series.png", dpi=100)


def main() -> None:
    if not {"--series", "--draw"} & set(sys.argv):
        memory.main([1024, 2048, 4096, 8192], ["temperature+semantic", "fisher"], ["least"])
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--series", type=int, default=None)
    parser.add_argument("--draw", action="store_true")
    parser.add_argument("--kind", default="bridge")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args()
    if args.series:
        series(args.kind, args.series, args.device, args.out)
    draw(args.out)


if __name__ == "__main__":
    main()
