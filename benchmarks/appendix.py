"""What the paper's figures and appendices say of long series, of Integrated Gradients and of costs, on the demo model.

    python -m benchmarks.appendix run [--parts forgetting loss integrals costs] [--device cuda] [--minutes 4]
    python -m benchmarks.appendix merge FILE ...     (runs with an --out of their own, into the results)
    python -m benchmarks.appendix report

- ``forgetting`` (figures 5 and 11; contexts of 56 and of the paper's 360 numbers): how much log-influence rises from
  the second number to the last, for its systems and for two controls in which the past says nothing of the order of
  things: the numbers of Lorenz series shuffled, and white noise. What fades in those too is recency.
- ``loss``: how surprising each number is, by how many stand before it (digits of the number, in nats).
- ``integrals`` (figures 14 and 15): plain and path-integrated Semantic Scope of the paper's prompt, with its 100
  uniform steps, and the integrand's norms on the way.
- ``costs`` (A.4 and A.5): what Integrated Gradients and the exact Fisher Scope cost in Semantic Scopes.

A run writes appendix.json to benchmarks/results or ``--out``, after every series, beside those that are there; the
report appendix.md from it.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tl_jacobian as tj
from benchmarks.time_series import SYSTEMS, Make
from tl_jacobian import timeseries as ts
from tl_jacobian.results.statistics import correlation

RESULTS = Path(__file__).with_name("results")
LENGTHS = {56: 30, 360: 20}  # numbers of a series, and how many series of each system
CONTROLS: dict[str, Make] = {
    "Lorenz, shuffled": lambda n, g: g.permutation(SYSTEMS["Lorenz"](n, g)),
    "white noise": lambda n, g: g.normal(size=n),
}
BINS = (0, 5, 10, 20, 40, 80, 160, 360)
PROMPT = "Alex studied at Columbia and grew up in the South. In politics, Alex is"
ALPHAS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
Row = dict[str, Any]


def written(model: Any, make: Make, n: int, seed: int) -> Any:
    values = make(n, np.random.default_rng(seed))
    margin = 0.1 * np.ptp(values)
    return ts.serialize(values, model, data_range=(values.min() - margin, values.max() + margin))


def each_series(model: Any, lengths: dict[int, int]) -> Iterator[tuple[Row, Any]]:
    """Seeds outermost: of a run that is cut short there are as many series of each system."""
    for n, count in lengths.items():
        for seed in range(count):
            for system, make in (SYSTEMS | CONTROLS).items():
                yield {"numbers": n, "seed": seed, "system": system}, written(model, make, n, seed)


def forgetting(model: Any, device: str) -> Iterator[Row]:
    for about, series in each_series(model, LENGTHS):
        lin = tj.linearize(model, list(series.tokens))
        found = {}
        for name, a in (("temperature", tj.temperature_scope(lin)), ("semantic", tj.semantic_scope(lin))):
            influence = ts.number_influence(a, series).influence
            found[name] = {
                "change": ts.forgetting_slope(influence).total,
                "influence": [float(f"{x:.4g}") for x in influence],
            }
        yield about | found


def loss(model: Any, device: str) -> Iterator[Row]:
    for about, series in each_series(model, {max(LENGTHS): LENGTHS[max(LENGTHS)]}):
        tokens = torch.tensor([list(series.tokens)], device=device)
        with torch.no_grad():
            log_p = model(tokens)[0].double().log_softmax(-1).cpu()
        own = [-sum(log_p[i - 1, series.tokens[i]].item() for i in range(*group)) for group in series.groups[1:]]
        means = [statistics.mean(own[max(a, 1) - 1 : b - 1]) for a, b in pairwise(BINS)]
        yield about | {"loss": means}


def integrals(model: Any, device: str) -> Iterator[Row]:
    lin = tj.linearize(model, PROMPT)
    for target in (" liberal", " conservative"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it hasn't converged is among the numbers
            path = tj.baselines.path_integrated_scope(lin, target, nodes="riemann", steps=100, max_steps=100)
        norms = tj.baselines.path_integrand(lin, target, alphas=ALPHAS).values
        yield {
            "target": target,
            "tokens": list(lin.str_tokens),
            "semantic": tj.semantic_scope(lin, target).scores.tolist(),
            "path-integrated": path.scores.tolist(),
            "gap": path.metadata["completeness_gap"],
            "alphas": list(ALPHAS),
            "norms": norms.tolist(),
        }


def costs(model: Any, device: str) -> Iterator[Row]:
    text = "The old lighthouse keeper counted the ships that passed below, and wrote each of them down. " * 10
    for n in (25, 100):
        ids = model.tokenizer.encode(text)[:n]
        linearized = partial(tj.linearize, model, ids)
        ways: dict[str, Callable[[], Any]] = {
            "Semantic Scope": lambda: tj.semantic_scope(linearized()),
            "Temperature Scope": lambda: tj.temperature_scope(linearized()),
            "Fisher Scope, rank 1": lambda: tj.fisher_scope(linearized(), method="low_rank"),
            "Fisher Scope, estimate": lambda: tj.fisher_scope(linearized(), method="estimate"),
            "Fisher Scope, exact": lambda: tj.fisher_scope(linearized(), method="exact"),
            "Integrated Gradients, 100 steps": lambda: tj.baselines.path_integrated_scope(
                linearized(), nodes="riemann", steps=100, max_steps=100
            ),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            taken = {name: _median(way, device) for name, way in ways.items()}
        yield {"tokens": n, "seconds": taken}


def _median(way: Callable[[], Any], device: str) -> float:
    found = []
    for _ in range(4):
        began = time.perf_counter()
        way()
        if device != "cpu":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return statistics.median(found[1:])  # the first warms up


PARTS: dict[str, Callable[[Any, str], Iterator[Row]]] = {
    "costs": costs,
    "integrals": integrals,
    "forgetting": forgetting,
    "loss": loss,
}


def run(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    store = args.out / "appendix.json"
    found: dict[str, Any] = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
    model: Any = tj.load_demo_model("bridge", device=args.device)
    threads = f"{torch.get_num_threads()} threads, {platform.machine()}"
    machine = threads if args.device == "cpu" else torch.cuda.get_device_name()
    for name in (SYSTEMS | CONTROLS).keys() - set(args.systems or SYSTEMS | CONTROLS):
        (SYSTEMS if name in SYSTEMS else CONTROLS).pop(name)
    for n in LENGTHS.keys() - set(args.numbers or LENGTHS):
        LENGTHS.pop(n)
    for part in args.parts:
        began, rows, known = time.monotonic(), [], found.get(part, {}).get("rows", [])
        for row in PARTS[part](model, args.device):
            rows.append(row)
            found[part] = {"machine": machine, "rows": joined(known, rows)}
            store.write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")
            if time.monotonic() - began > 60 * args.minutes:
                break
        print(f"{part}: {len(rows)} rows, {time.monotonic() - began:.0f} s", flush=True)


def joined(known: list[Row], rows: list[Row]) -> list[Row]:
    """Series that were measured before stay, unless they are measured again; other parts are made anew."""

    def series(row: Row) -> tuple[Any, ...]:
        return row["system"], row["numbers"], row["seed"]

    if not rows or "system" not in rows[0]:
        return rows
    again = {series(row) for row in rows}
    return [row for row in known if series(row) not in again] + rows


def merge(args: argparse.Namespace) -> None:
    """What several runs wrote, into the results."""
    store = RESULTS / "appendix.json"
    found: dict[str, Any] = json.loads(store.read_text(encoding="utf-8"))
    for path in args.files:
        for part, new in json.loads(path.read_text(encoding="utf-8")).items():
            found[part] = new | {"rows": joined(found.get(part, {}).get("rows", []), new["rows"])}
    store.write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")
    report()


# -- report -----------------------------------------------------------------------------


def brief(e: ts.Estimate) -> str:
    return f"{e.estimate:+.2f} [{e.low:+.2f}, {e.high:+.2f}]"


def told_forgetting(part: Row) -> Iterator[str]:
    yield "Change of log-influence from the second number to the last, in nats (Theil-Sen), means over series:"
    lengths = [n for n in LENGTHS if any(r["numbers"] == n for r in part["rows"])]
    for scope in ("temperature", "semantic"):
        yield ""
        yield (
            f"| system, {scope} scope | "
            + " | ".join(f"{n} numbers | less shuffled | less white noise" for n in lengths)
            + " |"
        )
        yield "| --- |" + " ---: |" * (3 * len(lengths))
        for system in (*SYSTEMS, *CONTROLS):
            if not any(_changes(part, system, n, scope) for n in lengths):
                continue
            cells = []
            for n in lengths:
                by_system = {name: _changes(part, name, n, scope) for name in (system, *CONTROLS)}
                own = by_system[system]
                cells += [f"{brief(ts.mean_effect(own))} ({len(own)})" if len(own) > 1 else ""]
                cells += [
                    brief(ts.compare_groups(own, by_system[c]))
                    if c != system and min(len(own), len(by_system[c])) > 1
                    else ""
                    for c in CONTROLS
                ]
            yield f"| {system} | " + " | ".join(cells) + " |"


def _changes(part: Row, system: str, n: int, scope: str) -> list[float]:
    return [r[scope]["change"] for r in part["rows"] if (r["system"], r["numbers"]) == (system, n)]


def told_loss(part: Row) -> Iterator[str]:
    yield "Nats a number, given so many numbers before it; means over series:"
    yield ""
    yield "| system | " + " | ".join(f"{max(a, 1)} to {b - 1}" for a, b in pairwise(BINS)) + " |"
    yield "| --- |" + " ---: |" * (len(BINS) - 1)
    for system in (*SYSTEMS, *CONTROLS):
        rows = [r["loss"] for r in part["rows"] if r["system"] == system]
        if not rows:
            continue
        yield f"| {system} ({len(rows)}) | " + " | ".join(f"{x:.2f}" for x in np.mean(rows, axis=0)) + " |"


def told_integrals(part: Row) -> Iterator[str]:
    yield f"{PROMPT!r}; shares of the scores, the first token's named apart:"
    yield ""
    yield "| target | score | first token | highest others | Spearman with Semantic Scope |"
    yield "| --- | --- | ---: | --- | ---: |"
    for row in part["rows"]:
        norms = {f"gradient at alpha = {a:g}": n for a, n in zip(row["alphas"], row["norms"], strict=True)}
        for name, scores in {"semantic": row["semantic"], "path-integrated": row["path-integrated"], **norms}.items():
            order = sorted(range(1, len(scores)), key=lambda i: -scores[i])[:3]
            highest = ", ".join(f"{row['tokens'][i].strip()} {scores[i] / sum(scores):.0%}" for i in order)
            rho = correlation(scores[1:], row["semantic"][1:])
            yield f"| {row['target']} | {name} | {scores[0] / sum(scores):.0%} | {highest} | {rho:.2f} |"
    gaps = ", ".join(f"{row['gap']:.0%} ({row['target'].strip()})" for row in part["rows"])
    yield from ("", f"Completeness gaps of the path-integrated scores: {gaps}.")


def told_costs(part: Row) -> Iterator[str]:
    yield (
        f"Seconds and multiples of one Semantic Scope, linearize included ({part['machine']}). The paper: Integrated "
        "Gradients about 100 Semantic Scopes; Fisher Scope 153 s against 1.4 s of Temperature Scope, 109 times."
    )
    yield ""
    yield "| | " + " | ".join(f"{row['tokens']} tokens | times" for row in part["rows"]) + " |"
    yield "| --- |" + " ---: |" * (2 * len(part["rows"]))
    for name in part["rows"][0]["seconds"]:
        cells = []
        for row in part["rows"]:
            own = row["seconds"][name]
            cells += [f"{own:.3f}", f"{own / row['seconds']['Semantic Scope']:.1f}"]
        yield f"| {name} | " + " | ".join(cells) + " |"


TOLD: dict[str, tuple[str, Callable[[Row], Iterator[str]]]] = {
    "forgetting": ("Fading of early context (figures 5 and 11)", told_forgetting),
    "loss": ("In-context loss", told_loss),
    "integrals": ("Integrated Gradients on the paper's prompt (figures 14 and 15)", told_integrals),
    "costs": ("Costs (A.4 and A.5)", told_costs),
}


def report() -> None:
    found = json.loads((RESULTS / "appendix.json").read_text(encoding="utf-8"))
    lines = [f"# The paper's appendices, measured\n\n{__doc__}"]
    for part, (title, told) in TOLD.items():
        if part in found:
            lines += [f"\n## {title}\n", *told(found[part])]
    (RESULTS / "appendix.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run")
    one.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    one.add_argument("--systems", nargs="*", help="default: all, and the controls")
    one.add_argument("--numbers", nargs="*", type=int, choices=LENGTHS, help="lengths of series")
    one.add_argument("--device", default="cpu")
    one.add_argument("--minutes", type=float, default=math.inf, help="of each part")
    one.add_argument("--out", type=Path, default=RESULTS)
    one.set_defaults(do=run)
    two = commands.add_parser("merge")
    two.add_argument("files", type=Path, nargs="+")
    two.set_defaults(do=merge)
    commands.add_parser("report").set_defaults(do=lambda _: report())
    args = parser.parse_args()
    args.do(args)


if __name__ == "__main__":
    main()
