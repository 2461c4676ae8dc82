"""Panels as matplotlib figures."""

from __future__ import annotations

import io
import math
import subprocess
import sys

import numpy as np
import panel_samples as samples
import pytest
from panel_samples import (
    INJECTION,
    NAN,
    PARTS,
    contributions,
    grid,
    heat,
    msgspec_replace,
    paris,
    predicted,
    row,
    strip,
)

from tl_jacobian import render
from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.panels import Bar, Bars, Scale, scale_of
from tl_jacobian.results.tokens import visible

pytestmark = pytest.mark.usefixtures("plt")


def drawn(*panels, ax=None):
    return render.figure([msgspec_replace(p, views=("figure",)) for p in panels], ax)


# -- heat maps -----------------------------------------------------------------------------


def test_the_figure_holds_the_values_on_one_scale():
    ax = drawn(grid())
    image = ax.images[0]
    found = image.get_array().filled(NAN)
    assert np.isnan(found[:, 0]).all(), "the hidden column has no colour"
    assert found[0, 1] == 1
    assert np.isnan(found[0, 2])
    assert found[1, 1:].tolist() == [-2, 4]
    assert image.get_clim() == (-4, 4)
    assert ax.patch.get_hatch()
    assert any(patch.get_hatch() for patch in ax.patches), "the hidden column is hatched"
    low, zero, high = (image.get_cmap()(x)[:3] for x in (0.0, 0.5, 1.0))
    assert low == pytest.approx((0, 114 / 255, 178 / 255), abs=0.01)
    assert zero == pytest.approx((1, 1, 1), abs=0.02)
    assert high == pytest.approx((213 / 255, 94 / 255, 0), abs=0.01)


def test_axes_and_colour_bar_are_named():
    ax = drawn(grid())
    assert [t.get_text() for t in ax.get_xticklabels()] == [" t0 0", " t1 1", " t2 2"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["0", "1"]
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("layer", "token\nfirst ' t0' left out (up to 50)")
    assert ax.get_title(loc="left") == "influence on logit of ' Paris'"
    assert ax.images[0].colorbar.ax.get_ylabel() == "logits"


def test_unsigned_values_start_at_white():
    image = drawn(heat([[1.0, 2.0]], scales=(scale_of([1.0, 2.0]),))).images[0]
    assert image.get_clim() == (0, 2)
    assert image.get_cmap()(0.0)[:3] == pytest.approx((1, 1, 1), abs=0.01)


def test_rows_of_their_own_scale_are_shares_and_end_early():
    ax = drawn(samples.map_heat())
    found = ax.images[0].get_array().filled(NAN)
    assert found[4, 1:].tolist() == pytest.approx([0.4, 0.6, 0.8, 1.0])
    assert found[1, 1] == 1
    assert np.isnan(found[1, 2:]).all()
    assert [t.get_text() for t in ax.images[0].colorbar.ax.get_yticklabels()] == ["0", "largest of its row"]
    assert ax.images[0].colorbar.ax.get_ylabel() == "each row on its own scale\nlogits"


def test_axes_of_ones_own(plt):
    figure, mine = plt.subplots()
    assert drawn(grid(hidden=(), scales=(Scale(limit=50, low=-2, high=50, signed=True),)), ax=mine) is mine
    assert mine.images[0].get_clim() == (-50, 50)
    assert mine.get_xlabel() == "token"
    figure.canvas.draw()


def test_frames():
    ax = drawn(samples.links())
    frames = [(p.get_xy(), p.get_linestyle()) for p in ax.patches if p.get_width() == 0.88]
    assert sorted(frames) == [((-0.44, -0.44), "solid"), ((0.56, 0.56), "dashed")]
    assert "dashed: possible" in ax.get_xlabel()


def test_labels_are_thinned_to_what_can_be_read(plt):
    ax = drawn(heat([[1.0] * 200] * 300))
    assert len(ax.get_yticklabels()) <= 72
    _, small = plt.subplots(figsize=(2, 2))
    drawn(heat([[1.0] * 3] * 60), ax=small)
    assert [t.get_text() for t in small.get_yticklabels()][:2] == ["0", "5"]
    ax.figure.canvas.draw()
    assert len(drawn(heat([[1.0] * 12] * 61)).get_yticklabels()) == 61, "all layers of a usual model"


def test_a_long_title_leaves_room_for_the_colour_bar():
    ax = drawn(heat([[1.0] * 12] * 30, title="influence of the residual stream on a " + "very " * 20 + "long name"))
    ax.figure.canvas.draw()
    assert ax.get_title(loc="left").count("\n") >= 1
    bar = ax.images[0].colorbar.ax.yaxis.label.get_window_extent()
    assert bar.x1 <= ax.figure.bbox.x1, "the label of the colour bar isn't cut off"


# -- bars ------------------------------------------------------------------------------------


def test_bars_and_the_running_total():
    ax = drawn(contributions({"embed": 1.0, "0.attn": -2.5, "0.mlp": 3.0, "1.attn": 0.5, "unembedding bias": 0.25}))
    bars = {container.get_label(): [bar.get_width() for bar in container] for container in ax.containers}
    assert bars == {"attn": [-2.5, 0.5], "mlp": [3.0], "other": [1.0, 0.25]}
    assert ax.lines[0].get_xdata().tolist() == [1, -1.5, 1.5, 2, 2.25]
    assert [t.get_text() for t in ax.get_yticklabels()][:2] == ["embed", "0.attn"]
    top, bottom = ax.get_ylim()
    assert top > bottom, "the first part is on top"
    assert ax.get_title(loc="left") == "logit of ' Paris' = 5.25"
    assert len({bar.get_facecolor() for container in ax.containers for bar in container}) == 3


def test_labels_of_bars_are_thinned_too(plt):
    parts = contributions({f"{i}.{kind}": 1.0 for i in range(30) for kind in ("attn", "mlp")})
    _, small = plt.subplots(figsize=(4, 3))
    assert len(drawn(parts).get_yticklabels()) == 60
    assert len(drawn(parts, ax=small).get_yticklabels()) <= 25


def test_shares_and_standard_errors():
    ax = drawn(Bars(bars=(Bar(name="a", value=0.5, error=0.1), Bar(name="b", value=0.25)), percent=True))
    ax.figure.canvas.draw()
    assert "50%" in [t.get_text() for t in ax.get_xticklabels()]
    assert ax.get_legend() is None
    assert len(ax.containers) == 2


# -- texts on colours -------------------------------------------------------------------------


def words_of(ax):
    return [t for t in ax.texts if t.get_gid() != "note" and t.get_weight() != "bold"]


def test_coloured_words_stand_in_their_places():
    ax = drawn(msgspec_replace(samples.words_of_alignment(), rows=samples.words_of_alignment().rows[:1]))
    assert "".join(t.get_text() for t in words_of(ax)) == "X:rotist=redis."
    columns = {t.get_text(): t.get_position()[0] for t in words_of(ax)}
    assert columns["rot"] == 3 + 3 / 2
    assert [p.get_facecolor()[3] for p in ax.patches if p.get_fill()] == pytest.approx([0.7, 0.35])
    assert sum(not p.get_fill() for p in ax.patches) == 1
    assert ax.get_title(loc="left") == "Fisher Scope: word alignment"
    alphas = {t.get_text(): t.get_alpha() for t in words_of(ax)}
    assert (alphas["red"], alphas["is"]) == (1.0, 0.4), "what comes after is pale"


def test_hidden_words_are_hatched_and_the_note_says_so():
    ax = drawn(paris(hidden=(0,), legend=("logits",)))
    assert [bool(p.get_hatch()) for p in ax.patches][:2] == [True, False]
    note = next(t.get_text() for t in ax.texts if t.get_gid() == "note")
    assert note == "full colour = 12; range 1 to 12; logits; first '<|bos|>' left out (would be 30)"


def test_rows_stand_below_each_other_or_the_chosen_one_alone():
    both = drawn(samples.words_of_alignment())
    assert [t.get_text() for t in both.texts if t.get_weight() == "bold"] == ["red", "is"]
    assert "".join(t.get_text() for t in words_of(both)) == "X:rotist=redis." * 2
    one = drawn(samples.map_strip())
    assert [t.get_text() for t in one.texts if t.get_weight() == "bold"] == ["4 ' is' → ' Paris'"]
    assert "' Paris' (predicted)" in {t.get_text() for t in one.texts}


def test_a_long_text_is_wrapped():
    ax = drawn(strip([f" word{i}" for i in range(30)]))
    assert {t.get_position()[1] for t in words_of(ax)} == {0, 1, 2}
    assert max(t.get_position()[0] + len(t.get_text()) / 2 for t in words_of(ax)) <= 80


def test_lines_break_where_the_text_breaks():
    ax = drawn(strip(["a", "\n", "b"]))
    assert {t.get_text(): t.get_position()[1] for t in words_of(ax)} == {"a": 0, "↵": 0, "b": 1}


# -- curves --------------------------------------------------------------------------------------


def test_curves_with_intervals_are_moved_apart():
    ax = drawn(samples.evaluation())
    assert len(ax.containers) == 3
    starts = [container.lines[0].get_xdata()[0] for container in ax.containers]
    assert len(set(starts)) == 3
    assert starts == pytest.approx([1.0] * 3, abs=0.4)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["random", "semantic", "fisher"]
    assert ax.get_title(loc="left") == "lambada: 25 prompts, 95% intervals"
    assert (ax.get_xlabel(), ax.get_ylabel()) == (samples.evaluation().x_axis, samples.evaluation().y_axis)


def test_a_decay_is_logarithmic_and_its_guide_named():
    ax = drawn(samples.decay())
    assert ax.get_yscale() == "log"
    assert "effective rank 3.3" in [t.get_text() for t in ax.get_legend().get_texts()]
    assert ax.get_xlim() == pytest.approx((-0.6, 31.6))
    far = drawn(samples.decay(guides=(samples.Guide(axis="x", at=400.0, label="effective rank 400"),)))
    assert far.get_xlim() == pytest.approx((-0.6, 31.6)), "a larger effective rank stands in the legend alone"


def test_a_scatter_plot_is_square():
    ax = drawn(samples.scatter())
    assert ax.get_xlim() == ax.get_ylim() == (-10.5, 10.5)
    assert sum(len(points.get_offsets()) for points in ax.collections) == 5
    assert ax.get_aspect() == 1


def test_nothing_above_zero_has_no_logarithmic_axis():
    flat = samples.Curve(name="", x=(0.0, 1.0), y=(0.0, 0.0))
    assert drawn(samples.decay(curves=(flat,))).get_yscale() == "linear"


# -- a series --------------------------------------------------------------------------------------


def parts(ax):
    """The axes of the bars, and of the forecast if there is one."""
    bars = next(other for other in ax.figure.axes if other is not ax and other.get_ylabel() == "influence")
    return bars, (ax.child_axes or [None])[0]


def test_values_and_influences_stand_at_the_same_places():
    ax = drawn(samples.series(forecast=False))
    assert ax.lines[0].get_ydata().tolist() == [-1.0, 0.5, 2.0, 1.0]
    bars, side = parts(ax)
    assert side is None
    found = bars.patches
    assert [round(bar.get_x() + bar.get_width() / 2, 6) for bar in found] == ax.lines[0].get_xdata().tolist()
    assert [bar.get_height() for bar in found] == [50, 1, 4, 2]
    assert ax.get_title(loc="left") == "Temperature Scope: confidence: ||y||"
    assert ax.lines[1].get_xdata() == [4, 4], "the cut-off"


def test_bars_stay_below_the_values():
    """In pixels: the highest bar ends under the lowest value."""
    ax = drawn(samples.series((1.0, 9.0, 4.0, 2.0), forecast=False))
    ax.figure.canvas.draw()
    bars, _ = parts(ax)
    top = bars.transData.transform((0, 9.0))[1]
    lowest = ax.transData.transform((0, -1.0))[1]
    assert top < lowest
    assert min(ax.get_yticks()) >= -1.5, "no value ticks beside the bars"


def test_first_numbers_can_be_left_out_of_the_scale():
    bars, _ = parts(drawn(samples.series(hidden=1)))
    whole, _ = parts(drawn(samples.series()))
    assert bars.patches[0].get_height() == 0
    assert bars.get_ylim()[1] == pytest.approx(whole.get_ylim()[1] * 4 / 50)
    assert any(patch.get_hatch() for patch in bars.patches)


def test_a_logarithmic_scale_shows_small_ones():
    bars, _ = parts(drawn(samples.series((500.0, 0.1, 4.0, 0.2), log=True)))
    assert bars.get_yscale() == "log"
    low, high = bars.get_ylim()
    heights = [np.log(bar.get_y() + bar.get_height()) for bar in bars.patches]
    shares = (np.array(heights) - np.log(low)) / (np.log(high) - np.log(low))
    assert shares.min() > 0.01
    assert shares.max() < 0.36
    np.testing.assert_allclose(np.exp(heights), [500, 0.1, 4, 0.2])


@pytest.mark.parametrize("n", [2, 3, 5, 8, 20, 33, 400])
@pytest.mark.parametrize("width", [3.3, 6.8])
def test_positions_are_whole_numbers(n, width):
    ax = drawn(samples.series([1.0] * n, width=width, forecast=False))
    ax.figure.canvas.draw()
    low, high = ax.get_xlim()
    ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
    assert len(ticks) >= 2
    assert all(tick == round(tick) and 0 <= tick <= n for tick in ticks)


@pytest.mark.parametrize("low", [1.05, 0.0021, 31.0, 8.0])
@pytest.mark.parametrize("ratio", [1.0, 1.02, 1.5, 9.0, 60.0, 1e3, 1e7])
def test_a_logarithmic_scale_has_two_labels_or_more(low, ratio):
    ax = drawn(samples.series((low, low * ratio, low), log=True, forecast=False))
    ax.figure.canvas.draw()
    bars, _ = parts(ax)
    shown = [t for t in bars.get_yticklabels() if t.get_text()]
    assert 2 <= len({t.get_text() for t in shown}) == len(shown) <= 4
    assert all(low / 1.5 <= t.get_position()[1] <= low * ratio * 1.001 for t in shown), "beside the bars"


def test_the_forecast_shares_the_value_axis():
    ax = drawn(samples.series())
    _, side = parts(ax)
    assert [bar.get_y() + bar.get_height() / 2 for bar in side.patches] == [1, 2, 3, 4]
    np.testing.assert_allclose([bar.get_width() for bar in side.patches], [0.11, 0.33, 0.44, 0.11])
    assert side.get_ylim() == ax.get_ylim()
    assert ax.get_ylim()[1] > 4.5, "the truth is in the picture"
    assert side.lines[0].get_ydata() == [4.5, 4.5]
    assert [text.get_text() for text in side.texts] == ["forecast", "truth"]
    assert [text.get_text() for text in parts(drawn(samples.series(truth=None)))[1].texts] == ["forecast"]


@pytest.mark.parametrize("width", [3.3, 6.8])
def test_nothing_is_cut_off_at_journal_width(width):
    ax = drawn(samples.series(detail="confidence: a rather long name " * 3, width=width))
    figure = ax.figure
    assert figure.get_size_inches()[0] == pytest.approx(width)
    figure.canvas.draw()
    box = figure.get_tightbbox()
    assert box.x0 >= -0.01
    assert box.x1 <= width + 0.01
    assert box.y1 <= figure.get_size_inches()[1] + 0.01


def test_standard_errors_of_a_series():
    bars, _ = parts(drawn(samples.series(errors=[1.0, 0.1, 0.2, 0.3])))
    assert len(bars.containers) == 2


# -- tables -----------------------------------------------------------------------------------------


def test_a_table_with_shaded_cells():
    ax = drawn(samples.edits())
    cells = ax.tables[0].get_celld()
    assert cells[0, 0].get_text().get_text() == "word"
    assert cells[1, 1].get_text().get_text() == "3"
    assert cells[1, 1].get_facecolor()[:3] != cells[1, 0].get_facecolor()[:3]
    assert cells[1, 1].get_text().get_ha() == "right"
    assert ax.get_title(loc="left") == "Counterfactuals: log-probability\na b↵c d"
    assert "Spearman" in ax.texts[0].get_text()


# -- several panels ------------------------------------------------------------------------------------


def test_heat_maps_that_compare_stand_side_by_side_with_one_colour_bar():
    ax = drawn(grid(title="predicted"), grid(title="measured"), samples.scatter())
    figure = ax.figure
    figure.canvas.draw()
    maps = [other for other in figure.axes if other.images]
    assert [other.get_title(loc="left") for other in maps] == ["predicted", "measured"]
    assert [other.images[0].colorbar is not None for other in maps] == [False, True]
    scatter = next(other for other in figure.axes if other.get_xlabel() == "measured")
    tops = [other.get_position().y1 for other in (*maps, scatter)]
    assert max(tops) - min(tops) < 0.1
    assert maps[0].get_position().x1 < maps[1].get_position().x0 < scatter.get_position().x0
    assert ax is maps[0]


def test_others_stand_below_each_other():
    ax = drawn(samples.map_strip(), samples.map_heat(), contributions(PARTS))
    ax.figure.canvas.draw()
    tops = [other.get_position().y1 for other in ax.figure.axes if other.get_title(loc="left")]
    assert tops == sorted(tops, reverse=True)
    assert len(tops) == 3


def test_only_panels_for_figures_are_drawn_and_into_given_axes_the_first(plt):
    ax = render.figure([predicted(), grid()])
    assert ax.get_title(loc="left") == "influence on logit of ' Paris'"
    _, mine = plt.subplots()
    assert render.figure([grid(), samples.scatter()], mine) is mine
    assert len(mine.figure.axes) == 2, "and the colour bar"
    with pytest.raises(ArgumentError, match="has a picture for figures"):
        render.figure([predicted()])


@pytest.mark.parametrize("panel", samples.every_nasty_kind(), ids=lambda p: type(p).__name__)
@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.filterwarnings("ignore:constrained_layout")
def test_nasty_texts_are_drawn_as_text(panel):
    ax = drawn(panel)
    ax.figure.savefig(io.BytesIO())
    shown = ax.get_title(loc="left").replace("\n", "")
    assert visible(INJECTION)[:20] in shown


@pytest.mark.filterwarnings("ignore:Glyph")
def test_dollar_signs_are_not_mathematics():
    odd = "$x_{"
    panels = [
        heat([[1.0, 2.0]], ["$x_{", "}$"], rows=(odd,), title="$\\frac", quantity="}$_", row_axis="$x_{$"),
        contributions({"$x_{$": 1.0, "0.$x_{$": 2.0}, title="$\\frac$", quantity=odd),
        strip([odd, "$"], rows=[row([1.0, 2.0], label=odd, facts=(odd,), coming=odd)], title=odd),
        samples.decay(title=odd, x_axis=odd, y_axis=odd, guides=(samples.Guide(axis="x", at=1.0, label="$x_{$"),)),
        samples.series(title=odd, x_axis=odd, y_axis=odd),
        msgspec_replace(samples.nasty_table(), title=odd, header=(odd, odd)),
    ]
    for panel in panels:
        drawn(panel).figure.canvas.draw()


@pytest.mark.parametrize("panel", samples.every_empty_kind(), ids=lambda p: type(p).__name__)
def test_empty_panels(panel):
    drawn(panel).figure.canvas.draw()
    assert not math.isnan(drawn(panel).figure.get_size_inches()[1])


@pytest.mark.usefixtures("plt", "no_matplotlib")  # in this order
def test_without_matplotlib_the_extra_is_named():
    with pytest.raises(ImportError, match=r"pip install 'tl-jacobian\[plot\]'"):
        drawn(grid())


@pytest.mark.slow
def test_matplotlib_is_loaded_only_for_figures():
    code = "import sys; from tl_jacobian import render; assert not any(m.startswith('matplotlib') for m in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
