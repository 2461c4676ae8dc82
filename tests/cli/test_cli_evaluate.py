"""The command that prints the paper's table, on a small model in place of the demo model."""

from __future__ import annotations

import json

import pytest
from cases import make
from typer.testing import CliRunner

from tl_jacobian.cli.app import app
from tl_jacobian.core.host import load
from tl_jacobian.studies import evaluation
from tl_jacobian.studies.evaluation import load_evaluation

TEXTS = ["Rome is it", "Paris was", "one two three", ""]


@pytest.fixture(autouse=True)
def small_demo(monkeypatch):
    """``--model demo`` is a random three-layer model here."""
    monkeypatch.setattr(load, "load_demo_model", lambda kind, **options: make("gpt2", "bridge"))


@pytest.fixture
def corpora(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.json").write_text(json.dumps(TEXTS))
    return [str(tmp_path / f"{name}.json") for name in ("one", "two")]


def run(*args: str):
    return CliRunner().invoke(app, ["evaluate", *args], env={"COLUMNS": "100", "NO_COLOR": "1"})


@pytest.mark.slow
def test_tables_of_two_corpora(corpora, tmp_path):
    out = tmp_path / "out"
    options = [
        "--methods",
        "random,semantic",
        "--k",
        "10,50",
        "--agreement",
        "--shard-size",
        "2",
        "--format",
        "parquet",
    ]
    result = run("--data", corpora[0], "--data", corpora[1], "--out", str(out), *options)
    assert result.exit_code == 0, result.output
    for word in ("one:", "two:", "random - semantic", "tau, KL", "Prompts left out for errors: 1"):
        assert word in result.output
    e = load_evaluation(out / "two")
    table = json.loads((out / "table.json").read_text())
    assert [t["corpus"] for t in table] == ["one", "two"]
    assert table[1]["table"]["semantic"]["drop at 50%"]["mean"] == e.interval("drop", "semantic", 50).mean
    assert e.to_markdown() in (out / "table.md").read_text()
    assert (out / "table.png").read_bytes().startswith(b"\x89PNG")
    again = run("--data", corpora[0], "--data", corpora[1], "--out", str(out), *options)
    assert again.stdout == result.stdout  # nothing is computed twice; the tables are the same


def test_all_are_the_papers_six(corpora, tmp_path):
    result = run("--data", corpora[0], "--out", str(tmp_path / "out"), "--integration-steps", "2", "--no-sufficiency")
    assert result.exit_code == 0, result.output
    e = load_evaluation(tmp_path / "out" / "one")
    assert e.methods == evaluation.PAPER
    assert e.k == (5, 10, 20)
    assert "sufficiency" not in e.metrics


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--methods", "magic"], 1, "method 'magic', expected some of"),
        (["--perturbation", "mask"], 2, "mask"),
        (["--k", "0.2,0.4"], 1, "k=(0.2, 0.4): percentages; did you mean 20, 40?"),
        (["--k", "5,x"], 1, "--k '5,x', expected percentages"),
        (["--k", "20,5"], 1, "expected rising percentages"),
        (["--limit", "1"], 1, "1 of 1 prompts could be used"),
    ],
)
def test_what_is_wrong_is_said(corpora, tmp_path, args, code, message, unchecked):
    result = run("--data", corpora[0], "--out", str(tmp_path / "out"), *args)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize("more", [(), ("--data", "no.json", "--out", "no")])
def test_methods_are_listed_without_any_work(more):
    result = run("--methods", "help", *more)
    assert result.exit_code == 0, result.output
    assert result.stdout.split()[: len(evaluation.METHODS)] == list(evaluation.METHODS)
    assert "beam_highest" in result.stdout
    assert f"all: {','.join(evaluation.PAPER)}" in " ".join(result.stdout.split())


def test_help_says_what_a_kill_may_cost():
    told = " ".join(run("--help").output.replace("│", " ").split())
    assert "at most one shard's prompts are lost" in told


def test_two_files_of_one_name(corpora, tmp_path):
    result = run("--data", corpora[0], "--data", corpora[0], "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "have the same name" in " ".join(result.output.replace("│", " ").split())


@pytest.mark.slow
def test_evaluations_of_several_models_in_one_table(corpora, tmp_path):
    """Folders are put side by side: another model's, or another way to remove tokens."""
    options = ["--data", corpora[0], "--methods", "random,recency,semantic", "--k", "50", "--no-sufficiency"]
    first = run(
        *options, "--out", str(tmp_path / "a"), "--also", "mean,zero:keep-first", "--matched", "1", "--blocks", "2"
    )
    assert first.exit_code == 0, first.output
    for word in ("last word, given", "beyond recency", "over 2 blocks", "are methods ranked alike?"):
        assert word in " ".join(first.output.split()), word
    more = [*options, "--perturbation", "resample", "--out", str(tmp_path / "b"), "--merge", str(tmp_path / "a")]
    second = run(*more)
    assert second.exit_code == 0, second.output
    table = (tmp_path / "b" / "table.md").read_text().replace("\\", "")
    for column in ("one, resample", "one, zero", "one, mean", "one, zero, first kept"):
        assert f"{column} |" in table
    assert len(json.loads((tmp_path / "b" / "table.json").read_text())) == 2
    only = run("--merge", str(tmp_path / "a"), "--merge", str(tmp_path / "b"), "--out", str(tmp_path / "c"))
    assert only.exit_code == 0, only.output
    assert "one, resample" in (tmp_path / "c" / "table.md").read_text()


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ([], 2, "neither --data nor --merge"),
        (["--merge", "nowhere"], 1, "--merge 'nowhere' holds no evaluation"),
        (["--also", "mean:first"], 1, "--also 'mean:first', expected some of zero, mean, delete, resample"),
    ],
)
def test_what_cant_be_put_together(corpora, tmp_path, args, code, message):
    data = ["--data", corpora[0]] if "--also" in args else []
    result = run(*data, "--out", str(tmp_path / "out"), *args)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.output.replace("│", " ").split())
