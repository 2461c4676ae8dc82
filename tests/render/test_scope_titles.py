"""Names of scopes for people: baselines aren't scopes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from cases import shared

import tl_jacobian as tj
from tl_jacobian.results.numbers import NumberInfluence
from tl_jacobian.results.scopes import scope_title
from tl_jacobian.studies.language import WordAlignment

BASELINES = {
    "leave_one_out": "Leave-one-out",
    "input_x_gradient": "Input x gradient",
    "path_integrated": "Integrated gradients",
    "smoothgrad": "SmoothGrad",
    "attention_rollout": "Attention rollout",
    "random": "Random scores",
}


@pytest.fixture(scope="module")
def lin():
    return tj.linearize(shared("llama", "bridge"), "Rome is", record="sources")


@pytest.mark.parametrize("scope", ["semantic", "temperature", "fisher", "direction", "output"])
def test_scopes_are_called_scopes(scope):
    assert scope_title(scope) == f"{scope.capitalize()} Scope"
    assert scope_title(f"{scope}, relative") == f"{scope.capitalize()} Scope, relative"


def test_other_scores_go_by_what_they_are_called():
    assert scope_title("my_own scores") == "My own scores"
    assert scope_title("chance") == "Chance"
    assert scope_title("LIME") == "LIME"
    assert scope_title("") == ""


def test_every_baseline_has_its_name(lin):
    made = [
        tj.baselines.leave_one_out(lin, 101),
        tj.baselines.input_x_gradient(lin, 101),
        tj.baselines.path_integrated_scope(lin, 101, tol=0.9),
        tj.baselines.smoothgrad(lin, 101, generator=torch.Generator().manual_seed(0), samples=2),
        tj.baselines.attention_rollout(lin),
        tj.baselines.random_attribution(lin, generator=torch.Generator().manual_seed(0)),
    ]
    assert {a.scope: scope_title(a.scope) for a in made} == BASELINES


@pytest.mark.usefixtures("plt")
def test_titles_use_the_names(lin, tmp_path, capsys):
    a = tj.baselines.leave_one_out(lin, 101)
    a.show()
    assert capsys.readouterr().out.startswith("Leave-one-out")
    page = a.to_html(tmp_path / "a.html").read_text()
    assert "<title>Leave-one-out: " in page
    assert "Leave_one_out" not in page
    series = NumberInfluence(values=np.ones(2), influence=np.ones(2), scope=a.scope, target="t")
    assert series.plot().get_title(loc="left") == "Leave-one-out: t"


def test_an_alignments_heat_map_is_titled_as_its_page(tmp_path):
    a = WordAlignment.of_matrix(torch.eye(2), ["a", "b"], ["c", "d"], "fisher")
    assert a.to_grid().title == "Fisher Scope: word alignment"
    assert "<title>Fisher Scope: word alignment</title>" in a.to_html(tmp_path / "a.html").read_text()
    assert a.relative().to_grid().title == "Fisher Scope, relative: word alignment"
    assert dataclasses.replace(a, scope="diagonal").to_grid().title == "Diagonal: word alignment"
