"""Contributions: one number split exactly into named parts, as a frozen value.

What a logit is made of: the embedding, every attention and MLP layer, the biases. Like an
:class:`~tl_jacobian.results.attribution.Attribution` it knows nothing of models.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.base import Frozen
from tl_jacobian.results.grid import Grid, nearest

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class Part(NamedTuple):
    """One entry of :meth:`Contributions.top`."""

    place: int
    name: str
    value: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Contributions(Frozen):
    """The parts that add up to one number.

    Attributes:
        names: name of each part, in the model's order: ``"embed"``, ``"0.attn"``, ``"0.mlp"``, …,
            ``"unembedding bias"``. A part of a layer is its number, a dot, and its kind.
        values: what each part contributes; shape ``(parts,)``, CPU float64.
        total: what the parts add up to, as the model gave it.
        target: what was split, in words: ``"logit of ' Paris'"``.
        heads: the attention layers' parts by head (layers x heads), or None.
        sources: the heads' parts by source token (heads x tokens), or None.
        metadata: how it was split, and of what model (JSON values).

    Args:
        rtol: how far the parts' sum may be from ``total``, as a share of the sum of their absolute
            values (parts that cancel leave the rounding errors of large numbers).

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
    metadata: Mapping[str, Any] = field(default_factory=dict)
    rtol: InitVar[float] = 1e-3

    def __post_init__(self, rtol: float) -> None:
        # A frozen value owns what it holds: a copy, on the CPU, in one precision.
        self._set("values", self.values.detach().to("cpu", torch.float64, copy=True))
        self._protect_metadata()
        self._check_names()
        self._check_sum(rtol)

    def _check_names(self) -> None:
        if tuple(self.values.shape) != (len(self.names),) or not self.names:
            raise ArgumentError(
                f"values of shape {tuple(self.values.shape)} for {len(self.names)} names, expected one each, "
                "and at least one"
            )
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ArgumentError(f"several parts are called {twice[0]!r}, expected names that are all different")

    def _check_sum(self, rtol: float) -> None:
        for name, value in (*zip(self.names, self.values.tolist(), strict=True), ("total", self.total)):
            if not math.isfinite(value):
                raise ArgumentError(f"{name!r} is {value}, expected finite numbers: look for overflow in the model")
        found, allowed = self.values.sum().item(), rtol * self.values.abs().sum().item()
        if abs(self.difference) > allowed:
            raise ArgumentError(
                f"the parts add up to {found:.6g}, not to the total {self.total:.6g}: the difference "
                f"{self.difference:.3g} is more than {allowed:.3g} (rtol={rtol:g} of the sum of absolute values); "
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

    def __eq__(self, other: object) -> bool:
        """Equal in every field, numbers bit for bit."""
        if not isinstance(other, Contributions):
            return NotImplemented
        mine, others = ({f.name: getattr(c, f.name) for f in dataclasses.fields(c)} for c in (self, other))
        return torch.equal(mine.pop("values").view(torch.int64), others.pop("values").view(torch.int64)) and (
            mine == others
        )

    __hash__ = None  # type: ignore[assignment]  # holds tensors

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

        totals = self.values.cumsum(0).tolist()
        return pd.DataFrame({"name": list(self.names), "value": self.values.tolist(), "running_total": totals})

    def save(self, path: str | Path) -> None:
        """Write these contributions as JSON; :meth:`load` gives back equal ones."""
        from tl_jacobian.results.contributions_file import save

        save(self, path)

    @staticmethod
    def load(path: str | Path) -> Contributions:
        """Read contributions that :meth:`save` wrote.

        Raises:
            AttributionFileError: the file is damaged, truncated, foreign, or from a newer version.
        """
        from tl_jacobian.results.contributions_file import load

        return load(path)

    # -- pictures ------------------------------------------------------------------

    def show(self) -> None:
        """Draw the parts as bars, and the grids there are: in Jupyter as HTML, elsewhere in the terminal."""
        from tl_jacobian.render.contributions_display import show_contributions

        show_contributions(self)

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained HTML page that works offline; returns its path."""
        from tl_jacobian.render.contributions_display import write_contributions

        return write_contributions(self, path)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the parts as bars, with their running total, in matplotlib (extra ``plot``); returns its axes."""
        from tl_jacobian.render.contributions_plot import plot_contributions

        return plot_contributions(self, ax)

    def _repr_html_(self) -> str:
        from tl_jacobian.render.contributions_display import notebook_contributions

        return notebook_contributions(self)
