"""Conversations in a corpus: read, rendered by the template, explained as one by one, and gone on with."""

from __future__ import annotations

import copy
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cases import make

import tl_jacobian as tj
from tl_jacobian.errors import ArgumentError, CorpusError
from tl_jacobian.studies.corpus import CorpusPrompt, attribute_corpus, read_attributions, read_corpus, read_records
from tl_jacobian.studies.corpus.read import as_prompts

SYSTEM, USER, ANSWER = (
    {"role": role, "content": text} for role, text in (("system", "Be."), ("user", "Hi you"), ("assistant", "Ho"))
)
TEMPLATE = "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}{% endfor %}<a>"


@pytest.fixture(scope="module")
def model():
    made = make("gpt2", "bridge")
    made.tokenizer = copy.copy(made.tokenizer)
    made.tokenizer.chat_template = TEMPLATE
    return made


def test_columns(tmp_path):
    """The column that is named, be it text or messages; else messages."""
    path = tmp_path / "rows.jsonl"
    rows = [
        {"messages": [USER], "id": "a"},
        {"text": "Rome is", "messages": [USER]},
        {"messages": [SYSTEM, USER], "target": "s"},
        {"messages": "Hi"},
        {"chat": [USER]},
        {"messages": [USER], "tokens": [1, 2]},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = read_corpus(path)
    assert [p.messages for p in found] == [(USER,), None, (SYSTEM, USER), None, None, None]
    assert [p.text for p in found] == [None, "Rome is", None, None, None, None]
    assert (found[0].id, found[2].target, found[5].tokens) == ("a", "s", (1, 2))
    assert found[3].error == "column 'messages' is 'Hi' (str), expected messages"
    assert "there is no column 'text'" in str(found[4].error)
    assert [p.messages for p in read_corpus(path, column="chat")][4] == (USER,)


def test_parquet(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"messages": [[SYSTEM, USER], [USER]], "other": [1, 2]}), path)
    assert [p.messages for p in read_corpus(path)] == [(SYSTEM, USER), (USER,)]


def test_as_a_caller_gives_them():
    found = as_prompts([[USER], {"messages": [SYSTEM, USER], "id": 7}, "Rome"])
    assert found == [
        CorpusPrompt(0, "0", messages=(USER,)),
        CorpusPrompt(1, "7", messages=(SYSTEM, USER)),
        CorpusPrompt(2, "2", "Rome"),
    ]
    with pytest.raises(ArgumentError, match="prompt 0: there is no column 'text'"):
        as_prompts([USER])  # one conversation, which isn't a list of them


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_scores_and_regions_are_those_of_each_alone(model, tmp_path, format):
    prompts = [[SYSTEM, USER], "Rome is", [USER], [USER, ANSWER], {"messages": [USER, "Hi"]}]
    report = attribute_corpus(model, prompts, "semantic", tmp_path, format=format, batch_size=2, progress=False)
    errors = [record.get("error", "") for record in read_records(tmp_path)]
    assert report.n_errors == 1
    assert "message 1 is 'Hi'" in errors[4]
    for prompt, a in zip(prompts, read_attributions(tmp_path), strict=False):  # the fourth ends with its answer
        alone = tj.semantic_scope(tj.linearize(model, prompt))
        assert (a.tokens, a.regions, a.answer_start) == (alone.tokens, alone.regions, alone.answer_start)
        assert a.scores.tolist() == pytest.approx(alone.scores.tolist(), rel=1e-5)
        assert not a.regions or a.roles().str_tokens[-1] == "template"


def test_another_conversation_or_template_is_another_run(model, tmp_path):
    def go(prompts):
        return attribute_corpus(model, prompts, "temperature", tmp_path, progress=False)

    go([[SYSTEM, USER]])
    assert go([[SYSTEM, USER]]).n_resumed == 1
    with pytest.raises(CorpusError, match="sha256"):
        go([[SYSTEM, {**USER, "content": "Hi he"}]])
    model.tokenizer.chat_template = TEMPLATE.replace("<a>", "<b>")
    try:
        with pytest.raises(CorpusError, match="tokens_sha256"):
            go([[SYSTEM, USER]])
    finally:
        model.tokenizer.chat_template = TEMPLATE


def test_ids_of_another_tokenizer_have_no_roles(model, tmp_path):
    """A tokenizer of the caller's own decides; what isn't the template's has no roles."""
    from tl_jacobian.studies.corpus import ScopeJob, run_corpus

    run_corpus(
        ScopeJob(model, "semantic"), as_prompts([[USER]]), tmp_path, tokenize=lambda prompt: [1, 2, 3], progress=False
    )
    (a,) = read_attributions(tmp_path)
    assert (a.tokens, dict(a.regions)) == ((1, 2, 3), {})
