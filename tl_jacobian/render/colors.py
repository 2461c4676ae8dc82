"""Values to colours: one scale for the page, the figure and the terminal.

A value's colour is one hue with an opacity proportional to ``|value|``: zero is transparent, so the page's own
background (light or dark) shows through and the text keeps the page's colour. Both hues are of middling lightness and
the opacity stops at :data:`MAX_OPACITY`, which keeps the text's contrast at 4.5 or more on both themes
(tests/render/test_colors.py measures it).
"""

from __future__ import annotations

from collections.abc import Sequence

from tl_jacobian.results.panels import Bars, Curve, Scale

RGB = tuple[int, int, int]

# Vermillion and blue of Okabe and Ito's palette: they stay apart in every common colour blindness.
POSITIVE: RGB = (213, 94, 0)
NEGATIVE: RGB = (0, 114, 178)
MAX_OPACITY = 0.7

# Of the same palette, and neither of the two that stand for signs: a bar's side is its sign.
KIND_COLORS: tuple[RGB, ...] = ((0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0))
REST_COLOR: RGB = (128, 128, 128)

# Of curves, which have a mark each that says the same again.
CURVE_COLORS: tuple[RGB, ...] = (
    (153, 153, 153),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    POSITIVE,
    NEGATIVE,
    (204, 121, 167),
)
GUIDE: RGB = (0, 158, 115)


def css(scale: Scale, value: float) -> str:
    """Background of ``value`` as ``#rrggbbaa``.

    The notebook sanitisers that strip scripts keep this form of inline colour.

    >>> css(Scale(limit=2.0, low=0.0, high=2.0, signed=False), 1.0)
    '#d55e0059'
    """
    return css_color(hue(value), scale.strength(value) * MAX_OPACITY)


def shade_css(shade: float) -> str:
    """Background of a cell that is ``shade`` strong, from -1 to 1."""
    return css_color(hue(shade), min(abs(shade), 1.0) * MAX_OPACITY)


def over(strength: float, value: float, background: RGB) -> RGB:
    """The opaque colour of a value of that strength and sign on ``background``: for terminals."""
    return blend(hue(value), background, strength * MAX_OPACITY)


def hue(value: float) -> RGB:
    """The base colour of a value's sign."""
    return NEGATIVE if value < 0 else POSITIVE


def css_color(rgb: RGB, opacity: float = 1.0) -> str:
    """``#rrggbbaa``."""
    return "#" + "".join(f"{c:02x}" for c in (*rgb, round(opacity * 255)))


def hex_color(rgb: RGB) -> str:
    """``#rrggbb``."""
    return css_color(rgb)[:7]


def unit(rgb: RGB) -> tuple[float, float, float]:
    """A colour as matplotlib wants it."""
    red, green, blue = rgb
    return red / 255, green / 255, blue / 255


def kinds_of(bars: Bars) -> list[str]:
    """The kinds of bars in order, what has none last."""
    kinds = list(dict.fromkeys(bar.kind for bar in bars.bars))
    return [*(kind for kind in kinds if kind), *([""] if "" in kinds else [])]


def kind_colors(bars: Bars) -> dict[str, RGB]:
    """The colour of each kind of bar; grey of what has none, or where there are more kinds than colours."""
    kinds = kinds_of(bars)
    named = dict(zip([kind for kind in kinds if kind], KIND_COLORS, strict=False))
    return {kind: named.get(kind, REST_COLOR) for kind in kinds}


def curve_colors(curves: Sequence[Curve]) -> list[RGB | None]:
    """The colour of each curve, by its role; None is the colour of the text around it."""
    free = [curve for curve in curves if not curve.role]
    fixed: dict[str, RGB | None] = {"positive": POSITIVE, "negative": NEGATIVE, "ink": None}
    found: list[RGB | None] = []
    for curve in curves:
        if curve.role:
            found.append(fixed[curve.role])
        elif len(free) == 1:
            found.append(POSITIVE)
        else:
            at = sum(not c.role for c in curves[: len(found)]) % (len(CURVE_COLORS) + 1)
            found.append(CURVE_COLORS[at] if at < len(CURVE_COLORS) else None)
    return found


def blend(rgb: RGB, background: RGB, opacity: float) -> RGB:
    """``rgb`` at ``opacity`` on an opaque ``background``."""
    r, g, b = (round(opacity * c + (1 - opacity) * under) for c, under in zip(rgb, background, strict=True))
    return r, g, b


def luminance(rgb: RGB) -> float:
    """Relative luminance (WCAG 2), 0 for black and 1 for white."""
    r, g, b = (_linear(c / 255) for c in rgb)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: RGB, other: RGB) -> float:
    """WCAG contrast ratio of two colours, from 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4
