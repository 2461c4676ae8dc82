"""Features: what an SAE's features at one layer do to a number that the model predicts, as a frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.base import Value
from tl_jacobian.results.contributions import Contributions
from tl_jacobian.results.grid import Grid, grid_panels
from tl_jacobian.results.panels import NOT_IN_FIGURES, Panel
from tl_jacobian.results.words import four_digits

if TYPE_CHECKING:
    import pandas as pd


@four_digits
class FeatureCell(NamedTuple):
    """One entry of :meth:`Features.top`.

    Attributes:
        feature: its number.
        token: position of the token, ``text`` its text.
        activation: of the feature there.
        effect: on what is explained.
    """

    feature: int
    token: int
    text: str
    activation: float
    effect: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Features(Value):
    """The features that matter most for one number, and what is left besides them.

    Attributes:
        effects: features x tokens. Signed: gradient through the decoder times the activation, the first-order change of
            the number when the feature is added there (less that, when it is removed). Of a distribution not signed:
            twice the KL divergence to second order.
        activations: of the same features.
        features: their numbers, the rows of both.
        remainder: what the other features, the decoder's bias and the reconstruction error do, by token: with
            ``effects`` each column adds up to the gradient times the activation that was there. None of a distribution.
        parts: the sum over tokens: these features, the others, the bias, the error, the first token (an attention sink,
            which an SAE is seldom trained on) and the rest of the model add up to the number. None of a distribution.

    >>> import torch
    >>> def grid(*rows): return Grid(values=torch.tensor(rows), rows=("7", "31"), columns=("a", "b"), title="t",
    ...                              quantity="logits", row_axis="feature", column_axis="token", signed=True)
    >>> f = Features(effects=grid([0.0, 2.0], [0.5, -3.0]), activations=grid([0.0, 1.0], [4.0, 2.0]), features=(7, 31))
    >>> f.top(1)
    [FeatureCell(feature=31, token=1, text='b', activation=2.0, effect=-3.0)]
    """

    effects: Grid
    activations: Grid
    features: tuple[int, ...]
    remainder: Grid | None = None
    parts: Contributions | None = None

    def __post_init__(self) -> None:
        shapes = [tuple(g.values.shape) for g in (self.effects, self.activations)]
        if shapes[0] != shapes[1] or len(self.features) != shapes[0][0]:
            raise ArgumentError(
                f"effects of shape {shapes[0]} and activations of {shapes[1]} for {len(self.features)} features, "
                "expected one row for each feature in both"
            )

    def __len__(self) -> int:
        return len(self.features)

    def __repr__(self) -> str:
        best = ", ".join(f"{c.feature} at {c.text!r} {c.effect:+.3g}" for c in self.top(3))
        return f"Features({self.effects.title}; {len(self)} features; top: {best})"

    def top(self, k: int = 5, *, skip_first: bool = True) -> list[FeatureCell]:
        """The ``k`` features and tokens whose effects are furthest from zero, furthest first."""
        activations = self.activations.values
        return [
            FeatureCell(self.features[c.row], c.column, c.column_name, activations[c.row, c.column].item(), c.value)
            for c in self.effects.top(k, skip_first=skip_first)
        ]

    def neuronpedia(self, feature: int) -> str | None:
        """Where Neuronpedia describes a feature, as text: nothing is opened. None where the SAE doesn't say its id."""
        page = self.effects.metadata.get("neuronpedia")
        return None if page is None else f"https://www.neuronpedia.org/{page}/{feature}"

    def to_dataframe(self) -> pd.DataFrame:
        """One line for each feature and token: feature, token, text, activation, effect."""
        import pandas as pd  # heavy to import, and a dependency of TransformerLens anyway

        effects, activations = self.effects.values.tolist(), self.activations.values.tolist()
        rows = [
            FeatureCell(feature, token, text, activations[i][token], effects[i][token])
            for i, feature in enumerate(self.features)
            for token, text in enumerate(self.effects.columns)
        ]
        return pd.DataFrame(rows, columns=list(FeatureCell._fields))

    def panels(self, *, skip_first: bool = True) -> tuple[Panel, ...]:
        """Effects of features by token, what everything adds up to, and how active the features are."""
        page = self.effects.metadata.get("neuronpedia")
        facts = () if page is None else (f"features are described at neuronpedia.org/{page}/ and their number",)
        effects = grid_panels(self.effects, skip_first=skip_first, facts=facts)
        parts = () if self.parts is None else self.parts.panels(skip_first=skip_first)
        activations = grid_panels(self.activations, skip_first=skip_first, views=NOT_IN_FIGURES, text=False)
        return *effects, *parts, *activations
