"""Colours follow the score, and text on them stays readable."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tl_jacobian.render.colors import MAX_OPACITY, NEGATIVE, POSITIVE, RGB, blend, contrast, scale_of
from tl_jacobian.render.terminal import style_of

# Text and background of Jupyter's two themes, and of the page's own.
THEMES: list[tuple[RGB, RGB]] = [
    ((33, 33, 33), (255, 255, 255)),
    ((222, 222, 222), (17, 17, 17)),
    ((31, 35, 40), (255, 255, 255)),
    ((227, 229, 232), (21, 23, 27)),
]


def opacity(css: str) -> int:
    return int(css[7:], 16)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20))
def test_a_larger_score_never_has_a_weaker_colour(values: list[float]) -> None:
    scale = scale_of(torch.tensor(values))
    drawn = sorted((abs(value), opacity(scale.css(value))) for value in values)
    assert [o for _, o in drawn] == sorted(o for _, o in drawn)
    assert all(scale.css(value)[:7] == ("#0072b2" if value < 0 else "#d55e00") for value in values)


def test_distinct_scores_have_distinct_colours_from_transparent_to_full() -> None:
    scale = scale_of(torch.linspace(0, 5, 50))
    opacities = [opacity(scale.css(score)) for score in torch.linspace(0, 5, 50).tolist()]
    assert opacities[0] == 0
    assert opacities[-1] == round(MAX_OPACITY * 255)
    assert all(a < b for a, b in pairwise(opacities))


def test_all_zero_scores_are_all_transparent() -> None:
    scale = scale_of(torch.zeros(3))
    assert scale.css(0.0).endswith("00")


def test_skip_first_takes_the_first_score_out_of_the_range() -> None:
    scores = torch.tensor([30.0, 2.0, 4.0])
    assert scale_of(scores).limit == 30
    skipping = scale_of(scores, skip_first=True)
    assert (skipping.limit, skipping.low, skipping.high, skipping.skipped) == (4, 2, 4, 1)


def test_skip_first_of_a_single_score_leaves_an_empty_range() -> None:
    assert scale_of(torch.tensor([3.0]), skip_first=True).limit == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"score of unit 1 is (nan|inf) \(1 of 2"):
        scale_of(torch.tensor([1.0, bad]))


@pytest.mark.parametrize("hue", [POSITIVE, NEGATIVE])
@pytest.mark.parametrize(("text", "background"), THEMES)
def test_text_is_readable_on_every_colour_of_the_scale(hue: RGB, text: RGB, background: RGB) -> None:
    worst = min(contrast(text, blend(hue, background, MAX_OPACITY * step / 50)) for step in range(51))
    assert worst >= 4.5


@pytest.mark.parametrize("background", [(24, 24, 24), (255, 255, 255)])
def test_terminal_text_is_readable(background: RGB) -> None:
    scale = scale_of(torch.linspace(-1, 1, 41))
    styles = [style_of(score, scale, background) for score in torch.linspace(-1, 1, 41).tolist()]
    pairs = [style.split(" on ") for style in styles if style]
    assert len(pairs) > 35
    assert min(contrast(_rgb(text), _rgb(under)) for text, under in pairs) >= 4.5


def _rgb(css: str) -> RGB:
    return int(css[1:3], 16), int(css[3:5], 16), int(css[5:7], 16)
