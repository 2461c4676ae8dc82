"""The command line: ``tl-jacobian attribute "PROMPT"``, and the commands of other modules."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from tl_jacobian.cli.evaluate import evaluate
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
    PrecisionChoice,
    PrecisionOption,
    RankOption,
    ScopeOption,
    TargetIdOption,
    TargetOption,
    fail,
    scope_options,
)
from tl_jacobian.cli.run import run
from tl_jacobian.core.build import versions
from tl_jacobian.core.linearization import Linearization
from tl_jacobian.errors import JacobianScopeError
from tl_jacobian.results.attribution import Attribution

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Which input tokens drove this prediction?")


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
    scope: ScopeOption = DEFAULT_SCOPE,
    target: TargetOption = None,
    target_id: TargetIdOption = None,
    minus: MinusOption = None,
    confidence: ConfidenceOption = None,
    rank: RankOption = None,
    method: MethodOption = None,
    position: Annotated[int, typer.Option(help="Token whose next-token prediction is explained.")] = -1,
    bos: BosOption = None,
    words: Annotated[bool, typer.Option(help="Show words instead of tokens.")] = False,
    skip_first: Annotated[
        bool, typer.Option(help="Leave the first token, an attention sink, out of the colours (hatched).")
    ] = True,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained page.")] = None,
    json: Annotated[Path | None, typer.Option(help="Save the attribution.")] = None,
    model: ModelOption = "demo",
    host: HostOption = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = Dtype.float32,
    precision: PrecisionOption = None,
) -> None:
    """Show which tokens of PROMPT drove the model's next-token prediction.

    Exit codes: 0 done; 1 the request can't be answered (the message says why); 2 wrong usage.
    """
    options = scope_options(scope, target if target_id is None else target_id, minus, confidence, rank, method)
    for path in (html, json):
        _check_writable(path)
    text = _read(prompt)
    try:
        lin = _linearize(model, host, device, dtype, precision, text, position, bos)
        result = _attributed(lin, str(scope), options)
        result = result.words() if words else result
    except JacobianScopeError as error:
        fail(str(error))
    # Shown before anything is written: minutes of work must not be lost to a full disk.
    result.show(skip_first=skip_first)
    try:
        if json is not None:
            result.save(json)
        if html is not None:
            result.to_html(html, skip_first=skip_first)
    except OSError as error:
        fail(f"can't write: {error}")


def _check_writable(path: Path | None) -> None:
    """A file that can't be written is found out before the work, not after."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        fail(f"can't write {str(path)!r}: expected a file in a folder that exists")


def _read(prompt: str) -> str:
    if prompt != "-":
        return prompt
    if sys.stdin is None or sys.stdin.isatty():
        raise typer.BadParameter("no prompt: give it as an argument or on standard input")
    # A shell's echo ends the line; the newline isn't part of the prompt.
    try:
        return sys.stdin.buffer.read().decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        fail(f"standard input isn't UTF-8 text: {error}")


def _linearize(
    model: str,
    host: Host | None,
    device: str,
    dtype: Dtype,
    precision: PrecisionChoice | None,
    text: str,
    position: int,
    bos: bool | None,
) -> Linearization:
    import tl_jacobian as tj
    from tl_jacobian.core.host.load import load_model

    loaded = load_model(model, host.value if host else None, device=device, dtype=dtype.value)
    rounding: Literal["model"] | None = "model" if precision else None
    return tj.linearize(loaded, text, position=position, prepend_bos=bos, precision=rounding)


def _attributed(lin: Linearization, scope: Any, options: Mapping[str, Any]) -> Attribution:
    from tl_jacobian.analyses.scopes.choose import choose

    return choose(scope, **options).attribute(lin)


app.command()(run)
app.command()(evaluate)
