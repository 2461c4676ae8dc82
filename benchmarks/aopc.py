"""The paper's table on the right token, with hard baselines and several operators: runs, and the report on them.

    python -m benchmarks.aopc run --data lambada_200.json iwslt2017_de_en_200.json --out runs [--part main]
    python -m benchmarks.aopc run --data ... --out runs --part reduced --model Qwen/Qwen2.5-7B --device cuda
    python -m benchmarks.aopc run ... --slice 0 4 &  (... --slice 3 4: four processes share the prompts)
    python -m benchmarks.aopc report runs

Each part of the plan takes the shortest prompts of each corpus (``--prompts 200``: all of them), in an order drawn from
a seed, and writes ``runs/MODEL.PART.CORPUS.json`` (with ``--slice`` a file each) after every ``--chunk`` of them: what
was done stays when a run is killed or its ``--minutes`` are over, and is a fair part of the whole; another run goes on
from there. ``--records`` keeps each chunk's folder too. The report puts slices together, and writes aopc.md, aopc.png
and aopc.json (numbers, hardly a text) to benchmarks/results.

IWSLT2017's rows come in talks. Where one ends was found by reading: speaker and subject change at rows 42, 96 and 145.
Four talks are too few to draw from, so ten neighbouring rows of one talk make a block.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import numpy as np

import tl_jacobian as tj
from benchmarks import peers
from tl_jacobian.core.host.load import load_model
from tl_jacobian.render import figure, markdown
from tl_jacobian.results.evaluation import Evaluation
from tl_jacobian.results.panels import Curves
from tl_jacobian.results.side_by_side import ranks_agree, side_by_side
from tl_jacobian.results.statistics import Difference
from tl_jacobian.studies.evaluation import Settings
from tl_jacobian.studies.evaluation.curves import Perturbation

RESULTS = Path(__file__).with_name("results")
TALKS = {"iwslt2017_de_en_200": (0, 42, 96, 145)}  # the rows where talks begin
IN_A_BLOCK = 10
WITH_GRADIENTS = 32  # runs together; some 7 GB for 100 tokens of the demo model

TRIVIAL = ("random", "recency", "first_and_recency", "token_frequency", "embedding_norm")
SCOPES = ("input_x_gradient", "semantic", "temperature", "fisher")
OTHER_WAYS: tuple[tuple[Perturbation, bool], ...] = (
    ("mean", False),
    ("delete", False),
    ("resample", False),
    ("zero", True),
)


class Part(NamedTuple):
    """What is measured on how many prompts of each corpus."""

    prompts: int
    trial: tj.Trial
    rules: bool = False


# What every prompt can afford.
AFFORDABLE = (
    *TRIVIAL,
    "attention_rollout",
    "leave_one_out",
    "integrated_gradients",
    "integrated_gradients_100",
    *SCOPES,
)

PARTS = {
    "main": Part(
        200,
        tj.Trial(
            methods=AFFORDABLE,
            also=(("mean", False), ("delete", False)),
            sufficiency=False,
            matched=1,
        ),
        rules=True,
    ),
    "trace": Part(  # with the whole Fisher trace, which takes some 70 backward passes
        20,
        tj.Trial(
            methods=(*AFFORDABLE, "fisher_trace"),
            sufficiency=False,
            matched=1,
        ),
        rules=True,
    ),
    "operators": Part(
        6,
        tj.Trial(
            methods=("random", "recency", "leave_one_out", "integrated_gradients", *SCOPES, "fisher_trace"),
            k=(10, 20),
            also=OTHER_WAYS,
            sufficiency=False,
        ),
    ),
    "bounds": Part(
        2,
        tj.Trial(
            methods=("random", "recency", "integrated_gradients_100", *SCOPES, "beam_lowest", "beam_highest"),
            k=(10,),
            sufficiency=False,
        ),
    ),
    "integrals": Part(
        2,
        tj.Trial(
            methods=(
                "random",
                "recency",
                "semantic",
                "integrated_gradients",
                "integrated_gradients_100",
                "integrated_gradients_converged",
            ),
            sufficiency=False,
        ),
    ),
    "reduced": Part(
        20,
        tj.Trial(
            methods=("random", "recency", "leave_one_out", "integrated_gradients", *SCOPES),
            k=(10, 20),
            also=(("mean", False),),
            sufficiency=False,
            settings=Settings(integration_steps=20),
        ),
    ),
}


def shortest(path: Path, count: int, tokenizer: Any) -> tuple[list[dict[str, Any]], Counter[int]]:
    """The shortest prompts of a file, shuffled, with their rows as ids; and how often tokens occur in all of it.

    Shuffled: of a run that is cut short those that are done are a fair part of them.
    """
    rows = [row["text"] for row in json.loads(path.read_text(encoding="utf-8"))]
    tokens = [tokenizer(row)["input_ids"] for row in rows]
    kept = sorted(range(len(rows)), key=lambda i: len(tokens[i]))[:count]
    random.Random(0).shuffle(kept)
    return [{"text": rows[i], "id": str(i)} for i in kept], Counter(t for one in tokens for t in one)


def trial_of(part: Part, model: Any, args: argparse.Namespace) -> tj.Trial:
    """The part's trial, with the methods that were asked for, and semantic scopes under backward rules."""
    names = args.methods.split(",") if args.methods else list(part.trial.methods)
    methods: dict[str, Any] = {name: name for name in names}
    if part.rules and not args.methods:
        methods |= peers.of_rules(model)
    return replace(part.trial, methods=methods, batch_size=args.runs)


def run(args: argparse.Namespace) -> None:
    model = load_model(args.model or "demo", "bridge", device=args.device, dtype=args.dtype)
    args.out.mkdir(parents=True, exist_ok=True)
    part, name = PARTS[args.part], Path(args.model).resolve().name if args.model else "demo"
    trial = trial_of(part, model, args)
    minutes = args.minutes / len(args.data)
    for path in args.data:
        corpus, counts = shortest(path, args.prompts or part.prompts, model.tokenizer)
        of, (slice_, slices) = len(corpus), args.slice
        corpus = corpus[slice_::slices]
        where = f"{path.stem}.{slice_}" if slices > 1 else path.stem
        kept = args.records / name / args.part / where if args.records else None
        store = args.out / f"{name}.{args.part}.{where}.json"
        known = records_of(store, [row["id"] for row in corpus])
        done, longest, began = [], 0.0, time.monotonic()
        # Chunks are numbered from the first prompt on, whatever an earlier run has done of them.
        for at in range(len(known), len(corpus), args.chunk):
            spent = time.monotonic() - began
            if done and spent + longest > 60 * minutes:
                break
            # Random numbers of its own. Runs with gradients keep every layer: several processes share a GPU.
            size = min(args.runs, WITH_GRADIENTS)
            seed = at * slices + slice_
            settings = replace(trial.settings, counts=counts, seed=seed, batch_size=size)
            done.append(
                tj.evaluate(
                    model,
                    corpus[at : at + args.chunk],
                    replace(trial, settings=settings),
                    out=kept and kept / f"{at:03d}",
                    name=path.stem,
                    batch_size=args.batch_size,
                    shard_size=args.batch_size,
                    progress=False,
                )
            )
            longest = max(longest, time.monotonic() - began - spent)
            made = without_text(joined(done))
            stored = {"model": name, "part": args.part, "of": of, **made, "records": known + made["records"]}
            write(store, json.dumps(stored, separators=(",", ":")) + "\n")
            n, seconds = len(stored["records"]), time.monotonic() - began
            print(f"{name} {args.part} {where}: {n} of {len(corpus)} prompts, {seconds:.0f} s", flush=True)


def records_of(store: Path, ids: Sequence[str]) -> list[dict[str, Any]]:
    """What an earlier run has written, of the first of these prompts; it goes on from there."""
    if not store.exists():
        return []
    records = json.loads(store.read_text(encoding="utf-8"))["records"]
    if [r["id"] for r in records] != list(ids[: len(records)]):
        raise SystemExit(f"{store} holds other prompts than this run's: give another --out, or take it away")
    return records


def write(path: Path, text: str) -> None:
    """All of it or nothing."""
    path.with_suffix(".part").write_text(text, encoding="utf-8")
    path.with_suffix(".part").replace(path)


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """Evaluations of parts of a corpus, as one."""
    return replace(parts[0], records=tuple(r for e in parts for r in e.records))


# Of a record: texts are part of the data, but for those of the first, which the tables show.
KEPT, SHOWN, N_SHOWN = ("n_tokens", "log_prob", "error", "id"), ("target_text", "context"), 4
PAPERS = {  # the later version's table: LLaMA-3.2 3B, k and the token that is explained aren't said
    "lambada_200": {
        "random": -0.23,
        "integrated_gradients": -0.67,
        "input_x_gradient": -1.12,
        "semantic": -1.16,
        "temperature": -1.17,
        "fisher": -1.17,
    },
    "iwslt2017_de_en_200": {
        "random": -0.19,
        "integrated_gradients": -0.58,
        "input_x_gradient": -0.77,
        "semantic": -0.78,
        "temperature": -0.76,
        "fisher": -0.80,
    },
}


def loaded(folder: Path) -> Iterator[tuple[str, str, int, Evaluation]]:
    """Model, part, how many prompts were to be run, and evaluation of each corpus; those of talks in blocks.

    The demo model comes first, and so does the main part.
    """
    files: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        files.setdefault((found["model"], found["part"], found["name"]), []).append(found)
    parts = list(PARTS)
    for key in sorted(files, key=lambda key: (key[0] != "demo", key[0], parts.index(key[1]), key[2])):
        slices = files[key]
        found, records = slices[0], [r for one in slices for r in one["records"]]
        e = Evaluation(name=found["name"], records=tuple(records), metadata=found["metadata"])
        if starts := TALKS.get(e.name):
            talks = [(max(s for s in starts if s <= row), row) for row in (int(r["id"]) for r in e.records)]
            e = e.in_blocks([f"{talk}: {(row - talk) // IN_A_BLOCK}" for talk, row in talks])
        yield found["model"], found["part"], found["of"], e


def without_text(e: Evaluation) -> dict[str, Any]:
    def rounded(methods: Any) -> dict[str, Any]:
        return {
            name: {key: np.round(value, 4).tolist() for key, value in found.items() if key != "order"}
            for name, found in methods.items()
        }

    records = [
        {key: r[key] for key in (*KEPT, *(SHOWN if i < N_SHOWN else ())) if r.get(key) is not None}
        | {"methods": rounded(r.get("methods", {}))}
        | ({"also": {name: rounded(one) for name, one in r["also"].items()}} if r.get("also") else {})
        for i, r in enumerate(e.records)
    ]
    return {"name": e.name, "metadata": dict(e.metadata), "records": records, "blocks": list(e.blocks)}


def beside_the_paper(found: Sequence[Evaluation]) -> Iterator[str]:
    """AOPC with the paper's sign, and the order of its six methods."""
    names = [e.name for e in found if e.name in PAPERS]
    yield "| method | " + " | ".join(f"{name}: paper | here" for name in names) + " |"
    yield "| --- |" + " ---: | ---: |" * len(names)
    by_name = {e.name: e for e in found}
    for method in (*PAPERS["lambada_200"], "recency"):
        cells = []
        for name in names:
            e = by_name[name]
            i = e.interval("aopc", method)
            cells += [
                f"{PAPERS[name][method]:.2f}" if method in PAPERS[name] else "",
                f"{-i.mean:.2f} ± {(i.high - i.low) / 4:.2f}",
            ]
        yield f"| {method.replace('_', ' ')} | " + " | ".join(cells) + " |"


def verdict(differences: Sequence[Difference], more: str, less: str) -> str:
    """Is one method's AOPC above another's, beyond chance? p is adjusted for all pairs of methods."""
    for d in differences:
        if {d.method, d.other} == {more, less}:
            sign = 1 if d.method == more else -1
            above = "holds" if sign * d.interval.mean > 0 else "the opposite"
            found = "not told apart" if d.adjusted >= 0.05 else above
            low, high = sorted((sign * d.interval.low, sign * d.interval.high))
            return f"{found} ({sign * d.interval.mean:+.2f} [{low:+.2f}, {high:+.2f}])"
    return "not measured"


CLAIMS = (  # what, whose AOPC is above whose
    ("Semantic Scope is above a random ranking", "semantic", "random"),
    ("Temperature Scope is above a random ranking", "temperature", "random"),
    ("Fisher Scope (rank 1) is above a random ranking", "fisher", "random"),
    ("Semantic Scope is above integrated gradients", "semantic", "integrated_gradients"),
    ("Temperature Scope is above integrated gradients", "temperature", "integrated_gradients"),
    ("Fisher Scope is above integrated gradients", "fisher", "integrated_gradients"),
    ("Fisher Scope is above Semantic Scope", "fisher", "semantic"),
    ("Semantic Scope is above input x gradient", "semantic", "input_x_gradient"),
    ("Semantic Scope is above integrated gradients of 100 steps", "semantic", "integrated_gradients_100"),
    ("(ours) Fisher's whole trace is above its rank 1", "fisher_trace", "fisher"),
    ("(ours) Semantic Scope is above recency", "semantic", "recency"),
    ("(ours) Temperature Scope is above recency", "temperature", "recency"),
    ("(ours) Fisher Scope is above recency", "fisher", "recency"),
    ("(ours) Fisher Scope is above leave-one-out", "fisher", "leave_one_out"),
    ("(ours) frozen norms are above exact gradients", "semantic (frozen norms)", "semantic"),
    ("(ours) frozen attention is above exact gradients", "semantic (frozen attention)", "semantic"),
    ("(ours) GIM's rule is above exact gradients", "semantic (gim)", "semantic"),
)


def claims(found: Sequence[Evaluation], more: Sequence[Evaluation]) -> Iterator[str]:
    """What comes out of each; what isn't measured there is read from a smaller run over the same corpus."""
    yield "| claim | " + " | ".join(e.name for e in found) + " |"
    yield "| --- |" + " --- |" * len(found)
    smaller = {e.name: e for e in more}
    runs = [(e, smaller[e.name]) if e.name in smaller else (e,) for e in found]
    differences = {id(e): e.differences() for run in runs for e in run}
    for claim, above, below in CLAIMS:
        cells = []
        for run in runs:
            asked = next((e for e in run if {above, below} <= set(e.methods)), run[0])
            prompts = "" if asked is run[0] else f", {len(asked.usable)} prompts"
            cells.append(verdict(differences[id(asked)], above, below) + prompts)
        yield f"| {claim} | " + " | ".join(cells) + " |"


Loaded = tuple[str, str, int, Evaluation]


def summary(every: Sequence[Loaded]) -> Iterator[str]:
    """What each table comes to, in sentences."""
    for model, part, n, e in every:
        yield f"- **{model}, {part}, {e.name}** ({len(e.usable)} of {n} prompts). " + " ".join(_sentences(e))


def _sentences(e: Evaluation) -> Iterator[str]:
    names = {m: m.replace("_", " ") for m in e.methods}
    judged = [m for m in e.methods if m not in ("beam_lowest", "beam_highest")]
    means = {m: e.interval("aopc", m).mean for m in judged}
    yield f"AOPC: {_ordered(means)}."
    said: dict[str, list[str]] = {}
    for d in e.differences():
        if "recency" in (d.method, d.other) and d.adjusted < 0.05:
            other, sign = (d.other, -1) if d.method == "recency" else (d.method, 1)
            if other not in judged:
                continue
            said.setdefault("above" if sign * d.interval.mean > 0 else "below", []).append(names[other])
    for where in ("above", "below"):
        yield f"{where.capitalize()} recency beyond chance: {', '.join(said.get(where, ['none']))}."
    if "beyond_recency" in e.metrics:
        knows = [names[m] for m in judged if e.interval("beyond_recency", m).low > 0]
        yield f"Above zero beyond recency: {', '.join(knows) or 'none'}."
    if "normalized_aopc" in e.metrics:
        reached = {m: e.interval("normalized_aopc", m).mean for m in judged}
        yield f"Normalised: {_ordered(reached)}."
    if e.operators[1:]:
        ranks = ranks_agree({operator: e.under(operator) for operator in e.operators})
        least, most = min(ranks, key=lambda a: a.tau), max(ranks, key=lambda a: a.tau)
        yield (
            "Methods' orders under two ways to remove tokens: Kendall's tau "
            f"{least.tau:.2f} ({least.one}; {least.other}) to {most.tau:.2f} ({most.one}; {most.other})."
        )
        for operator in e.operators:
            under = e.under(operator)
            best = max(judged, key=lambda m: under.interval("aopc", m).mean)
            above = {
                d.other if d.method == "random" else d.method
                for d in under.differences()
                if "random" in (d.method, d.other) and d.adjusted < 0.05
            }
            told = ", ".join(names[m] for m in judged if m in above) or "no method"
            yield f"First under {operator}: {names[best]}; told apart from random: {told}."


def _ordered(values: dict[str, float]) -> str:
    """From the highest to the lowest."""
    return ", ".join(f"{m.replace('_', ' ')} {values[m]:.2f}" for m in sorted(values, key=lambda m: -values[m]))


def report(args: argparse.Namespace) -> None:
    every = list(loaded(args.folder))
    main, trace = ([e for m, p, _, e in every if (m, p) == ("demo", part)] for part in ("main", "trace"))
    (RESULTS / "aopc.json").write_text(
        json.dumps([{"model": m, "part": p, "of": n, **without_text(e)} for m, p, n, e in every], separators=(",", ":"))
        + "\n",
        encoding="utf-8",
    )
    curves = [panel for e in main for panel in e.panels() if isinstance(panel, Curves)]
    drawn: Any = figure(curves).figure
    drawn.savefig(RESULTS / "aopc.png", dpi=110)
    head = Template(Path(__file__).with_name("aopc_report.md").read_text(encoding="utf-8"))
    lines = [
        head.substitute(
            summary="\n".join(summary(every)),
            paper="\n".join(beside_the_paper(main)),
            claims="\n".join(claims(main, trace)),
        )
    ]
    for model, part, n, e in every:
        # Without the table of all pairs: whoever asks for another one than the claims' finds each prompt in the JSON.
        lines += [f"## {model}, {part}, {e.name}: {len(e.records)} of {n} prompts", markdown(e.panels()[:2])]
    for model, _, _, e in every:
        if e.operators[1:]:
            lines += [f"## Ways to remove tokens: {model}, {e.name}", markdown(side_by_side([e]))]
    (RESULTS / "aopc.md").write_text("\n\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run")
    one.add_argument("--data", type=Path, nargs="+", required=True)
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--records", type=Path, help="folder of what to go on from")
    one.add_argument("--part", choices=PARTS, default="main")
    one.add_argument("--prompts", type=int, help="of each corpus, the shortest")
    one.add_argument("--methods", help="with commas, in the place of the part's")
    one.add_argument("--model", help="name or local folder; default: the demo model")
    one.add_argument("--device", default="cpu")
    one.add_argument("--dtype", default="float32")
    one.add_argument("--batch-size", type=int, default=4, help="prompts linearised together")
    one.add_argument("--runs", type=int, default=16, help="prompts with tokens removed that run together")
    one.add_argument("--chunk", type=int, default=20, help="prompts after which the results so far are written")
    one.add_argument("--slice", type=int, nargs=2, default=(0, 1), metavar=("I", "N"), help="prompt I and each Nth on")
    one.add_argument("--minutes", type=float, default=math.inf, help="begin no chunk that would end later")
    one.set_defaults(do=run)
    two = commands.add_parser("report")
    two.add_argument("folder", type=Path, help="--out of the runs")
    two.set_defaults(do=report)
    args = parser.parse_args()
    args.do(args)


if __name__ == "__main__":
    main()
