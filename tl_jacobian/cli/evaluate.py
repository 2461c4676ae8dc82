"""``tl-jacobian evaluate``: the paper's table, of attribution methods over corpora."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tl_jacobian.cli.options import (
    BosOption,
    DeviceOption,
    Dtype,
    DtypeOption,
    HostOption,
    ModelOption,
    PrecisionOption,
    RuleOption,
    fail,
    printable,
    rule_option,
)
from tl_jacobian.cli.run import (
    BatchSizeOption,
    ColumnOption,
    DeviceMapOption,
    Format,
    FormatOption,
    LimitOption,
    MaxMemoryOption,
    OutOption,
    ShardSizeOption,
    SplitOption,
    ending,
    load,
)
from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.files import atomic

if TYPE_CHECKING:
    from tl_jacobian.results.evaluation import Evaluation


class Perturb(StrEnum):
    zero = "zero"
    mean = "mean"
    delete = "delete"
    resample = "resample"


class Explain(StrEnum):
    word = "word"
    next = "next"
    argmax = "argmax"


def _listed(names: str) -> str:
    """``--methods help``, before anything else is missed."""
    if names == "help":
        from tl_jacobian.studies.evaluation import METHODS, PAPER
        from tl_jacobian.studies.evaluation.judge import BOUNDS

        Console().print(
            "\n".join([*METHODS, *BOUNDS, f"all: {','.join(PAPER)}"]), markup=False, highlight=False, soft_wrap=True
        )
        raise typer.Exit()
    return names


def evaluate(
    out: OutOption,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Prompts: .json, .jsonl, .txt or .parquet, or a Hugging Face data set; may be repeated."),
    ] = None,
    methods: Annotated[
        str,
        typer.Option(
            callback=_listed,
            is_eager=True,
            help='"all": the six of the paper\'s table; or names with commas (--methods help lists them).',
        ),
    ] = "all",
    k: Annotated[str, typer.Option(help="Percentages of tokens to remove, with commas.")] = "5,10,20",
    perturbation: Annotated[
        Perturb,
        typer.Option(
            help="A removed token's embedding becomes zero or the prompt's mean; or it is deleted; or a random other "
            "token of the corpus takes its place."
        ),
    ] = Perturb.zero,
    also: Annotated[
        str | None,
        typer.Option(
            help='Further ways to remove tokens, with commas, from the same rankings: "mean,delete,zero:keep-first".'
        ),
    ] = None,
    explained: Annotated[
        Explain,
        typer.Option(
            help="What is explained and scored where a row names no target or answer: the prompt's last word, its last "
            "token, or the token that the model holds most probable after it."
        ),
    ] = Explain.word,
    skip_first: Annotated[bool, typer.Option(help="Never remove the first token.")] = False,
    matched: Annotated[
        int,
        typer.Option(
            min=0, help="Runs at places of other prompts' rankings: what methods know beyond recency; 0: none."
        ),
    ] = 0,
    blocks: Annotated[
        int | None,
        typer.Option(min=1, help="So many neighbouring prompts are one block: for corpora of talks or books."),
    ] = None,
    merge: Annotated[
        list[Path] | None,
        typer.Option(
            help="--out of an earlier evaluation, of another model, say: put beside this one; may be repeated."
        ),
    ] = None,
    sufficiency: Annotated[bool, typer.Option(help="Also run with the highest tokens alone; half of all runs.")] = True,
    agreement: Annotated[bool, typer.Option(help="Also compare with leaving out each token; a run for each.")] = False,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    integration_steps: Annotated[int, typer.Option(min=2, help="Nodes of integrated gradients.")] = 8,
    column: ColumnOption = "text",
    split: SplitOption = "train",
    limit: LimitOption = None,
    format: FormatOption = Format.jsonl,
    batch_size: BatchSizeOption = 8,
    shard_size: ShardSizeOption = 32,
    max_memory: MaxMemoryOption = None,
    bos: BosOption = None,
    model: ModelOption = "demo",
    host: HostOption = None,
    device: DeviceOption = "cpu",
    device_map: DeviceMapOption = None,
    dtype: DtypeOption = Dtype.float32,
    precision: PrecisionOption = None,
    rule: RuleOption = None,
) -> None:
    """Compare attribution methods: how far does the prediction fall without the tokens that each ranks highest?

    Writes records to a folder for each corpus, and table.md, table.json and (with matplotlib) table.png. Killed at any
    moment, the same command goes on where it was. Under accelerate launch or torchrun the processes share the work.

    Exit codes: 0 done; 1 it can't be done (the message says why); 2 wrong usage; 130 interrupted.
    """
    if not data and not merge:
        raise typer.BadParameter("neither --data nor --merge, expected prompts, or earlier evaluations to put together")
    folders = _folders(data or [], out)
    with ending(out) as is_main:
        from tl_jacobian.studies.corpus import read_corpus
        from tl_jacobian.studies.evaluation import Settings, Trial
        from tl_jacobian.studies.evaluation import evaluate as evaluated

        trial = Trial(
            methods=_methods(methods),
            k=_percentages(k),
            perturbation=perturbation.value,
            skip_first=skip_first,
            also=_ways(also),
            matched=matched,
            sufficiency=sufficiency,
            agreement=agreement,
            settings=Settings(seed, integration_steps),
        )
        corpora = [read_corpus(source, column=column, split=split, limit=limit) for source in data or []]
        loaded = load(model, host, device, dtype, device_map) if corpora else None
        found = [
            evaluated(
                loaded,
                corpus,
                trial,
                out=folder,
                name=folder.name,
                explained=explained.value,
                prepend_bos=bos,
                max_memory=max_memory,
                precision="model" if precision else None,
                rule=rule_option(rule),
                batch_size=batch_size,
                shard_size=shard_size,
                format=format.value,
            )
            for corpus, folder in zip(corpora, folders, strict=True)
        ]
        if is_main:
            found = [e if blocks is None else e.in_blocks(blocks) for e in found]
            _report(found, _earlier(merge or []), out)


def _folders(data: Sequence[str], out: Path) -> list[Path]:
    """One a corpus, named after it."""
    names = [Path(source).stem.replace(":", "_") for source in data]
    if len(set(names)) < len(names):
        raise typer.BadParameter(f"--data {' and '.join(data)} have the same name; rename a file")
    return [out / name for name in names]


def _methods(text: str) -> tuple[str, ...]:
    from tl_jacobian.studies.evaluation import PAPER

    return PAPER if text == "all" else tuple(name.strip() for name in text.split(","))


def _ways(text: str | None) -> list[tuple[Any, bool]]:
    """``"mean,zero:keep-first"`` as pairs of an operator and whether the first token is kept."""
    ways = [part.strip().partition(":") for part in text.split(",")] if text else []
    for name, colon, rest in ways:
        if name not in list(Perturb) or (colon and rest != "keep-first"):
            raise ArgumentError(
                f"--also {name + colon + rest!r}, expected some of {', '.join(Perturb)} with commas, each as it is or "
                "with :keep-first"
            )
    return [(name, bool(colon)) for name, colon, _ in ways]


def _earlier(folders: Sequence[Path]) -> list[Evaluation]:
    """Every finished evaluation in these folders, or right below them."""
    from tl_jacobian.studies.evaluation import load_evaluation

    found = []
    for folder in folders:
        alone = (folder / "manifest.json").exists()  # one corpus, whose own folders are parts of it
        inside = [folder] if alone else sorted(path.parent for path in folder.glob("*/manifest.json"))
        if not inside:
            raise ArgumentError(f"--merge {str(folder)!r} holds no evaluation, expected the --out of an earlier one")
        found += map(load_evaluation, inside)
    return found


def _percentages(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ArgumentError(f"--k {text!r}, expected percentages with commas, such as 5,10,20") from None


def _report(found: Sequence[Evaluation], earlier: Sequence[Evaluation], out: Path) -> None:
    """Shown before anything is written: hours of work must not be lost to a full disk."""
    from tl_jacobian.render import markdown, terminal
    from tl_jacobian.results.side_by_side import side_by_side

    for e in found:
        e.show()
    every = [*found, *earlier]
    beside = side_by_side(every) if len(every) > 1 or every[0].operators[1:] else ()
    if beside:
        terminal(beside)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with atomic(out / "table.md") as file:
            file.write("\n".join([*(e.to_markdown() for e in found), *([markdown(beside)] if beside else [])]))
        with atomic(out / "table.json") as file:
            json.dump([e.to_json() for e in every], file, indent=1)
        _draw(every, out / "table.png")
    except OSError as error:
        fail(f"can't write: {error}")
    Console().print(printable(f"Tables: {out}"), markup=False, highlight=False, soft_wrap=True)


def _draw(found: Sequence[Evaluation], path: Path) -> None:
    """One panel a corpus; nothing without matplotlib."""
    from tl_jacobian.render import figure
    from tl_jacobian.results.panels import Curves

    try:
        drawn: Any = figure([panel for e in found for panel in e.panels() if isinstance(panel, Curves)]).figure
    except ImportError:
        return
    with atomic(path, "wb") as file:
        drawn.savefig(file, format="png", dpi=150)
