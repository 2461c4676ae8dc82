"""``tl-jacobian completion SHELL``: the script with which a shell completes commands, options and their choices."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

import typer


class Shell(StrEnum):
    bash = "bash"
    zsh = "zsh"
    fish = "fish"


class _Option(NamedTuple):
    names: tuple[str, ...]
    choices: tuple[str, ...]
    takes_value: bool
    help: str


def completion_of(app: typer.Typer) -> Callable[[Shell], None]:
    """The command ``completion`` of an application."""

    def completion(shell: Annotated[Shell, typer.Argument(help="Which shell's script.", show_default=False)]) -> None:
        """Print a script that completes commands, options, their choices and file names in a shell.

        It only prints: nothing is installed, and no file of yours is written. Its output is for one line of your own:

        ~/.bashrc: source <(tl-jacobian completion bash)

        ~/.zshrc: source <(tl-jacobian completion zsh)

        ~/.config/fish/config.fish: tl-jacobian completion fish | source
        """
        root: Any = typer.main.get_command(app)
        commands = {name: list(_options(one)) for name, one in root.commands.items()}
        texts = {name: one.get_short_help_str(80) for name, one in root.commands.items()}
        typer.echo(_fish(commands, texts) if shell is Shell.fish else _bash(commands, shell), nl=False)

    return completion


def _options(command: Any) -> Iterator[_Option]:
    hints = get_type_hints(command.callback)
    for one in command.params:
        if one.param_type_name == "option":
            text = (one.help or "").partition(". ")[0].removesuffix(".")
            yield _Option((*one.opts, *one.secondary_opts), _choices(hints[one.name]), not one.is_flag, text)
    yield _Option(("--help", "-h"), (), False, "Show the help")


def _choices(hint: Any) -> tuple[str, ...]:
    """Of an option, which may be left out or repeated."""
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return tuple(hint)
    return tuple(choice for inner in get_args(hint) for choice in _choices(inner))


def _bash(commands: dict[str, list[_Option]], shell: Shell) -> str:
    """Also zsh's, by its bashcompinit. Where nothing fits, the shell completes file names."""
    words, values = [], []
    for command, options in commands.items():
        names = [*(Shell if command == "completion" else ()), *(name for one in options for name in one.names)]
        words.append(f"    *:{command}) words={shlex.quote(' '.join(names))} ;;")
        for one in options:
            if one.takes_value:
                cases = "|".join(f'"{command} {name}"' for name in one.names)
                values.append(f"    {cases}) words={shlex.quote(' '.join(one.choices))} ;;")
    lines = [
        *(["autoload -U +X compinit bashcompinit && compinit && bashcompinit"] if shell is Shell.zsh else []),
        "_tl_jacobian() {",
        '  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" words=""',
        "  COMPREPLY=()",
        '  case "$COMP_CWORD:${COMP_WORDS[1]}" in',
        f"    1:*) words={shlex.quote(' '.join([*commands, '--version', '--help']))} ;;",
        *words,
        "  esac",
        '  case "${COMP_WORDS[1]} $before" in',
        *values,
        "  esac",
        '  COMPREPLY=($(compgen -W "$words" -- "$word"))',
        "}",
        "complete -o default -F _tl_jacobian tl-jacobian",
    ]
    return "\n".join(lines) + "\n"


def _fish(commands: dict[str, list[_Option]], texts: dict[str, str]) -> str:
    none = f"not __fish_seen_subcommand_from {' '.join(commands)}"
    lines = []
    for command, text in texts.items():
        lines.append(f"complete -c tl-jacobian -f -n {shlex.quote(none)} -a {command} -d {_quoted(text)}")
        if command == "completion":
            lines.append(
                f"complete -c tl-jacobian -f -n '__fish_seen_subcommand_from completion' -a '{' '.join(Shell)}'"
            )
        for one in commands[command]:
            flags = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in one.names)
            value = f" -xa {_quoted(' '.join(one.choices))}" if one.choices else " -r" if one.takes_value else ""
            where = shlex.quote(f"__fish_seen_subcommand_from {command}")
            lines.append(f"complete -c tl-jacobian -n {where} {flags}{value} -d {_quoted(one.help)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """For fish, in whose single quotes a backslash and a quote alone are special."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", " ") + "'"
