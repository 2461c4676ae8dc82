"""Translations aligned and prompts edited with the demo model, and the benchmark's tables on a few pairs."""

from __future__ import annotations

import pytest

import tl_jacobian as tj
from benchmarks import alignment as benchmark
from tl_jacobian.core.host.demo import kinds

pytestmark = pytest.mark.slow
every_kind = pytest.mark.parametrize("kind", kinds())


@every_kind
def test_colours_and_nouns_of_a_short_sentence_are_aligned(kind):
    """A small model translates easy words by reading them."""
    pair = tj.language.aligned_pairs("German")[0]
    a = tj.language.word_alignment(
        tj.load_demo_model(kind), pair.source, pair.target, template=pair.template, method="low_rank"
    )
    assert [a.row(word).top(1)[0].text for word in ("red", "apple", "yesterday")] == ["roten", "Apfel", "gestern"]
    assert all(0.3 < a.row(i).source_share < 1 for i in range(len(a.target_words)))
    score = tj.language.score_alignment(a, pair.sure, pair.possible)
    chance = tj.language.score_alignment(
        tj.language.chance_alignment(pair.source_words, pair.target_words), pair.sure, pair.possible
    )
    assert score.aer < chance.aer
    assert score.reciprocal_rank > chance.reciprocal_rank


def test_replacing_the_country_changes_the_capital():
    model = tj.load_demo_model("bridge")
    c = tj.language.counterfactuals(
        model, "The capital of France is", " Paris", replace={"France": ["Italy", "Spain"], "capital": ["heart"]}
    )
    assert [e.prediction.text for e in c.edits if e.replacement in ("Italy", "Spain")] == [" Rome", " Madrid"]
    replaced = {e.replacement: abs(e.change) for e in c.edits if e.kind == "replaced"}
    assert min(replaced["Italy"], replaced["Spain"]) > replaced["heart"]


def test_the_benchmark_reports_what_is():
    pairs = benchmark.spread(tj.language.aligned_pairs(), 2)
    assert [pair.language for pair in pairs] == ["German", "Spanish"]
    methods = {"semantic": dict(scope="semantic")}
    scores = benchmark.measure(tj.load_demo_model("bridge"), pairs, methods, "first")
    assert list(scores) == ["semantic", "semantic, relative", "diagonal", "chance"]
    found = {metric: benchmark.differences(scores, metric) for metric in benchmark.JUDGED}
    lines = [*benchmark.table(scores), *benchmark.by_language(scores, pairs), *benchmark.verdict(scores, found)]
    assert len(lines) == 6 + 6 + 2
    assert lines[-2].startswith("- semantic isn't shown to align words beyond their place"), "two pairs show nothing"
