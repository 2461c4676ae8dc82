"""The command line: ``tl-jacobian attribute "PROMPT"``, and the commands of other modules."""

from __future__ import annotations

import json as json_values
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tl_jacobian.cli.completion import completion_of
from tl_jacobian.cli.evaluate import evaluate
from tl_jacobian.cli.live import live
from tl_jacobian.cli.options import (
    DEFAULT_SCOPE,
    BosOption,
    By,
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
    ScopesOption,
    TargetIdOption,
    TargetOption,
    fail,
    load_libraries,
    options_of_each,
    rule_option,
    told,
)
from tl_jacobian.cli.run import run
from tl_jacobian.errors import JacobianScopeError, PromptError

if TYPE_CHECKING:
    from tl_jacobian.core.linearization import Linearized
    from tl_jacobian.results.attribution import Attribution
    from tl_jacobian.results.comparison import Comparison

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # whose columns cut names of options and break words in a narrow window
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Which input tokens drove this prediction?",
)


def _version(wanted: bool) -> bool:
    if wanted:
        from tl_jacobian.core.build import versions

        Console().print("\n".join(f"{name} {number}" for name, number in versions().items()), highlight=False)
        raise typer.Exit()
    return wanted


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Versions.")] = False,
) -> None:
    """Jacobian Scopes for TransformerLens: token-level causal attributions."""


@app.command(short_help="Which tokens drove one prediction.")
def attribute(
    prompt: Annotated[str, typer.Argument(help='The prompt; "-" or nothing reads standard input.')] = "-",
    scope: ScopesOption = [DEFAULT_SCOPE],  # noqa: B006  # typer's
    target: TargetOption = None,
    target_id: TargetIdOption = None,
    minus: MinusOption = None,
    confidence: ConfidenceOption = None,
    rank: RankOption = None,
    method: MethodOption = None,
    position: Annotated[int, typer.Option(help="Token whose next-token prediction is explained.")] = -1,
    bos: BosOption = None,
    messages: Annotated[
        Path | None,
        typer.Option(
            help='Explain the answer to a conversation: a JSON list of {"role", "content"}; "-" reads it from '
            "standard input.",
            show_default=False,
        ),
    ] = None,
    answer: Annotated[
        str | None, typer.Option(help="Explain this whole answer instead of one token.", show_default=False)
    ] = None,
    generate: Annotated[
        int | None,
        typer.Option(min=1, help="Explain the answer that the model writes itself, of so many tokens at most."),
    ] = None,
    span: Annotated[str | None, typer.Option(help="The piece of the answer to explain (default: all of it).")] = None,
    by: Annotated[
        By, typer.Option(help="What to show scores of; roles and messages are those of --messages.")
    ] = By.tokens,
    words: Annotated[bool, typer.Option(help="The same as --by words.")] = False,
    skip_first: Annotated[
        bool, typer.Option(help="Leave the first token, often an attention sink, out of the colours (hatched).")
    ] = True,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained page.")] = None,
    json: Annotated[Path | None, typer.Option(help="Save the attribution.")] = None,
    model: ModelOption = "demo",
    host: HostOption = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = Dtype.float32,
    precision: PrecisionOption = None,
    rule: RuleOption = None,
) -> None:
    """Show which tokens of PROMPT drove the model's next-token prediction, or a whole answer.

    Exit codes: 0 done; 1 the request can't be answered (the message says why); 2 wrong usage.
    """
    if len(set(scope)) < len(scope):
        raise typer.BadParameter(f"--scope {' --scope '.join(scope)}: each once")
    given = target if target_id is None else target_id
    options = options_of_each(scope, given, minus, confidence, rank, method)
    for path in (html, json):
        _check_writable(path)
    if messages is not None and prompt != "-":
        raise typer.BadParameter("a prompt and --messages; give one of them")
    if messages is None and by in (By.roles, By.messages):
        raise typer.BadParameter(f"--by {by.value} is for --messages")
    if answer is not None and generate is not None:
        raise typer.BadParameter("--answer and --generate; give one of them")
    if span is not None and answer is None and generate is None:
        raise typer.BadParameter("--span is a piece of the answer: give --answer or --generate")
    explained = {
        "answer": answer,
        "span": span,
        "max_new_tokens": generate,
        "position": position,
        "prepend_bos": bos,
        "precision": "model" if precision else None,
        "rule": rule_option(rule),
    }
    try:
        asked = _read(prompt) if messages is None else _read_messages(messages)
        with told():
            lin = _linearize(model, host, device, dtype, asked, explained)
            found = _attributed(lin, list(map(str, scope)), options)
        result = _together([_grouped(one, By.words if words else by) for one in found])
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


def _read_messages(path: Path) -> Any:
    """A conversation: a JSON list, or an object with one under "messages"."""
    from tl_jacobian.core.chat import is_conversation

    try:
        text = _read("-") if str(path) == "-" else path.read_text(encoding="utf-8-sig")
        found = json_values.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        fail(f"can't read messages from {str(path)!r}: {error}")
    found = found.get("messages") if isinstance(found, dict) else found
    if not is_conversation(found):
        fail(f'{str(path)!r} holds no messages, expected a JSON list of {{"role": "user", "content": "..."}}')
    return found


def _grouped(a: Attribution, by: By) -> Attribution:
    return a if by == By.tokens else getattr(a, by.value)()


def _read(prompt: str) -> str:
    if prompt != "-":
        return prompt
    if sys.stdin is None or sys.stdin.isatty():
        raise typer.BadParameter("no prompt: give it as an argument or on standard input")
    from tl_jacobian.studies.corpus.text import text_of

    # A shell's echo ends the line; the newline isn't part of the prompt.
    return text_of(sys.stdin.buffer.read(), "standard input", PromptError).removesuffix("\n")


def _linearize(
    model: str, host: Host | None, device: str, dtype: Dtype, prompt: Any, options: Mapping[str, Any]
) -> Linearized:
    import tl_jacobian as tj

    load_libraries()
    from tl_jacobian.core.host.load import load_model

    loaded = load_model(model, host.value if host else None, device=device, dtype=dtype.value)
    answer = tj.GENERATE if options["max_new_tokens"] is not None else options["answer"]
    return tj.linearize(loaded, prompt, **{**options, "answer": answer})


def _attributed(lin: Linearized, scopes: list[Any], options: Sequence[Mapping[str, Any]]) -> list[Attribution]:
    from tl_jacobian.analyses.scopes.choose import attributed, choose

    return attributed(lin, [choose(scope, **own) for scope, own in zip(scopes, options, strict=True)])


def _together(found: Sequence[Attribution]) -> Attribution | Comparison:
    """One alone, or several as one picture, one page and one file."""
    from tl_jacobian.results.comparison import compare

    return found[0] if len(found) == 1 else compare(found)


app.command(short_help="The same for each prompt of a corpus.")(run)
app.command(short_help="Compare attribution methods.")(evaluate)
app.command("app", short_help="Open the live view in a browser.")(live)
app.command(short_help="Print a script for your shell.")(completion_of(app))
