"""PerturbationCurves: what removing tokens in an attribution's order does to a prediction, as a frozen value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results import words
from tl_jacobian.results.base import Value
from tl_jacobian.results.panels import Curve, Curves, Guide, Panel
from tl_jacobian.results.scopes import scope_title

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, kw_only=True)
class PerturbationCurves(Value):
    """What removing tokens does to the prediction, in the order of one attribution.

    Attributes:
        k: percentages of the tokens.
        n: how many tokens each of them is: the next whole number.
        clean: log-probability of the target in the whole prompt, in nats.
        removed: the same without the ``n`` tokens that score highest; ``(k,)``.
        kept: with nothing but those; ``(k,)``. None where it wasn't asked for.
        divergence: KL(p || p without the ``n`` tokens) of the whole distribution, in nats; ``(k,)``. None of curves
            that older versions stored.
        scope: of the attribution.
        metadata: target, perturbation, and what else was done (JSON values).

    >>> c = PerturbationCurves(k=(10.0, 20.0), n=(1, 2), clean=-0.1, removed=torch.tensor([-1.1, -2.1]),
    ...                        kept=torch.tensor([-3.0, -0.2]), scope="semantic")
    >>> [round(drop, 3) for drop in c.drops.tolist()], round(c.aopc, 3)
    ([1.0, 2.0], 1.5)
    """

    k: tuple[float, ...]
    n: tuple[int, ...]
    clean: float
    removed: Float[Tensor, " k"]
    scope: str
    kept: Float[Tensor, " k"] | None = None
    divergence: Float[Tensor, " k"] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._own("removed", "kept", "divergence", dtype=torch.float64)
        self._freeze("metadata")
        given = [one for one in (self.removed, self.kept, self.divergence) if one is not None]
        lengths = [len(self.k), len(self.n), *map(len, given)]
        if len(set(lengths)) > 1 or not self.k:
            raise ArgumentError(
                f"k, n, removed, kept and divergence have lengths {lengths}, expected one each, and at least one"
            )

    def __repr__(self) -> str:
        drops = ", ".join(f"{k:g}%: {drop:.3g}" for k, drop in zip(self.k, self.drops.tolist(), strict=True))
        return f"PerturbationCurves({self.scope}; log-probability falls without the top {drops} nats)"

    @property
    def drops(self) -> Float[Tensor, " k"]:
        """By how many nats the log-probability falls without the top k%: AOPC at each k.

        Larger is better; the paper's table prints it with the other sign.
        """
        return self.clean - self.removed

    @property
    def aopc(self) -> float:
        """The other normalisation in use: the mean of :attr:`drops` over k."""
        return self.drops.mean().item()

    @property
    def comprehensiveness(self) -> float:
        """Mean over k of p - p(without the top k%) (DeYoung et al., 2020); larger is better."""
        return (math.exp(self.clean) - self.removed.exp()).mean().item()

    @property
    def sufficiency(self) -> float | None:
        """Mean over k of p - p(with nothing but the top k%) (DeYoung et al., 2020); smaller is better."""
        kept = self.kept
        return None if kept is None else (math.exp(self.clean) - kept.exp()).mean().item()

    def to_dataframe(self) -> pd.DataFrame:
        """One row a percentage: k, n, removed, kept, drop, divergence."""
        import pandas as pd  # heavy to import, and a dependency of TransformerLens anyway

        kept, moved = self.kept, self.divergence
        columns = {
            "k": list(self.k),
            "n": list(self.n),
            "removed": self.removed.tolist(),
            "kept": [math.nan] * len(self.k) if kept is None else kept.tolist(),
            "drop": self.drops.tolist(),
            "divergence": [math.nan] * len(self.k) if moved is None else moved.tolist(),
        }
        return pd.DataFrame(columns)

    def panels(self, *, skip_first: bool = True) -> tuple[Panel, ...]:
        """Log-probabilities over the share of tokens that is taken away, and that of the whole prompt."""
        kept, token = self.kept, self.metadata.get("target")
        curves = [Curve(name="without the top k%", x=self.k, y=tuple(self.removed.tolist()))]
        if kept is not None:
            curves.append(Curve(name="with nothing but the top k%", x=self.k, y=tuple(kept.tolist())))
        perturbation = self.metadata.get("perturbation")
        drawn = Curves(
            title=f"{scope_title(self.scope)}: perturbation curves",
            detail="" if token is None else f"log-probability of {words.quoted(str(token))}",
            facts=words.some([f"perturbation: {perturbation}" if perturbation else ""]),
            curves=tuple(curves),
            x_axis="tokens in the top k%, highest scores first (%)",
            y_axis="log-probability (nats)",
            guides=(Guide(axis="y", at=self.clean, label="whole prompt"),),
        )
        return (drawn,)
