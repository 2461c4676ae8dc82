"""A series with its influences and forecast, as a matplotlib figure."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.numbers import NumberDistribution, NumberInfluence

pytestmark = pytest.mark.usefixtures("plt")


def influence(scores=(50.0, 1.0, 4.0, 2.0), **fields):
    values = np.array([-1.0, 0.5, 2.0, 1.0, 0.0, 3.0])[: len(scores)]
    options = dict(scope="temperature", target="confidence: ||y||")
    return NumberInfluence(values=values, influence=np.array(scores), **{**options, **fields})


def forecast(**fields):
    p = np.array([0.1, 0.3, 0.4, 0.1])
    return NumberDistribution(numbers=np.arange(10, 14), probabilities=p, offset=-9.0, scale=1.0, **fields)


def parts(ax):
    """The axes of the bars, and of the forecast if there is one."""
    bars = next(other for other in ax.figure.axes if other is not ax and other.get_ylabel() == "influence")
    return bars, (ax.child_axes or [None])[0]


def test_values_and_influences_stand_at_the_same_places():
    ax = influence().plot()
    assert ax.lines[0].get_ydata().tolist() == [-1.0, 0.5, 2.0, 1.0]
    bars, side = parts(ax)
    assert side is None
    drawn = bars.patches
    assert [round(bar.get_x() + bar.get_width() / 2, 6) for bar in drawn] == ax.lines[0].get_xdata().tolist()
    assert [bar.get_height() for bar in drawn] == [50, 1, 4, 2]
    assert ax.get_title(loc="left") == "Temperature Scope: confidence: ||y||"


def test_the_cut_off_is_marked():
    ax = influence().plot()
    assert ax.lines[1].get_xdata() == [4, 4]


def test_bars_stay_below_the_values():
    """In pixels: the highest bar ends under the lowest value."""
    ax = influence((1.0, 9.0, 4.0, 2.0)).plot()
    ax.figure.canvas.draw()
    bars, _ = parts(ax)
    top = bars.transData.transform((0, 9.0))[1]
    lowest = ax.transData.transform((0, -1.0))[1]
    assert top < lowest
    assert min(ax.get_yticks()) >= -1.5, "no value ticks beside the bars"


def test_first_numbers_can_be_left_out_of_the_scale():
    bars, _ = parts(influence().plot(skip_first=1))
    whole, _ = parts(influence().plot())
    assert bars.patches[0].get_height() == 0
    assert bars.get_ylim()[1] == pytest.approx(whole.get_ylim()[1] * 4 / 50)
    assert any(patch.get_hatch() for patch in bars.patches)


def test_a_logarithmic_scale_shows_small_ones():
    ax = influence((500.0, 0.1, 4.0, 0.2)).plot(log=True)
    bars, _ = parts(ax)
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
    ax = NumberInfluence(values=np.arange(n) / n, influence=np.ones(n), scope="s", target="t").plot(width=width)
    ax.figure.canvas.draw()
    low, high = ax.get_xlim()
    ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
    assert len(ticks) >= 2
    assert all(tick == round(tick) and 0 <= tick <= n for tick in ticks)


@pytest.mark.parametrize("low", [1.05, 0.97, 0.0021, 31.0, 8.0])
@pytest.mark.parametrize("ratio", [1.0, 1.02, 1.5, 3.0, 9.0, 12.0, 60.0, 99.0, 1e3, 1e7])
def test_a_logarithmic_scale_has_two_labels_or_more(low, ratio):
    ax = influence((low, low * ratio, low)).plot(log=True)
    ax.figure.canvas.draw()
    bars, _ = parts(ax)
    shown = [t for t in bars.get_yticklabels() if t.get_text()]
    assert 2 <= len({t.get_text() for t in shown}) == len(shown) <= 4
    assert all(low / 1.5 <= t.get_position()[1] <= low * ratio * 1.001 for t in shown), "beside the bars"


def test_the_forecast_shares_the_value_axis():
    ax = influence().plot(distribution=forecast(truth=4.5))
    _, side = parts(ax)
    assert [bar.get_y() + bar.get_height() / 2 for bar in side.patches] == [1, 2, 3, 4]
    np.testing.assert_allclose([bar.get_width() for bar in side.patches], np.array([0.1, 0.3, 0.4, 0.1]) / 0.9)
    assert side.get_ylim() == ax.get_ylim()
    assert ax.get_ylim()[1] > 4.5, "the truth is in the picture"
    assert side.lines[0].get_ydata() == [4.5, 4.5]
    assert [text.get_text() for text in side.texts] == ["forecast", "truth"]
    assert [text.get_text() for text in parts(influence().plot(distribution=forecast()))[1].texts] == ["forecast"]


@pytest.mark.parametrize("width", [3.3, 6.8])
def test_nothing_is_cut_off_at_journal_width(width):
    ax = influence(target="confidence: a rather long name " * 3).plot(distribution=forecast(truth=2.0), width=width)
    figure = ax.figure
    assert figure.get_size_inches()[0] == pytest.approx(width)
    figure.canvas.draw()
    box = figure.get_tightbbox()
    assert box.x0 >= -0.01
    assert box.x1 <= width + 0.01
    assert box.y1 <= figure.get_size_inches()[1] + 0.01


def test_standard_errors_and_own_axes(plt):
    _, mine = plt.subplots()
    ax = influence(stderr=np.array([1.0, 0.1, 0.2, 0.3])).plot(mine)
    assert ax is mine
    bars, _ = parts(ax)
    assert len(bars.containers) == 2


def test_dollar_signs_are_not_mathematics():
    influence(target="$x_{").plot().figure.canvas.draw()


def test_a_constant_series_has_an_axis():
    i = NumberInfluence(values=np.ones(3), influence=np.zeros(3), scope="s", target="t")
    i.plot().figure.canvas.draw()


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        ((1.0, np.nan), {}, "an influence isn't finite"),
        ((1.0, -2.0), {}, "influences from -2 to 1, expected none negative"),
        ((0.0, 0.0), {"log": True}, "and some above zero for log=True"),
        ((1.0, 2.0), {"skip_first": 2}, "skip_first=2, expected 0 to 1 numbers"),
        ((1.0, 2.0), {"skip_first": True}, "skip_first=True, expected 0 to 1 numbers"),
    ],
)
def test_what_cant_be_drawn(scores, options, message):
    with pytest.raises(ArgumentError, match=message):
        influence(scores).plot(**options)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install 'tl-jacobian\[plot\]'"):
        influence().plot()
