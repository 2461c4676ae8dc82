"""Linearity: the change that a score promises beside the one that comes, as a frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.results.base import Frozen

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, kw_only=True)
class Linearity(Frozen):
    """Predicted and true changes of a logit as one token's embedding moves further and further.

    Attributes:
        epsilons: how far it moves, as a share of the embedding's norm.
        positions: the tokens that are moved, one at a time.
        str_tokens: their texts.
        predicted: first-order changes; ``(epsilons, positions)``, logits.
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
        for name in ("predicted", "actual"):
            self._set(name, getattr(self, name).detach().to("cpu", torch.float64, copy=True))
        self._protect_metadata()

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
        return (self.predicted - self.actual).norm(dim=1) / self.predicted.norm(dim=1)

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

    def show(self) -> None:
        """Draw a table, a row for each epsilon: in Jupyter as HTML, elsewhere in the terminal."""
        from tl_jacobian.render.linearity import show_linearity

        show_linearity(self)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot the relative error over epsilon with matplotlib (extra ``plot``); returns its axes."""
        from tl_jacobian.render.linearity import plot_linearity

        return plot_linearity(self, ax)

    def _repr_html_(self) -> str:
        from tl_jacobian.render.linearity import linearity_html

        return linearity_html(self)
