"""What drives forecasts of in-context time series (the paper's sections 3.3, A.2 and A.3), over many series.

    python -m benchmarks.time_series [--series 30] [--numbers 80] [--scopes temperature semantic]

For each system and scope: does influence sit after the motifs that resemble the present (pattern matching), does it
rise towards the end (forgetting), and how many numbers share it; then scopes against one another on the same series,
and drifting systems against the stationary one. Motifs are compared as they are ("level"), and each less its own mean
("shape"). Brownian motion is the control: its motifs say nothing about what follows, so that a system must exceed it.
Each series gives one number; intervals and tests are over series. What one system gave is said on stderr as soon as it
is measured, the tables come at the end.
Semantic Scope's target is the first token of the number that really comes next. Where each digit is a token, what is
explained is the prediction of the next number's first digit.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import spearmanr

import tl_jacobian as tj
from tl_jacobian import timeseries as ts

ENOUGH = 30  # series; with fewer there is no verdict
DT = 0.08
TURN = 9  # numbers in one turn around a lobe of Lorenz's attractor; motifs in the last turn are no candidates


class Measured(NamedTuple):
    """What one series says under one scope."""

    influence: np.ndarray
    after_level: float
    at_level: float
    p_level: float
    after_shape: float
    at_shape: float
    p_shape: float
    slope: float
    count: float


def start(g: np.random.Generator) -> tuple[float, float, float]:
    """The paper varies x and fixes y and z."""
    return (g.uniform(-15.0, 15.0), 1.0, 20.0)


Make = Callable[[int, np.random.Generator], np.ndarray]
SYSTEMS: dict[str, Make] = {
    "Lorenz": lambda n, g: ts.lorenz(n, dt=DT, start=start(g)),
    "logistic map": lambda n, g: ts.logistic_map(n, x0=g.uniform(0.1, 0.9)),
    "Lorenz with drift": lambda n, g: ts.lorenz_with_drift(n, dt=DT, start=start(g)),
    "Brownian motion": lambda n, g: ts.brownian_motion(n, seed=g),
    # With noise of its own, and enough of it to be another thing than Brownian motion.
    "geometric Brownian motion": lambda n, g: ts.geometric_brownian_motion(n, seed=g.spawn(1)[0], sigma=0.1),
}
CONTROL, STATIONARY = "Brownian motion", "Lorenz"
DRIFTING = ("Lorenz with drift", "Brownian motion", "geometric Brownian motion")


def attribution(scope: str, lin: tj.Linearization, truth: int) -> tj.Attribution:
    """One scope by its name; ``truth`` is the first token of the number that really comes next."""
    scopes: dict[str, Callable[[], Any]] = {
        "temperature": lambda: tj.temperature_scope(lin),
        "semantic": lambda: tj.semantic_scope(lin, truth),
        "fisher": lambda: tj.fisher_scope(lin),
        "fisher-rank-1": lambda: tj.fisher_scope(lin, method="low_rank"),
    }
    return scopes[scope]()


def measure(influence: ts.NumberInfluence) -> Measured:
    values, scores = influence.values, influence.influence
    if influence.metadata["combine"] != "root_sum_squares":
        scores = np.sqrt(scores)  # Fisher's traces are squares, which fall off twice as fast
    found: list[float] = []
    for shapes in (False, True):
        after, at = (ts.pattern_match(values, scores, exclude=TURN, centre=shapes, shift=shift) for shift in (1, 0))
        found += [after.estimate, at.estimate, after.p_value]
    return Measured(scores, *found, ts.forgetting_slope(scores).total, ts.effective_count(scores))


def one_series(model: Any, make: Make, args: argparse.Namespace, seed: int) -> dict[str, Measured]:
    """One series of a system under every scope; the last value is held back."""
    values = make(args.numbers + 1, np.random.default_rng(seed))
    span = (float(values.min()), float(values.max()))
    margin = 0.1 * (span[1] - span[0])
    series = ts.serialize(values[:-1], model, data_range=(span[0] - margin, span[1] + margin))
    next_number = int(series.to_numbers(values[-1:])[0])
    truth = series.codec.numbers[next_number - series.codec.low][0]
    lin = tj.linearize(model, list(series.tokens))
    found = {scope: ts.number_influence(attribution(scope, lin, truth), series) for scope in args.scopes}
    return {scope: measure(influence) for scope, influence in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--series", type=int, default=ENOUGH, help="series of each system, at least 2")
    parser.add_argument("--numbers", type=int, default=80, help="numbers of each series")
    parser.add_argument("--scopes", nargs="+", default=["temperature", "semantic"], help="or fisher, fisher-rank-1")
    parser.add_argument("--kind", default="bridge", help="of the demo model: bridge or hooked")
    args = parser.parse_args()
    model = tj.load_demo_model(args.kind)
    found: dict[str, list[dict[str, Measured]]] = {}
    for name, make in SYSTEMS.items():
        found[name] = []
        for seed in range(args.series):
            print(f"{name}: series {seed + 1} of {args.series}", file=sys.stderr, flush=True)
            found[name].append(one_series(model, make, args, seed))
        print("\n".join(summary(found[name], args.scopes)), file=sys.stderr, flush=True)
    print(f"{args.series} series of {args.numbers} numbers from each system; demo model ({args.kind})")
    tables = (patterns(found, args.scopes, kind) for kind in ("level", "shape"))
    for lines in (*tables, forgetting(found, args.scopes), pairs(found, args.scopes)):
        print("\n" + "\n".join(lines), flush=True)


def summary(rows: list[dict[str, Measured]], scopes: list[str]) -> Iterator[str]:
    """One system's means, for a run that may not come to its end."""
    for scope in scopes:
        fields = ("after_level", "after_shape", "slope", "count")
        effects = [f"{field} {interval(ts.mean_effect(column(rows, scope, field)))}" for field in fields]
        yield f"  {scope}: {'; '.join(effects)}"


def column(found: list[dict[str, Measured]], scope: str, field: str) -> list[float]:
    return [getattr(one[scope], field) for one in found]


def patterns(found: dict[str, list[dict[str, Measured]]], scopes: list[str], kind: str) -> Iterator[str]:
    yield f"Pattern matching by {kind}: rank correlation of influence and nearness, trends over the position taken out."
    yield ""
    less = f"less that of {CONTROL}"
    yield f"| system | scope | number after the motif | {less} | p | its last number | p < 0.05 | verdict |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, rows in found.items():
        for scope in scopes:
            effects, base = (column(series, scope, f"after_{kind}") for series in (rows, found[CONTROL]))
            after, at = ts.mean_effect(effects), ts.mean_effect(column(rows, scope, f"at_{kind}"))
            beyond = None if name == CONTROL else ts.compare_groups(effects, base)
            more = "|" if beyond is None else f"{interval(beyond)} | {beyond.p_value:.2g}"
            alone = np.mean(np.array(column(rows, scope, f"p_{kind}")) <= 0.05)
            cells = f"{interval(after)} | {more} | {interval(at)} | {alone:.0%} of series | {matching(after, beyond)}"
            yield f"| {name} | {scope} | {cells} |"


def matching(after: ts.Estimate, beyond: ts.Estimate | None) -> str:
    """Whether influence follows motifs, or nearness as in the control, for which ``beyond`` is None."""
    follows = "follows nearness, not detectably more than the control"
    if beyond is None:
        follows = "follows nearness, where a motif predicts nothing"
    elif beyond.low > 0:
        follows = "follows motifs, beyond the control"
    return verdict(after, follows, "avoids matching motifs")


def forgetting(found: dict[str, list[dict[str, Measured]]], scopes: list[str]) -> Iterator[str]:
    yield "Forgetting: change of log-influence from the second number to the last, in nats (Theil-Sen)."
    yield ""
    yield f"| system | scope | change | less that of {STATIONARY} | p | numbers that share the influence | verdict |"
    yield "|---|---|---|---|---|---|---|"
    for name, rows in found.items():
        for scope in scopes:
            slope, count = (ts.mean_effect(column(rows, scope, field)) for field in ("slope", "count"))
            more, p = "", ""
            if name in DRIFTING:
                base = column(found[STATIONARY], scope, "slope")
                difference = compare(name)(column(rows, scope, "slope"), base)
                more, p = interval(difference), f"{difference.p_value:.2g}"
            said = verdict(slope, "early context fades", "early context weighs more")
            yield f"| {name} | {scope} | {interval(slope)} | {more} | {p} | {interval(count)} | {said} |"


def compare(name: str) -> Callable[[list[float], list[float]], ts.Estimate]:
    """The drifting Lorenz series are the stationary ones, with drift."""
    return ts.compare_paired if name == "Lorenz with drift" else ts.compare_groups


def pairs(found: dict[str, list[dict[str, Measured]]], scopes: list[str]) -> Iterator[str]:
    first, *others = scopes
    if not others:
        return
    yield f"{first} less other scopes, on the same series; and the rank correlation of their influences."
    yield ""
    yield "| system | other scope | pattern matching (level) | p | (shape) | p | sharing numbers | p | correlation |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, rows in found.items():
        for other in others:
            cells = []
            for field in ("after_level", "after_shape", "count"):
                e = ts.compare_paired(column(rows, first, field), column(rows, other, field))
                cells += [interval(e), f"{e.p_value:.2g}"]
            alike = [float(spearmanr(one[first].influence[1:], one[other].influence[1:])[0]) for one in rows]
            cells.append(interval(ts.mean_effect(alike)))
            yield f"| {name} | {other} | {' | '.join(cells)} |"


def interval(e: ts.Estimate) -> str:
    return f"{e.estimate:.2f} [{e.low:.2f}, {e.high:.2f}]"


def verdict(e: ts.Estimate, above: str, below: str) -> str:
    """In words: what the interval says, if it rests on enough series."""
    if e.n < ENOUGH:
        return f"too few series to say ({e.n} of {ENOUGH})"
    return above if e.low > 0 else below if e.high < 0 else "neither way"


if __name__ == "__main__":
    main()
