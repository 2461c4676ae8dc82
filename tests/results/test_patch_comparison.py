"""PatchComparison: how predicted and measured effects agree; no model."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.grid import Grid
from tl_jacobian.results.patching import PatchComparison


def grid(values, columns=("a", "b", "c")):
    return Grid(
        values=torch.tensor(values),
        rows=("0", "1"),
        columns=columns,
        title="t",
        quantity="logits",
        row_axis="layer",
        column_axis="token",
        signed=True,
    )


def test_agreement_is_what_it_says():
    predicted, measured = grid([[1.0, 2.0, 3.0], [-4.0, 5.0, -6.0]]), grid([[1.0, 2.0, 3.5], [-4.0, 50.0, 0.001]])
    c = PatchComparison(predicted=predicted, measured=measured, clean=1.0, corrupted=0.0)
    assert c.sign_agreement == 1.0  # 0.001 of 50 is noise, and of the others every sign agrees
    assert c.spearman == pytest.approx(1 - 6 * (0 + 1 + 1 + 1 + 0 + 1) / (6 * 35), abs=0.2)
    assert c.worst(1) == [("1", "b", 5.0, 50.0)]
    assert c.relative_error == pytest.approx(
        (0.25 + 45**2 + 6.001**2) ** 0.5 / (1 + 4 + 3.5**2 + 16 + 2500) ** 0.5, rel=1e-5
    )
    assert list(c.to_dataframe()["measured"])[2] == 3.5


def test_agreement_ignores_what_cannot_differ():
    predicted, measured = [[0.0, 1.0, 2.0], [0.0, -4.0, 5.0]], [[0.0, 2.0, 2.5], [0.0, -4.5, 10.0]]
    noisy = [[1e-6, 2.0, 2.5], [-1e-6, -4.5, 10.0]]
    c, other = (
        PatchComparison(predicted=grid(predicted), measured=grid(found), clean=3.0, corrupted=-1.0, first=1)
        for found in (measured, noisy)
    )
    assert (other.spearman, other.sign_agreement) == (c.spearman, c.sign_agreement) == (1.0, 1.0)
    assert other != c


def test_correlations_are_those_of_pandas():
    a, b = torch.randn(2, 2, 50, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    b[0, 3] = torch.nan
    names = tuple(map(str, range(50)))
    c = PatchComparison(predicted=grid(a.tolist(), names), measured=grid(b.tolist(), names), clean=1.0, corrupted=0.0)
    x, y = (pd.Series(g.values.double().flatten().numpy()) for g in (c.predicted, c.measured))
    assert c.spearman == pytest.approx(x.corr(y, method="spearman"), abs=1e-12)
    assert c.pearson == pytest.approx(x.corr(y), abs=1e-12)
    equal = PatchComparison(
        predicted=grid([[1.0] * 3] * 2), measured=grid([[1.0, 2.0, 3.0]] * 2), clean=1.0, corrupted=0.0
    )
    assert math.isnan(equal.spearman)


def test_other_places_are_refused():
    with pytest.raises(ArgumentError, match=r"\(2, 3\) predicted effects and \(1, 3\) measured ones"):
        PatchComparison(
            predicted=grid([[1.0] * 3] * 2), measured=grid([[1.0] * 3] * 2).pick("0"), clean=1.0, corrupted=0.0
        )


def test_places_without_a_number_on_either_side_are_left_out():
    gap = math.nan
    predicted, measured = grid([[1.0, 2.0, gap], [-4.0, 5.0, 9.0]]), grid([[1.0, 2.0, 7.0], [-4.0, 4.0, gap]])
    c = PatchComparison(predicted=predicted, measured=measured, clean=1.0, corrupted=0.0)
    assert (c.sign_agreement, c.worst(9)[0]) == (1.0, ("1", "b", 5.0, 4.0))
    assert len(c.worst(9)) == 4
    assert c.relative_error == pytest.approx(1 / (1 + 4 + 16 + 16) ** 0.5)
    assert sum(len(curve.x) for curve in c.panels()[-1].curves) == 4
    nothing = PatchComparison(predicted=grid([[gap] * 3] * 2), measured=grid([[gap] * 3] * 2), clean=0.0, corrupted=0.0)
    assert math.isnan(nothing.sign_agreement)
    assert "Spearman nan" in repr(nothing)
    assert nothing.panels()
