"""Planted evidence: does an attribution name the one passage, of four, that holds what the answer needs?

    python -m benchmarks.known_passage [--models demo DIR] [--n 60] [--device cuda] [--minutes 4]

Generated prompts (``benchmarks/tasks.py``): four passages that say the same of four things, and a question about one
of them. The right answer is explained, all its tokens as one. A passage's score is that of its tokens jointly, or per
token ("mean"); what it says is first is the passage with the highest. ``passage left out`` deletes each in turn, and
names the one without which the answer's log-probability falls furthest: a forward pass each, and what the others are to
predict. Prompts to which the model doesn't give the right answer, token by token, are counted apart.
Writes known_passage.md, and every prompt's scores to known_passage.json, to benchmarks/results or ``--out``; models
that are measured again take the place of what is there, and ``--more`` goes on after it, with the same methods. DIR
holds a model for ``TransformerBridge.boot_transformers``. Beside the scopes Semantic Scope under backward rules, and
for the demo model the packages gim-explain and flashtrace where they are installed (``benchmarks/peers.py``).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tl_jacobian as tj
from benchmarks import peers
from benchmarks.tasks import Task, passages
from tl_jacobian.core.host.load import load_model

RESULTS = Path(__file__).parent / "results"
METHODS: dict[str, Callable[[Any], tj.Attribution]] = {
    "semantic": tj.semantic_scope,
    "temperature": tj.temperature_scope,
    "fisher, rank 1": lambda lin: tj.fisher_scope(lin, method="low_rank", rank=1),
    "input x gradient, norm": tj.baselines.input_x_gradient,
    "input x gradient, signed": lambda lin: tj.baselines.input_x_gradient(lin, signed=True),
}


def methods_of(model: Any, name: str, device: str) -> dict[str, Callable[[Any], tj.Attribution]]:
    """Those above, and the peers'."""
    own = peers.of_rules(model) | (peers.of_packages(model, device) if name == "demo" else {})

    def as_attribution(peer: str) -> Callable[[Any], tj.Attribution]:
        def attribute(lin: Any) -> tj.Attribution:
            found = own[peer](lin)
            return found if isinstance(found, tj.Attribution) else tj.Attribution.from_scores(lin, found, name=peer)

        return attribute

    return METHODS | {peer: as_attribution(peer) for peer in own}


def measure(model: Any, task: Task, methods: dict[str, Callable[[Any], tj.Attribution]]) -> dict[str, Any]:
    """Scores of the four passages, by method; from one forward pass, and one for each passage."""
    lin = tj.linearize(model, task.prompt, answer=task.answer)
    names, scores = list(task.segments), {}
    for method, attribute in methods.items():
        a = attribute(lin)
        for label, mean in ((method, False), (f"{method}: mean", True)):
            blocks = a.segments(task.segments, mean=mean, split_first=False)
            found = dict(zip(blocks.str_tokens, blocks.scores.tolist(), strict=True))
            scores[label] = [found[name] for name in names]
    told = tj.semantic_scope(lin).segments(task.segments, rest=None, split_first=False)
    by_name = {e.word: -e.change for e in tj.language.segment_counterfactuals(lin, told).edits}
    scores["passage left out"] = [by_name[name] for name in names]
    scores["the last passage"] = [float(i) for i in range(len(names))]
    return {
        "kind": task.kind,
        "evidence": names.index(task.evidence),
        "right": lin.logits.argmax(-1).tolist() == list(lin.answer),
        "log_prob": lin.log_probs.sum().item(),
        "tokens": len(lin.tokens),
        "scores": scores,
    }


def wilson(k: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """95% interval of a share."""
    p, spread = k / n, z / n * math.sqrt(k * (n - k) / n + z * z / 4)
    middle, size = (p + z * z / (2 * n)) / (1 + z * z / n), spread / (1 + z * z / n)
    return middle - size, middle + size


def first(scores: Sequence[float]) -> int:
    return max(range(len(scores)), key=scores.__getitem__)


def hits(rows: Sequence[dict[str, Any]], method: str) -> list[bool]:
    return [first(row["scores"][method]) == row["evidence"] for row in rows]


def share(found: Sequence[bool]) -> str:
    if not found:
        return "–"
    low, high = wilson(sum(found), len(found))
    return f"{sum(found) / len(found):.0%} ({low:.0%} to {high:.0%})"


def report(measured: dict[str, Any]) -> str:
    lines = [
        "# Planted evidence: which of four passages",
        "",
        "Made by `python -m benchmarks.known_passage`: " + str(__doc__).split("\n\n")[2].replace("\n", " "),
        "",
        "How often the passage with the evidence is named first, with 95% Wilson intervals; chance is 25%.",
    ]
    for name, run in measured.items():
        rows = run["rows"]
        right, wrong = ([r for r in rows if r["right"] == is_right] for is_right in (True, False))
        lines += [
            "",
            f"## {name}",
            "",
            f"{len(rows)} prompts of {min(r['tokens'] for r in rows)} to {max(r['tokens'] for r in rows)} tokens; the "
            f"model gives the right answer to {len(right)}. {run['about']}",
            "",
            f"| method | right answer ({len(right)} prompts) | evidence in passages 1 to 3 | "
            f"other prompts ({len(wrong)}) |",
            "|---|---|---|---|",
        ]
        order = sorted(rows[0]["scores"], key=lambda method: -sum(hits(right, method)))
        for method in order:
            early = [row for row in right if row["evidence"] < 3]
            lines.append(
                f"| {method} | " + " | ".join(share(hits(part, method)) for part in (right, early, wrong)) + " |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--models", nargs="*", default=["demo"])
    options.add_argument("--n", type=int, default=60)
    options.add_argument("--device", default="cpu")
    options.add_argument("--dtype", default="float32")
    options.add_argument("--minutes", type=float, default=math.inf, help="for each model")
    options.add_argument("--more", action="store_true", help="go on after the prompts that are there")
    options.add_argument("--out", type=Path, default=RESULTS, help="folder")
    given = options.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    store = given.out / "known_passage.json"
    measured = json.loads(store.read_text()) if store.exists() else {}
    for name in given.models:
        label = f"demo model (SmolLM2-135M-Instruct, {given.dtype})"
        if name != "demo":
            label = f"{Path(name).resolve().name}, {given.dtype} weights"
        model, began = load_model(name, "bridge", device=given.device, dtype=given.dtype), time.perf_counter()
        methods, rows = methods_of(model, name, given.device), []
        if given.more and label in measured:
            rows = measured[label]["rows"]
            methods = {method: fn for method, fn in methods.items() if method in rows[0]["scores"]}
        known = len(rows)
        for task in passages(given.n)[known:]:
            if time.perf_counter() - began > 60 * given.minutes:
                break
            rows.append(measure(model, task, methods))
            seconds = (time.perf_counter() - began) / (len(rows) - known)
            print(len(rows), rows[-1]["right"], f"{seconds:.1f} s a prompt", flush=True)
            about = f"TransformerBridge, {given.device}, {seconds:.1f} s a prompt."
            measured[label] = {"rows": rows, "about": about}
            store.write_text(json.dumps(measured) + "\n")  # what was measured so far is kept
        (given.out / "known_passage.md").write_text(report(measured), encoding="utf-8")


if __name__ == "__main__":
    main()
