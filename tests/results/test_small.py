"""What is nearly nothing can be drawn and printed: one token, no prediction, no number at all."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from examples import NAN, attribution, examples, grid
from rich.console import Console

from tl_jacobian import render
from tl_jacobian.results.attribution_map import AttributionMap
from tl_jacobian.results.comparison import Comparison
from tl_jacobian.results.numbers import NumberInfluence
from tl_jacobian.results.patching import PatchComparison
from tl_jacobian.results.paths import PathSplit

ONE = attribution((2.0,))
SMALL: dict[str, Any] = {
    "one token": ONE,
    "one word": ONE.words(),
    "a zero": attribution((0.0, 0.0)),
    "nothing": attribution(()),
    "comparison": Comparison(attributions=(ONE, ONE)),
    "comparison of nothing": Comparison(attributions=(attribution(()),) * 2),
    "map of one": AttributionMap(attributions=(ONE,), next_texts=(None,)),
    "words of it": AttributionMap(attributions=(ONE,), next_texts=(None,)).words(),
    "split of one": PathSplit(full=ONE, through=ONE, around=ONE, share=ONE),
    "grid of one": grid(((1.0,),), rows=("0",), columns=("a",)),
    "grid of gaps": grid(((NAN, NAN), (NAN, NAN)), columns=("a", "b")),
    "gaps but for token 0": grid(((1.0, NAN), (2.0, NAN)), columns=("a", "b")),
    "patches of gaps": PatchComparison(
        predicted=grid(((NAN,),), rows=("0",), columns=("a",)),
        measured=grid(((NAN,),), rows=("0",), columns=("a",)),
        clean=0.0,
        corrupted=0.0,
    ),
    "one number": NumberInfluence(
        values=np.ones(1), influence=np.ones(1), positions=((0,),), scope="temperature", target="t"
    ),
    "no influence": NumberInfluence(values=np.ones(2), influence=np.zeros(2), scope="temperature", target="t"),
}
UNDRAWABLE = {"attribution that isn't finite"}
ALL = {**SMALL, **{name: value for name, value in examples().items() if name not in UNDRAWABLE}}


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("skip_first", [True, False])
@pytest.mark.parametrize("name", SMALL)
def test_it_is_drawn_everywhere(name, skip_first):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    panels = SMALL[name].panels(skip_first=skip_first)
    assert panels
    render.terminal(panels, console=Console(file=io.StringIO(), width=80))
    assert render.page(panels)
    assert render.markdown(panels)
    ax = render.figure(panels)
    ax.figure.canvas.draw()
    pyplot.close(ax.figure)


@pytest.mark.parametrize("name", ALL)
def test_it_can_be_printed(name):
    assert repr(ALL[name])


def test_a_single_number_is_left_out_of_nothing():
    assert SMALL["one number"].panels()[0].below.hidden == 0
    assert SMALL["one number"].top(1) == SMALL["one number"].top(1, skip_first=False)


def test_a_split_of_no_token_has_no_largest_share():
    none = attribution(())
    assert repr(PathSplit(full=none, through=none, around=none, share=none)) == "PathSplit(distribution, distribution)"
    assert torch.equal(none.scores, torch.zeros(0))
