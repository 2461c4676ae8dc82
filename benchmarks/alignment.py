"""Do the source words that a scope names align with the translation? On the shipped pairs with gold links.

    python -m benchmarks.alignment [--kind bridge] [--limit 6] [--tokens first] [--trace] [--languages German]

Every target word is linked to the source word that drives its prediction most, and the links are scored against gold
links: alignment error rate, precision, recall, F1; and, without a threshold, where the gold words are in each row.
A claim must beat chance and the diagonal: words at the same relative place of both sentences. "Relative" divides each
source word's shares by their mean, which the paper doesn't do. Prints Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from scipy import stats

import tl_jacobian as tj
from tl_jacobian.results.statistics import Difference, bootstrap_mean, paired_differences
from tl_jacobian.studies.language import AlignedPair, AlignmentScore, WordAlignment, score_alignment

METHODS: dict[str, dict[str, Any]] = {
    "fisher, rank 1": dict(scope="fisher", method="low_rank"),
    "temperature": dict(scope="temperature"),
    "semantic": dict(scope="semantic"),
}
TRACE: dict[str, dict[str, Any]] = {"fisher, trace": dict(scope="fisher")}
BASELINES = ("diagonal", "chance")
LEVEL = 0.05
# Which scores the verdict rests on; -1 where less is better.
JUDGED = {"aer": -1, "reciprocal_rank": 1}
HEADINGS = {
    "aer": "AER",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "reciprocal_rank": "reciprocal rank",
    "average_precision": "average precision",
}
Scores = Mapping[str, Sequence[AlignmentScore]]


def spread(pairs: Sequence[AlignedPair], limit: int | None) -> list[AlignedPair]:
    """So many pairs, evenly over the languages."""
    n = len(pairs) if limit is None else min(limit, len(pairs))
    return [pairs[i * len(pairs) // n] for i in range(n)]


def alignments(
    model: Any, pair: AlignedPair, methods: Mapping[str, dict[str, Any]], tokens: Any
) -> Iterator[tuple[str, WordAlignment]]:
    """Every method's alignment of one pair, and the baselines'."""
    for name, options in methods.items():
        found = tj.language.word_alignment(
            model, pair.source, pair.target, template=pair.template, tokens=tokens, **options
        )
        yield name, found
        yield f"{name}, relative", found.relative()
    yield "diagonal", tj.language.diagonal_alignment(pair.source_words, pair.target_words)
    yield "chance", tj.language.chance_alignment(pair.source_words, pair.target_words)


def measure(
    model: Any, pairs: Sequence[AlignedPair], methods: Mapping[str, dict[str, Any]], tokens: Any
) -> dict[str, list[AlignmentScore]]:
    """One score a pair for each method."""
    scores: dict[str, list[AlignmentScore]] = {}
    for pair in pairs:
        for name, found in alignments(model, pair, methods, tokens):
            scores.setdefault(name, []).append(score_alignment(found, pair.sure, pair.possible))
    return scores


def column(scores: Sequence[AlignmentScore], metric: str) -> list[float]:
    return [getattr(score, metric) for score in scores]


def table(scores: Scores) -> list[str]:
    """Means with 95% bootstrap intervals over pairs."""
    lines = ["| alignment | " + " | ".join(HEADINGS.values()) + " |", "|---" * (1 + len(HEADINGS)) + "|"]
    for name, found in scores.items():
        cells = (bootstrap_mean(column(found, metric)) for metric in HEADINGS)
        lines.append(f"| {name} | " + " | ".join(f"{i.mean:.2f} [{i.low:.2f}, {i.high:.2f}]" for i in cells) + " |")
    return lines


def by_language(scores: Scores, pairs: Sequence[AlignedPair]) -> list[str]:
    """Mean AER in each language."""
    languages = list(dict.fromkeys(pair.language for pair in pairs))
    lines = ["| AER | " + " | ".join(languages) + " |", "|---" * (1 + len(languages)) + "|"]
    for name, found in scores.items():
        groups = ([s.aer for s, p in zip(found, pairs, strict=True) if p.language == one] for one in languages)
        lines.append(f"| {name} | " + " | ".join(f"{sum(group) / len(group):.2f}" for group in groups) + " |")
    return lines


def differences(scores: Scores, metric: str) -> list[Difference]:
    """Every method against the baselines, and the paper's against each other; paired over sentence pairs."""
    plain = [name for name in scores if name in METHODS | TRACE]
    mine = [name for name in scores if name not in BASELINES]
    planned = [*((name, other) for name in mine for other in BASELINES), *combinations(plain, 2)]
    found = [paired_differences({name: column(scores[name], metric) for name in pair})[0] for pair in planned]
    adjusted = stats.false_discovery_control([d.p for d in found])
    return [d._replace(adjusted=float(q)) for d, q in zip(found, adjusted, strict=True)]


def compared(found: Sequence[Difference], metric: str) -> list[str]:
    """The differences with intervals and p values."""
    lines = [f"| difference of {HEADINGS[metric]} | mean | p | adjusted |", "|---|---|---|---|"]
    for d in found:
        i = d.interval
        cell = f"{i.mean:+.2f} [{i.low:+.2f}, {i.high:+.2f}]"
        lines.append(f"| {d.method} − {d.other} | {cell} | {d.p:.4f} | {d.adjusted:.4f} |")
    return lines


def outcome(found: Sequence[Difference], name: str, other: str, sign: int) -> str:
    """``"better"``, ``"worse"`` or ``"no different"``, with the false discovery rate at 5%."""
    d = next(d for d in found if (d.method, d.other) == (name, other))
    if d.adjusted >= LEVEL:
        return "no different"
    return "better" if d.interval.mean * sign > 0 else "worse"


def verdict(scores: Scores, found: Mapping[str, Sequence[Difference]]) -> list[str]:
    """What the numbers say, one sentence a method."""
    lines = []
    for name in (name for name in scores if name not in BASELINES):
        parts = []
        for metric, sign in JUDGED.items():
            against = {other: outcome(found[metric], name, other, sign) for other in BASELINES}
            parts.append(f"{HEADINGS[metric]}: " + ", ".join(f"{how} than {other}" for other, how in against.items()))
        reads = all(outcome(found[m], name, "diagonal", sign) == "better" for m, sign in JUDGED.items())
        claim = "aligns words beyond their place" if reads else "isn't shown to align words beyond their place"
        lines.append(f"- {name} {claim} ({'; '.join(parts)}).".replace("no different than", "no different from"))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", default="bridge")
    parser.add_argument("--limit", type=int, help="pairs, evenly over the languages (default: all)")
    parser.add_argument("--languages", nargs="*", default=[])
    parser.add_argument("--tokens", choices=["all", "first"], default="all")
    parser.add_argument("--trace", action="store_true", help="the whole Fisher trace too: some 60 products a token")
    args = parser.parse_args()
    model = tj.load_demo_model(args.kind)
    pairs = spread(tj.language.aligned_pairs(*args.languages), args.limit)
    methods = METHODS | (TRACE if args.trace else {})
    scores = measure(model, pairs, methods, args.tokens)
    found = {metric: differences(scores, metric) for metric in JUDGED}
    n, least = len(pairs), 2.0 ** (1 - len(pairs))
    print(f"{n} sentence pairs, {Path(model.cfg.model_name).name}; tokens of a word: {args.tokens}\n")
    if least >= LEVEL:
        print(f"The sign-flip test of {n} pairs can't give p below {least:g}: too few for a verdict.\n")
    sections = [table(scores), by_language(scores, pairs)]
    sections += [compared(found[metric], metric) for metric in JUDGED]
    for lines in [*sections, verdict(scores, found)]:
        print("\n".join(lines), end="\n\n")


if __name__ == "__main__":
    main()
