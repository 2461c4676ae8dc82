"""TokenInteractions: what every two tokens have in common in what they do to one prediction, as a frozen value."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results import words
from tl_jacobian.results.attribution import Positions, check_units, consecutive
from tl_jacobian.results.base import FrozenDict, Value
from tl_jacobian.results.panels import (
    NOT_IN_FIGURES,
    Cell,
    HeatMap,
    Panel,
    StripRow,
    Table,
    TokenStrip,
    hidden_units,
    named_positions,
    scale_of,
)
from tl_jacobian.results.scopes import scope_title
from tl_jacobian.results.segments import InSegments, TokenText, first_apart, read
from tl_jacobian.results.tokens import Region, Regions, Word

if TYPE_CHECKING:
    import pandas as pd

_MOST_ROWS = 130  # of a text that one row at a time is shown on
_STRONGEST = 8  # pairs in the table


@words.four_digits
class Pair(NamedTuple):
    """One entry of :meth:`TokenInteractions.top`."""

    first: int
    second: int
    first_text: str
    second_text: str
    value: float


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenInteractions(Value, InSegments):
    """Inner products of what every two tokens do to one prediction; made by :func:`token_interactions`.

    Attributes:
        values: ``(units, units)``, symmetric, CPU float32. Between tokens s and t tr(J_s^T F J_t), or
            the inner product of v^T J_s and v^T J_t. Positive: the same small change of both embeddings moves what is
            explained the same way, so together they do more; negative: they work against each other. On the
            diagonal Fisher's scores, or the squares of the scores of a direction. Correlations after
            :meth:`correlation`; NaN where there is none.
        stderr: standard error of each number, or None where they are no estimates.
        scope, target, tokens, str_tokens, units, position, answer_start, word_groups, regions, metadata: as of an
            :class:`Attribution` of the same scope.
        is_correlation: whether values are normalised, to 1 on the diagonal.

    Raises:
        ArgumentError: numbers, texts, units and tokens don't go together, or the matrix isn't symmetric.

    >>> g = TokenInteractions(values=torch.tensor([[4.0, -3.0], [-3.0, 9.0]]), scope="direction", target="v",
    ...                       tokens=(5, 6), str_tokens=(" not", " bad"), position=1)
    >>> g.top(1, skip_first=False)
    [Pair(first=0, second=1, first_text=' not', second_text=' bad', value=-3.0)]
    >>> g.correlation().values
    tensor([[ 1.0000, -0.5000],
            [-0.5000,  1.0000]])
    """

    values: Float[Tensor, "units units"]
    scope: str
    target: str
    tokens: tuple[int, ...]
    str_tokens: tuple[str, ...]
    position: int
    stderr: Float[Tensor, "units units"] | None = None
    units: tuple[Positions, ...] = ()
    word_groups: tuple[Word, ...] = ()
    answer_start: int | None = None
    regions: Regions = field(default_factory=dict)
    is_correlation: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._own("values", "stderr", dtype=torch.float32)
        self._freeze("metadata")
        self._set("regions", FrozenDict(self.regions))
        if not self.units:
            self._set("units", consecutive([1] * len(self.tokens)))
        n, values = len(self.units), self.values
        if values.shape != (n, n) or len(self.str_tokens) != n:
            raise ArgumentError(
                f"values of shape {tuple(values.shape)} and {len(self.str_tokens)} texts for {n} units, expected "
                f"({n}, {n}) and {n}"
            )
        if self.stderr is not None and self.stderr.shape != (n, n):
            raise ArgumentError(f"stderr of shape {tuple(self.stderr.shape)}, expected ({n}, {n})")
        if values.isinf().any():
            raise ArgumentError("an interaction is infinite, expected finite numbers; look for overflow in the model")
        if not torch.equal(values.nan_to_num(), values.nan_to_num().T):
            raise ArgumentError("values aren't symmetric: what s has in common with t, t has with s")
        check_units(self.units, len(self.tokens))

    def __len__(self) -> int:
        return len(self.units)

    def __repr__(self) -> str:
        best = ", ".join(f"{p.first_text!r} {p.second_text!r} {p.value:.3g}" for p in self.top(3))
        return f"TokenInteractions({self.scope}: {self.target}; {len(self)} units; furthest from zero: {best})"

    # -- ranking and normalising -----------------------------------------------------

    def top(self, k: int = 5, *, skip_first: bool = True) -> list[Pair]:
        """The ``k`` pairs of two different units whose numbers are furthest from zero, furthest first.

        Args:
            k: how many at most.
            skip_first: leave out token 0, which an attention sink often dominates, where there are others.
        """
        hidden, values = hidden_units(self.units, skip_first), self.values
        first, second = torch.triu_indices(len(self), len(self), 1)
        numbers = values[first, second]
        places = zip(first.tolist(), second.tolist(), numbers.tolist(), strict=True)
        kept = [one for one in places if not {*one[:2]} & {*hidden} and not math.isnan(one[2])]
        kept.sort(key=lambda one: -abs(one[2]))
        return [Pair(i, j, self.str_tokens[i], self.str_tokens[j], value) for i, j, value in kept[: max(k, 0)]]

    def correlation(self) -> TokenInteractions:
        """Normalised to 1 on the diagonal: how alike two units' effects are, however large; errors likewise."""
        if self.is_correlation:
            return self
        values = self.values.double()
        norms = values.diagonal().clamp(min=0).sqrt()
        size = torch.outer(norms, norms)
        size = size.masked_fill(size == 0, math.nan)
        made, errors = (values / size).clamp(-1, 1), self.stderr
        made.diagonal()[norms > 0] = 1.0
        if errors is not None:
            errors = (errors / size).float()
            errors.diagonal().zero_()
        return dataclasses.replace(
            self,
            values=made.float(),
            stderr=errors,
            is_correlation=True,
            metadata={**self.metadata, "score": "correlation of two tokens' effects"},
        )

    # -- words and segments: see InSegments ------------------------------------------

    def words(self, *, split_first: bool = True) -> TokenInteractions:
        """The same per word; see :meth:`segments`.

        Args:
            split_first: keep token 0 apart from the rest of its word.
        """
        text = self._token_text()
        sizes = consecutive([w.size for w in self.word_groups or [Word(t, 1) for t in self.str_tokens]])
        found = [Region(w.text, at) for w, at in zip(self.word_groups, sizes, strict=True)]
        return self._of_segments(first_apart(found, text) if split_first else found, mean=False)

    def _token_text(self) -> TokenText:
        if any(len(unit) != 1 for unit in self.units):
            raise ArgumentError("these interactions are per word or segment already, expected one unit for each token")
        if self.is_correlation:
            raise ArgumentError("correlations don't add up: take words or segments first, then .correlation()")
        return read(self.str_tokens, self.word_groups)

    def _of_segments(self, segments: Sequence[Region], mean: bool) -> TokenInteractions:
        """Sums over the pairs of tokens: what the same change of *all* tokens of a segment does.

        Errors add up, which holds however they are correlated.
        """
        member = torch.zeros(len(segments), len(self), dtype=torch.float64)
        for i, segment in enumerate(segments):
            member[i, list(segment.positions)] = 1 / len(segment.positions) if mean else 1.0
        values, errors = self.values.double(), self.stderr
        found = member @ values @ member.T
        return dataclasses.replace(
            self,
            values=((found + found.T) / 2).float(),
            stderr=None if errors is None else _symmetric(member @ errors.double() @ member.T).float(),
            str_tokens=tuple(segment.name for segment in segments),
            units=tuple(segment.positions for segment in segments),
            metadata={**self.metadata, "score": f"{words.score_unit(self.metadata)}, mean over pairs"}
            if mean
            else self.metadata,
        )

    # -- out of Python ---------------------------------------------------------------

    def to_dataframe(self) -> pd.DataFrame:
        """One row a pair of units, each with itself too: first, second, their texts, value, stderr."""
        import pandas as pd  # heavy to import, and a dependency of TransformerLens anyway

        first, second = torch.triu_indices(len(self), len(self))
        errors = self.stderr
        return pd.DataFrame(
            {
                "first": first.tolist(),
                "second": second.tolist(),
                "first_text": [self.str_tokens[i] for i in first.tolist()],
                "second_text": [self.str_tokens[i] for i in second.tolist()],
                "value": self.values[first, second].tolist(),
                "stderr": [math.nan] * len(first) if errors is None else errors[first, second].tolist(),
            }
        )

    # -- pictures ----------------------------------------------------------------------

    def panels(self, *, skip_first: bool = True) -> tuple[Panel, ...]:
        """The matrix, its colours made for pairs of different units; the strongest pairs; a unit's row on the text."""
        hidden, n = hidden_units(self.units, skip_first), len(self)
        values, units = self.values, named_positions(self.str_tokens, self.units)
        shown = values.clone()
        shown.fill_diagonal_(math.nan)
        shown[list(hidden)] = shown[:, list(hidden)] = math.nan
        scale = scale_of(shown[~shown.isnan()].tolist(), signed=True)
        per_token = all(len(unit) == 1 for unit in self.units)
        rows = tuple(f"{i} {text}" for i, text in enumerate(self.str_tokens)) if per_token else self.str_tokens
        heat_map = HeatMap(
            title=words.ruled(scope_title(self.scope), self.metadata),
            detail=f"{'correlations' if self.is_correlation else 'interactions'} of {words.explained(self.target, {})}",
            facts=(*words.sinks(self.metadata), *words.model_facts(self.metadata)),
            legend=("the diagonal, each with itself, is left out of the colour range",),
            values=tuple(map(tuple, values.tolist())),
            rows=rows,
            columns=units,
            row_axis="token" if per_token else "unit",
            column_axis="token" if per_token else "unit",
            scales=(scale,),
            quantity=words.score_unit(self.metadata),
            numbered=per_token,
            hidden=hidden,
        )
        strip = TokenStrip(
            views=("page",),
            title="what one unit has in common with each, all on the scale above",
            units=units,
            rows=tuple(
                StripRow(values=tuple(values[i].tolist()), scale=scale, label=f"{rows[i]}", framed=(i,))
                for i in range(n)
            ),
            together=False,
            chosen=next((p.first for p in self.top(1, skip_first=skip_first)), 0),
            hidden=hidden,
        )
        return (heat_map, self._strongest(skip_first), *([strip] if 1 < n <= _MOST_ROWS else []))

    def _strongest(self, skip_first: bool) -> Table:
        errors, rows = self.stderr, []
        for pair in self.top(_STRONGEST, skip_first=skip_first):
            error = "" if errors is None else f" ± {errors[pair.first, pair.second].item():.1g}"
            names = (f"{i} {words.quoted(self.str_tokens[i])}" for i in pair[:2])
            rows.append(tuple(map(Cell, [*names, words.number(pair.value) + error])))
        return Table(
            views=NOT_IN_FIGURES, title="pairs furthest from zero", header=("unit", "and", "value"), rows=tuple(rows)
        )


def _symmetric(values: Tensor) -> Tensor:
    return (values + values.T) / 2
