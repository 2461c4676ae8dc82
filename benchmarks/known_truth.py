"""Which method finds evidence that is known? Generated in-context tasks, each with one segment that decides the answer.

    python -m benchmarks.known_truth [--count 8] [--model FOLDER]

Each task has the evidence at a place drawn uniformly among its segments, so a ranking by place finds it as often as
chance does. The whole answer's log-probability is explained; scores add up to one a segment as their method combines
them. Only prompts that the model answers rightly count (its most probable first token): for others nobody knows what
the evidence was for. Recall at 1 is the share of prompts whose highest segment is the evidence, MRR the mean of one
over its place. The table in
benchmarks/results/known_truth.md is its output.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import tl_jacobian as tj
from benchmarks.tasks import Task, disambiguation, induction, key_value, needle, passages
from tl_jacobian.core.host.load import load_model
from tl_jacobian.results.statistics import bootstrap_mean
from tl_jacobian.studies.evaluation import Settings
from tl_jacobian.studies.evaluation.judge import attributions

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
)


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


def places(model: Any, made: Task, prompt: int, methods: Sequence[str]) -> dict[str, int] | None:
    """The evidence's place under every method; None where the model's answer is another one."""
    lin = tj.linearize(model, made.prompt, answer=made.answer, record="sources")
    if int(lin[0].logits.argmax()) != lin.answer[0]:
        return None
    batch: Any = tj.linearize(model, [made.prompt], answer=[made.answer], record="sources")
    found = attributions(batch, methods, [None], [prompt], Settings())
    return {name: place_of_evidence(found[name][0].prompt, made) for name in methods}


def table(found: dict[str, list[dict[str, int]]], asked: int, k: int, methods: Sequence[str]) -> Iterator[str]:
    counts = ", ".join(f"{task} {len(rows)} of {asked}" for task, rows in found.items())
    chance = sum(1 / i for i in range(1, k + 1)) / k
    yield f"Answered rightly: {counts}. Chance: recall at 1 {1 / k:.2f}, MRR {chance:.2f}."
    yield ""
    usable = {task: rows for task, rows in found.items() if len(rows) > 1}
    yield "| method | all: recall at 1 | all: MRR | " + " | ".join(f"{task}: recall at 1" for task in usable) + " |"
    yield "| --- |" + " ---: |" * (2 + len(usable))
    every = [row for rows in usable.values() for row in rows]
    for method in methods:
        cells = [interval([row[method] == 1 for row in every]), interval([1 / row[method] for row in every])]
        cells += [f"{np.mean([row[method] == 1 for row in rows]):.2f}" for rows in usable.values()]
        yield f"| {method.replace('_', ' ')} | " + " | ".join(cells) + " |"


def interval(values: list[float] | list[bool]) -> str:
    i = bootstrap_mean([float(v) for v in values])
    return f"{i.mean:.2f} [{i.low:.2f}, {i.high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10, help="prompts of each task")
    parser.add_argument("--methods", default=",".join(METHODS), help="with commas")
    parser.add_argument("--model", help="a local folder; default: the demo model")
    args = parser.parse_args()
    methods = tuple(args.methods.split(","))
    model = load_model(args.model or "demo", "bridge")
    found: dict[str, list[dict[str, int]]] = {}
    for number, (task, make) in enumerate(TASKS.items()):
        g = np.random.default_rng(number)
        rows = [places(model, make(g), i, methods) for i in range(args.count)]
        found[task] = [row for row in rows if row is not None]
        print(f"{task}: {len(found[task])} of {args.count} answered rightly", file=sys.stderr, flush=True)
    print("\n".join(table(found, args.count, 6, methods)))


if __name__ == "__main__":
    main()
