"""``tl-jacobian run``: a scope over a corpus."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tl_jacobian.cli.options import (
    DEFAULT_SCOPE,
    BosOption,
    ConfidenceOption,
    DeviceOption,
    Dtype,
    DtypeOption,
    Host,
    HostOption,
    MethodOption,
    MinusOption,
    ModelOption,
    PrecisionOption,
    RankOption,
    RuleOption,
    ScopeOption,
    TargetIdOption,
    TargetOption,
    fail,
    load_libraries,
    printable,
    rule_option,
    scope_options,
    told,
)
from tl_jacobian.errors import JacobianScopeError

if TYPE_CHECKING:
    from tl_jacobian.studies.corpus import RunReport


class Format(StrEnum):
    jsonl = "jsonl"
    parquet = "parquet"


DataOption = Annotated[
    str, typer.Option(help=".json, .jsonl, .txt or .parquet file, or a Hugging Face data set (name or name:config).")
]
OutOption = Annotated[Path, typer.Option(help="Folder for the records; the same command goes on with what is there.")]
ColumnOption = Annotated[str, typer.Option(help="Column that holds the prompts.")]
SplitOption = Annotated[str, typer.Option(help="Split of a data set.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Only so many prompts, from the start.")]
FormatOption = Annotated[Format, typer.Option(help="Of the records.")]
BatchSizeOption = Annotated[int, typer.Option(min=1, help="Prompts in one forward pass.")]
ShardSizeOption = Annotated[
    int,
    typer.Option(
        min=1,
        help="Prompts whose records are written together: when a run is killed, at most one shard's prompts are lost "
        "(of each process).",
    ),
]
DeviceMapOption = Annotated[
    str | None, typer.Option(help='For a model larger than one device (bridge): "auto", "balanced", JSON, ...')
]
MaxMemoryOption = Annotated[
    str | None,
    typer.Option(help='The most that a batch may take beyond the model, e.g. "8GiB" (default: what is free).'),
]


def run(
    data: DataOption,
    out: OutOption,
    scope: ScopeOption = DEFAULT_SCOPE,
    target: TargetOption = None,
    target_id: TargetIdOption = None,
    minus: MinusOption = None,
    confidence: ConfidenceOption = None,
    rank: RankOption = None,
    method: MethodOption = None,
    seed: Annotated[int, typer.Option(help="Of Fisher's random signs.")] = 0,
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
    """Show which tokens drove the prediction after each prompt of a corpus; writes records to a folder.

    Killed at any moment, the same command goes on where it was. Prompts that can't be explained get a record that says
    why. A prompt's own "target" (a column, a JSON key) comes before --target; its "answer" is explained as a
    whole. Under accelerate launch or torchrun the processes share the work.

    Exit codes: 0 done; 1 it can't be done (the message says why); 2 wrong usage; 130 interrupted.
    """
    named: Any = str(scope)
    options: dict[str, Any] = {
        **scope_options(scope, target if target_id is None else target_id, minus, confidence, rank, method),
        "seed": seed,
        "prepend_bos": bos,
        "max_memory": max_memory,
        "precision": precision and precision.value,
        "rule": rule_option(rule),
    }
    with ending(out) as is_main:
        from tl_jacobian.studies.corpus import attribute_corpus, read_corpus

        prompts = read_corpus(data, column=column, split=split, limit=limit)
        loaded = load(model, host, device, dtype, device_map)
        sizes: dict[str, Any] = {"batch_size": batch_size, "shard_size": shard_size, "format": format.value}
        report = attribute_corpus(loaded, prompts, named, out, **options, **sizes)
        if is_main:
            show_report(report)


def load(model: str, host: Host | None, device: str, dtype: Dtype, device_map: str | None) -> Any:
    """The model; under a launch on the process' own device."""
    from tl_jacobian.core.host.load import load_model
    from tl_jacobian.studies.corpus.processes import is_launched, state_of_launch

    if is_launched():
        if device_map is not None:
            raise typer.BadParameter("--device-map spreads one model over all devices, so run it as a single process")
        device = str(state_of_launch().device) if device == "cuda" else device
    return load_model(model, host and host.value, device=device, dtype=dtype.value, device_map=device_map)


@contextmanager
def ending(out: Path) -> Iterator[bool]:
    """How a command over a corpus ends; gives whether this is the process that speaks for all."""
    load_libraries()
    from tl_jacobian.studies.corpus.processes import is_launched

    is_main = int(os.environ.get("RANK", "0")) == 0
    try:
        with told():
            yield is_main
    except JacobianScopeError as error:
        fail(str(error))
    except KeyboardInterrupt:
        kept = any(out.glob("**/shards/[!.]*"))
        said = f"what is done is kept in {str(out)!r}, and the same command goes on" if kept else "nothing was done yet"
        fail(f"interrupted; {said}", 130)
    finally:
        if is_launched():
            _part()


def _part() -> None:
    """Close the connections between the processes of a launch, which PyTorch wants done."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def show_report(report: RunReport) -> None:
    """One line on what came of a run."""
    before = f", {report.n_resumed:,} of them before" if report.n_resumed else ""
    errors = f"; {report.n_errors:,} have an error in place of a result" if report.n_errors else ""
    Console().print(
        printable(f"{report.n_prompts:,} prompts done{before}, in {report.seconds:.1f} s{errors}: {report.out}"),
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
