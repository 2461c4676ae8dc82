"""Token 0, an attention sink: pictures and rankings leave it out, numbers never do, and every renderer says so."""

from __future__ import annotations

import dataclasses
import io
import math
import re
from html import unescape
from typing import Any

import numpy as np
import pytest
import torch
from examples import alignment, attribution, grid
from rich.console import Console

from tl_jacobian import render
from tl_jacobian.results.alignment import WordAlignment
from tl_jacobian.results.attribution_map import AttributionMap
from tl_jacobian.results.comparison import Comparison
from tl_jacobian.results.contributions import Contributions
from tl_jacobian.results.numbers import NumberInfluence
from tl_jacobian.results.panels import Curves, HeatMap, Panel, TokenStrip
from tl_jacobian.results.patching import PatchComparison
from tl_jacobian.results.paths import PathSplit
from tl_jacobian.results.tokens import Word

SINK = 50.0  # of token 0; nothing else is above 4
TEXTS = ("The", " cat", " sat")


def scores(*values: float, **fields: Any) -> Any:
    return attribution(values, str_tokens=TEXTS[: len(values)], word_groups=(), **fields)


def tokens(values: Any = ((SINK, 1.0, 4.0), (40.0, -2.0, 3.0))) -> Any:
    return grid(values, columns=TEXTS, rows=("0", "1"))


def influence() -> WordAlignment:
    strong = torch.tensor([[SINK, 4.0, 2.0, 9.0, 0.0, 0.0], [40.0, 1.0, 3.0, 0.0, 6.0, 0.0]])
    places = tuple((i,) for i in range(6))
    units = (*TEXTS, " =", " red", " blue")
    return alignment(influence=strong, units=units, sources=(0, 1, 2), source_words=TEXTS, positions=places)


def values() -> dict[str, Any]:
    """One of each class that has tokens."""
    m = AttributionMap(
        attributions=(scores(SINK, 2.0), scores(40.0, 1.0, 4.0)), next_texts=(" sat", None), target_words=()
    )
    split = scores(SINK, 1.0, 4.0)
    return {
        "attribution": scores(SINK, 1.0, 4.0),
        "comparison": Comparison(attributions=(scores(SINK, 1.0, 4.0), scores(40.0, -1.0, 2.0, scope="semantic"))),
        "map": m,
        "grid": tokens(),
        "contributions": Contributions(
            names=("0.attn",),
            values=torch.ones(1),
            total=1.0,
            target="t",
            heads=grid(column_axis="head"),
            sources=tokens(),
        ),
        "path split": PathSplit(full=split, through=split, around=split, share=split),
        "patching": PatchComparison(predicted=tokens(), measured=tokens(), clean=1.0, corrupted=0.0),
        "alignment": influence(),
        "aligned word": influence().row(0),
        "numbers": NumberInfluence(
            values=np.arange(3.0),
            influence=np.array([SINK, 1.0, 4.0]),
            positions=((0, 1), (2,), (3,)),
            scope="temperature",
            target="t",
        ),
    }


VALUES = values()
each = pytest.mark.parametrize("name", VALUES)


def with_tokens(panels: tuple[Panel, ...]) -> list[Panel]:
    """Panels in which token 0 has a place of its own."""
    found: list[Panel] = []
    for panel in panels:
        if isinstance(panel, Curves) and panel.below is not None:
            found.append(panel.below)
        elif isinstance(panel, TokenStrip) or (isinstance(panel, HeatMap) and panel.columns[0].positions):
            found.append(panel)
    assert found
    return found


def numbers_of(panel: Panel) -> list[Any]:
    if isinstance(panel, Curves):
        return [curve.y for curve in panel.curves]
    return [row.values for row in panel.rows] if isinstance(panel, TokenStrip) else list(panel.values)  # type: ignore[attr-defined]


def limits(panel: Panel) -> list[float]:
    if isinstance(panel, Curves):
        return [max(y for curve in panel.curves for y in curve.y[panel.hidden :])]
    return [row.scale.limit for row in panel.rows] if isinstance(panel, TokenStrip) else [s.limit for s in panel.scales]  # type: ignore[attr-defined]


# -- panels and rankings -----------------------------------------------------------------


@each
def test_token_0_is_hidden_unless_it_is_asked_for(name):
    hiding, showing = with_tokens(VALUES[name].panels()), with_tokens(VALUES[name].panels(skip_first=False))
    for one, other in zip(hiding, showing, strict=True):
        assert (one.hidden, other.hidden) == ((1, 0) if isinstance(one, Curves) else ((0,), ()))
        assert max(limits(one)) <= 4.0
        assert max(limits(other)) > 4.0 * max(limits(one)) / 2
        assert repr(numbers_of(one)) == repr(numbers_of(other)), "no number is another, or left out"
        found = [row[0] for row in numbers_of(one)]
        assert max(x for x in found if not math.isnan(x)) >= 40.0 or name in ("alignment", "aligned word")


@each
def test_it_is_ranked_only_if_it_is_asked_for(name):
    value = VALUES[name]
    if not hasattr(value, "top") or name == "contributions":  # whose parts are no tokens
        pytest.skip("no ranking of tokens")
    place = {"grid": "column", "numbers": "position"}.get(name, "unit")
    assert 0 not in [getattr(entry, place) for entry in value.top(9)]
    assert getattr(value.top(9, skip_first=False)[0], place) == 0
    assert len(value.top(9, skip_first=False)) > len(value.top(9))


@each
def test_a_table_of_the_numbers_holds_it(name):
    if name == "contributions":
        return
    table = VALUES[name].to_dataframe()
    assert table.select_dtypes("number").max().max() == SINK


@each
def test_what_is_one_token_long_is_shown(name):
    assert scores(SINK).panels()[0].hidden == ()
    assert scores(SINK).top(1)[0].score == SINK


# -- words -------------------------------------------------------------------------------


@pytest.mark.parametrize("combine", ["root_sum_squares", "sum"])
def test_the_first_word_is_split_and_totals_add_up(combine):
    power = 2 if combine == "root_sum_squares" else 1
    a = scores(3.0, 4.0, 12.0, combine=combine)
    a = dataclasses.replace(a, word_groups=(Word("The cat", 2), Word(" sat", 1)))
    words, whole = a.words(), a.words(split_first=False)
    assert (words.units, words.str_tokens) == (((0,), (1,), (2,)), TEXTS)
    assert (whole.units, whole.str_tokens) == (((0, 1), (2,)), ("The cat", " sat"))
    assert words.scores[0] == 3.0
    first = words.scores[:2].double().pow(power).sum().item() ** (1 / power)
    assert first == pytest.approx(whole.scores[0].item()) == {2: 5.0, 1: 7.0}[power]
    totals = [x.scores.double().pow(power).sum().item() for x in (a, words, whole)]
    assert totals == pytest.approx([totals[0]] * 3)
    assert words.panels()[0].hidden == (0,)
    assert whole.panels()[0].hidden == (), "a word that is more than token 0 is a word"


def test_a_map_of_words_splits_it_too():
    groups = (Word("The cat", 2), Word(" sat", 1))
    rows = tuple(dataclasses.replace(a, word_groups=groups if len(a) == 3 else groups[:1]) for a in VALUES["map"])
    m = dataclasses.replace(VALUES["map"], attributions=rows)
    assert m.words().units == ((0,), (1,), (2,))
    assert m.words(split_first=False).units == ((0, 1), (2,))
    assert m.words().panels()[0].hidden == (0,)
    assert m.words().scores[-1].tolist() == m.scores[-1].tolist()


# -- every renderer ----------------------------------------------------------------------


def said(name: str) -> str:
    """What is to be read of token 0, as far as all renderers say it alike."""
    return "first point left out (would be 50)" if name == "numbers" else "first 'The' left out"


def printed(panels: Any, **options: Any) -> str:
    out = io.StringIO()
    render.terminal(panels, console=Console(file=out, width=400, **options))
    return out.getvalue()


@each
@pytest.mark.parametrize("options", [{}, {"force_terminal": True, "color_system": "truecolor"}])
def test_the_terminal_hides_it_and_says_so(name, options):
    text, whole = (printed(VALUES[name].panels(skip_first=skip), **options) for skip in (True, False))
    assert said(name) in text
    assert "left out" not in whole
    if options and name == "attribution":
        assert re.search("\x1b\\[2;9mThe", text), "struck out"
        assert "\x1b[2;9m" not in whole


@each
def test_pages_hatch_it_and_say_so(name):
    pages = [unescape(render.page(VALUES[name].panels(skip_first=skip))).split("<body>")[1] for skip in (True, False)]
    text, whole = (re.sub("<script>.*?</script>", "", page, flags=re.DOTALL) for page in pages)
    assert said(name) in text
    assert "left out" not in whole
    hatches = [page.count("linear-gradient(135deg") + page.count('class="tlj-none"') for page in (text, whole)]
    if name == "numbers":
        hatches = [page.count('stroke-width="1.6"') for page in (text, whole)]
    assert hatches[0] > hatches[1], hatches


@each
def test_markdown_says_so(name):
    hidden, whole = (render.markdown(VALUES[name].panels(skip_first=skip)) for skip in (True, False))
    assert (said(name) if name != "numbers" else "| 0 | 50 |") in hidden.replace("\\", ""), "a table leaves nothing out"
    assert "left out" not in whole


@each
def test_figures_hatch_it_and_say_so(name):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    found = []
    for skip in (True, False):
        figure = VALUES[name].plot(skip_first=skip).figure if name != "contributions" else None
        if figure is None:  # heads and sources aren't drawn in figures
            return
        artists = figure.findobj()
        texts = " ".join(a.get_text() for a in artists if hasattr(a, "get_text"))
        hatched = [a for a in artists if getattr(a, "get_hatch", str)() and a not in [ax.patch for ax in figure.axes]]
        found.append((said(name) in texts, "left out" in texts, bool(hatched)))
        pyplot.close(figure)
    assert found == [(True, True, True), (False, False, False)]


def test_how_strong_it_is_is_said_once():
    one = printed(VALUES["attribution"].panels())
    assert "first 'The' left out (would be 50)" in one
    assert one.count("left out") == 1
    assert "first 'The' left out (up to 50)" in printed(VALUES["grid"].panels())
    page = unescape(render.page(VALUES["comparison"].panels())).split("<body>")[1]
    assert re.findall(r"'The' would be \d+", page) == ["'The' would be 50", "'The' would be 40"], "scales differ"
    assert page.count("left out</bdi>") == 1
