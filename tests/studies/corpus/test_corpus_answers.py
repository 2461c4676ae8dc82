"""Rows with answers in a corpus, and in an evaluation: explained as whole answers, each as alone."""

from __future__ import annotations

import json

import pytest
import torch
from cases import shared

import tl_jacobian as tj
from tl_jacobian.errors import ArgumentError
from tl_jacobian.studies.corpus import attribute_corpus, read_attributions, read_corpus, read_records
from tl_jacobian.studies.corpus.read import as_prompts

ROWS = [
    {"prompt": "Rome is", "answer": " in It"},
    {"prompt": "Paris"},
    {"tokens": [70, 71, 72], "answer": [80, 81]},
    {"prompt": "Oslo has", "answer": " a"},
]


@pytest.fixture(scope="module")
def model():
    return shared("gpt2", "bridge")


def alone(model, row):
    prompt = row.get("tokens", row.get("prompt"))
    return tj.linearize(model, prompt, **({"answer": row["answer"]} if "answer" in row else {}))


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_each_row_has_the_scores_it_has_alone(model, tmp_path, format):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    report = attribute_corpus(
        model, read_corpus(path), "semantic", tmp_path / "out", format=format, batch_size=4, progress=False
    )
    assert report.n_errors == 0
    for row, a in zip(ROWS, read_attributions(tmp_path / "out"), strict=True):
        want = tj.semantic_scope(alone(model, row))
        assert (a.tokens, a.answer_start, a.target) == (want.tokens, want.answer_start, want.target)
        torch.testing.assert_close(a.scores, want.scores)


def test_another_answer_is_another_run(model, tmp_path):
    def go(answer):
        rows = [{"prompt": "Rome is", "answer": answer}]
        return attribute_corpus(model, rows, "temperature", tmp_path, progress=False)

    go(" in")
    assert go(" in").n_resumed == 1
    with pytest.raises(tj.errors.CorpusError, match="another run"):
        go(" it")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "answer": 7}, "expected text or a list of token ids"),
        ({"prompt": "a", "answer": "b", "target": "c"}, "expected one or the other"),
        ({"prompt": "a", "answer": "\ud800"}, "surrogate"),
    ],
)
def test_what_is_no_answer_is_refused(row, message):
    with pytest.raises(ArgumentError, match=message):
        as_prompts([row])


def test_an_empty_answer_is_the_row_s_error(model, tmp_path):
    attribute_corpus(model, [ROWS[0], {"prompt": "a", "answer": ""}], "semantic", tmp_path, progress=False)
    assert "the answer '' is empty" in read_records(tmp_path)[1]["error"]


def test_evaluation_ranks_the_prompt_and_asks_for_the_answer(model):
    seen = []

    def mine(lin):
        seen.append(type(lin).__name__)
        return lin.graph.x.detach()[lin.prompt_row, : len(lin.tokens)].norm(dim=-1)

    methods = {"semantic": "semantic", "ixg": "input_x_gradient", "loo": "leave_one_out", "random": "random"}
    trial = tj.Trial(methods={**methods, "mine": mine}, k=(25,), agreement=True)
    found = tj.evaluate(model, [*ROWS[:2], ROWS[3]], trial, progress=False)
    assert sorted(seen) == ["AnswerLinearization", "AnswerLinearization", "Linearization"]
    for row, record in zip([*ROWS[:2], ROWS[3]], found.records, strict=True):
        lin = alone(model, row)
        (curve,) = tj.perturbation_curves(lin, tj.semantic_scope(lin), k=[25])
        assert record["methods"]["semantic"]["removed"] == pytest.approx(curve.removed.tolist(), abs=1e-5)
        assert record["log_prob"] == pytest.approx(curve.clean, abs=1e-5)
        if "answer" in row:
            assert (record["target_text"], record["n_tokens"]) == (row["answer"], lin.answer_start)
            loo = tj.baselines.leave_one_out(lin)
            agreed = tj.rank_agreement(tj.semantic_scope(lin).prompt, loo)
            assert record["methods"]["semantic"]["kendall_log_prob"] == pytest.approx(agreed.kendall, abs=1e-5)
            assert record["methods"]["loo"]["kendall_log_prob"] == pytest.approx(1)
