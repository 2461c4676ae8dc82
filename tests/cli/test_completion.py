"""What a shell completes, by real shells where they are installed; help in narrow windows."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from typer.testing import CliRunner

from tl_jacobian.cli.app import app

COMMANDS = ["attribute", "run", "evaluate", "app", "completion"]


def printed(*arguments: str, width: int = 80) -> str:
    done = CliRunner().invoke(app, list(arguments), terminal_width=width, prog_name="tl-jacobian")
    assert done.exit_code == 0, done.output
    return done.output


def completed(shell: str, *line: str) -> list[str]:
    script = printed("completion", shell)
    ask = {
        "bash": f"{script}\nCOMP_WORDS=({' '.join(map(repr, line))}); COMP_CWORD={len(line) - 1}; _tl_jacobian; "
        'printf "%s\\n" "${COMPREPLY[@]}"',
        "fish": f"{script}\ncomplete -C'{' '.join(line)}'",
    }[shell]
    flags = ["--norc", "--noprofile"] if shell == "bash" else ["--no-config"]
    done = subprocess.run([shell, *flags, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [one.partition("\t")[0] for one in done.stdout.split("\n") if one]


@pytest.mark.parametrize("shell", ["bash", "fish"])
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["tl-jacobian", "a"], {"attribute", "app"}),
        (["tl-jacobian", "attribute", "--sp"], {"--span"}),
        (["tl-jacobian", "attribute", "--scope", ""], {"semantic", "temperature", "fisher"}),
        (["tl-jacobian", "run", "--format", "p"], {"parquet"}),
        (["tl-jacobian", "app", "--no-o"], {"--no-open"}),
        (["tl-jacobian", "completion", "f"], {"fish"}),
    ],
)
def test_commands_options_and_choices_are_completed(shell, line, expected):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} isn't installed")
    assert set(completed(shell, *line)) == expected


def test_zsh_takes_the_script():
    if shutil.which("zsh") is None:
        pytest.skip("zsh isn't installed")
    script = printed("completion", "zsh") + "whence -w _tl_jacobian; print ${_comps[tl-jacobian]}"
    done = subprocess.run(["zsh", "-fc", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.startswith("_tl_jacobian: function\n_bash_complete")


@pytest.mark.parametrize("command", ["", *COMMANDS])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_in_a_narrow_window_breaks_no_word(command, flag):
    narrow, wide = (printed(*filter(None, [command]), flag, width=width) for width in (60, 110))
    assert max(map(len, narrow.splitlines())) <= 60
    assert "…" not in narrow
    # A hyphen may end a line; no other word may be torn.
    whole = [re.sub(r"-\n\s+", "-", text).split() for text in (narrow, wide)]
    assert whole[0] == whole[1]
    assert "-h, --help" in narrow
