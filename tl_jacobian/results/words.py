"""The words around pictures: what was explained, and by which model.

All of it is raw text: renderers make hidden characters visible and escape markup.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.panels import Scale, Unit

_MODEL_FACTS = ("model", "host", "dtype")


def number(value: float) -> str:
    """Three significant digits.

    >>> number(12.3456), number(0.0)
    ('12.3', '0')
    """
    return f"{value:.3g}"


def quoted(text: str) -> str:
    """``text`` in quotes that show where its spaces are."""
    return f"'{text}'"


def counted(n: int, axis: str) -> str:
    """``"1 layer"``, ``"2 layers"``."""
    return f"{n} {axis}" + ("" if n == 1 else "s")


def some(facts: Iterable[str]) -> tuple[str, ...]:
    """Those that say something."""
    return tuple(fact for fact in facts if fact)


def model_facts(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Model, host and precision, as far as the metadata say."""
    return tuple(str(metadata[key]) for key in _MODEL_FACTS if metadata.get(key))


def score_unit(metadata: Mapping[str, Any]) -> str:
    """What a score measures, or an empty string where the metadata don't say."""
    return str(metadata.get("score") or "")


def explained(target: str, metadata: Mapping[str, Any]) -> str:
    """The target and, where the metadata hold it, its value: ``"logit of ' Paris' = 14.2"``."""
    value = metadata.get("value")
    return target + (f" = {number(value)}" if isinstance(value, (int, float)) else "")


def extent(scale: Scale) -> str:
    """``"range 0.1 to 12.3"``."""
    return f"range {number(scale.low)} to {number(scale.high)}"


def typical_error(scores: Sequence[float], errors: Sequence[float] | None) -> str:
    """How large standard errors are beside scores above zero; empty for scores that aren't estimates."""
    if errors is None:
        return ""
    shares = [error / score for score, error in zip(scores, errors, strict=True) if score > 0]
    return f"standard error ±{sum(shares) / len(shares) if shares else 0.0:.1%} on average"


def left_out(units: Sequence[Unit], hidden: Sequence[int], sizes: Iterable[float], *, several: bool = False) -> str:
    """That token 0 is left out of the colours, and how strong it would be.

    Args:
        units: all units.
        hidden: those left out; where there is none, nothing is said.
        sizes: numbers of the first hidden unit; NaN where there is none.
        several: whether it has several numbers, of which the largest is said.

    >>> left_out([Unit("The"), Unit(" cat")], (0,), [-12.34])
    "first 'The' left out (would be -12.3)"
    """
    if not hidden:
        return ""
    kept = [value for value in sizes if not math.isnan(value)]
    largest = max(map(abs, kept), default=0.0)
    strength = f"up to {number(largest)}" if several else f"would be {number(kept[0] if kept else 0.0)}"
    return f"first {quoted(units[hidden[0]].text)} left out ({strength})"


def check_finite(scores: Sequence[float]) -> None:
    """Refuse to draw scores without a colour.

    Raises:
        ArgumentError: one is NaN or infinite.
    """
    bad = [i for i, value in enumerate(scores) if not math.isfinite(value)]
    if bad:
        raise ArgumentError(
            f"score of unit {bad[0]} is {scores[bad[0]]} ({len(bad)} of {len(scores)} aren't finite): "
            "only finite scores can be drawn; look for overflow in the model, for instance with dtype=float32"
        )
