"""Intervention: what changing one thing did to a prediction, beside what the gradient had promised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results import words
from tl_jacobian.results.attribution import Prediction
from tl_jacobian.results.base import Value
from tl_jacobian.results.panels import Bar, Bars, Panel

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Intervention(Value):
    """One change, its first-order effect and its true effect.

    Attributes:
        what: what was changed, in words: ``"head L5H3: zero at all tokens"``.
        quantity: what was watched: ``"logit of ' Paris'"``.
        unit: of ``before``, ``after`` and ``promised``: ``"logits"``.
        before, after: the quantity, without and with the change.
        promised: the change of the quantity to first order, gradient times change; None where it has none (an edit
            that changes the number of tokens).
        divergence: of the predicted distribution with the change from the one without, in nats; for an answer the sum
            over its tokens.
        predictions_before, predictions_after: the most probable next tokens, the same tokens in both.
        metadata: by what it was measured (JSON values).
    """

    what: str
    quantity: str
    unit: str
    before: float
    after: float
    promised: float | None
    divergence: float
    predictions_before: tuple[Prediction, ...] = ()
    predictions_after: tuple[Prediction, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._freeze("metadata")
        if (before := len(self.predictions_before)) != (after := len(self.predictions_after)):
            raise ArgumentError(
                f"predictions_before has {before} tokens and predictions_after {after}, expected the same in both"
            )

    @property
    def effect(self) -> float:
        """The true change of the quantity."""
        return self.after - self.before

    def __repr__(self) -> str:
        promised = "nothing" if self.promised is None else f"{self.promised:+.3g}"
        return f"Intervention({self.what}; {self.quantity}: promised {promised}, true {self.effect:+.3g} {self.unit})"

    def to_dataframe(self) -> pd.DataFrame:
        """One row: what was changed, promised and true effect, the quantity before and after, divergence."""
        import pandas as pd  # heavy to import, and a dependency of TransformerLens anyway

        names = ("what", "quantity", "unit", "promised", "effect", "before", "after", "divergence")
        return pd.DataFrame([{name: getattr(self, name) for name in names}])

    def panels(self, *, skip_first: bool = True) -> tuple[Panel, ...]:
        """Promise and effect as bars on one scale; below, the predictions before and after."""
        first = (
            [] if self.promised is None else [Bar(name="promised (first order)", value=self.promised, kind="promised")]
        )
        effect = Bars(
            title=self.what,
            detail=f"change of the {self.quantity}",
            facts=(
                f"{self.before:.4g} before, {self.after:.4g} after",
                f"the distribution moved by {self.divergence:.3g} nats (Kullback-Leibler)",
                *words.model_facts(self.metadata),
            ),
            legend=words.some(
                [self.unit, "" if first else "no first-order promise: the edit changes the number of tokens"]
            ),
            bars=(*first, Bar(name="true effect (run again)", value=self.effect, kind="true")),
            quantity=self.unit,
        )
        pairs = zip(self.predictions_before, self.predictions_after, strict=True)
        bars = [
            Bar(name=f"{one.text} ({when})", value=one.probability, kind=when, line=one.text, note=f"token {one.token}")
            for pair in pairs
            for when, one in zip(("before", "after"), pair, strict=True)
        ]
        if not bars:
            return (effect,)
        return effect, Bars(title="predicted next token", detail="before and after", bars=tuple(bars), percent=True)
