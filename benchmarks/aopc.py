"""What a finished run of ``tl-jacobian evaluate`` came to, as files that can be kept: tables, a picture, records.

    tl-jacobian evaluate --data lambada.json --data iwslt.json --methods all --k 5,10,20 --no-sufficiency --out aopc
    python -m benchmarks.aopc aopc

Writes aopc.md, aopc.png and aopc.json (one record a prompt: numbers, no text) to benchmarks/results. Besides
the tables, each corpus is split into thirds by how sure the model is of the token that is explained.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tl_jacobian.render import figure
from tl_jacobian.results.evaluation import Evaluation
from tl_jacobian.results.panels import Curves
from tl_jacobian.results.statistics import Difference
from tl_jacobian.studies.evaluation import load_evaluation

RESULTS = Path(__file__).with_name("results")
KEPT = ("n_tokens", "log_prob", "error")  # of a record; the target's text is part of the data


def numbers(record: Any) -> dict[str, Any]:
    """A record without text, to a tenth of a millinat."""
    methods = {
        name: {key: np.round(value, 4).tolist() for key, value in found.items()}
        for name, found in record.get("methods", {}).items()
    }
    return {key: record[key] for key in KEPT if record.get(key) is not None} | {"methods": methods}


def thirds(e: Evaluation) -> list[Evaluation]:
    """The prompts in three groups of one size, from the least to the most sure."""
    rows = sorted(e.usable, key=lambda record: record["log_prob"])
    return [
        Evaluation(name=f"{e.name}, {span(part)}", records=tuple(part), metadata=e.metadata)
        for part in (rows[len(rows) * i // 3 : len(rows) * (i + 1) // 3] for i in range(3))
    ]


def span(records: Sequence[Any]) -> str:
    low, high = (math.exp(records[i]["log_prob"]) for i in (0, -1))
    return f"{low:.0%} to {high:.0%} sure"


def by_confidence(e: Evaluation) -> Iterator[str]:
    """Each method's AOPC in each third, and whether it is above a random ranking's."""
    parts = thirds(e)
    yield f"| AOPC, {e.name} | " + " | ".join(span(part.records) for part in parts) + " |"
    yield "|---|---|---|---|"
    tested = [part.differences() for part in parts]
    for method in e.methods:
        cells = [f"{p.interval('aopc', method)}{star(d, method)}" for p, d in zip(parts, tested, strict=True)]
        yield f"| {method} | {' | '.join(cells)} |"


def star(differences: Sequence[Difference], method: str) -> str:
    """Marks a difference from the random ranking beyond chance (adjusted for all pairs)."""
    for d in differences:
        if {d.method, d.other} == {method, "random"} and d.adjusted < 0.05:
            more = d.interval.mean * (1 if d.method == method else -1) > 0
            return " ▲" if more else " ▼"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="--out of tl-jacobian evaluate")
    folder = parser.parse_args().folder
    found = [load_evaluation(path.parent) for path in sorted(folder.glob("*/manifest.json"))]
    kept = [{"name": e.name, "metadata": dict(e.metadata), "records": list(map(numbers, e.records))} for e in found]
    (RESULTS / "aopc.json").write_text(json.dumps(kept, separators=(",", ":")) + "\n", encoding="utf-8")
    curves = [panel for e in found for panel in e.panels() if isinstance(panel, Curves)]
    figure(curves).figure.savefig(RESULTS / "aopc.png", dpi=110)
    split = ["\n".join(by_confidence(e)) for e in found]
    note = "▲ above the random ranking, ▼ below it, beyond chance (adjusted p < 0.05)."
    text = "\n\n".join([*(e.to_markdown() for e in found), "## By how sure the model is", *split, note])
    (RESULTS / "aopc.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
