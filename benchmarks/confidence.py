"""Is ||y|| a confidence? Temperature Scope's premise, on the positions of texts and the numbers of series.

    python -m benchmarks.confidence --data lambada_200.json [--model FOLDER] [--prompts 20] [--series 4]

At every position of the texts: ||y|| and the norm of the centred logits against the predicted distribution's entropy
and its top probability. On number series: ||y|| before each number against the spread of the forecast, for which the
paper takes ||y||^-1. At the last positions of some prompts: gradients (cosines) and token rankings of the two
confidences against those of the entropy, and leaving tokens out as the judge. Rows of a table go to standard output,
and with ``--write`` to benchmarks/results/confidence.json, from which ``--report`` makes confidence.md.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

import tl_jacobian as tj
from tl_jacobian.core.host.load import load_model
from tl_jacobian.results.statistics import bootstrap_mean, correlation

RESULTS = Path(__file__).with_name("results")
SYSTEMS = ("lorenz", "logistic_map", "brownian_motion", "uncoupled_stochastic")


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
    pooled = correlation(*(np.concatenate([r[name] for r in rows]) for name in (one, other)))
    n = len(rows)
    without = [
        correlation(*(np.concatenate([r[name] for j, r in enumerate(rows) if j != i]) for name in (one, other)))
        for i in range(n)
    ]
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
        (v,) = torch.autograd.grad(fn(y, lin.unembedding(y)), y)
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
    moved = (entropy(torch.cat([lin.rerun.logits(part) for part in without.split(16)])) - entropy(lin.logits)).abs()
    found = {"prompt tokens": float(len(x))}
    for name in ("norm", "logit_norm"):
        found[f"cosine of {name}"] = torch.cosine_similarity(g[name].flatten(), g["certainty"].flatten(), 0).item()
        found[f"rank of {name}"] = correlation(sizes[name].tolist(), sizes["certainty"].tolist())
    for name in sizes:
        found[f"edits, {name}"] = correlation(sizes[name].tolist(), moved.tolist())
    return found


def of_series(model: Any, system: str, seed: int, steps: int) -> dict[str, float]:
    """Rank correlations within one series: ||y|| before each number, the forecast's spread and the entropy there.

    The spread is that of the first digit that isn't certain, from its own distribution over digits.
    """
    g = np.random.default_rng(seed)
    values = SERIES[system](g, steps)
    series = tj.timeseries.serialize(values, model)
    lin = list(tj.linearize(model, list(series.prompt.tokens), position=list(starts(series))))
    digits = series_digits(model)
    norm, spread, unsure, top = [], [], [], []
    for one in lin:
        p = one.logits.double().softmax(-1)[digits]
        p = p / p.sum()
        at = torch.arange(10, dtype=torch.float64)
        mean = (p * at).sum()
        norm.append(one.y.double().norm().item())
        spread.append((p * (at - mean) ** 2).sum().item())
        unsure.append(entropy(one.logits).item())
        top.append(one.probs.max().item())
    return {
        "norm, variance": correlation(norm, spread),
        "norm, entropy": correlation(norm, unsure),
        "norm, top": correlation(norm, top),
    }
