"""Scopes over a corpus: the numbers of single prompts, whatever the batch; on small models of both hosts."""

from __future__ import annotations

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from cases import HAS_HOOKED, make, shared

import tl_jacobian as tj
from tl_jacobian.errors import ArgumentError, CorpusError
from tl_jacobian.results.arguments import warn
from tl_jacobian.studies.corpus import (
    CorpusPrompt,
    ScopeJob,
    attribute_corpus,
    prompt_generator,
    read_attributions,
    read_records,
    run_corpus,
    tokenizer_of,
)
from tl_jacobian.studies.corpus.jobs import from_record, to_record

TEXTS = ["Paris is", "a", "One two three four", "xyz", "The end", "Rome", "Once upon a", "b"]
HOSTS = ["hooked", "bridge"] if HAS_HOOKED else ["bridge"]
SCOPES = {
    "semantic": dict(scope="semantic"),
    "contrast": dict(scope="semantic", target="s", minus="t"),
    "temperature": dict(scope="temperature"),
    "fisher exact": dict(scope="fisher"),
    "fisher rank": dict(scope="fisher", rank=3),
    "fisher estimate": dict(scope="fisher", method="estimate", seed=3),
}


def alone(model, i, scope, target=None, minus=None, rank=None, method=None, seed=0):
    """The attribution of one prompt by the public functions."""
    lin = tj.linearize(model, TEXTS[i])
    if scope == "semantic":
        return tj.semantic_scope(lin, target, minus=minus)
    if scope == "temperature":
        return tj.temperature_scope(lin)
    if method == "estimate":
        return tj.fisher_scope(lin, method="estimate", generator=prompt_generator(seed, i))
    return tj.fisher_scope(lin, method="low_rank" if rank else "auto", rank=rank)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(
    "name", [n if n in ("semantic", "fisher estimate") else pytest.param(n, marks=pytest.mark.slow) for n in SCOPES]
)
def test_scores_are_those_of_the_prompt_alone(tmp_path, host, name):
    model, options = shared("llama", host), SCOPES[name]
    attribute_corpus(model, TEXTS, out=tmp_path, batch_size=3, shard_size=5, progress=False, **options)
    found = list(read_attributions(tmp_path))
    assert len(found) == len(TEXTS)
    for i, a in enumerate(found):
        expected = alone(model, i, **options)
        # Scores are kept in float32, and on the bridge Hugging Face's RMSNorm computes in it; measured: 1.3e-6.
        torch.testing.assert_close(a.scores, expected.scores, rtol=1e-5, atol=0)
        if expected.stderr is not None:
            torch.testing.assert_close(a.stderr, expected.stderr, rtol=1e-3, atol=1e-9)  # a difference of large sums
        for field in ("scope", "target", "tokens", "str_tokens", "position", "combine", "word_groups", "sizes"):
            assert getattr(a, field) == getattr(expected, field)
        assert [p.token for p in a.predictions] == [p.token for p in expected.predictions]
        assert (a.stderr is None) == (expected.stderr is None)
        assert a.metadata["prompt"] == i
        told = {k: v for k, v in expected.metadata.items() if not isinstance(v, float)}
        assert {k: a.metadata[k] for k in told} == told


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in ("contrast", "fisher exact") else n for n in SCOPES]
)
def test_numbers_do_not_depend_on_the_batch(tmp_path, name):
    model = shared("gpt2", "bridge", torch.float32)
    scores = {}
    for size in (1, 3, 8):
        out = tmp_path / str(size)
        attribute_corpus(model, TEXTS, out=out, batch_size=size, shard_size=8, progress=False, **SCOPES[name])
        scores[size] = torch.cat([a.scores for a in read_attributions(out)])
    for size in (3, 8):
        # Padding changes the order of float32 sums; measured on three architectures: at most 3.7e-6.
        torch.testing.assert_close(scores[size], scores[1], rtol=1.5e-5, atol=1e-7)


def test_prompts_of_one_text_have_signs_of_their_own(tmp_path):
    same = ["One two three"] * 3
    options = dict(scope="fisher", method="estimate", progress=False)
    attribute_corpus(shared("llama", "bridge"), same, out=tmp_path / "a", **options)
    a, b, c = (one.scores for one in read_attributions(tmp_path / "a"))
    assert not torch.equal(a, b)
    assert not torch.equal(b, c)
    attribute_corpus(shared("llama", "bridge"), same, out=tmp_path / "b", seed=1, **options)
    assert not torch.equal(a, next(read_attributions(tmp_path / "b")).scores)


def test_a_prompts_own_target_comes_first_and_a_bad_one_is_its_own_error(tmp_path):
    prompts = [
        CorpusPrompt(0, "own", "Paris", target="a"),
        CorpusPrompt(1, "given", "Rome is"),
        CorpusPrompt(2, "id", "Rom", target=99),
        CorpusPrompt(3, "bad", "Berlin", target="abc"),
    ]
    model = shared("gpt2", "bridge")
    report = attribute_corpus(model, prompts, "semantic", tmp_path, target="b", progress=False)
    assert report.n_errors == 1
    ids = {a.metadata["id"]: a.metadata["target_token"] for a in read_attributions(tmp_path)}
    assert ids == {"own": model.tokenizer.encode("a")[-1], "given": model.tokenizer.encode("b")[-1], "id": 99}
    assert "target 'abc' is 3 tokens, expected one" in read_records(tmp_path)[3]["error"]


def test_prompts_that_can_not_be_used_are_recorded(tmp_path):
    prompts = [
        CorpusPrompt(0, "0", ""),
        CorpusPrompt(1, "1", "x" * 100),
        CorpusPrompt(2, "2", tokens=(1, 999)),
        CorpusPrompt(3, "3", error="line 4 isn't UTF-8"),
        CorpusPrompt(4, "4", tokens=(1, 2, 3)),
        CorpusPrompt(5, "5", "ok"),
    ]
    attribute_corpus(shared("gpt2", "bridge"), prompts, "temperature", tmp_path, prepend_bos=False, progress=False)
    records = read_records(tmp_path)
    for record, why in zip(records, ["'' is empty", "n_ctx=64; shorten it by 36", "id 999 at", "line 4"], strict=False):
        assert why in record["error"]
    assert records[4]["tokens"] == [1, 2, 3]
    assert [a.metadata["id"] for a in read_attributions(tmp_path)] == ["4", "5"]


def test_a_prompt_too_large_for_the_budget_is_recorded(tmp_path):
    texts = ["abc", "x" * 60, "de"]
    report = attribute_corpus(
        shared("gpt2", "bridge"), texts, "temperature", tmp_path, max_memory="1MiB", progress=False
    )
    assert report.n_errors == 1
    assert "predicted to take" in read_records(tmp_path)[1]["error"]


def test_a_scope_that_means_nothing_on_this_model_is_refused_at_once(tmp_path):
    model = shared("gpt2", "bridge-compat")
    with pytest.raises(CorpusError, match=r"all of the first 8 prompts fail for the same reason: \|\|y\|\| = "):
        attribute_corpus(model, TEXTS, "temperature", tmp_path, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(scope="magic"), "scope='magic', expected one of 'semantic', 'temperature', 'fisher'"),
        (dict(scope="temperature", target="a"), "scope 'temperature' takes no target=; its options are 'confidence'"),
        (dict(scope="semantic", rank=2), "scope 'semantic' takes no rank=; its options are 'target', 'minus'"),
        (dict(scope="fisher", rank=2, method="exact"), 'rank=2 is for method="low_rank"'),
    ],
)
def test_options_that_do_not_fit(tmp_path, unchecked, options, message):
    with pytest.raises(ArgumentError, match=message):
        attribute_corpus(shared("gpt2", "bridge"), TEXTS, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_an_attribution_comes_back_equal(format, tmp_path):
    job = ScopeJob(shared("gpt2", "bridge"), "fisher", method="estimate")
    tokenize = tokenizer_of(job.model)
    prompts = [CorpusPrompt(i, str(i), text) for i, text in enumerate(TEXTS)]
    run_corpus(job, prompts, tmp_path, tokenize=tokenize, format=format, progress=False, batch_size=8)
    plain = attribute_corpus(job.model, TEXTS, "fisher", tmp_path / "b", method="estimate", progress=False).out
    assert list(read_attributions(tmp_path)) == list(read_attributions(plain))


@pytest.mark.parametrize("scope", ["semantic", "temperature", "fisher"])
def test_all_parquet_shards_of_a_run_have_one_schema(tmp_path, scope):
    """One without errors, one with both, one of errors alone; Fisher has error bars for some prompts."""
    texts = [*TEXTS, "x" * 100, *["\ud800"] * 3]
    options = dict(shard_size=3, format="parquet", progress=False, method="estimate" if scope == "fisher" else None)
    attribute_corpus(shared("gpt2", "bridge"), texts, scope, tmp_path, **options)
    schemas = [pq.read_schema(path) for path in (tmp_path / "shards").iterdir()]
    assert len(schemas) == 4
    assert all(schema.equals(schemas[0], check_metadata=True) for schema in schemas)
    assert str(schemas[0].field("stderr").type) == str(schemas[0].field("scores").type)
    assert pd.read_parquet(tmp_path / "shards")["error"].notna().sum() == 4


def test_a_record_keeps_all_of_an_attribution():
    job = ScopeJob(shared("gpt2", "bridge"), "semantic")
    a = tj.semantic_scope(tj.linearize(job.model, "Paris"))
    record = json.loads(json.dumps({"prompt": 3, "id": "x", **to_record(a, job.facts)}))
    back = from_record(record, job.settings, a.metadata["versions"])
    assert {**back.metadata} == {**a.metadata, **job.facts, "prompt": 3, "id": "x"}
    assert torch.equal(back.scores, a.scores)


def test_other_weights_are_another_run(tmp_path):
    model = make("gpt2", "bridge")
    attribute_corpus(model, TEXTS, "semantic", tmp_path, progress=False)
    with torch.no_grad():
        next(iter(model.original_model.parameters()))[0, 0] += 1
    with pytest.raises(CorpusError, match=r"job.model.weights was '\w+' and is now"):
        attribute_corpus(model, TEXTS, "semantic", tmp_path, progress=False)


def test_records_of_another_job_are_no_attributions(tmp_path):
    class Other(ScopeJob):
        settings = {"job": "other"}  # noqa: RUF012

    job = Other(shared("gpt2", "bridge"), "semantic")
    prompts = [CorpusPrompt(0, "0", "a")]
    run_corpus(job, prompts, tmp_path, tokenize=tokenizer_of(job.model), progress=False)
    with pytest.raises(CorpusError, match="holds no attributions but 'other': use read_records"):
        list(read_attributions(tmp_path))


def test_a_tokenizers_output_is_a_corpus(tmp_path):
    model = shared("llama", "bridge")
    output = model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    assert not output.attention_mask.all()
    attribute_corpus(model, output, "temperature", tmp_path / "a", progress=False)
    attribute_corpus(model, TEXTS, "temperature", tmp_path / "b", prepend_bos=True, progress=False)
    for a, b in zip(*(read_attributions(tmp_path / name) for name in "ab"), strict=True):
        assert a.tokens == b.tokens
        assert torch.equal(a.scores, b.scores)
    with pytest.raises(tj.errors.PromptError, match=r"prompt 1 ends with .* of the padding token 258"):
        attribute_corpus(model, output.input_ids, "temperature", tmp_path / "c", progress=False)


def test_text_that_is_no_unicode_is_one_prompts_error(tmp_path):
    texts = ["a", "\u00e9\ud800", "b"]
    report = attribute_corpus(shared("llama", "bridge"), texts, "semantic", tmp_path, progress=False)
    assert (report.n_prompts, report.n_errors) == (3, 1)
    assert "isn't Unicode text" in list(read_records(tmp_path))[1]["error"]


def test_two_prompts_of_one_id_are_refused_before_anything_is_written(tmp_path):
    prompts = [{"text": "a", "id": 1.0}, {"text": "b", "id": "1"}]
    with pytest.raises(CorpusError, match=r"prompts 0 and 1 .* both have the id '1'"):
        attribute_corpus(shared("llama", "bridge"), prompts, "semantic", tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_a_warning_of_every_prompt_is_given_once(tmp_path, monkeypatch):
    numbers = iter(range(100))
    monkeypatch.setattr(
        "tl_jacobian.core.prompts._compare_spaced", lambda *_: warn(f"predicted with 0.{next(numbers)}: did you mean")
    )
    model = shared("llama", "bridge")
    with pytest.warns(UserWarning, match="did you mean") as caught:
        attribute_corpus(model, TEXTS, "semantic", tmp_path, target="a", batch_size=2, progress=False)
    assert len(caught) == 1
