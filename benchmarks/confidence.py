"""Is ||y|| a confidence? Temperature Scope's premise, on the positions of texts and the numbers of series.

    python -m benchmarks.confidence --data lambada_200.json [--model FOLDER] [--prompts 20] [--device cuda]

At every position of the texts: ||y|| and the norm of the centred logits against the predicted distribution's entropy
and its top probability. On number series: ||y|| before each number against the spread of the forecast, for which the
paper takes ||y||^-1. At the last positions of some prompts: gradients (cosines) and token rankings of the two
confidences against those of the entropy, and leaving tokens out as the judge. Numbers go to standard output and, by the
model's name, to benchmarks/results/confidence.json (``--out``); confidence.md says what they mean.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

import tl_jacobian as tj
from tl_jacobian import timeseries as ts
from tl_jacobian.core.host.load import load_model
from tl_jacobian.results.statistics import bootstrap_mean, correlation

RESULTS = Path(__file__).with_name("results")


def entropy(logits: Tensor) -> Tensor:
    log_p = logits.double().log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def logit_norm(logits: Tensor) -> Tensor:
    return (logits - logits.mean(-1, keepdim=True)).double().norm(dim=-1)


def of_positions(model: Any, ids: Sequence[int], places: Sequence[int]) -> dict[str, list[float]]:
    """What each position says of its own prediction."""
    found: dict[str, list[float]] = {name: [] for name in ("norm", "logit_norm", "entropy", "top")}
    for lin in tj.linearize(model, list(ids), position=list(places)):
        found["norm"].append(lin.y.double().norm().item())
        found["logit_norm"].append(logit_norm(lin.logits).item())
        found["entropy"].append(entropy(lin.logits).item())
        found["top"].append(lin.probs.max().item())
    return found


def by_prompt(rows: Sequence[dict[str, list[float]]], one: str, other: str) -> str:
    """Spearman's correlation of all positions, with an interval over prompts: each left out in turn (jackknife)."""
    n = len(rows)

    def of(kept: Sequence[dict[str, list[float]]]) -> float:
        return correlation([v for r in kept for v in r[one]], [v for r in kept for v in r[other]])

    pooled = of(rows)
    without = [of([*rows[:i], *rows[i + 1 :]]) for i in range(n)]
    pseudo = n * pooled - (n - 1) * np.array(without)
    half = stats.t.ppf(0.975, n - 1) * pseudo.std(ddof=1) / math.sqrt(n)
    return f"{pooled:+.2f} [{pooled - half:+.2f}, {pooled + half:+.2f}]"


def gradients(lin: Any) -> dict[str, Tensor]:
    """dx of each confidence; of the entropy with the other sign, so that all say what makes the model surer."""
    functions = {
        "norm": lambda y, z: y.norm(),
        "logit_norm": lambda y, z: (z - z.mean()).norm(),
        "certainty": lambda y, z: (z.log_softmax(-1).exp() * z.log_softmax(-1)).sum(),
    }
    found = {}
    for name, fn in functions.items():
        y = lin.y.detach().clone().requires_grad_()
        (v,) = torch.autograd.grad(fn(y, lin.unembedding.logits(y)), y)
        found[name] = lin.vjp(v)
    return found


def of_prompt(model: Any, ids: Sequence[int]) -> dict[str, float]:
    """At one prompt: do gradients and rankings of confidences agree with those of the entropy, and with edits?"""
    lin = tj.linearize(model, list(ids))
    g = {name: x[1:].double() for name, x in gradients(lin).items()}  # the sink left out
    sizes = {name: x.norm(dim=-1) for name, x in g.items()}
    x = lin.graph.x.detach()[0]
    without = x.repeat(len(x) - 1, 1, 1)
    for i in range(len(x) - 1):
        without[i, i + 1] = 0
    rerun: Any = lin.rerun
    moved = (entropy(torch.cat([rerun.logits(part) for part in without.split(16)])) - entropy(lin.logits)).abs()
    found = {"prompt tokens": float(len(x))}
    for name in ("norm", "logit_norm"):
        found[f"cosine of {name}"] = torch.cosine_similarity(g[name].flatten(), g["certainty"].flatten(), 0).item()
        found[f"rank of {name}"] = correlation(sizes[name].tolist(), sizes["certainty"].tolist())
    for name in sizes:
        found[f"edits, {name}"] = correlation(sizes[name].tolist(), moved.tolist())
    return found


def of_series(model: Any, values: np.ndarray) -> dict[str, float]:
    """Rank correlations within one series: ||y|| before each number against the forecast there.

    Both models write a digit a token, so the forecast is that of the tens digit; the first ten numbers are left out.
    """
    series = ts.serialize(values, model)
    places = [start - 1 for start, _ in series.groups[10:]]
    digits = sorted({ids[0] for ids in series.codec.numbers})  # 1 to 9
    at = torch.arange(1, len(digits) + 1, dtype=torch.float64)
    columns: dict[str, list[float]] = {name: [] for name in ("norm", "logit_norm", "variance", "entropy", "top")}
    for lin in tj.linearize(model, list(series.tokens), position=places):
        p = lin.logits.cpu().double().softmax(-1)[digits]
        p = p / p.sum()
        mean = (p * at).sum()
        columns["norm"].append(lin.y.double().norm().item())
        columns["logit_norm"].append(logit_norm(lin.logits).item())
        columns["variance"].append((p * (at - mean) ** 2).sum().item())
        columns["entropy"].append(entropy(lin.logits).item())
        columns["top"].append(lin.probs.max().item())
    return {
        f"{one}, {other}": correlation(columns[one], columns[other])
        for one in ("norm", "logit_norm")
        for other in ("variance", "entropy", "top")
    }


def made(seed: int, n: int) -> dict[str, np.ndarray]:
    g = np.random.default_rng(seed)
    return {
        "Lorenz": ts.lorenz(n, dt=0.05, start=(g.uniform(-15.0, 15.0), 1.0, 20.0)),
        "logistic map": ts.logistic_map(n, x0=g.uniform(0.1, 0.9)),
        "Brownian motion": ts.brownian_motion(n, seed=g),
    }


def measure(model: Any, texts: Sequence[str], n_series: int, numbers: int, edits: int) -> dict[str, Any]:
    ids = [model.tokenizer(text)["input_ids"] for text in texts]
    rows = [of_positions(model, one, range(4, len(one))) for one in ids]
    print("positions: done", file=sys.stderr, flush=True)
    at = [of_prompt(model, one) for one in ids[:edits]]
    print("gradients: done", file=sys.stderr, flush=True)
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(n_series):
        for system, values in made(seed, numbers).items():
            found.setdefault(system, []).append(of_series(model, values))
    return {
        "texts": len(ids),
        "positions": sum(len(r["norm"]) for r in rows),
        "by position": {
            f"{one}, {other}": by_prompt(rows, one, other)
            for one in ("norm", "logit_norm")
            for other in ("entropy", "top")
        },
        "at the last position": {name: mean_of([row[name] for row in at]) for name in at[0]},
        "series": {
            system: {name: mean_of([row[name] for row in of]) for name in of[0]} for system, of in found.items()
        },
        "sizes": {"prompts of the gradients": len(at), "series of each system": n_series, "numbers": numbers},
    }


def mean_of(values: Sequence[float]) -> str:
    i = bootstrap_mean(values)
    return f"{i.mean:+.2f} [{i.low:+.2f}, {i.high:+.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="JSON file of prompts; the shortest are taken")
    parser.add_argument("--model", help="a local folder; default: the demo model")
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--edits", type=int, default=12, help="prompts whose gradients and edits are compared")
    parser.add_argument("--series", type=int, default=4, help="of each system")
    parser.add_argument("--numbers", type=int, default=60)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", type=Path, default=RESULTS / "confidence.json")
    args = parser.parse_args()
    model = load_model(args.model or "demo", "bridge", device=args.device, dtype=args.dtype)
    texts = sorted((row["text"] for row in json.loads(args.data.read_text(encoding="utf-8"))), key=len)
    found = measure(model, texts[: args.prompts], args.series, args.numbers, args.edits)
    known = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    known[Path(args.model).resolve().name if args.model else "demo"] = found
    args.out.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
