"""The words around pictures: what was explained, and by which model.

All of it is raw text: renderers make hidden characters visible and escape markup.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from tl_jacobian.errors import ArgumentError

T = TypeVar("T")
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


def four_digits(row: type[T]) -> type[T]:
    """A NamedTuple whose numbers are written with four digits, as PyTorch does; they are kept as they are.

    >>> from typing import NamedTuple
    >>> @four_digits
    ... class Point(NamedTuple):
    ...     name: str
    ...     x: float
    >>> Point("a", 2 / 3), Point("b", 1.0).x
    (Point(name='a', x=0.6667), 1.0)
    """

    def written(self: Any) -> str:
        return f"{row.__name__}({', '.join(f'{name}={_written(value)}' for name, value in self._asdict().items())})"

    row.__repr__ = written
    return row


def _written(value: Any) -> str:
    return repr(float(f"{value:.4g}")) if isinstance(value, float) else repr(value)


def listed(scores: Iterable[tuple[Any, str, float]]) -> str:
    """Ranked texts with their numbers: ``"' France' 12, ' capital' 9"``."""
    return ", ".join(f"{quoted(text)} {number(score)}" for _, text, score in scores)


def counted(n: int, axis: str) -> str:
    """``"1 layer"``, ``"2 layers"``."""
    return f"{n} {axis}" + ("" if n == 1 else "s")


def some(facts: Iterable[str]) -> tuple[str, ...]:
    """Those that say something."""
    return tuple(fact for fact in facts if fact)


def model_facts(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Model, host and precision, as far as the metadata say."""
    return tuple(str(metadata[key]) for key in _MODEL_FACTS if metadata.get(key))


def sinks(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Which tokens are attention sinks, where the metadata say that some are.

    >>> sinks({"attention_sinks": [{"position": 0, "text": "<s>", "norm": 172.0}]})
    ("attention sink: token 0 '<s>' (activations 172 times the usual size)",)
    """
    found = metadata.get("attention_sinks") or ()
    size = "(activations {} times the usual size)"
    named = [f"token {s['position']} {quoted(s['text'])} {size.format(number(s['norm']))}" for s in found]
    return (f"attention sink{'s' * (len(named) > 1)}: {', '.join(named)}",) if named else ()


def ruled(title: str, metadata: Mapping[str, Any]) -> str:
    """A title that says by which backward rule, where it isn't the exact Jacobian.

    >>> ruled("Semantic Scope", {"rule": "gim"}), ruled("Semantic Scope", {})
    ('Semantic Scope (rule gim)', 'Semantic Scope')
    """
    return f"{title} (rule {metadata['rule']})" if metadata.get("rule") else title


def score_unit(metadata: Mapping[str, Any]) -> str:
    """What a score measures, or an empty string where the metadata don't say."""
    return str(metadata.get("score") or "")


def explained(target: str, metadata: Mapping[str, Any]) -> str:
    """The target and, where the metadata hold it, its value: ``"logit of ' Paris' = 14.2"``."""
    value = metadata.get("value")
    return target + (f" = {number(value)}" if isinstance(value, (int, float)) else "")


def check_finite(scores: Sequence[float], use: str = "drawn") -> None:
    """Refuse scores without a colour, or without a rank.

    Raises:
        ArgumentError: one is NaN or infinite.
    """
    bad = [i for i, value in enumerate(scores) if not math.isfinite(value)]
    if bad:
        raise ArgumentError(
            f"score of unit {bad[0]} is {scores[bad[0]]} ({len(bad)} of {len(scores)} aren't finite): "
            f"only finite scores can be {use}; look for overflow in the model, for instance with dtype=float32"
        )
