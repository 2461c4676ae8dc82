"""Colours follow the value, and text on them stays readable."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from panel_samples import contributions
from rich.color import Color, ColorSystem
from rich.console import Console
from rich.style import Style

from tl_jacobian.render.colors import (
    MAX_OPACITY,
    NEGATIVE,
    POSITIVE,
    RGB,
    blend,
    contrast,
    css,
    curve_colors,
    kind_colors,
    shade_css,
)
from tl_jacobian.render.terminal import style_of
from tl_jacobian.results.panels import Curve, scale_of

# Text and background of Jupyter's two themes, and of the page's own.
THEMES: list[tuple[RGB, RGB]] = [
    ((33, 33, 33), (255, 255, 255)),
    ((222, 222, 222), (17, 17, 17)),
    ((31, 35, 40), (255, 255, 255)),
    ((227, 229, 232), (21, 23, 27)),
]
STEPS = [i / 49 * 5 for i in range(50)]


def opacity(color: str) -> int:
    return int(color[7:], 16)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20))
def test_a_larger_value_never_has_a_weaker_colour(values: list[float]) -> None:
    scale = scale_of(values)
    drawn = sorted((abs(value), opacity(css(scale, value))) for value in values)
    assert [o for _, o in drawn] == sorted(o for _, o in drawn)
    assert all(css(scale, value)[:7] == ("#0072b2" if value < 0 else "#d55e00") for value in values)


def test_distinct_values_have_distinct_colours_from_transparent_to_full() -> None:
    scale = scale_of(STEPS)
    opacities = [opacity(css(scale, value)) for value in STEPS]
    assert opacities[0] == 0
    assert opacities[-1] == round(MAX_OPACITY * 255)
    assert all(a < b for a, b in pairwise(opacities))


def test_all_zeros_are_all_transparent() -> None:
    assert css(scale_of([0.0, 0.0]), 0.0).endswith("00")


def test_shades_go_from_one_hue_to_the_other() -> None:
    assert [shade_css(shade) for shade in (-1.0, -0.5, 0.0, 1.0, 3.0)] == [
        "#0072b2b2",
        "#0072b259",
        "#d55e0000",
        "#d55e00b2",
        "#d55e00b2",
    ]


@pytest.mark.parametrize("hue", [POSITIVE, NEGATIVE])
@pytest.mark.parametrize(("text", "background"), THEMES)
def test_text_is_readable_on_every_colour_of_the_scale(hue: RGB, text: RGB, background: RGB) -> None:
    worst = min(contrast(text, blend(hue, background, MAX_OPACITY * step / 50)) for step in range(51))
    assert worst >= 4.5


@pytest.mark.parametrize("background", ["15;0", "0;15", None])
@pytest.mark.parametrize("system", ["truecolor", "256", "standard"])
def test_terminal_text_is_readable(background: str | None, system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after the terminal's own choice of the nearest colours; of 8 it is told names, whose shades it knows."""
    if background:
        monkeypatch.setenv("COLORFGBG", background)
    values = [i / 20 - 1 for i in range(41)]
    console = Console(force_terminal=True, color_system=system)
    styles = [style_of(value, scale_of(values), console) for value in values]
    if system == "standard":
        assert set(styles) == {"", "underline", "black on yellow", "black on cyan"}
        return
    pairs = [Style.parse(style) for style in styles if style]
    assert len(pairs) > 33
    near = {"truecolor": ColorSystem.TRUECOLOR, "256": ColorSystem.EIGHT_BIT}[system]
    shown = [(_nearest(style.color, near), _nearest(style.bgcolor, near)) for style in pairs]
    assert min(contrast(text, under) for text, under in shown) >= (4.5 if system == "truecolor" else 4.2)
    if background is None:  # on a light terminal white on black would shout
        assert {text for text, _ in shown} == {_nearest(Color.parse("#101010"), near)}


def _nearest(color: Color, system: ColorSystem) -> RGB:
    return tuple(color.downgrade(system).get_truecolor())


def test_kinds_have_colours_of_their_own_and_none_is_a_signs() -> None:
    colors = kind_colors(contributions({"embed": 1.0, **{f"0.{kind}": 1.0 for kind in "abcdef"}}))
    assert len({colors[kind] for kind in "abcd"}) == 4
    assert colors["e"] == colors["f"] == colors[""] == (128, 128, 128)
    assert not {POSITIVE, NEGATIVE} & set(colors.values())


def test_curves_are_told_apart_and_roles_fix_their_colour() -> None:
    plain = [Curve(name=str(i), x=(), y=()) for i in range(9)]
    assert len(set(curve_colors(plain)[:8])) == 8
    signs = [Curve(name="", x=(), y=(), role=role) for role in ("negative", "ink", "positive")]
    assert curve_colors(signs) == [NEGATIVE, None, POSITIVE]
    assert curve_colors([plain[0], signs[1]]) == [POSITIVE, None], "one alone stands out"
