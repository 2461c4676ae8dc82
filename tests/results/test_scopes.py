"""One specification of the scopes: names, options and titles, and everything that reads them."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch
import typer
from cases import shared

import tl_jacobian as tj
from tl_jacobian.analyses.scopes.choose import COMPUTATIONS, choose, choose_direction
from tl_jacobian.cli import options
from tl_jacobian.cli.app import app
from tl_jacobian.results import scopes
from tl_jacobian.results.scopes import (
    BASELINES,
    ON_COMMAND_LINE,
    SCOPES,
    Confidence,
    FisherMethod,
    ScopeName,
    scope_title,
    takers_of,
)
from tl_jacobian.studies.corpus import ScopeJob, attribute_corpus
from tl_jacobian.studies.evaluation.judge import METHODS

PROMPT = list(b"Paris is in")
V = torch.linspace(-1, 1, 32, dtype=torch.float64)
model = shared("llama", "bridge")


def entropy(y, logits):
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum()


NEEDED = {"output": {"fn": entropy}, "direction": {"v": V}}
WHOLE = {
    "attribution_map": tj.attribution_map,
    "attribute_generation": tj.attribute_generation,
    "word_alignment": tj.language.word_alignment,
    "counterfactuals": tj.language.counterfactuals,
    "attribute_corpus": attribute_corpus,
    "ScopeJob": ScopeJob,
}
OF_DIRECTION = {
    "layer_influence": tj.layer_influence,
    "head_influence": tj.head_influence,
    "residual_contributions": tj.residual_contributions,
    "path_scope": tj.path_scope,
}
# Corpora have a seed in its place.
MISSING = {
    "attribute_corpus": {"generator"},
    "ScopeJob": {"generator"},
}


@pytest.fixture(scope="module")
def lin():
    return tj.linearize(model, PROMPT, record=True)


def parameters(fn):
    return inspect.signature(fn).parameters


# -- the specification --------------------------------------------------------------------


def test_the_specification_needs_no_torch():
    code = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='scopes'); sys.exit('torch' in sys.modules)"
    source = Path(scopes.__file__)
    # A dataclass looks its module up.
    code = code.replace("runpy.run_path", "sys.modules['scopes'] = sys; runpy.run_path")
    assert subprocess.run([sys.executable, "-c", code, str(source)], check=False).returncode == 0


def test_names_computations_and_titles_are_those_of_the_specification():
    assert set(SCOPES) == set(get_args(ScopeName)) == set(COMPUTATIONS)
    assert {name: scope_title(name) for name in SCOPES} == {name: spec.title for name, spec in SCOPES.items()}
    assert not set(SCOPES) & set(BASELINES)
    assert [spec.name for spec in takers_of("name")] == ["output", "direction"]


@pytest.mark.parametrize("name", SCOPES)
def test_computations_take_the_options_of_the_specification(name):
    spec, computation = SCOPES[name], COMPUTATIONS[name]
    whole, explain = parameters(computation.whole), parameters(computation.explain)
    assert {one.name for one in spec.options} == set(whole) - {"lin"}
    assert {one.name for one in spec.options if one.of_direction} == set(explain) - {"lin", "call"}
    for one in spec.options:
        assert (whole[one.name].default is inspect.Parameter.empty) == one.required


@pytest.mark.parametrize("name", [*WHOLE, *OF_DIRECTION])
def test_functions_with_a_scope_have_its_options_as_keywords(name):
    taken = parameters({**WHOLE, **OF_DIRECTION}[name])
    assert inspect.Parameter.VAR_KEYWORD not in {p.kind for p in taken.values()}
    wanted = {one.name for spec in SCOPES.values() for one in spec.options if one.of_direction or name in WHOLE}
    assert wanted - set(taken) == MISSING.get(name, set())


def test_choices_on_the_command_line_are_those_of_the_specification():
    assert tuple(options.Scope) == ON_COMMAND_LINE
    assert {*options.Method, "low_rank"} == set(get_args(FisherMethod))
    assert tuple(options.ConfidenceChoice) == get_args(Confidence)
    commands = typer.main.get_command(app).commands
    for command in (commands["attribute"], commands["run"]):
        (scope,) = [p for p in command.params if p.name == "scope"]
        assert all(SCOPES[name].explains in scope.help for name in ON_COMMAND_LINE)
    assert set(ON_COMMAND_LINE) <= set(METHODS)


# -- one rule for every scope argument -------------------------------------------------------


@pytest.mark.parametrize("name", SCOPES)
def test_every_name_works_wherever_whole_attributions_are_made(name, lin, tmp_path):
    options = NEEDED.get(name, {})
    given = {**options, **({"method": "low_rank"} if name == "fisher" else {})}
    alone = COMPUTATIONS[name].whole(lin, **given)
    rows = tj.attribution_map(model, PROMPT, name, [-1], **given)
    torch.testing.assert_close(rows[0].scores, alone.scores, rtol=1e-5, atol=1e-7)
    attribute_corpus(model, [PROMPT], name, tmp_path, progress=False, **given)
    (read,) = tj.corpus.read_attributions(tmp_path)
    torch.testing.assert_close(read.scores, alone.scores, rtol=1e-5, atol=1e-7)
    assert (read.scope, read.target) == (name, alone.target)
    edits = tj.language.counterfactuals(model, "so it is", 65, scope=name, top=0, **given)
    assert edits.scope.startswith(f"{name}: ")
    aligned = tj.language.word_alignment(model, "wo", "er", template="{source} {target}", scope=name, **given)
    assert aligned.scope == name
    assert len(tj.attribute_generation(model, PROMPT, 1, name, **given)) == 1


@pytest.mark.parametrize("name", SCOPES)
def test_every_name_works_wherever_a_direction_is_followed(name, lin):
    options = NEEDED.get(name, {})
    assert tj.layer_influence(lin, name, **options).values.isfinite().all()
    assert tj.head_influence(lin, name, **options).values.isfinite().all()
    assert tj.residual_contributions(lin, name, **options).values.isfinite().all()
    assert tj.path_scope(lin, "blocks.1.hook_attn_out", name, **options).full.scope == name


def test_directions_and_functions_are_scopes_everywhere(lin, tmp_path):
    expected = {"direction": tj.direction_scope(lin, V), "output": tj.output_scope(lin, entropy)}
    for given, name in ((V, "direction"), (entropy, "output"), (lambda y, z: entropy(y, z), "output")):
        assert torch.equal(tj.layer_influence(lin, given).values[0], expected[name].scores)
        row = tj.attribution_map(model, PROMPT, given, [-1])[0]
        torch.testing.assert_close(row.scores, expected[name].scores, rtol=1e-5, atol=1e-7)
        assert row.scope == name
        assert tj.path_scope(lin, "blocks.1.hook_attn_out", given).full.scope == name
        assert tj.language.counterfactuals(model, "so it is", 65, scope=given, top=0).scope.startswith(name)
    assert tj.layer_influence(lin, entropy, name="entropy").title == "influence on entropy"
    assert torch.equal(
        tj.layer_influence(lin, tj.temperature_scope).values, tj.layer_influence(lin, "temperature").values
    )

    def mine(one):
        return tj.Attribution(**{**vars(tj.temperature_scope(one)), "scope": "mine"})

    attribute_corpus(model, [PROMPT], mine, tmp_path, progress=False, format="parquet")
    (read,) = tj.corpus.read_attributions(tmp_path)
    assert read.scope == "mine"
    torch.testing.assert_close(read.scores, mine(lin).scores, rtol=1e-5, atol=1e-7)
    with pytest.raises(
        tj.errors.ArgumentError, match=r"scope mine can't be used here, this asks for a direction: .*fn\(y, lo"
    ):
        tj.layer_influence(lin, mine)


def test_runs_with_other_directions_are_other_runs(tmp_path):
    attribute_corpus(model, [PROMPT], V, tmp_path, progress=False)
    with pytest.raises(tj.errors.CorpusError, match=r"job.v was "):
        attribute_corpus(model, [PROMPT], 2 * V, tmp_path, progress=False)
    assert ScopeJob(model, "temperature").settings.keys() == {"job", "scope", "max_memory", "model"}
    assert ScopeJob(model, "fisher", rank=2).settings["method"] == "low_rank"


@pytest.mark.parametrize("choosing", [choose, choose_direction])
@pytest.mark.parametrize(
    ("scope", "options", "message"),
    [
        ("magic", {}, "scope='magic', expected one of 'semantic', .*, a direction v or a function; for a target token"),
        (3, {}, "scope=3, expected one of 'semantic'"),
        (None, {}, "scope=None, expected one of"),
        (V.numpy(), {}, r"scope is a ndarray; a direction is a tensor: torch.as_tensor\(v\)"),
        ("semantic", dict(rank=2), "scope 'semantic' takes no rank=; its options are 'target', 'minus'"),
        ("temperature", dict(target=2), "scope 'temperature' takes no target=; its options are 'confidence'"),
        (V, dict(v=V), "v= is given twice"),
        (entropy, dict(minus=3), "scope 'output' takes no minus=; its options are 'fn', 'name'"),
        ("output", {}, "scope 'output' needs fn="),
        ("direction", {}, "scope 'direction' needs v="),
        (lambda a, b, c: 0, {}, r"scope <lambda> can't be used here, expected a function fn\(y, logits\)"),
    ],
)
def test_what_is_no_scope_or_no_option_of_it_is_named(choosing, scope, options, message):
    offered = dict.fromkeys(("target", "minus", "confidence", "rank", "fn", "v", "name"))
    with pytest.raises(tj.errors.ArgumentError, match=message):
        choosing(scope, **{**offered, **options})


def test_options_of_ones_own_function_are_its_own():
    with pytest.raises(tj.errors.ArgumentError, match=r"takes no rank=: .* functools.partial"):
        choose(lambda lin: None, rank=2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda lin: tj.semantic_scope(lin, skip_first=True),
            r"semantic_scope\(\) takes no skip_first=; it takes lin, t",
        ),
        (lambda lin: tj.layer_influence(lin, skip=1), r"layer_influence\(\) takes no skip="),
        (lambda lin: tj.fisher_scope(lin, "exact"), r"fisher_scope\(\) got 2 values by position"),
        (lambda lin: tj.semantic_scope(), r"semantic_scope\(\) needs lin"),
    ],
)
def test_slips_have_named_errors(call, message, lin):
    with pytest.raises(tj.errors.ArgumentError, match=message):
        call(lin)


def test_a_batch_takes_one_target_for_all_or_one_each():
    batch = tj.linearize(model, [PROMPT, PROMPT[:4]])
    for a, lin, target in zip(tj.semantic_scope(batch, [65, None]), batch, [65, None], strict=True):
        torch.testing.assert_close(a.scores, tj.semantic_scope(lin, target).scores, rtol=1e-5, atol=1e-7)
    with pytest.raises(tj.errors.TargetError, match="1 targets for 2 prompts, expected one for all, or one each"):
        tj.semantic_scope(batch, [65])
    with pytest.raises(tj.errors.TargetError, match=r"target=\[65\] for one linearization, expected one token"):
        tj.semantic_scope(batch[0], [65])
