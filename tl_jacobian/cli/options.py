"""What the commands share: choices, options, how they end."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, get_args

import typer
from rich.console import Console

from tl_jacobian.cli.interrupts import at_once
from tl_jacobian.results.scopes import ON_COMMAND_LINE, SCOPES, BackwardRule, Confidence, FisherMethod, takers_of

if TYPE_CHECKING:
    Scope = Method = ConfidenceChoice = RuleChoice = str
else:
    Scope = StrEnum("Scope", ON_COMMAND_LINE)
    # A rank says that it is to be of low rank.
    Method = StrEnum("Method", [name for name in get_args(FisherMethod) if name != "low_rank"])
    ConfidenceChoice = StrEnum("ConfidenceChoice", get_args(Confidence))
    RuleChoice = StrEnum("RuleChoice", get_args(BackwardRule))


class Host(StrEnum):
    hooked = "hooked"
    bridge = "bridge"


class PrecisionChoice(StrEnum):
    model = "model"


class Dtype(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class By(StrEnum):
    tokens = "tokens"
    words = "words"
    roles = "roles"
    messages = "messages"


def _help(option: str) -> str:
    """An option of scopes in one line, and whose it is."""
    takers = takers_of(option)
    (text,) = {one.explains for spec in takers for one in spec.options if one.name == option}
    return f"{text[:1].upper()}{text[1:]} ({', '.join(spec.name for spec in takers)})."


_EXPLAINED = "; ".join(f"{name}: {SCOPES[name].explains}" for name in ON_COMMAND_LINE)
DEFAULT_SCOPE = ON_COMMAND_LINE[0]
ScopeOption = Annotated[Scope, typer.Option(help=f"What to explain. {_EXPLAINED}.")]
ScopesOption = Annotated[
    list[Scope],
    typer.Option(
        help=f"What to explain; given several times, all from shared backward passes, side by side. {_EXPLAINED}."
    ),
]
TargetOption = Annotated[str | None, typer.Option(help=_help("target"))]
TargetIdOption = Annotated[int | None, typer.Option(help="The same as a token id.")]
MinusOption = Annotated[str | None, typer.Option(help=_help("minus"))]
ConfidenceOption = Annotated[ConfidenceChoice | None, typer.Option(help=_help("confidence"))]
RankOption = Annotated[int | None, typer.Option(min=1, help=_help("rank"))]
MethodOption = Annotated[Method | None, typer.Option(help=_help("method"))]
BosOption = Annotated[bool | None, typer.Option(help="Prepend the BOS token (default: the model's own setting).")]
ModelOption = Annotated[str, typer.Option(help='"demo", a TransformerLens model name, or a local folder.')]
HostOption = Annotated[Host | None, typer.Option(help="TransformerLens host (default: hooked where there is one).")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
PrecisionOption = Annotated[
    PrecisionChoice | None,
    typer.Option(help="model: compute as the model would, rounding included (default: true to the weights)."),
]
RuleOption = Annotated[
    list[RuleChoice] | None,
    typer.Option(
        help="Backward rule in the place of the exact Jacobian; the two that freeze can be given together.",
        show_default=False,
    ),
]
DtypeOption = Annotated[Dtype, typer.Option(help="Precision of the model.")]


def scope_options(
    scope: Scope,
    target: str | int | None,
    minus: str | None,
    confidence: ConfidenceChoice | None,
    rank: int | None,
    method: Method | None,
) -> dict[str, str | int | None]:
    """The options of a scope, plain; a usage error for those that it doesn't take."""
    return options_of_each([scope], target, minus, confidence, rank, method)[0]


def options_of_each(
    scopes: Sequence[Scope],
    target: str | int | None,
    minus: str | None,
    confidence: ConfidenceChoice | None,
    rank: int | None,
    method: Method | None,
) -> list[dict[str, str | int | None]]:
    """:func:`scope_options` for several scopes: each has those that it takes, and one of them must."""
    options = {"target": target, "minus": minus, "confidence": confidence, "rank": rank, "method": method}
    specs = [SCOPES[scope] for scope in scopes]
    for name, value in options.items():
        if value is not None and not any(spec.takes(name) for spec in specs):
            takers = " or ".join(taker.name for taker in takers_of(name))
            raise typer.BadParameter(f"--{name} is for --scope {takers}, not {', '.join(spec.name for spec in specs)}")
    if method is not None and rank is not None:
        raise typer.BadParameter("--method is for --scope fisher, without --rank")
    plain = {name: str(value) if isinstance(value, str) else value for name, value in options.items()}
    return [{name: value if spec.takes(name) else None for name, value in plain.items()} for spec in specs]


def rule_option(rule: list[RuleChoice] | None) -> Any:
    """Rules as one name."""
    return "+".join(map(str, rule)) if rule else None


def load_libraries() -> None:
    """What takes a second to import, before any work begins."""
    with at_once():
        from tl_jacobian.core.host.hosts import hosts

        hosts()


def fail(message: str, code: int = 1) -> NoReturn:
    """End with an error that says why."""
    _say("error:", "bold red", message)
    raise typer.Exit(code)


def _say(what: str, style: str, message: str) -> None:
    """On standard error: in a terminal broken between words, in a pipe or a file one whole line."""
    console = Console(stderr=True)
    console.print(what, style=style, end=" ")
    console.print(printable(message), markup=False, highlight=False, soft_wrap=not console.is_terminal)


@contextmanager
def told() -> Iterator[None]:
    """The library's warnings as lines, without the place in its code."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def tell(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if category is not UserWarning:
                return shown(message, category, *where, **more)
            _say("warning:", "bold yellow", str(message))

        warnings.showwarning = tell
        yield


def printable(text: str) -> str:
    """Text that a terminal can be sent: bytes of a file's name that are no text are written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
