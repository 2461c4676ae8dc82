"""Names of scopes for people: baselines aren't scopes."""

from __future__ import annotations

import pytest

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
