"""Names of scopes for people: baselines aren't scopes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from examples import attribution

from tl_jacobian.results.alignment import WordAlignment
from tl_jacobian.results.numbers import NumberInfluence
from tl_jacobian.results.scopes import scope_title


@pytest.mark.parametrize("scope", ["semantic", "temperature", "fisher", "direction", "output"])
def test_scopes_are_called_scopes(scope):
    assert scope_title(scope) == f"{scope.capitalize()} Scope"
    assert scope_title(f"{scope}, relative") == f"{scope.capitalize()} Scope, relative"


def test_other_scores_go_by_what_they_are_called():
    assert scope_title("my_own scores") == "My own scores"
    assert scope_title("chance") == "Chance"
    assert scope_title("LIME") == "LIME"
    assert scope_title("") == ""


@pytest.mark.parametrize("scope", ["leave_one_out", "input_x_gradient", "path_integrated", "attention_rollout"])
def test_titles_use_the_names(scope):
    a = attribution(scope=scope)
    title = scope_title(scope)
    assert a.panels()[0].title == title
    assert a.panels()[0].rows[0].label.startswith(f"{title}: ")
    series = NumberInfluence(values=np.ones(2), influence=np.ones(2), scope=scope, target="t")
    assert series.panels()[0].title == f"{title}: t"


def test_an_alignments_heat_map_is_titled_as_its_page():
    a = WordAlignment.of_matrix(torch.eye(2), ["a", "b"], ["c", "d"], "fisher")
    assert a.to_grid().title == a.panels()[0].title == "Fisher Scope: word alignment"
    assert a.relative().to_grid().title == "Fisher Scope, relative: word alignment"
    assert dataclasses.replace(a, scope="diagonal").to_grid().title == "Diagonal: word alignment"
