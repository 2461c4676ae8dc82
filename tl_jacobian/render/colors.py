"""Scores to colours: one scale for the static, the interactive and the terminal view.

A score's colour is one hue with an opacity proportional to ``|score|``: zero is
transparent, so the page's own background (light or dark) shows through and the text
keeps the page's colour. Both hues are of middling lightness and the opacity stops at
:data:`MAX_OPACITY`, which keeps the text's contrast at 4.5 or more on both themes
(tests/render/test_colors.py measures it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

RGB = tuple[int, int, int]

# Vermillion and blue of Okabe and Ito's palette: they stay apart in every common colour blindness.
POSITIVE: RGB = (213, 94, 0)
NEGATIVE: RGB = (0, 114, 178)
MAX_OPACITY = 0.7


@dataclass(frozen=True)
class Scale:
    """The colour range of one attribution.

    Attributes:
        limit: the ``|score|`` drawn at full strength; 0 where every score is 0.
        low: smallest score inside the range.
        high: largest score inside the range.
        skipped: leading units that are drawn hatched and left out of the range (0 or 1).
    """

    limit: float
    low: float
    high: float
    skipped: int = 0

    @property
    def signed(self) -> bool:
        """Whether the scale diverges from zero into two colours."""
        return self.low < 0

    def strength(self, score: float) -> float:
        """``|score|`` as a share of the range, from 0 to 1; linear, so the colour can be read back."""
        return min(abs(score) / self.limit, 1.0) if self.limit else 0.0

    def css(self, score: float) -> str:
        """Background of ``score`` as ``#rrggbbaa``.

        The notebook sanitisers that strip scripts keep this form of inline colour.

        >>> Scale(limit=2.0, low=0.0, high=2.0).css(1.0)
        '#d55e0059'
        """
        return css_color(hue(score), self.strength(score) * MAX_OPACITY)

    def over(self, score: float, background: RGB) -> RGB:
        """The opaque colour that ``score`` gives on ``background``: for terminals."""
        return blend(hue(score), background, self.strength(score) * MAX_OPACITY)


def scale_of(scores: Tensor, *, skip_first: bool = False) -> Scale:
    """The colour range of ``scores``: symmetric about zero, as wide as its largest member.

    Args:
        scores: ``(units,)``, finite.
        skip_first: leave the first unit (the attention sink) out of the range.

    Raises:
        ValueError: a score isn't finite, and so has no colour.
    """
    values = scores.tolist()
    bad = [i for i, value in enumerate(values) if not math.isfinite(value)]
    if bad:
        raise ValueError(
            f"score of unit {bad[0]} is {values[bad[0]]} ({len(bad)} of {len(values)} aren't finite): "
            "only finite scores can be drawn; look for overflow in the model, for instance with dtype=float32"
        )
    kept = values[1:] if skip_first else values
    return Scale(
        limit=max(map(abs, kept), default=0.0),
        low=min(kept, default=0.0),
        high=max(kept, default=0.0),
        skipped=int(skip_first and bool(values)),
    )


def hue(score: float) -> RGB:
    """The base colour of a score's sign."""
    return NEGATIVE if score < 0 else POSITIVE


def css_color(rgb: RGB, opacity: float) -> str:
    """``#rrggbbaa``."""
    return "#" + "".join(f"{c:02x}" for c in (*rgb, round(opacity * 255)))


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
