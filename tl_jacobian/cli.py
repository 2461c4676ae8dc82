"""The command line: ``tl-jacobian attribute "PROMPT"``."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from tl_jacobian.attribution import Attribution
from tl_jacobian.errors import JacobianScopeError
from tl_jacobian.linearization import Linearization
from tl_jacobian.render import render_terminal
from tl_jacobian.versions import versions

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Which input tokens drove this prediction?")


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


def _version(wanted: bool) -> bool:
    if wanted:
        Console().print("\n".join(f"{name} {number}" for name, number in versions().items()), highlight=False)
        raise typer.Exit()
    return wanted


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Versions.")] = False,
) -> None:
    """Jacobian Scopes for TransformerLens: token-level causal attributions."""


@app.command()
def attribute(
    prompt: Annotated[str, typer.Argument(help='The prompt; "-" or nothing reads standard input.')] = "-",
    scope: Annotated[
        Scope, typer.Option(help="What to explain: a logit, the confidence, the whole distribution.")
    ] = Scope.semantic,
    target: Annotated[str | None, typer.Option(help='Target token, e.g. " Paris" (semantic; default: argmax).')] = None,
    target_id: Annotated[int | None, typer.Option(help="The same as a token id.")] = None,
    minus: Annotated[str | None, typer.Option(help="Token to contrast the target with (semantic).")] = None,
    rank: Annotated[
        int | None, typer.Option(min=1, help="Fisher by its RANK leading directions alone, a lower bound.")
    ] = None,
    method: Annotated[Method | None, typer.Option(help="How to compute Fisher (default: auto).")] = None,
    position: Annotated[int, typer.Option(help="Token whose next-token prediction is explained.")] = -1,
    bos: Annotated[bool | None, typer.Option(help="Prepend the BOS token (default: the model's own setting).")] = None,
    words: Annotated[bool, typer.Option(help="Show words instead of tokens.")] = False,
    skip_first: Annotated[bool, typer.Option(help="Leave the first token out of the colour scale.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained page.")] = None,
    json: Annotated[Path | None, typer.Option(help="Save the attribution.")] = None,
    model: Annotated[str, typer.Option(help='"demo", a TransformerLens model name, or a local folder.')] = "demo",
    host: Annotated[
        Host | None, typer.Option(help="TransformerLens host (default: hooked where there is one).")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    dtype: Annotated[Dtype, typer.Option(help="Precision of the model.")] = Dtype.float32,
) -> None:
    """Show which tokens of PROMPT drove the model's next-token prediction.

    Exit codes: 0 done; 1 the request can't be answered (the message says why); 2 wrong usage.
    """
    _check_options(scope, target if target_id is None else str(target_id), minus, rank, method)
    for path in (html, json):
        _check_writable(path)
    text = _read(prompt)
    try:
        lin = _linearize(model, host, device, dtype, text, position, bos)
        result = _scope(lin, scope, target if target_id is None else target_id, minus, rank, method)
        result = result.words() if words else result
    except JacobianScopeError as error:
        _fail(str(error))
    # Shown before anything is written: minutes of work must not be lost to a full disk.
    render_terminal(result, skip_first=skip_first)
    try:
        if json is not None:
            result.save(json)
        if html is not None:
            result.to_html(html, skip_first=skip_first)
    except OSError as error:
        _fail(f"can't write: {error}")


def _check_writable(path: Path | None) -> None:
    """A file that can't be written is found out before the work, not after."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        _fail(f"can't write {str(path)!r}: expected a file in a folder that exists")


def _check_options(
    scope: Scope, target: str | None, minus: str | None, rank: int | None, method: Method | None
) -> None:
    if scope is not Scope.semantic and (target is not None or minus is not None):
        raise typer.BadParameter(f"--target and --minus are for --scope semantic, not {scope.value}")
    if scope is not Scope.fisher and rank is not None:
        raise typer.BadParameter(f"--rank is for --scope fisher, not {scope.value}")
    if method is not None and (scope is not Scope.fisher or rank is not None):
        raise typer.BadParameter("--method is for --scope fisher, without --rank")


def _read(prompt: str) -> str:
    if prompt != "-":
        return prompt
    if sys.stdin is None or sys.stdin.isatty():
        raise typer.BadParameter("no prompt: give it as an argument or on standard input")
    # A shell's echo ends the line; the newline isn't part of the prompt.
    try:
        return sys.stdin.buffer.read().decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        _fail(f"standard input isn't UTF-8 text: {error}")


def _linearize(
    model: str, host: Host | None, device: str, dtype: Dtype, text: str, position: int, bos: bool | None
) -> Linearization:
    import tl_jacobian as tj
    from tl_jacobian.host.load import load_model

    loaded = load_model(model, host.value if host else None, device=device, dtype=dtype.value)
    return tj.linearize(loaded, text, position=position, prepend_bos=bos)


def _scope(
    lin: Linearization,
    scope: Scope,
    target: str | int | None,
    minus: str | None,
    rank: int | None,
    method: Method | None,
) -> Attribution:
    import tl_jacobian as tj

    choices: dict[Scope, Any] = {
        Scope.semantic: lambda: tj.semantic_scope(lin, target, minus=minus),
        Scope.temperature: lambda: tj.temperature_scope(lin),
        Scope.fisher: lambda: tj.fisher_scope(
            lin, method="low_rank" if rank else method.value if method else "auto", rank=rank
        ),
    }
    return choices[scope]()


def _fail(message: str) -> NoReturn:
    Console(stderr=True).print("error:", style="bold red", end=" ")
    Console(stderr=True).print(message, markup=False, highlight=False)
    raise typer.Exit(1)
