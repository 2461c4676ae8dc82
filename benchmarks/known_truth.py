"""Which method finds evidence that is known? Generated in-context tasks, each with one segment that decides the answer.

    python -m benchmarks.known_truth run --out truth.json [--count 8] [--model FOLDER] [--device cuda] [--minutes 4]
    python -m benchmarks.known_truth report truth.json [another.json ...]

Each task has the evidence at a place drawn uniformly among its segments, so a ranking by place finds it as often as
chance does. The whole answer's log-probability is explained; scores add up to one a segment as their method combines
them. Only prompts that the model answers rightly count (its most probable first token): for others nobody knows what
the evidence was for. Recall at 1 is the share of prompts whose highest segment is the evidence, MRR the mean of one
over its place. The report writes known_truth.md and known_truth.json to benchmarks/results. Beside this package's
methods Semantic Scope under backward rules, and, for the demo model, the packages gim-explain and flashtrace where they
are installed (``benchmarks/peers.py``). A run writes after every prompt.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tl_jacobian as tj
from benchmarks import peers
from benchmarks.tasks import Task, disambiguation, induction, key_value, needle, passages
from tl_jacobian.core.host.load import load_model
from tl_jacobian.results.statistics import bootstrap_mean
from tl_jacobian.studies.evaluation import Settings
from tl_jacobian.studies.evaluation.judge import attributions

RESULTS = Path(__file__).with_name("results")
METHODS = (
    "random",
    "recency",
    "embedding_norm",
    "attention_rollout",
    "leave_one_out",
    "integrated_gradients",
    "input_x_gradient",
    "semantic",
    "temperature",
    "fisher",
    "fisher_trace",
)
AMONG = 6  # segments of a task

TASKS: dict[str, Callable[[np.random.Generator], Task]] = {
    "key and value": key_value,
    "induction": induction,
    "needle": needle,
    "one example disambiguates": disambiguation,
    "passages": lambda g: passages(6, int(g.integers(2**31)), among=6)[0],
}


def place_of_evidence(a: tj.Attribution, made: Task) -> int:
    """1: the evidence has the highest score."""
    units = a.segments(made.segments, split_first=False)
    scores = dict(zip(units.str_tokens, units.scores.tolist(), strict=True))
    return 1 + sum(scores[name] > scores[made.evidence] for name in made.segments)


def places(model: Any, made: Task, prompt: int, methods: Mapping[str, Any]) -> dict[str, int] | None:
    """The evidence's place under every method; None where the model's answer is another one."""
    batch: Any = tj.linearize(model, [made.prompt], answer=[made.answer], record="sources")
    if int(batch[0].logits[0].argmax()) != batch[0].answer[0]:
        return None
    found = attributions(batch, methods, [None], [prompt], Settings())
    return {name: place_of_evidence(found[name][0].prompt, made) for name in methods}


def table(found: Mapping[str, Any]) -> Iterator[str]:
    rows: Mapping[str, list[dict[str, int]]] = found["places"]
    counts = ", ".join(f"{task} {len(rows[task])} of {n}" for task, n in found["asked"].items())
    chance = sum(1 / i for i in range(1, AMONG + 1)) / AMONG
    yield f"## {found['model']}"
    yield ""
    yield f"Answered rightly: {counts}. Chance: recall at 1 {1 / AMONG:.2f}, MRR {chance:.2f}."
    yield ""
    usable = {task: own for task, own in rows.items() if len(own) > 1}
    every = [row for own in usable.values() for row in own]
    if not every:
        return
    yield (
        "| method | all: recall at 1 | all: MRR | "
        + " | ".join(f"{task} ({len(usable[task])})" for task in usable)
        + " |"
    )
    yield "| --- |" + " ---: |" * (2 + len(usable))
    for method in sorted(found["methods"], key=lambda m: -np.mean([1 / row[m] for row in every])):
        cells = [interval([row[method] == 1 for row in every]), interval([1 / row[method] for row in every])]
        cells += [f"{np.mean([row[method] == 1 for row in own]):.2f}" for own in usable.values()]
        yield f"| {method.replace('_', ' ')} | " + " | ".join(cells) + " |"


def interval(values: Sequence[float] | Sequence[bool]) -> str:
    i = bootstrap_mean([float(v) for v in values])
    return f"{i.mean:.2f} [{i.low:.2f}, {i.high:.2f}]"


def run(args: argparse.Namespace) -> None:
    model = load_model(args.model or "demo", "bridge", device=args.device, dtype=args.dtype)
    methods: dict[str, Any] = {name: name for name in METHODS} | peers.of_rules(model)
    if args.model is None:
        methods |= peers.of_packages(model, args.device)
    if args.methods:
        methods = {name: methods[name] for name in args.methods.split(",")}
    found: dict[str, Any] = {
        "model": Path(args.model).resolve().name if args.model else "demo",
        "methods": list(methods),
        "asked": dict.fromkeys(TASKS, 0),
        "places": {task: [] for task in TASKS},
    }
    generators = {task: np.random.default_rng(number) for number, task in enumerate(TASKS)}
    began = time.monotonic()
    for i in range(args.count):
        for task, make in TASKS.items():
            if time.monotonic() - began > 60 * args.minutes:
                return
            found["asked"][task] += 1
            if (own := places(model, make(generators[task]), i, methods)) is not None:
                found["places"][task].append(own)
            args.out.write_text(json.dumps(found) + "\n", encoding="utf-8")
        counts = ", ".join(f"{task} {len(rows)}" for task, rows in found["places"].items())
        print(f"{i + 1} of each, answered rightly: {counts}; {time.monotonic() - began:.0f} s", flush=True)


def report(args: argparse.Namespace) -> None:
    found = [json.loads(path.read_text(encoding="utf-8")) for path in args.files]
    lines = [f"# Evidence that is known\n\n{__doc__}\nColumns of tasks: recall at 1 (prompts)."]
    for one in found:
        lines += ["", *table(one)]
    (RESULTS / "known_truth.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (RESULTS / "known_truth.json").write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run")
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--count", type=int, default=10, help="prompts of each task")
    one.add_argument("--methods", help="with commas")
    one.add_argument("--model", help="a local folder; default: the demo model")
    one.add_argument("--device", default="cpu")
    one.add_argument("--dtype", default="float32")
    one.add_argument("--minutes", type=float, default=math.inf)
    one.set_defaults(do=run)
    two = commands.add_parser("report")
    two.add_argument("files", type=Path, nargs="+")
    two.set_defaults(do=report)
    args = parser.parse_args()
    args.do(args)


if __name__ == "__main__":
    main()
