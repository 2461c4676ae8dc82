"""JacobianSpectrum and FisherSpectrum: leading directions, and the tokens they move, as frozen values.

Like an :class:`~tl_jacobian.attribution.Attribution` they know nothing of models.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results import words
from tl_jacobian.results.base import FrozenDict, Value
from tl_jacobian.results.drawing import renderer
from tl_jacobian.results.panels import NOT_IN_FIGURES, Cell, Curve, Curves, Guide, Panel, Table

if TYPE_CHECKING:
    import pandas as pd

By = Literal["probability", "log_probability"]
_TOKENS = 3  # of each direction, in tables
_ONE_A_DIRECTION = ("bound", "singular_values", "eigenvalues")  # fields of one number a direction
KEPT = 20  # tokens kept for each direction, ranking and sign
NEIGHBOURS = 8  # tokens kept for each direction of an embedding, and sign


@words.four_digits
class Move(NamedTuple):
    """How a token of the vocabulary answers to a direction in y, to first order.

    Attributes:
        token, text: which token.
        probability: p, its predicted probability.
        log_change: d log p per unit of the direction, in nats.
    """

    token: int
    text: str
    probability: float
    log_change: float

    @property
    def change(self) -> float:
        """dp per unit of the direction: p times ``log_change``."""
        return self.probability * self.log_change


class Moves(NamedTuple):
    """Tokens that a direction makes more probable, and less, the most moved first."""

    rises: tuple[Move, ...]
    falls: tuple[Move, ...]


@words.four_digits
class Neighbour(NamedTuple):
    """A token of the vocabulary that lies along a direction, seen from the token that stands there.

    Attributes:
        token, text: which token.
        cosine: of the angle between the way to its embedding and the direction.
        step: how far it lies along the direction, in units of the embedding.
    """

    token: int
    text: str
    cosine: float
    step: float


class Toward(NamedTuple):
    """Tokens of the vocabulary that lie along a direction of one embedding, and against it, the closest first."""

    along: tuple[Neighbour, ...]
    against: tuple[Neighbour, ...]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Spectrum(Value, ABC):
    """What both spectra have: how good the numbers are, and what each direction does to the distribution.

    Attributes:
        bound: for each value, how close to it a true one lies, up to rounding: the norm of
            its residual; 0 where nothing was approximated.
        effective_rank: participation ratio of the shares, (sum of shares)^2 / sum of their squares
            over *all* directions: k if k directions share equally; 0 if there is nothing to share.
        effective_rank_stderr: its standard error where the directions beyond the leading ones
            were sampled; 0 where all were taken.
        moved: for each ranking, what each direction moves: see :meth:`moves`.
        metadata: how it was computed, and by what model (JSON values).
    """

    bound: Float[Tensor, " k"]
    effective_rank: float
    effective_rank_stderr: float
    moved: Mapping[str, tuple[Moves, ...]] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tensors = [f.name for f in dataclasses.fields(self) if isinstance(getattr(self, f.name), Tensor)]
        for name in tensors:
            shape = tuple(getattr(self, name).shape)
            if not shape or (len(shape) == 1) != (name in _ONE_A_DIRECTION) or shape[0] != len(self.values):
                raise ArgumentError(f"{name} has shape {shape}, expected one for each {self.value_name}")
        for by, moves in self.moved.items():
            if by not in get_args(By) or len(moves) != len(self.values):
                raise ArgumentError(
                    f"moved[{by!r}] holds {len(moves)} directions, expected {len(self.values)}, ranked by "
                    f"{' or '.join(map(repr, get_args(By)))}"
                )
        self._own(*tensors, dtype=torch.float64)
        self._set("moved", FrozenDict(self.moved))
        self._freeze("metadata")

    @property
    @abstractmethod
    def values(self) -> Float[Tensor, " k"]:
        """The spectrum's leading values, largest first."""

    @property
    @abstractmethod
    def shares(self) -> Float[Tensor, " k"]:
        """What part of the whole each direction is."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What it is the spectrum of."""

    @property
    @abstractmethod
    def value_name(self) -> str:
        """What one value is called."""

    def __len__(self) -> int:
        return len(self.bound)

    @property
    def explained(self) -> float:
        """The part of the whole that the leading directions make up together, from 0 to 1."""
        return min(self.shares.sum().item(), 1.0)

    def __repr__(self) -> str:
        some = ", ".join(f"{value:.3g}" for value in self.values[:3].tolist()) + (", …" if len(self) > 3 else "")
        return (
            f"{type(self).__name__}({self.title}; {len(self)} {self.value_name}s {some}; "
            f"{self.explained:.0%} of all; effective rank {self.effective_rank:.3g})"
        )

    def moves(self, i: int, n: int = 8, *, by: By = "probability") -> Moves:
        """The tokens that direction i of y moves: d log p_j = g_j.u - sum over the vocabulary of p g.u.

        g_j is the derivative of logit j in y. A direction has no sign of its own; it is given so
        that the token whose probability changes most rises.

        Args:
            i: which direction; the leading one is 0.
            n: how many tokens at most that rise, and that fall (up to 20).
            by: rank by the change of the probability, or of its logarithm (which rare tokens lead).

        Raises:
            ArgumentError: i or n is out of range, or there is no such ranking.
        """
        if by not in get_args(By):
            raise ArgumentError(f"by={by!r}, expected one of {', '.join(map(repr, get_args(By)))}")
        if not -len(self) <= i < len(self):
            raise ArgumentError(f"direction {i} is out of range, expected 0 to {len(self) - 1}: pass a larger k")
        if not 0 <= n <= KEPT:
            raise ArgumentError(f"n={n}, expected 0 to {KEPT}, as many as are kept")
        if by not in self.moved:
            raise ArgumentError(f"moved={dict(self.moved)!r} doesn't hold what the directions move by {by}")
        rises, falls = self.moved[by][i]
        return Moves(rises[:n], falls[:n])

    def to_dataframe(self) -> pd.DataFrame:
        """One row a direction: value, bound, share, and the three tokens that it raises and lowers most."""
        import pandas as pd  # heavy to import, and a dependency of TransformerLens anyway

        moves = [self.moves(i, 3) for i in range(len(self))]
        table: dict[str, Any] = {
            self.value_name.replace(" ", "_"): self.values.tolist(),
            "bound": self.bound.tolist(),
            "share": self.shares.tolist(),
            "raises": [[move.text for move in m.rises] for m in moves],
            "lowers": [[move.text for move in m.falls] for m in moves],
        }
        return pd.DataFrame(table)

    # -- pictures ------------------------------------------------------------------

    def panels(self, *, skip_first: bool = True, n: int = 8) -> tuple[Panel, ...]:
        """The first n directions as a table, with the tokens that they move; and the decay of the values.

        Args:
            skip_first: nothing is left out here.
            n: how many directions at most.
        """
        return self._table(n), self._decay()

    def show(self, n: int = 8, *, skip_first: bool = True) -> None:
        """Draw the first n directions as a table: in Jupyter as HTML, elsewhere in the terminal."""
        renderer().show(self.panels(skip_first=skip_first, n=n))

    def _table(self, n: int) -> Table:
        values, shares = self.values.tolist(), self.shares.tolist()
        rows = []
        for i in range(min(n, len(self))):
            named = [
                ", ".join(f"{words.quoted(move.text)} {move.probability:.2g}" for move in moves)
                for moves in self.moves(i, _TOKENS)
            ]
            more = self._more(i)
            rows.append(tuple(map(Cell, [str(i), words.number(values[i]), f"{shares[i]:.1%}", *named, *more.values()])))
        error = self.effective_rank_stderr
        rank = f"effective rank {words.number(self.effective_rank)}" + (f" ± {error:.1g}" if error else "")
        return Table(
            views=NOT_IN_FIGURES,
            title=words.ruled(self.title, self.metadata),
            facts=(
                rank,
                f"{len(self)} leading directions: {self.explained:.1%} of all",
                *words.model_facts(self.metadata),
            ),
            header=("", self.value_name, "share", "raises", "lowers", *self._more(0)),
            rows=tuple(rows),
        )

    def _more(self, i: int) -> dict[str, str]:
        """More columns of the table, by their names."""
        return {}

    def _decay(self) -> Curves:
        values, bound = self.values, self.bound
        positive = bool((values > 0).any())
        curve = Curve(
            name=self.value_name,
            x=tuple(map(float, range(len(self)))),
            y=tuple(values.tolist()),
            low=tuple((values - bound).tolist()),
            high=tuple((values + bound).tolist()),
            role="positive",
        )
        # Directions are numbered from 0, and so many as the effective rank says lie left of its line.
        at = self.effective_rank - 0.5
        return Curves(
            title=words.ruled(self.title, self.metadata),
            detail=f"the leading {self.value_name}s",
            curves=(curve,),
            x_axis="direction (the leading one is 0)",
            y_axis=self.value_name,
            log_y=positive,
            whole_x=True,
            guides=(Guide(axis="x", at=at, label=f"effective rank {words.number(self.effective_rank)}"),),
        )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class JacobianSpectrum(Spectrum):
    """Leading singular triples of J_t = dy/dx_t: J_t v_i = s_i u_i.

    Attributes:
        position, text: the token t.
        singular_values: s, change of y per change of x_t, both as Euclidean norms; CPU float64.
        left: u, unit directions in y.
        right: v, unit directions in the embedding x_t. Both CPU float64.
        squared_norm: ||J_t||_F^2, the sum of s^2 over all; ``squared_norm_stderr`` as for the
            effective rank. Shares are parts of it.
    """

    position: int
    text: str
    singular_values: Float[Tensor, " k"]
    left: Float[Tensor, "k d_model"]
    right: Float[Tensor, "k d_in"]
    squared_norm: float
    squared_norm_stderr: float

    @property
    def values(self) -> Float[Tensor, " k"]:
        return self.singular_values

    @property
    def shares(self) -> Float[Tensor, " k"]:
        return self.values.square() / (self.squared_norm or 1.0)

    @property
    def title(self) -> str:
        return f"Jacobian of token {self.position} {self.text!r}"

    @property
    def value_name(self) -> str:
        return "singular value"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FisherSpectrum(Spectrum):
    """Leading eigenpairs of the Fisher information F of the predicted distribution in y: F u_i = lambda_i u_i.

    lambda_i is the variance of d log p along u_i: the KL divergence of a small step epsilon u_i is
    epsilon^2 lambda_i / 2. Pulled back to embeddings (``positions``): of J^T F J, whose directions are ``embeddings``.

    Attributes:
        eigenvalues: lambda, in squared nats per squared unit of y, or of the embeddings; CPU float64.
        directions: u, unit directions in y; where pulled back, those to which the embeddings' directions lead.
        trace: the sum of all eigenvalues, of which shares are parts; exact but where pulled back and sampled:
            ``trace_stderr``.
        positions, texts: tokens whose embeddings move together; none: it isn't pulled back.
        embeddings: r, directions of these embeddings, of unit length all tokens together.
        toward: for each direction and token the tokens of the vocabulary that lie that way; empty where the embeddings
            aren't known.
    """

    eigenvalues: Float[Tensor, " k"]
    directions: Float[Tensor, "k d_model"]
    trace: float
    trace_stderr: float = 0.0
    positions: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    embeddings: Float[Tensor, "k positions d_in"] | None = None
    toward: tuple[tuple[Toward, ...], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        places = (len(self.texts), *([] if self.embeddings is None else [self.embeddings.shape[1]]))
        if any(n != len(self.positions) for n in places):
            raise ArgumentError(
                f"positions={self.positions} with {len(self.texts)} texts, and embeddings of shape "
                f"{None if self.embeddings is None else tuple(self.embeddings.shape)}: expected one for each position"
            )
        if any(len(row) not in (0, len(self.positions)) for row in self.toward) or len(self.toward) not in (
            0,
            len(self),
        ):
            raise ArgumentError(
                f"toward has rows of {sorted({len(row) for row in self.toward})} tokens, {len(self.toward)} of them, "
                f"expected {len(self.positions)} tokens for each of {len(self)}, or nothing"
            )

    @property
    def values(self) -> Float[Tensor, " k"]:
        return self.eigenvalues

    @property
    def shares(self) -> Float[Tensor, " k"]:
        return self.values / (self.trace or 1.0)

    @property
    def title(self) -> str:
        if not self.positions:
            return "Fisher information of the predicted distribution"
        named = [f"{at} {text!r}" for at, text in zip(self.positions, self.texts, strict=True)]
        tokens = ", ".join(named) if len(named) <= _TOKENS else f"{named[0]} to {named[-1]} ({len(named)} tokens)"
        return f"Fisher information pulled back to token{'s' * (len(named) > 1)} {tokens}"

    def _more(self, i: int) -> dict[str, str]:
        """Where each direction leads from the token on which it weighs most."""
        if not self.toward or not self.toward[i] or self.embeddings is None:
            return {}
        most = int(self.embeddings[i].norm(dim=1).argmax())
        near = self.toward[i][most]
        at = f"{words.quoted(self.texts[most])}: " if len(self.positions) > 1 else ""
        along, against = (", ".join(words.quoted(t.text) for t in end[:_TOKENS]) for end in near)
        return {"lies toward": f"{at}{along}", "away from": against}

    @property
    def value_name(self) -> str:
        return "eigenvalue"
