"""A whole evaluation: the paper's table of a small model, and what becomes of bad prompts."""

from __future__ import annotations

import html
import json
import math

import pyarrow.parquet as pq
import pytest
from cases import cases, shared

import tl_jacobian as tj
from tl_jacobian.errors import ArgumentError, CorpusError
from tl_jacobian.results.evaluation import Evaluation
from tl_jacobian.studies import evaluation
from tl_jacobian.studies.corpus import CorpusPrompt, read_records
from tl_jacobian.studies.evaluation import judge, load_evaluation

TEXTS = ["Rome is it", "Paris", "one two three", "a cat sat", "no one"]
PLAIN = dict(explained="argmax", progress=False)
TRIAL = tj.Trial(methods=("random", "input_x_gradient", "semantic"), k=(20, 50))
hosts = pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge"))


def model():
    return shared("llama", "bridge")


@hosts
def test_it_is_the_judge_on_every_prompt(architecture, state):
    here = shared(architecture, state)
    e = tj.evaluate(here, TEXTS, TRIAL, batch_size=2, **PLAIN)
    assert [r["id"] for r in e.records] == ["0", "1", "2", "3", "4"]
    for i, text in enumerate(TEXTS):
        lin = tj.linearize(here, [text])
        (expected,) = judge(TRIAL, lin, [int(lin[0].logits.argmax())], [i])
        assert e.records[i]["log_prob"] == pytest.approx(expected["log_prob"], abs=1e-5)
        for method in TRIAL.methods:
            assert e.records[i]["methods"][method]["removed"] == pytest.approx(
                expected["methods"][method]["removed"], abs=1e-4
            )


def test_numbers_are_means_over_prompts():
    e = tj.evaluate(model(), TEXTS, TRIAL, **PLAIN)
    drops = [r["log_prob"] - r["methods"]["semantic"]["removed"][1] for r in e.records]
    found = e.interval("drop", "semantic", 50)
    assert found.mean == pytest.approx(sum(drops) / 5)
    assert found.low <= found.mean <= found.high
    aopc = [r["log_prob"] - sum(r["methods"]["semantic"]["removed"]) / 2 for r in e.records]
    assert e.values("aopc", "semantic") == pytest.approx(aopc)
    kept = [math.exp(r["log_prob"]) - sum(map(math.exp, r["methods"]["semantic"]["kept"])) / 2 for r in e.records]
    assert e.values("sufficiency", "semantic") == pytest.approx(kept)
    pair = next(d for d in e.differences() if (d.method, d.other) == ("random", "semantic"))
    assert pair.interval.mean == pytest.approx(e.interval("aopc", "random").mean - e.interval("aopc", "semantic").mean)


def test_the_next_token_or_the_prompts_own_can_be_explained():
    host = tj.evaluate(model(), ["abcd", "wxyz"], TRIAL, explained="next", prepend_bos=False, progress=False)
    assert [r["target_text"] for r in host.records] == ["d", "z"]
    assert [r["n_tokens"] for r in host.records] == [3, 3]
    own = [CorpusPrompt(0, "a", text="abcd", target="q"), CorpusPrompt(1, "b", text="wxyz", target=65)]
    e = tj.evaluate(model(), own, TRIAL, explained="next", prepend_bos=False, progress=False)
    assert [r["target_text"] for r in e.records] == ["q", tj.linearize(model(), "a").decode(65)]
    assert [r["n_tokens"] for r in e.records] == [4, 4]


def test_bad_prompts_are_left_out_and_named():
    e = tj.evaluate(model(), ["abcd", "", "x" * 500, "wxyz", "a"], TRIAL, prepend_bos=False, **PLAIN)
    assert len(e.usable) == 2
    assert [r["id"] for r in e.errors] == ["1", "2", "4"]
    assert "Prompts left out for errors: 3, such as: the prompt '' is empty" in e.to_markdown()
    with pytest.raises(ArgumentError, match="1 of 2 prompts could be used, expected at least two"):
        tj.evaluate(model(), ["abcd", ""], TRIAL, **PLAIN)


def test_a_folder_is_read_back_and_gone_on_with(tmp_path):
    out = tmp_path / "run"
    e = tj.evaluate(model(), TEXTS, TRIAL, out=out, name="five", shard_size=2, **PLAIN)
    again = load_evaluation(out)
    assert again.records == e.records
    assert again.name == "five"
    assert len(read_records(out)) == 5
    for shard in sorted((out / "shards").iterdir())[:1]:
        shard.unlink()
    same = dict(out=out, name="five", shard_size=2, **PLAIN)
    with pytest.warns(UserWarning, match="set aside|done again"):
        assert tj.evaluate(model(), TEXTS, TRIAL, **same).records == e.records
    with pytest.raises(CorpusError, match="methods"):
        tj.evaluate(model(), TEXTS, tj.Trial(methods=("random",)), **same)


def test_all_parquet_shards_of_an_evaluation_have_one_schema(tmp_path):
    texts = [*TEXTS, "", "", "", ""]
    tj.evaluate(model(), texts, TRIAL, out=tmp_path, shard_size=3, format="parquet", **PLAIN)
    schemas = [pq.read_schema(path) for path in (tmp_path / "shards").iterdir()]
    assert len(schemas) == 3
    assert all(schema.equals(schemas[0], check_metadata=True) for schema in schemas)
    assert str(schemas[0].field("log_prob").type) == "double"


def plain(markdown):
    """What a reader sees of escaped text."""
    return html.unescape(markdown).replace("\\_", "_")


def test_tables_in_every_form():
    e = tj.evaluate(model(), TEXTS, tj.Trial(k=(20, 50), agreement=True), name="five", **PLAIN)
    text, table = plain(e.to_markdown()), json.loads(json.dumps(e.to_json()))
    for method in e.methods:
        assert f"| {method.replace('_', ' ')} |" in text
    assert f"{e.interval('drop', 'semantic', 50).mean:.2f} [" in text
    assert table["table"]["semantic"]["drop at 50%"]["mean"] == e.interval("drop", "semantic", 50).mean
    assert table["prompts"] == 5
    assert "integrated_gradients" in table["completeness_gap"]
    assert len(e.to_dataframe()) == len(e.methods) * len(e.columns())
    more = "with 8 steps; for a smaller one take more (--integration-steps, Settings(integration_steps=))."
    for word in ("tau, KL", "sufficiency", "Completeness gap of integrated gradients", more):
        assert word in text


def test_in_the_terminal(capsys):
    e = tj.evaluate(model(), TEXTS, TRIAL, name="five [bold]", **PLAIN)
    e.show()
    printed = capsys.readouterr().out
    assert "five [bold]" in printed
    assert "input x gradient" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_a_figure_of_drops():
    e = tj.evaluate(model(), TEXTS, TRIAL, name="five $x$", **PLAIN)
    ax = e.plot()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["random", "input x gradient", "semantic"]
    bars = ax.containers[2].lines[0]
    assert bars.get_ydata().tolist() == pytest.approx([e.interval("drop", "semantic", k).mean for k in e.k])


def test_two_bad_prompts_are_not_the_same_as_one_prompt():
    with pytest.raises(
        ArgumentError, match=r"0 of 2 prompts could be used, .*; the first error: the prompt '' is empty"
    ):
        tj.evaluate(model(), ["", ""], TRIAL, prepend_bos=False, **PLAIN)
    with pytest.raises(
        ArgumentError, match=r"1 of 1 prompts could be used, expected at least two to compare methods on$"
    ):
        tj.evaluate(model(), ["abcd"], TRIAL, **PLAIN)


@pytest.mark.parametrize(("n", "least"), [(2, "0.5"), (5, "0.0625"), (6, None)])
def test_too_few_prompts_for_any_significance(n, least, capsys):
    """Flipping the signs of n differences gives 2^n sums, of which the observed one and its negative are extreme."""
    records = [
        {"log_prob": -1.0, "methods": {"a": {"removed": [-9.0 - i]}, "b": {"removed": [-2.0]}}} for i in range(n)
    ]
    e = Evaluation(name="few", records=tuple(records), metadata={"k": [20.0]})
    (d,) = e.differences()
    assert d.p == pytest.approx(2 / 2**n)
    e.show()
    for text in (plain(e.to_markdown()), " ".join(capsys.readouterr().out.split())):
        told = f"With {n} prompts no difference can reach p < 0.05 (the smallest possible is {least})"
        assert (told in text) == (least is not None)
        assert ("can reach" in text) == (least is not None)


def test_misspelt_names(unchecked):
    e = tj.evaluate(model(), TEXTS, TRIAL, **PLAIN)
    with pytest.raises(ArgumentError, match="metric='aopcc'"):
        e.values("aopcc", "semantic")
    with pytest.raises(ArgumentError, match="k=7 for metric='drop'"):
        e.values("drop", "semantic", 7)
    with pytest.raises(ArgumentError, match="explained='last', expected one of 'word', 'next', 'argmax'"):
        evaluation.EvaluationJob(model(), TRIAL, "last")
