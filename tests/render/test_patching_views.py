"""Predicted and measured patches in the terminal, on a page and as a figure."""

from __future__ import annotations

import pytest
import torch

import tl_jacobian as tj
from tl_jacobian.results.patching import PatchComparison


def grid(values, what):
    return tj.Grid(
        values=torch.tensor(values),
        rows=("0", "1"),
        columns=("The", " </script>", " cat"),
        title=f"{what} effect of patching hook_resid_pre on logit of ' a'",
        quantity="change of logit of ' a'",
        row_axis="layer",
        column_axis="token",
        signed=True,
        metadata={"n_passes": 5} if what == "predicted" else {},
    )


@pytest.fixture
def comparison():
    predicted = grid([[0.0, 1.0, 2.0], [0.0, -4.0, 5.0]], "predicted")
    measured = grid([[0.0, 2.0, 2.5], [0.0, -4.5, 10.0]], "measured")
    return PatchComparison(predicted=predicted, measured=measured, clean=3.0, corrupted=-1.0, first=1)


def test_the_terminal_shows_both_and_how_they_agree(comparison, capsys):
    comparison.show()
    out = capsys.readouterr().out
    assert "predicted effect" in out
    assert "measured effect" in out
    assert "Spearman 1.00" in out
    assert "5 forward passes" in " ".join(out.split())


def test_pages_hold_both_on_one_scale(comparison, tmp_path):
    page = comparison.to_html(tmp_path / "p.html").read_text(encoding="utf-8")
    assert "</script> " not in page
    assert "Spearman 1.00" in page
    assert page.count(">10<") + page.count("10</") >= 2  # full colour is the largest of both, in both legends
    assert "predicted effect" in comparison._repr_html_()


@pytest.mark.usefixtures("no_matplotlib")
def test_without_matplotlib_the_extra_is_named(comparison):
    with pytest.raises(ImportError, match=r"pip install 'tl-jacobian\[plot\]'"):
        comparison.plot()


@pytest.mark.usefixtures("plt")
def test_the_figure_shares_its_scale_and_leaves_out_what_cannot_differ(comparison):
    figure = comparison.plot()
    images = [ax.images[0] for ax in figure.axes if ax.images]
    assert [image.get_clim() for image in images[:2]] == [(-10.0, 10.0)] * 2
    scatter = next(ax for ax in figure.axes if ax.get_xlabel() == "measured")
    assert sum(len(points.get_offsets()) for points in scatter.collections) == 4
    assert "Spearman 1.00" in scatter.get_title(loc="left")


def test_agreement_ignores_what_cannot_differ(comparison):
    noisy = comparison.measured.values.clone()
    noisy[:, 0] = torch.tensor([1e-6, -1e-6])
    other = PatchComparison(
        predicted=comparison.predicted, measured=grid(noisy.tolist(), "measured"), clean=3.0, corrupted=-1.0, first=1
    )
    assert (other.spearman, other.sign_agreement) == (comparison.spearman, comparison.sign_agreement) == (1.0, 1.0)
    assert other != comparison
