"""The command line, on a small model in place of the demo model."""

from __future__ import annotations

import copy
import json
import re

import pytest
import torch
from cases import HAS_HOOKED, make
from typer.testing import CliRunner

import tl_jacobian as tj
from tl_jacobian.cli.app import app
from tl_jacobian.core import prompts
from tl_jacobian.core.host import load
from tl_jacobian.results.arguments import warn
from tl_jacobian.results.comparison import Comparison

runner = CliRunner()


@pytest.fixture(autouse=True)
def small_demo(monkeypatch):
    """``--model demo`` is a random three-layer model here."""
    kind_of = {"hooked": "hooked", "bridge": "bridge", None: "bridge"}
    monkeypatch.setattr(load, "load_demo_model", lambda kind, **options: make("gpt2", kind_of[kind]))


def run(*args: str, stdin: str | bytes | None = None):
    return runner.invoke(app, ["attribute", *args], input=stdin, env={"COLUMNS": "100", "NO_COLOR": "1"})


@pytest.mark.parametrize("scope", ["semantic", "temperature", "fisher"])
@pytest.mark.parametrize("host", ["hooked", "bridge"] if HAS_HOOKED else ["bridge"])
def test_every_scope_prints_tokens_and_predictions(scope, host):
    result = run("Paris is", "--scope", scope, "--host", host)
    assert result.exit_code == 0, result.output
    for text in (scope.capitalize(), "Paris is", "predicted next token", "%"):
        assert text in result.output


def test_a_backward_rule(tmp_path):
    saved = tmp_path / "a.json"
    result = run("Paris is", "--rule", "frozen_attention", "--rule", "frozen_norms", "--json", str(saved))
    assert result.exit_code == 0, result.output
    assert "Semantic Scope (rule frozen_norms+frozen_attention)" in result.output
    assert tj.Attribution.load(saved).metadata["rule"] == "frozen_norms+frozen_attention"
    result = run("Paris is", "--rule", "frozen_norms", "--rule", "gim")
    assert result.exit_code == 1
    assert "take it alone" in " ".join(result.output.split())


def test_files_are_written(tmp_path):
    html, saved = tmp_path / "a.html", tmp_path / "a.json"
    result = run("Paris", "--target", "s", "--html", str(html), "--json", str(saved))
    assert result.exit_code == 0, result.output
    assert "CircuitsVis" in html.read_text()
    assert tj.Attribution.load(saved).target.startswith("logit of 's'")


def test_several_scopes_stand_side_by_side(tmp_path):
    """With the numbers that each has alone; an option goes to the scopes that take it."""
    out, alone = tmp_path / "three.json", tmp_path / "one.json"
    scopes = ("--scope", "semantic", "--scope", "temperature", "--scope", "fisher", "--rank", "2", "--target", "a")
    result = run("Paris is", *scopes, "--json", str(out), "--html", str(tmp_path / "page.html"))
    assert result.exit_code == 0, result.output
    found = Comparison.load(out).attributions
    assert [a.scope for a in found] == ["semantic", "temperature", "fisher"]
    for a, own in zip(found, (["--target", "a"], [], ["--rank", "2"]), strict=True):
        assert run("Paris is", "--scope", a.scope, *own, "--json", str(alone)).exit_code == 0
        one = tj.Attribution.load(alone)
        assert a.target == one.target
        torch.testing.assert_close(a.scores, one.scores)
    twice = run("Paris is", "--scope", "semantic", "--scope", "semantic")
    assert twice.exit_code == 2
    assert "each once" in twice.output


def test_prompt_from_standard_input_without_its_last_newline():
    piped, given = run(stdin="Rome\n"), run("Rome")
    assert piped.exit_code == 0, piped.output
    assert piped.output == given.output


@pytest.mark.parametrize(
    "data",
    [
        b"Rome\r\n",
        pytest.param(b"Rome\r", marks=pytest.mark.slow),
        pytest.param(b"\xef\xbb\xbfRome\n", marks=pytest.mark.slow),
        "Rome\r\n".encode("utf-16"),
        b"\xfe\xff" + "Rome".encode("utf-16-be"),
    ],
)
def test_standard_input_of_other_systems_is_the_same_prompt(data):
    assert run(stdin=data).output == run("Rome").output


def test_standard_input_in_two_bytes_a_character_is_refused():
    result = run(stdin="Rome".encode("utf-16-le"))
    assert result.exit_code == 1
    assert "standard input holds a NUL character: if it is UTF-16" in " ".join(result.output.split())


def test_a_missing_space_is_pointed_out_in_a_line(monkeypatch):
    def warning(*_):
        warn("target 'Rome' is predicted with 1e-05: did you mean ' Rome' (77%)?")

    monkeypatch.setattr(prompts, "_compare_spaced", warning)
    result = run("Rome", "--target", "a")
    assert result.exit_code == 0
    assert "warning: target 'Rome' is predicted with 1e-05: did you mean ' Rome' (77%)?" in result.output
    assert "UserWarning" not in result.output


def test_words_and_contrast_and_rank():
    output = run("one two now", "--words", "--no-bos").output
    assert run("one two now", "--by", "words", "--no-bos").output == output
    assert "3 highest scores of 4" in output, "token 0 is a unit of its own, and left out"
    assert "minus logit of" in run("one", "--target", "a", "--minus", "b").output
    assert "rank 3" in run("one", "--scope", "fisher", "--rank", "3").output


def test_a_whole_answer_or_a_piece_of_it(tmp_path):
    saved = tmp_path / "a.json"
    result = run("Paris is", "--answer", " in Fr", "--span", "Fr", "--no-bos", "--json", str(saved))
    assert result.exit_code == 0, result.output
    a = tj.Attribution.load(saved)
    assert a.target == "log-probability of the answer 'Fr'"
    assert a.answer_start == len("Paris is")
    written = run("Paris is", "--generate", "3", "--scope", "temperature", "--json", str(saved))
    assert written.exit_code == 0, written.output
    assert "summed over the answer" in tj.Attribution.load(saved).target
    for wrong in (["--answer", "a", "--generate", "2"], ["--span", "a"]):
        assert run("Paris is", *wrong).exit_code == 2


TURNS = [{"role": "system", "content": "Be."}, {"role": "user", "content": "Hi"}]


@pytest.fixture
def chat_model(monkeypatch):
    """``--model demo`` has a chat template."""

    def load_demo_model(kind, **options):
        model = make("gpt2", "bridge")
        model.tokenizer = copy.copy(model.tokenizer)
        model.tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<>"
        return model

    monkeypatch.setattr(load, "load_demo_model", load_demo_model)


@pytest.mark.parametrize("wrapped", [False, True])
def test_messages_from_a_file_or_standard_input(chat_model, tmp_path, wrapped):
    path, saved = tmp_path / "chat.json", tmp_path / "a.json"
    path.write_text(json.dumps({"messages": TURNS} if wrapped else TURNS), encoding="utf-8-sig")
    shown = run("--messages", str(path), "--by", "roles", "--json", str(saved))
    assert shown.exit_code == 0, shown.output
    assert tj.Attribution.load(saved).str_tokens == ("system", "user", "template")
    assert run("--messages", "-", "--by", "roles", stdin=path.read_text(encoding="utf-8-sig")).output == shown.output
    assert re.search(r" user 1 +\d+ tokens?\n", run("--messages", str(path), "--by", "messages").output)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "can't read messages"),
        ("3", "holds no messages, expected"),
        ('{"a": []}', "holds no messages"),
        ("[]", "no messages"),
    ],
)
def test_messages_that_can_not_be_read(chat_model, tmp_path, text, message):
    path = tmp_path / "chat.json"
    path.write_text(text)
    result = run("--messages", str(path))
    assert (result.exit_code, message in " ".join(result.output.split())) == (1, True), result.output


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["Paris", "--messages", "chat.json"], 2, "a prompt and --messages; give one of them"),
        (["Paris", "--by", "roles"], 2, "--by roles is for --messages"),
        (["--messages", "/no/such/chat.json"], 1, "can't read messages from '/no/such/chat.json'"),
        (["Paris", "--target", "abc"], 1, "target 'abc' is 3 tokens"),
        (["Paris", "--position", "99"], 1, "position=99 is outside"),
        (["", "--no-bos"], 1, "the prompt '' is empty"),
        (["Caf\udce9"], 1, r"the prompt 'Caf\udce9' isn't Unicode text: character 3 is the byte 0xE9"),
        (["Paris", "--target", "\udce9"], 1, r"target '\udce9' isn't Unicode text: character 0 is the byte 0xE9"),
        (["Paris", "--device", "nowhere"], 1, "device 'nowhere' isn't available"),
        (["Paris", "--model", "no/such-model", "--host", "bridge"], 1, "can't load model 'no/such-model'"),
        (["Paris", "--html", "/no/such/folder/x.html"], 1, "expected a file in a folder that exists"),
        (["Paris", "--scope", "temperature", "--target", "a"], 2, "--target is for --scope semantic, not temperature"),
        (["Paris", "--rank", "3"], 2, "--rank is for --scope fisher"),
        (["Paris", "--scope", "magic"], 2, "magic"),
        (["Paris", "--method", "exact"], 2, "--method is for --scope fisher, not semantic"),
        (["Paris", "--confidence", "logit_norm"], 2, "--confidence is for --scope temperature, not semantic"),
        (
            ["Paris", "--scope", "fisher", "--rank", "2", "--method", "exact"],
            2,
            "--method is for --scope fisher, without --rank",
        ),
    ],
)
def test_exit_codes_and_messages(args, code, message):
    result = run(*args)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.output.split())


def test_fisher_methods(tmp_path):
    for method, stderr in (("estimate", True), ("exact", False), ("auto", False)):
        result = run("Paris is", "--scope", "fisher", "--method", method, "--json", str(tmp_path / "a.json"))
        assert result.exit_code == 0, result.output
        assert (tj.Attribution.load(tmp_path / "a.json").stderr is not None) == stderr


def test_a_rank_out_of_range_is_a_usage_error():
    result = run("Paris", "--scope", "fisher", "--rank", "0")
    assert result.exit_code == 2
    result = run("Paris", "--scope", "fisher", "--rank", "33")
    assert result.exit_code == 1
    assert "rank=33, expected 1 to d_model=32" in result.output


def test_a_target_by_id_is_the_target():
    assert (
        run("Paris", "--target-id", "7").output
        == run("Paris", "--target", make("gpt2", "bridge").tokenizer.decode([7])).output
    )


def test_version_names_what_numbers_depend_on():
    result = runner.invoke(app, ["--version"])
    assert result.exit_code == 0
    for name in ("tl_jacobian", "transformer-lens", "torch"):
        assert name in result.output


def test_input_that_is_not_utf8_is_an_error():
    result = runner.invoke(app, ["attribute"], input=b"ok \xff", env={"COLUMNS": "100"})
    assert result.exit_code == 1
    assert "isn't UTF-8" in result.output


def test_a_full_disk_loses_no_result(tmp_path):
    """Shown first, written after."""
    (tmp_path / "a.json").mkdir()
    result = run("Paris", "--json", str(tmp_path / "a.json"))
    assert result.exit_code == 1
    assert "can't write" in result.output
