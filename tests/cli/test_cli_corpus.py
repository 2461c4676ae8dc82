"""``tl-jacobian run``, on a small model in place of the demo model."""

from __future__ import annotations

import json

import pytest
from cases import make
from typer.testing import CliRunner

from tl_jacobian.cli.app import app
from tl_jacobian.core.host import load
from tl_jacobian.studies.corpus import ScopeJob, read_attributions, read_records

runner = CliRunner()


@pytest.fixture(autouse=True)
def small_demo(monkeypatch):
    """``--model demo`` is a random three-layer model here."""
    monkeypatch.setattr(load, "load_demo_model", lambda kind, **options: make("gpt2", "bridge"))


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('"Paris is"\n{"text": "Rome", "id": "r", "target": "a"}\nnot JSON\n"One two three"\n')
    return path


def run(data, out, *args):
    found = runner.invoke(app, ["run", "--data", str(data), "--out", str(out), *args], env={"COLUMNS": "200"})
    return found.exit_code, " ".join(found.output.split())


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--target", "x", "--minus", "y"),
        ("--target-id", "7"),
        ("--scope", "temperature", "--format", "parquet"),
        ("--scope", "fisher", "--rank", "2"),
        ("--scope", "fisher", "--method", "estimate", "--seed", "4"),
        ("--max-memory", "1GiB", "--batch-size", "2", "--shard-size", "2", "--no-bos"),
    ],
    ids=" ".join,
)
def test_a_run_and_again(tmp_path, data, options):
    out = tmp_path / "out"
    code, told = run(data, out, *options)
    assert code == 0, told
    assert "4 prompts done, in" in told
    assert "1 have an error in place of a result" in told
    records = read_records(out)
    assert [record["id"] for record in records] == ["0", "r", "2", "3"]
    assert "line 3 isn't JSON" in records[2]["error"]
    code, told = run(data, out, *options)
    assert code == 0
    assert "4 prompts done, 4 of them before, in" in told
    assert read_records(out) == records
    first = next(iter(read_attributions(out)))
    assert len(first.tokens) == len("Paris is") + ("--no-bos" not in options)


def test_options_of_the_corpus(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([{"q": "one"}, {"q": "two"}]))
    assert run(tmp_path / "a.json", tmp_path / "out", "--column", "q", "--limit", "1")[0] == 0
    assert len(read_records(tmp_path / "out")) == 1


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--scope", "temperature", "--target", "a"], 2, "--target is for --scope semantic, not temperature"),
        (["--scope", "temperature", "--target-id", "3"], 2, "--target is for --scope semantic, not temperature"),
        (["--rank", "3"], 2, "--rank is for --scope fisher"),
        (["--batch-size", "0"], 2, "--batch-size"),
        (["--limit", "0"], 2, "--limit"),
        (["--format", "csv"], 2, "csv"),
        (["--data", "no.jsonl"], 1, "there is no file 'no.jsonl'"),
        (["--max-memory", "much"], 1, "much"),
        (["--device", "nowhere"], 1, "device 'nowhere' isn't available"),
        (["--device-map", "auto", "--host", "hooked"], 1, "host 'hooked'"),
        (["--target", "abc", "--limit", "1", "--data", "{many}"], 0, "1 have an error"),
        (["--target", "abc", "--data", "{many}"], 1, "fail for the same reason: target 'abc' is 3 tokens"),
    ],
)
def test_exit_codes_and_messages(tmp_path, data, args, code, message):
    (tmp_path / "many.txt").write_text("one\ntwo\nthree\n")
    args = [arg.format(many=tmp_path / "many.txt") for arg in args]
    found, told = run(data, tmp_path / "out", *args)
    assert found == code, told
    assert message in told


def test_another_run_is_refused(tmp_path, data):
    run(data, tmp_path / "out")
    code, told = run(data, tmp_path / "out", "--scope", "temperature")
    assert code == 1
    assert "job.scope was 'semantic' and is now 'temperature'" in told


def test_a_corrected_target_may_use_the_folder_of_the_wrong_one(tmp_path, data):
    (tmp_path / "many.txt").write_text("one\ntwo\nthree\n")
    code, told = run(tmp_path / "many.txt", tmp_path / "out", "--target", "abc")
    assert (code, "target 'abc' is 3 tokens" in told) == (1, True)
    code, told = run(tmp_path / "many.txt", tmp_path / "out", "--target", "a")
    assert code == 0, told


def test_help_says_what_a_kill_may_cost():
    told = " ".join(runner.invoke(app, ["run", "--help"], env={"COLUMNS": "200"}).output.replace("│", " ").split())
    assert "at most one shard's prompts are lost" in told


def test_a_file_without_the_column_says_so(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    code, told = run(tmp_path / "a.jsonl", tmp_path / "out", "--column", "prompt")
    assert code == 1
    assert "there is no column 'prompt', expected one with text (it has ['text'])" in told


def test_an_interrupt_says_how_to_go_on(tmp_path, data, monkeypatch):
    def interrupt(self, prompts):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ScopeJob, "__call__", interrupt)
        code, told = run(data, tmp_path / "out")
    assert code == 130
    assert "interrupted; nothing was done yet" in told
    assert run(data, tmp_path / "out")[0] == 0


def test_an_interrupt_says_that_something_is_kept_only_where_it_is(tmp_path, capsys):
    import typer

    from tl_jacobian.cli.run import ending

    out = tmp_path / "out"
    for said in ("nothing was done yet", f"what is done is kept in {str(out)!r}"):
        with pytest.raises(typer.Exit), ending(out):
            raise KeyboardInterrupt
        assert said in capsys.readouterr().err
        (out / "shards").mkdir(parents=True, exist_ok=True)
        (out / "shards" / "00000.jsonl").touch()
