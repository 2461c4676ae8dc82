"""Attribution: the scores of one explanation, as a frozen value.

It knows nothing of models: it can be saved, loaded, grouped, ranked and drawn
without one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.base import Frozen
from tl_jacobian.results.scopes import Combine
from tl_jacobian.results.tokens import Word

if TYPE_CHECKING:
    import pandas as pd

# How scores of several tokens make one; every place that combines scores reads it here.
COMBINE: Mapping[Combine, Callable[[Tensor], Tensor]] = {
    "root_sum_squares": lambda scores: scores.square().sum().sqrt(),
    "sum": lambda scores: scores.sum(),
}


def of_squares(squares: Tensor, combine: Combine) -> Tensor:
    """Scores of which these are the squares, as they add up over directions: norms, or the squares themselves.

    >>> of_squares(torch.tensor([4.0]), "root_sum_squares"), of_squares(torch.tensor([4.0]), "sum")
    (tensor([2.]), tensor([4.]))
    """
    return squares.sqrt() if combine == "root_sum_squares" else squares


class Prediction(NamedTuple):
    """One entry of the predicted next-token distribution."""

    token: int
    text: str
    probability: float


class Ranked(NamedTuple):
    """One entry of :meth:`Attribution.top`."""

    unit: int
    text: str
    score: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Attribution(Frozen):
    """How strongly each input token influences one prediction.

    Attributes:
        scores: influence of each unit (token, or word after :meth:`words`); shape
            ``(units,)``, CPU float32, never negative for the Jacobian Scopes. Its unit is
            (change of the explained quantity) per (unit of embedding norm), squared for
            Fisher: see ``metadata["score"]``.
        stderr: standard error of each score, or None where scores are not estimates.
        scope: ``"semantic"``, ``"temperature"``, ``"fisher"``, ``"direction"``, ``"output"``; or a baseline's name.
        tokens: token ids of the prompt up to and including ``position``.
        str_tokens: text of each unit.
        position: index of the token whose *next-token prediction* is explained.
        target: what was explained, in words: ``"logit of ' Paris'"``.
        combine: how scores of several tokens make one (Euclidean for a norm, sum for a trace).
        word_groups: the prompt's words as (text, number of tokens).
        sizes: tokens in each unit.
        predictions: the most probable next tokens.
        metadata: what exactly was explained, what was held fixed, and by what (JSON values).

    >>> a = Attribution(scores=torch.tensor([3.0, 4.0, 1.0]), scope="direction", tokens=(5, 6, 7),
    ...                 str_tokens=(" un", "do", " it"), position=2, target="v",
    ...                 word_groups=(Word(" undo", 2), Word(" it", 1)))
    >>> a.top(1)
    [Ranked(unit=1, text='do', score=4.0)]
    >>> a.words().scores
    tensor([5., 1.])
    """

    scores: Float[Tensor, " units"]
    scope: str
    tokens: tuple[int, ...]
    str_tokens: tuple[str, ...]
    position: int
    target: str
    stderr: Float[Tensor, " units"] | None = None
    combine: Combine = "root_sum_squares"
    word_groups: tuple[Word, ...] = ()
    sizes: tuple[int, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A frozen value owns what it holds: copies, on the CPU, in one precision.
        self._set("scores", self.scores.detach().to("cpu", torch.float32, copy=True))
        if self.stderr is not None:
            self._set("stderr", self.stderr.detach().to("cpu", torch.float32, copy=True))
        if not self.sizes:
            self._set("sizes", (1,) * len(self.tokens))
        self._protect_metadata()
        self._check_lengths()

    def _check_lengths(self) -> None:
        units = {"scores": len(self.scores), "str_tokens": len(self.str_tokens), "sizes": len(self.sizes)}
        if self.stderr is not None:
            units["stderr"] = len(self.stderr)
        if len(set(units.values())) > 1 or sum(self.sizes) != len(self.tokens):
            raise ArgumentError(
                f"an attribution needs one score and one text per unit, and unit sizes that add up to its "
                f"{len(self.tokens)} tokens; got lengths {units} and sizes adding up to {sum(self.sizes)}"
            )
        if self.tokens and not 0 <= self.position < len(self.tokens):
            raise ArgumentError(f"position={self.position}, expected 0 to {len(self.tokens) - 1}")
        if self.word_groups and sum(w.size for w in self.word_groups) != len(self.tokens):
            raise ArgumentError(
                f"words of {[w.size for w in self.word_groups]} tokens don't add up to {len(self.tokens)} tokens"
            )

    def __len__(self) -> int:
        return len(self.scores)

    def __eq__(self, other: object) -> bool:
        """Equal in every field, scores bit for bit."""
        if not isinstance(other, Attribution):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self))

    __hash__ = None  # type: ignore[assignment]  # holds tensors

    def __repr__(self) -> str:
        best = ", ".join(f"{text!r} {score:.3g}" for _, text, score in self.top(3))
        return f"Attribution({self.scope}: {self.target}; {len(self)} units; top: {best})"

    # -- ranking and grouping ------------------------------------------------------

    def top(self, k: int = 5, *, skip_first: bool = False) -> list[Ranked]:
        """The ``k`` units with the highest scores, highest first; where some are negative, those furthest from zero.

        Args:
            k: how many at most.
            skip_first: leave out the first unit, which an attention sink often dominates.
        """
        first = 1 if skip_first else 0
        order = torch.argsort(self.scores[first:].abs(), descending=True, stable=True)[: max(k, 0)] + first
        return [Ranked(i, self.str_tokens[i], self.scores[i].item()) for i in order.tolist()]

    def words(self) -> Attribution:
        """The same attribution per word: a word's score is that of its tokens jointly.

        For the vector scopes that is the square root of the sum of squares (the tokens
        move inside one joint epsilon-ball), for Fisher traces the sum.
        """
        if self.sizes != (1,) * len(self.tokens):
            return self
        return self.grouped([w.size for w in self.word_groups], [w.text for w in self.word_groups])

    def grouped(self, sizes: Sequence[int], texts: Sequence[str] | None = None) -> Attribution:
        """Scores of consecutive units merged: ``sizes[i]`` units make group ``i``.

        Standard errors of a sum add up, which holds however the tokens' errors are correlated
        (they share their random probes) and overstates the error where they aren't.
        """
        if sum(sizes) != len(self) or any(s < 1 for s in sizes):
            raise ArgumentError(f"group sizes must be positive and add up to {len(self)} units, got {list(sizes)}")
        parts, names = (units.split(list(sizes)) for units in (self.scores.double(), torch.arange(len(self))))
        labels = texts or ["".join(self.str_tokens[i] for i in group) for group in names]
        return dataclasses.replace(
            self,
            scores=torch.stack([COMBINE[self.combine](part) for part in parts]).float(),
            stderr=self._grouped_errors(list(sizes)),
            str_tokens=tuple(labels),
            sizes=tuple(sum(self.sizes[i] for i in group) for group in names),
        )

    def _grouped_errors(self, sizes: list[int]) -> Tensor | None:
        if self.stderr is None or self.combine != "sum":
            return None
        return torch.stack([part.sum() for part in self.stderr.double().split(sizes)]).float()

    # -- out of Python -------------------------------------------------------------

    def to_dataframe(self) -> pd.DataFrame:
        """One row a unit: position of its first token, token ids, text, score, stderr."""
        import pandas as pd  # heavy to import, and a dependency of TransformerLens anyway

        ends = torch.tensor(self.sizes).cumsum(0).tolist()
        starts = [end - size for end, size in zip(ends, self.sizes, strict=True)]
        table: dict[str, Any] = {
            "position": starts,
            "tokens": [self.tokens[a:b] for a, b in zip(starts, ends, strict=True)],
            "text": list(self.str_tokens),
            "score": self.scores.tolist(),
            "stderr": [math.nan] * len(self) if self.stderr is None else self.stderr.tolist(),
        }
        return pd.DataFrame(table)

    def save(self, path: str | Path) -> None:
        """Write this attribution as JSON; :meth:`load` gives back an equal one."""
        from tl_jacobian.results.attribution_file import save

        save(self, path)

    @staticmethod
    def load(path: str | Path) -> Attribution:
        """Read an attribution that :meth:`save` wrote.

        Raises:
            AttributionFileError: the file is damaged, truncated, foreign, or from a newer version.
        """
        from tl_jacobian.results.attribution_file import load

        return load(path)

    # -- pictures ------------------------------------------------------------------

    def show(self, *, skip_first: bool = False) -> None:
        """Draw the coloured tokens: in Jupyter as HTML, elsewhere in the terminal."""
        from tl_jacobian.render.display import show

        show(self, skip_first=skip_first)

    def to_html(self, path: str | Path, *, skip_first: bool = False) -> Path:
        """Write one self-contained HTML page that works offline; returns its path."""
        from tl_jacobian.render.page import write_html

        return write_html([self], path, skip_first=skip_first)

    def _repr_html_(self) -> str:
        from tl_jacobian.render.page import notebook_html

        return notebook_html([self])


def _same(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    return a == b
