"""Contributions: one number split exactly into named parts, as a frozen value.

What a logit is made of: the embedding, every attention and MLP layer, the biases. Like an
:class:`~tl_jacobian.results.attribution.Attribution` it knows nothing of models.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results import words
from tl_jacobian.results.base import Value
from tl_jacobian.results.grid import Grid, grid_panels, nearest
from tl_jacobian.results.panels import NOT_IN_FIGURES, Bar, Bars, Panel

if TYPE_CHECKING:
    import pandas as pd

_SOURCES = 24  # heads whose source tokens are shown, the strongest
_OF_A_LAYER = re.compile(r"(\d+)\.(.+)", re.DOTALL)


@words.four_digits
class Part(NamedTuple):
    """One entry of :meth:`Contributions.top`."""

    place: int
    name: str
    value: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Contributions(Value):
    """The parts that add up to one number.

    Attributes:
        names: name of each part, in the model's order: ``"embed"``, ``"0.attn"``, ``"0.mlp"``, …,
            ``"unembedding bias"``. A part of a layer is its number, a dot, and its kind.
        values: what each part contributes; shape ``(parts,)``, CPU float64.
        total: what the parts add up to, as the model gave it.
        target: what was split, in words: ``"logit of ' Paris'"``.
        heads: the attention layers' parts by head (layers x heads), or None.
        sources: the heads' parts by source token (heads x tokens), or None.
        rtol: how far the parts' sum may be from ``total``, as a share of the sum of their absolute
            values (parts that cancel leave the rounding errors of large numbers).
        metadata: how it was split, and of what model (JSON values).

    Raises:
        ArgumentError: the parts don't add up to ``total``, or names and numbers don't go together.

    >>> c = Contributions(names=("embed", "0.attn", "0.mlp"), values=torch.tensor([1.0, -2.5, 3.0]), total=1.5,
    ...                   target="logit of ' Paris'")
    >>> c["0.attn"]
    -2.5
    >>> c.top(1)
    [Part(place=2, name='0.mlp', value=3.0)]
    """

    names: tuple[str, ...]
    values: Float[Tensor, " parts"]
    total: float
    target: str
    heads: Grid | None = None
    sources: Grid | None = None
    rtol: float = 1e-3
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._own("values", dtype=torch.float64)
        self._freeze("metadata")
        self._check_names()
        self._check_sum()

    def _check_names(self) -> None:
        shape = tuple(self.values.shape)
        if shape != (len(self.names),) or not self.names:
            raise ArgumentError(
                f"values of shape {shape} for {len(self.names)} names, expected one each, and at least one"
            )
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ArgumentError(f"several parts are called {twice[0]!r}, expected names that are all different")

    def _check_sum(self) -> None:
        values = self.values
        for name, value in (*zip(self.names, values.tolist(), strict=True), ("total", self.total)):
            if not math.isfinite(value):
                raise ArgumentError(f"{name!r} is {value}, expected finite numbers: look for overflow in the model")
        found, allowed = values.sum().item(), self.rtol * values.abs().sum().item()
        if not abs(self.difference) <= allowed:
            raise ArgumentError(
                f"the parts add up to {found:.6g}, not to the total {self.total:.6g}: the difference "
                f"{self.difference:.3g} is more than {allowed:.3g} (rtol={self.rtol:g} of the sum of absolute values); "
                "look for a part that is missing, or pass a larger rtol for a model of low precision"
            )

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Part]:
        return (Part(i, *pair) for i, pair in enumerate(zip(self.names, self.values.tolist(), strict=True)))

    def __getitem__(self, name: str) -> float:
        """What the part called ``name`` contributes.

        Raises:
            ArgumentError: there is no such part.
        """
        if name not in self.names:
            raise ArgumentError(
                f"no part is called {name!r}; the nearest is {nearest(str(name), self.names)!r} "
                f"of {len(self)} parts from {self.names[0]!r} to {self.names[-1]!r}"
            )
        return self.values[self.names.index(name)].item()

    def __repr__(self) -> str:
        best = ", ".join(f"{name!r} {value:.3g}" for _, name, value in self.top(3))
        return f"Contributions({self.target} = {self.total:.4g}; {len(self)} parts; top: {best})"

    @property
    def difference(self) -> float:
        """Total minus the sum of the parts: rounding, where nothing is missing."""
        return self.total - self.values.sum().item()

    def top(self, k: int = 5) -> list[Part]:
        """The ``k`` parts furthest from zero, furthest first."""
        return sorted(self, key=lambda part: -abs(part.value))[: max(k, 0)]

    # -- out of Python -------------------------------------------------------------

    def to_dataframe(self) -> pd.DataFrame:
        """One line for each part: name, value, and the running total up to and including it."""
        import pandas as pd  # heavy to import, and a dependency of TransformerLens anyway

        values = self.values
        columns = {"name": list(self.names), "value": values.tolist(), "running_total": values.cumsum(0).tolist()}
        return pd.DataFrame(columns)

    # -- pictures ------------------------------------------------------------------

    def panels(self, *, skip_first: bool = True) -> tuple[Panel, ...]:
        """The parts as bars, those of a layer side by side; heads by layer, and the strongest heads by source token."""
        totals = self.values.cumsum(0).tolist()
        exact = f"the parts add up to it within {abs(self.difference):.1g}" if self.difference else ""
        bars = Bars(
            title=f"{self.target} = {words.number(self.total)}",
            detail=words.counted(len(self), "part"),
            facts=(exact or "the parts add up to it", *words.model_facts(self.metadata)),
            bars=tuple(_bar(part, totals[part.place]) for part in self),
            quantity=f"contribution to {self.target}",
            running=True,
        )
        grids = (self.heads, self.sources and self.sources.strongest(_SOURCES))
        drawn = [grid_panels(g, skip_first=skip_first, views=NOT_IN_FIGURES) for g in grids if g is not None]
        return bars, *(panel for panels in drawn for panel in panels)


def _bar(part: Part, total: float) -> Bar:
    """A layer's parts share a line, each kind a colour; what belongs to no layer has neither."""
    layer = _OF_A_LAYER.fullmatch(part.name)
    return Bar(
        name=part.name,
        value=part.value,
        kind=layer[2] if layer else "",
        line=layer[1] if layer else "",
        note=f"running total {words.number(total)}",
    )
