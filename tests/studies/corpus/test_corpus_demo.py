"""``tl-jacobian run`` and ``evaluate`` with the demo model, killed on the way."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import torch
from typer.testing import CliRunner

import tl_jacobian as tj
from tl_jacobian.cli.app import app
from tl_jacobian.studies.corpus import read_attributions, read_records

pytestmark = pytest.mark.slow
PLACES = ["France", "Italy", "Spain", "Japan", "Egypt", "Greece", "Norway", "Peru", "Cuba", "Iran"]
TEXTS = [f"{'Everybody knows that ' * (i % 3)}the capital of {place} is" for i, place in enumerate(PLACES)]


def kill_after(args: list[str], reached: Callable[[], bool]) -> None:
    """Start a command, and kill it as soon as it got so far."""
    child = subprocess.Popen([sys.executable, "-m", "tl_jacobian", *args], stderr=subprocess.DEVNULL)
    while child.poll() is None and not reached():
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


def test_a_killed_run_ends_with_the_scores_of_one_that_was_not(tmp_path):
    data = tmp_path / "prompts.txt"
    data.write_bytes("\n".join(TEXTS[:5]).encode() + b"\n\xff\n" + "\n".join(TEXTS[5:]).encode())
    args = ["run", "--data", str(data), "--host", "bridge", "--batch-size", "2", "--shard-size", "2", "--out"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    kill_after([*args, str(killed)], lambda: len(list(killed.glob("done/*.json"))) >= 2)
    assert 4 <= len(read_records(killed, partial=True)) < 11
    for out in (killed, whole):
        result = CliRunner().invoke(app, [*args, str(out)])
        assert result.exit_code == 0, result.output
        assert "1 have an error" in result.output
    assert read_records(killed) == read_records(whole)
    model = tj.load_demo_model("bridge")
    found = list(read_attributions(whole))
    assert [a.metadata["prompt"] for a in found] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
    for a, text in zip(found, TEXTS, strict=True):
        expected = tj.semantic_scope(tj.linearize(model, text))
        torch.testing.assert_close(a.scores, expected.scores, rtol=1e-4, atol=0)  # a batch of two, padded
        assert a.target == expected.target
    assert "line 6 isn't UTF-8" in read_records(whole)[5]["error"]


def test_a_killed_evaluation_gives_the_table_of_one_that_was_not(tmp_path):
    data = tmp_path / "prompts.txt"
    data.write_text("\n".join(TEXTS[:6]))
    args = ["evaluate", "--data", str(data), "--host", "bridge", "--methods", "random,semantic,fisher", "--k", "20"]
    args += ["--batch-size", "2", "--shard-size", "2", "--out"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    kill_after([*args, str(killed)], lambda: any(killed.glob("prompts/done/*.json")))
    for out in (killed, whole):
        result = CliRunner().invoke(app, [*args, str(out)])
        assert result.exit_code == 0, result.output
    assert (killed / "table.json").read_bytes() == (whole / "table.json").read_bytes()
    assert (killed / "table.md").read_bytes() == (whole / "table.md").read_bytes()
