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


class Explain(StrEnum):
    argmax = "argmax"
    next = "next"


def _listed(names: str) -> str:
    """``--methods help``, before anything else is missed."""
    if names == "help":
        from tl_jacobian.studies.evaluation import METHODS, PAPER

        Console().print("\n".join([*METHODS, f"all: {','.join(PAPER)}"]), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit()
    return names


def evaluate(
    data: Annotated[
        list[str],
        typer.Option(help="Prompts: .json, .jsonl, .txt or .parquet, or a Hugging Face data set; may be repeated."),
    ],
    out: OutOption,
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
        Perturb, typer.Option(help="A removed token's embedding becomes zero or the prompt's mean; or it is deleted.")
    ] = Perturb.zero,
    explained: Annotated[
        Explain, typer.Option(help="Token that is explained and scored: the model's own choice, or the prompt's last.")
    ] = Explain.argmax,
    skip_first: Annotated[bool, typer.Option(help="Never remove the first token.")] = False,
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
    folders = _folders(data, out)
    with ending(out) as is_main:
        from tl_jacobian.studies.corpus import read_corpus
        from tl_jacobian.studies.evaluation import Settings, Trial
        from tl_jacobian.studies.evaluation import evaluate as evaluated

        trial = Trial(
            methods=_methods(methods),
            k=_percentages(k),
            perturbation=perturbation.value,
            skip_first=skip_first,
            sufficiency=sufficiency,
            agreement=agreement,
            settings=Settings(seed, integration_steps),
        )
        corpora = [read_corpus(source, column=column, split=split, limit=limit) for source in data]
        loaded = load(model, host, device, dtype, device_map)
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
            _report(found, out)


def _folders(data: Sequence[str], out: Path) -> list[Path]:
    """One a corpus, named after it."""
    names = [Path(source).stem.replace(":", "_") for source in data]
    if len(set(names)) < len(names):
        raise typer.BadParameter(f"--data {' and '.join(data)} have the same name; rename a file")
    return [out / name for name in names]


def _methods(text: str) -> tuple[str, ...]:
    from tl_jacobian.studies.evaluation import PAPER

    return PAPER if text == "all" else tuple(name.strip() for name in text.split(","))


def _percentages(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ArgumentError(f"--k {text!r}, expected percentages with commas, such as 5,10,20") from None


def _report(found: Sequence[Evaluation], out: Path) -> None:
    """Shown before anything is written: hours of work must not be lost to a full disk."""
    for e in found:
        e.show()
    try:
        with atomic(out / "table.md") as file:
            file.write("\n".join(e.to_markdown() for e in found))
        with atomic(out / "table.json") as file:
            json.dump([e.to_json() for e in found], file, indent=1)
        _draw(found, out / "table.png")
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
