"""Linearity: the change that a score promises beside the one that comes, as a frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results import words
from tl_jacobian.results.base import Value
from tl_jacobian.results.panels import Cell, Curve, Curves, Guide, Panel, Table

if TYPE_CHECKING:
    import pandas as pd


_TOKENS = 3  # columns; more would not stand side by side in a terminal


@dataclass(frozen=True, eq=False, kw_only=True)
class Linearity(Value):
    """Predicted and true changes of a logit, or an answer's log p, as one token's embedding moves further and further.

    Attributes:
        epsilons: how far it moves, as a share of the embedding's norm.
        positions: the tokens that are moved, one at a time.
        str_tokens: their texts.
        predicted: first-order changes; ``(epsilons, positions)``, in logits or what ``metadata`` says.
        actual: what the model does; same shape.
        metadata: the explained logit, the way of moving (JSON values).

    >>> found = Linearity(epsilons=(0.1, 1.0), positions=(3,), str_tokens=(" a",),
    ...                   predicted=torch.tensor([[0.5], [5.0]]), actual=torch.tensor([[0.5], [0.0]]))
    >>> found.relative_error.tolist()
    [0.0, 1.0]
    """

    epsilons: tuple[float, ...]
    positions: tuple[int, ...]
    str_tokens: tuple[str, ...]
    predicted: Float[Tensor, "epsilons positions"]
    actual: Float[Tensor, "epsilons positions"]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._own("predicted", "actual", dtype=torch.float64)
        self._freeze("metadata")
        shape = (len(self.epsilons), len(self.positions))
        found = [tuple(self.predicted.shape), tuple(self.actual.shape)]
        if found != [shape, shape] or len(self.str_tokens) != shape[1]:
            raise ArgumentError(
                f"predicted and actual changes of shapes {found} and {len(self.str_tokens)} texts for {shape[0]} "
                f"epsilons and {shape[1]} positions, expected {shape} and one text each"
            )

    def __repr__(self) -> str:
        errors = ", ".join(
            f"{e:g}: {error:.2g}" for e, error in zip(self.epsilons, self.relative_error.tolist(), strict=True)
        )
        return f"Linearity(relative error of first order at epsilon {errors})"

    @property
    def relative_error(self) -> Float[Tensor, " epsilons"]:
        """||predicted - actual|| / ||predicted||, norms over the tokens, for each epsilon.

        0 is perfect: what was predicted comes, exactly. 1 is as wrong as the prediction is large, as where nothing
        happens at all. There is no upper limit.
        """
        predicted = self.predicted
        return (predicted - self.actual).norm(dim=1) / predicted.norm(dim=1)

    # -- tables and pictures -------------------------------------------------------

    def to_dataframe(self) -> pd.DataFrame:
        """One row for each epsilon and token: epsilon, position, text, predicted, actual."""
        import pandas as pd  # heavy to import, and a dependency of TransformerLens anyway

        n, m = len(self.epsilons), len(self.positions)
        columns = {
            "epsilon": [epsilon for epsilon in self.epsilons for _ in range(m)],
            "position": list(self.positions) * n,
            "text": list(self.str_tokens) * n,
            "predicted": self.predicted.flatten().tolist(),
            "actual": self.actual.flatten().tolist(),
        }
        return pd.DataFrame(columns)

    def panels(self, *, skip_first: bool = True) -> tuple[Panel, ...]:
        """A row for each epsilon, with the first few tokens; and the relative error over epsilon."""
        return self._table(), self._curve()

    def _title(self) -> str:
        return f"Linearity of {self.metadata.get('target', 'a logit')}"

    def _table(self) -> Table:
        n, way = len(self.positions), self.metadata.get("way")
        tokens = [f"{i} {words.quoted(text)}" for i, text in zip(self.positions, self.str_tokens, strict=True)]
        errors, predicted, actual = self.relative_error.tolist(), self.predicted.tolist(), self.actual.tolist()
        rows = []
        for epsilon, error, some, others in zip(self.epsilons, errors, predicted, actual, strict=True):
            pairs = [f"{a:+.2g} → {b:+.2g}" for a, b in zip(some, others, strict=True)][:_TOKENS]
            rows.append(tuple(map(Cell, [f"{epsilon:g}", words.number(error), *pairs])))
        facts = [
            f"{_TOKENS} of {n} tokens shown" if n > _TOKENS else "",
            f"way: {way}" if way else "",
            *words.model_facts(self.metadata),
        ]
        header = ("epsilon", "relative error", *tokens[:_TOKENS])
        return Table(
            title=self._title(),
            facts=words.some(facts),
            header=header,
            rows=tuple(rows),
            notes=(f"of each token: predicted → actual change, in {self.metadata.get('unit', 'logits')}",),
            numbers=tuple(range(len(header))),
        )

    def _curve(self) -> Curves:
        errors = self.relative_error.tolist()
        return Curves(
            curves=(Curve(name="relative error", x=self.epsilons, y=tuple(errors), role="positive"),),
            x_axis="epsilon: how far an embedding moves, as a share of its norm",
            y_axis="relative error of first order",
            log_x=True,
            log_y=any(error > 0 for error in errors),
            guides=(Guide(axis="y", at=1.0, label="1: as wrong as the prediction is large"),),
        )
