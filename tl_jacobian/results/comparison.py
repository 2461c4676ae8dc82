"""Comparison: several attributions of one prompt, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results import words
from tl_jacobian.results.arguments import checked
from tl_jacobian.results.attribution import (
    Attribution,
    explained_position,
    inside_strip,
    named_units,
    predicted_bars,
    strip_row,
)
from tl_jacobian.results.base import Value
from tl_jacobian.results.panels import Panel, TokenStrip, hidden_units

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison(Value):
    """Several attributions of one prompt, in one picture; made by :func:`compare`.

    Attributes:
        attributions: what is compared, in order.

    Raises:
        ArgumentError: there is none, or they aren't of the same tokens and units.
    """

    attributions: tuple[Attribution, ...]

    def __post_init__(self) -> None:
        self._set("attributions", tuple(self.attributions))
        if not self.attributions:
            raise ArgumentError("nothing to compare: got an empty list, expected attributions of one prompt")
        first = self.attributions[0]
        for i, other in enumerate(self.attributions[1:], start=1):
            if (other.tokens, other.str_tokens, other.units) != (first.tokens, first.str_tokens, first.units):
                raise ArgumentError(
                    f"attributions 0 and {i} aren't of the same tokens ({_excerpt(first)} and {_excerpt(other)}): only "
                    "attributions of one prompt, at one position and all per token or all per word, can be compared; "
                    "show them one by one"
                )

    def __len__(self) -> int:
        return len(self.attributions)

    def __repr__(self) -> str:
        return f"Comparison({', '.join(f'{words.ruled(a.scope, a.metadata)}: {a.target}' for a in self.attributions)})"

    def to_dataframe(self) -> pd.DataFrame:
        """One row a unit and attribution: that of :meth:`Attribution.to_dataframe`, after its scope and target."""
        import pandas as pd  # heavy to import, and a dependency of TransformerLens anyway

        tables = []
        for a in self.attributions:
            table = a.to_dataframe()
            table.insert(0, "scope", words.ruled(a.scope, a.metadata))
            table.insert(1, "explained", a.target)
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    def panels(self, *, skip_first: bool = True) -> tuple[Panel, ...]:
        """The text once for each attribution, each on a colour scale of its own: scopes have different units."""
        first = self.attributions[0]
        if len(self) == 1:
            return first.panels(skip_first=skip_first)
        units, hidden = named_units(first), hidden_units(first.units, skip_first)
        rows = [
            msgspec.structs.replace(strip_row(a, hidden), facts=words.some([words.score_unit(a.metadata)]))
            for a in self.attributions
        ]
        strip = TokenStrip(
            title=f"{len(self)} attributions of one prompt",
            facts=(explained_position(first), *words.sinks(first.metadata), *words.model_facts(first.metadata)),
            units=units,
            rows=tuple(rows),
            hidden=hidden,
            inside=inside_strip(self.attributions, skip_first, tokens=False),
        )
        predictions = next((a.predictions for a in self.attributions if a.predictions), ())
        return strip, *predicted_bars(predictions)


@checked
def compare(attributions: Sequence[Attribution]) -> Comparison:
    """Several attributions of one prompt in one figure.

    Each has its own colour scale, for scores of different scopes have different units.

    Args:
        attributions: at least one, all of the same tokens.

    Raises:
        ArgumentError: there is none, they aren't attributions, or their tokens differ.
    """
    return Comparison(attributions=tuple(attributions))


def _excerpt(attribution: Attribution) -> str:
    text = "".join(attribution.str_tokens)
    return f"{len(attribution)} units, {text[:40]!r}" + ("…" if len(text) > 40 else "")
