"""What the commands share: choices, options, how they end."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, NoReturn

import typer
from rich.console import Console


class Scope(StrEnum):
    semantic = "semantic"
    temperature = "temperature"
    fisher = "fisher"


class Method(StrEnum):
    auto = "auto"
    exact = "exact"
    estimate = "estimate"


class Host(StrEnum):
    hooked = "hooked"
    bridge = "bridge"


class Dtype(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


ScopeOption = Annotated[Scope, typer.Option(help="What to explain: a logit, the confidence, the whole distribution.")]
TargetOption = Annotated[
    str | None, typer.Option(help='Target token, e.g. " Paris" (semantic; default: the most probable token).')
]
TargetIdOption = Annotated[int | None, typer.Option(help="The same as a token id.")]
MinusOption = Annotated[str | None, typer.Option(help="Token to contrast the target with (semantic).")]
RankOption = Annotated[
    int | None, typer.Option(min=1, help="Fisher by its RANK leading directions alone, a lower bound.")
]
MethodOption = Annotated[Method | None, typer.Option(help="How to compute Fisher (default: auto).")]
BosOption = Annotated[bool | None, typer.Option(help="Prepend the BOS token (default: the model's own setting).")]
ModelOption = Annotated[str, typer.Option(help='"demo", a TransformerLens model name, or a local folder.')]
HostOption = Annotated[Host | None, typer.Option(help="TransformerLens host (default: hooked where there is one).")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
DtypeOption = Annotated[Dtype, typer.Option(help="Precision of the model.")]


def check_scope_options(
    scope: Scope, target: str | None, minus: str | None, rank: int | None, method: Method | None
) -> None:
    """Raise a usage error for options that the scope doesn't take."""
    if scope is not Scope.semantic and (target is not None or minus is not None):
        raise typer.BadParameter(f"--target and --minus are for --scope semantic, not {scope.value}")
    if scope is not Scope.fisher and rank is not None:
        raise typer.BadParameter(f"--rank is for --scope fisher, not {scope.value}")
    if method is not None and (scope is not Scope.fisher or rank is not None):
        raise typer.BadParameter("--method is for --scope fisher, without --rank")


def fail(message: str, code: int = 1) -> NoReturn:
    """End with an error that says why."""
    Console(stderr=True).print("error:", style="bold red", end=" ")
    Console(stderr=True).print(message, markup=False, highlight=False)
    raise typer.Exit(code)
