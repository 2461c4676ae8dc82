"""Grids and contributions as matplotlib figures."""

from __future__ import annotations

import math

import pytest
import torch

NAN = math.nan
VALUES = ((50.0, 1.0, NAN), (40.0, -2.0, 4.0))
pytestmark = pytest.mark.usefixtures("plt")


def test_the_figure_holds_the_values_on_one_scale(make_grid):
    ax = make_grid(VALUES).plot()
    image = ax.images[0]
    drawn = torch.tensor(image.get_array().filled(NAN))
    assert drawn[:, 0].isnan().all(), "the first token has no colour"
    assert drawn[0, 1] == 1
    assert drawn[0, 2].isnan()
    assert drawn[1, 1:].tolist() == [-2, 4]
    assert image.get_clim() == (-4, 4)
    assert ax.patch.get_hatch()
    low, zero, high = (image.get_cmap()(x)[:3] for x in (0.0, 0.5, 1.0))
    assert low == pytest.approx((0, 114 / 255, 178 / 255), abs=0.01)
    assert zero == pytest.approx((1, 1, 1), abs=0.02)
    assert high == pytest.approx((213 / 255, 94 / 255, 0), abs=0.01)


def test_axes_and_colour_bar_are_named(make_grid):
    ax = make_grid(VALUES).plot()
    assert [t.get_text() for t in ax.get_xticklabels()] == [" t0 0", " t1 1", " t2 2"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["0", "1"]
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("layer", "token\nfirst ' t0' left out (up to 50)")
    assert ax.get_title(loc="left") == "influence on logit of ' Paris'"
    assert ax.images[0].colorbar.ax.get_ylabel() == "logits"


def test_a_grid_that_is_not_signed_starts_at_white(make_grid):
    image = make_grid(((1.0, 2.0),), signed=False, column_axis="head").plot().images[0]
    assert image.get_clim() == (0, 2)
    assert image.get_cmap()(0.0)[:3] == pytest.approx((1, 1, 1), abs=0.01)


def test_axes_of_ones_own_with_the_first_token(make_grid, plt):
    figure, mine = plt.subplots()
    assert make_grid(VALUES).plot(mine, skip_first=False) is mine
    assert mine.images[0].get_clim() == (-50, 50)
    assert mine.get_xlabel() == "token"
    figure.canvas.draw()


def test_labels_are_thinned_to_what_can_be_read(make_grid, plt):
    ax = make_grid(torch.ones(300, 200)).plot()
    assert len(ax.get_yticklabels()) <= 72
    _, small = plt.subplots(figsize=(2, 2))
    make_grid(torch.ones(60, 3)).plot(small)
    assert [t.get_text() for t in small.get_yticklabels()][:2] == ["0", "5"]
    ax.figure.canvas.draw()


def test_labels_of_bars_are_thinned_too(make_parts, plt):
    parts = make_parts({f"{i}.{kind}": 1.0 for i in range(30) for kind in ("attn", "mlp")})
    _, small = plt.subplots(figsize=(4, 3))
    assert len(parts.plot().get_yticklabels()) == 60
    assert len(parts.plot(small).get_yticklabels()) <= 25


def test_a_long_title_leaves_room_for_the_colour_bar(make_grid):
    ax = make_grid(
        torch.ones(30, 12), title="influence of the residual stream on a " + "very " * 20 + "long name"
    ).plot()
    ax.figure.canvas.draw()
    assert ax.get_title(loc="left").count("\n") >= 1
    bar = ax.images[0].colorbar.ax.yaxis.label.get_window_extent()
    assert bar.x1 <= ax.figure.bbox.x1, "the label of the colour bar isn't cut off"


def test_all_layers_of_a_usual_model_are_labelled(make_grid):
    assert len(make_grid(torch.ones(61, 12)).plot().get_yticklabels()) == 61


def test_dollar_signs_are_not_mathematics(make_grid, make_parts):
    odd = dict(rows=("$x_{",), title="$\\frac", quantity="}$_", row_axis="$x_{$")
    make_grid(((1.0, 2.0),), ["$x_{", "}$"], **odd).plot().figure.canvas.draw()
    make_parts({"$x_{$": 1.0, "0.$x_{$": 2.0}, target="$\\frac$").plot().figure.canvas.draw()


def test_bars_and_the_running_total(make_parts):
    ax = make_parts({"embed": 1.0, "0.attn": -2.5, "0.mlp": 3.0, "1.attn": 0.5, "unembedding bias": 0.25}).plot()
    bars = {container.get_label(): [bar.get_width() for bar in container] for container in ax.containers}
    assert bars == {"attn": [-2.5, 0.5], "mlp": [3.0], "other": [1.0, 0.25]}
    assert ax.lines[0].get_xdata().tolist() == [1, -1.5, 1.5, 2, 2.25]
    assert [t.get_text() for t in ax.get_yticklabels()][:2] == ["embed", "0.attn"]
    top, bottom = ax.get_ylim()
    assert top > bottom, "the first part is on top"
    assert ax.get_title(loc="left") == "logit of ' Paris' = 2.25"
    assert len({bar.get_facecolor() for container in ax.containers for bar in container}) == 3


@pytest.mark.usefixtures("plt", "no_matplotlib")  # in this order
def test_without_matplotlib_the_extra_is_named(make_grid, make_parts):
    for value in (make_grid(VALUES), make_parts({"a": 1.0})):
        with pytest.raises(ImportError, match=r"pip install 'tl-jacobian\[plot\]'"):
            value.plot()
