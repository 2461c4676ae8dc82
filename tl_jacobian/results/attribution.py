"""Attribution: the scores of one explanation, as a frozen value.

It knows nothing of models: it can be saved, loaded, grouped, ranked and drawn without one. A *unit* is a named set of
token positions, which need not be neighbours: a token, a word, a passage, everything that one speaker said.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results import words
from tl_jacobian.results.base import FrozenDict, Value
from tl_jacobian.results.panels import (
    Bar,
    Bars,
    Panel,
    StripRow,
    TokenStrip,
    Unit,
    hidden_units,
    named_positions,
    scale_of,
)
from tl_jacobian.results.scopes import Combine, scope_title
from tl_jacobian.results.tokens import Regions, Word

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
Positions = tuple[int, ...]  # of one unit

# How scores of several tokens, which move inside one joint epsilon-ball, make one. All who combine scores read it here.
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
class Attribution(Value):
    """How strongly each input token influences one prediction.

    Attributes:
        scores: influence of each unit (token, or word after :meth:`words`); shape ``(units,)``, CPU float32, never
            negative for the Jacobian Scopes. Its unit is (change of the explained quantity) per (unit of embedding
            norm), squared for Fisher: see ``metadata["score"]``.
        stderr: standard error of each score, or None where scores are not estimates.
        scope: ``"semantic"``, ``"temperature"``, ``"fisher"``, ``"direction"``, ``"output"``; or a baseline's name.
        tokens: token ids of the prompt up to and including ``position``.
        str_tokens: text of each unit.
        position: index of the token whose *next-token prediction* is explained.
        target: what was explained, in words: ``"logit of ' Paris'"``.
        combine: how scores of several tokens make one (Euclidean for a norm, sum for a trace).
        word_groups: the prompt's words as (text, number of tokens).
        units: token positions of each unit, no position in two of them; default one token each.
        answer_start: index of the answer's first token, where an answer was explained: tokens from there on are its
            own, as sources of what follows them; None where there is only a prompt. See :attr:`prompt`, :attr:`answer`.
        predictions: the most probable next tokens.
        regions: of a conversation, the token positions of its ``"roles"`` and ``"messages"``: see :meth:`roles`.
        metadata: what exactly was explained, what was held fixed, and by what (JSON values).

    Raises:
        ArgumentError: scores, texts, units and tokens don't go together.

    >>> a = Attribution(scores=torch.tensor([3.0, 4.0, 1.0]), scope="direction", tokens=(5, 6, 7),
    ...                 str_tokens=(" un", "do", " it"), position=2, target="v",
    ...                 word_groups=(Word(" undo", 2), Word(" it", 1)))
    >>> a.top(1)
    [Ranked(unit=1, text='do', score=4.0)]
    >>> a.words(split_first=False).scores
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
    units: tuple[Positions, ...] = ()
    answer_start: int | None = None
    predictions: tuple[Prediction, ...] = ()
    regions: Regions = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._own("scores", "stderr", dtype=torch.float32)
        self._freeze("metadata")
        self._set("regions", FrozenDict(self.regions))
        if not self.units:
            self._set("units", tuple((i,) for i in range(len(self.tokens))))
        self._check_lengths()
        check_units(self.units, len(self.tokens))
        for found in self.regions.values():
            check_units([region.positions for region in found], len(self.tokens))

    def _check_lengths(self) -> None:
        lengths = {"scores": len(self.scores), "str_tokens": len(self.str_tokens), "units": len(self.units)}
        if self.stderr is not None:
            lengths["stderr"] = len(self.stderr)
        if len(set(lengths.values())) > 1:
            raise ArgumentError(
                f"an attribution needs one score and one text per unit, and a unit is one of its {len(self.tokens)} "
                f"tokens unless units= says otherwise; got lengths {lengths}"
            )
        if self.tokens and not 0 <= self.position < len(self.tokens):
            raise ArgumentError(f"position={self.position}, expected 0 to {len(self.tokens) - 1}")
        if self.answer_start is not None and not 0 < self.answer_start <= len(self.tokens):
            raise ArgumentError(f"answer_start={self.answer_start}, expected 1 to {len(self.tokens)}")
        if self.word_groups and sum(w.size for w in self.word_groups) != len(self.tokens):
            raise ArgumentError(
                f"words of {[w.size for w in self.word_groups]} tokens don't add up to {len(self.tokens)} tokens"
            )

    def __len__(self) -> int:
        return len(self.units)

    def __repr__(self) -> str:
        best = ", ".join(f"{text!r} {score:.3g}" for _, text, score in self.top(3))
        return f"Attribution({self.scope}: {self.target}; {len(self)} units; top: {best})"

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many tokens each unit has."""
        return tuple(map(len, self.units))

    @property
    def per_token(self) -> bool:
        """Whether every unit is one token, in the prompt's order."""
        return all(len(unit) == 1 for unit in self.units) and list(self.units) == sorted(self.units)

    @property
    def prompt(self) -> Attribution:
        """The prompt's part: all of it where no answer was explained."""
        return self._part("prompt", lambda at: self.answer_start is None or at < self.answer_start)

    @property
    def answer(self) -> Attribution:
        """The answer's part: what its tokens contribute to those after them.

        Raises:
            ArgumentError: no answer was explained.
        """
        if (start := self.answer_start) is None:
            raise ArgumentError(
                "no answer was explained, only a prediction: linearize(model, prompt, answer=...) runs one"
            )
        return self._part("answer", lambda at: at >= start)

    def _part(self, name: str, belongs: Callable[[int], bool]) -> Attribution:
        """The units whose tokens belong to a part, with the text as it is."""
        kept = [i for i, unit in enumerate(self.units) if all(map(belongs, unit))]
        if any(belongs(at) for i, unit in enumerate(self.units) if i not in kept for at in unit):
            raise ArgumentError(f"a unit has tokens of the {name} and others: take .{name} before grouping")
        return dataclasses.replace(
            self,
            scores=self.scores[kept],
            stderr=None if self.stderr is None else self.stderr[kept],
            str_tokens=tuple(self.str_tokens[i] for i in kept),
            units=tuple(self.units[i] for i in kept),
        )

    # -- ranking and grouping ------------------------------------------------------

    def top(self, k: int = 5, *, skip_first: bool = True) -> list[Ranked]:
        """The ``k`` units with the highest scores, highest first; where some are negative, those furthest from zero.

        Args:
            k: how many at most.
            skip_first: leave out token 0, which an attention sink often dominates, where there is another unit.
        """
        hidden, scores = hidden_units(self.units, skip_first), self.scores
        order = [i for i in scores.abs().argsort(descending=True, stable=True).tolist() if i not in hidden]
        values = scores.tolist()
        return [Ranked(i, self.str_tokens[i], values[i]) for i in order[: max(k, 0)]]

    def words(self, *, split_first: bool = True) -> Attribution:
        """The same attribution per word: a word's score is that of its tokens jointly.

        For the vector scopes that is the square root of the sum of squares (the tokens move inside one joint
        epsilon-ball), for Fisher traces the sum.

        Args:
            split_first: where the first word has several tokens, keep token 0 apart from the rest of it, so that
                an attention sink there can be left out of pictures and rankings.
        """
        if not self.per_token:
            return self
        groups, index = self.word_groups, self._index
        texts = {at: self.str_tokens[i] for at, i in index.items()}
        for at in (1 if split_first else 0, self.answer_start or 0):
            groups = split_words(groups, texts, at)
        where = zip(consecutive([w.size for w in groups]), groups, strict=True)
        found = [([index[at] for at in positions if at in index], word) for positions, word in where]
        kept = [(units, word) for units, word in found if units]
        names = [w.text if len(u) == w.size else "".join(self.str_tokens[i] for i in u) for u, w in kept]
        return self._merged([units for units, _ in kept], names)

    def grouped(self, sizes: Sequence[int], texts: Sequence[str] | None = None) -> Attribution:
        """Scores of consecutive units merged: ``sizes[i]`` units make group ``i``.

        Standard errors of a sum add up, which holds however the tokens' errors are correlated (they share their
        random probes) and overstates the error where they aren't.

        Raises:
            ArgumentError: the sizes don't add up to the units, or there isn't a text for each.
        """
        if sum(sizes) != len(self) or any(s < 1 for s in sizes):
            raise ArgumentError(f"group sizes must be positive and add up to {len(self)} units, got {list(sizes)}")
        return self._merged(split(range(len(self)), sizes), texts)

    def grouped_by(self, units: Sequence[Iterable[int]], texts: Sequence[str] | None = None) -> Attribution:
        """Scores of any sets of tokens: a set's score is that of its tokens jointly, errors as for :meth:`grouped`.

        Args:
            units: token positions of each set, counted from the start; they need not be neighbours, and tokens may
                be in none.
            texts: name of each set; default its tokens' texts.

        Raises:
            ArgumentError: a set is empty, has a position outside the prompt or one that another set has too; or
                scores aren't per token.

        >>> a = Attribution(scores=torch.tensor([3.0, 1.0, 4.0]), scope="direction", tokens=(5, 6, 7), position=2,
        ...                 str_tokens=("a", "b", "c"), target="v")
        >>> a.grouped_by([[0, 2], [1]], ["ends", "middle"]).scores
        tensor([5., 1.])
        """
        if not self.per_token:
            raise ArgumentError("this attribution is per word, expected one score for each token: leave out .words()")
        groups, index = [sorted(unit) for unit in units], self._index
        check_units(groups, len(self.tokens))
        if missing := [at for group in groups for at in group if at not in index]:
            raise ArgumentError(f"token {missing[0]} has no score here, expected tokens of the part that was taken")
        return self._merged([[index[at] for at in group] for group in groups], texts)

    @property
    def _index(self) -> dict[int, int]:
        """The unit of each token position that has one."""
        return {at: i for i, unit in enumerate(self.units) for at in unit}

    def roles(self) -> Attribution:
        """The same attribution of a conversation per role: ``"system"``, ``"user"``, ``"assistant"``, ...

        A role's score is that of all its tokens jointly; ``"template"`` has the tokens that the chat template adds,
        which include a default system prompt. Long messages gather more: they have more tokens to move.

        Raises:
            ArgumentError: the prompt wasn't given as messages, or scores aren't per token.
        """
        return self._by_region("roles")

    def messages(self) -> Attribution:
        """The same attribution of a conversation per message: ``"user 1"``, ``"assistant 1"``, ``"user 2"``, ...

        Otherwise as :meth:`roles`.
        """
        return self._by_region("messages")

    def _by_region(self, kind: str) -> Attribution:
        if kind not in self.regions:
            raise ArgumentError(
                f"this attribution knows no {kind}: give linearize() the prompt as messages, "
                '[{"role": "user", "content": "..."}], for which the chat template is applied'
            )
        known = self._index
        found = [(r.name, [at for at in r.positions if at in known]) for r in self.regions[kind]]
        kept = [(name, positions) for name, positions in found if positions]  # of a part, those in it
        return self.grouped_by([positions for _, positions in kept], [name for name, _ in kept])

    def _merged(self, groups: Sequence[Sequence[int]], texts: Sequence[str] | None) -> Attribution:
        """Groups of units (by index) as units."""
        scores, combine = self.scores.double(), COMBINE[self.combine]
        errors = self.stderr if self.combine == "sum" else None
        labels = ["".join(self.str_tokens[i] for i in group) for group in groups] if texts is None else texts
        return dataclasses.replace(
            self,
            scores=_stacked([combine(scores[list(group)]) for group in groups]),
            stderr=None if errors is None else _stacked([errors[list(group)].double().sum() for group in groups]),
            str_tokens=tuple(labels),
            units=tuple(tuple(at for i in group for at in self.units[i]) for group in groups),
        )

    # -- out of Python -------------------------------------------------------------

    def to_dataframe(self) -> pd.DataFrame:
        """One row a unit: position of its first token, token ids, text, score, stderr."""
        import pandas as pd  # heavy to import, and a dependency of TransformerLens anyway

        errors = self.stderr
        table: dict[str, Any] = {
            "position": [positions[0] for positions in self.units],
            "tokens": [tuple(self.tokens[i] for i in positions) for positions in self.units],
            "text": list(self.str_tokens),
            "score": self.scores.tolist(),
            "stderr": [math.nan] * len(self) if errors is None else errors.tolist(),
        }
        return pd.DataFrame(table)

    # -- pictures ------------------------------------------------------------------

    def panels(self, *, skip_first: bool = True) -> tuple[Panel, ...]:
        """The coloured units, and beside them the most probable next tokens."""
        units, hidden = named_units(self), hidden_units(self.units, skip_first)
        strip = TokenStrip(
            title=scope_title(self.scope),
            detail=words.explained(self.target, self.metadata),
            facts=(explained_position(self), *words.model_facts(self.metadata)),
            legend=words.some([words.score_unit(self.metadata)]),
            units=units,
            rows=(strip_row(self, hidden),),
            hidden=hidden,
        )
        return strip, *predicted_bars(self.predictions)


def check_units(units: Sequence[Sequence[int]], n: int) -> None:
    """Refuse units that aren't disjoint sets of the prompt's n positions.

    Raises:
        ArgumentError: one is empty, or has a position that is outside or in two of them.
    """
    seen: set[int] = set()
    for i, positions in enumerate(units):
        if not positions:
            raise ArgumentError(f"unit {i} has no token, expected at least one")
        for at in positions:
            if not 0 <= at < n:
                raise ArgumentError(f"unit {i} has token position {at}, expected 0 to {n - 1}")
            if at in seen:
                raise ArgumentError(f"token position {at} is in two units or twice in one, expected it once at most")
            seen.add(at)


def split_words(groups: Sequence[Word], texts: Mapping[int, str], at: int) -> tuple[Word, ...]:
    """Words, none of them across the boundary before token ``at``.

    Args:
        groups: the words.
        texts: of tokens, by position, to name the parts.

    >>> split_words([Word("Paris", 2), Word(" is", 1)], {0: "Par", 1: "is", 2: " is"}, 1)
    (Word(text='Par', size=1), Word(text='is', size=1), Word(text=' is', size=1))
    """
    out: list[Word] = []
    start = 0
    for text, size in groups:
        if start < at < start + size:
            left, right = (
                "".join(texts.get(i, "") for i in part) for part in (range(start, at), range(at, start + size))
            )
            right = text.removeprefix(left) if text.startswith(left) else right
            out += [Word(left, at - start), Word(right, start + size - at)]
        else:
            out.append(Word(text, size))
        start += size
    return tuple(out)


def split(items: Iterable[T], sizes: Iterable[int]) -> list[list[T]]:
    """Consecutive groups of the given sizes.

    >>> split("abc", [1, 2])
    [['a'], ['b', 'c']]
    """
    rest = iter(items)
    return [list(islice(rest, size)) for size in sizes]


def consecutive(sizes: Iterable[int]) -> tuple[Positions, ...]:
    """Token positions of units that follow each other without a gap.

    >>> consecutive([1, 2])
    ((0,), (1, 2))
    """
    sizes = list(sizes)
    return tuple(tuple(range(end - size, end)) for size, end in zip(sizes, accumulate(sizes), strict=True))


# -- parts of pictures -----------------------------------------------------------------


def named_units(a: Attribution) -> tuple[Unit, ...]:
    """Name and token positions of each unit."""
    return named_positions(a.str_tokens, a.units)


def strip_row(a: Attribution, hidden: Sequence[int] = (), **fields: Any) -> StripRow:
    """The scores as one colouring of the text.

    Args:
        a: the attribution.
        hidden: units left out of the colour range.
        fields: other fields of :class:`~tl_jacobian.results.panels.StripRow`.

    Raises:
        ArgumentError: a score isn't finite.
    """
    scores, errors = a.scores.tolist(), a.stderr
    words.check_finite(scores)
    made: dict[str, Any] = {
        "label": f"{scope_title(a.scope)}: {words.explained(a.target, a.metadata)}",
        "values": tuple(scores),
        "scale": scale_of(score for i, score in enumerate(scores) if i not in hidden),
        "errors": None if errors is None else tuple(errors.tolist()),
    }
    return StripRow(**{**made, **fields})


def explained_position(a: Attribution) -> str:
    """``"prediction after token 12 ' is'"``; for another output ``"blocks.5.hook_resid_post at token 12 ' is'"``."""
    text = next(
        (f" {words.quoted(text)}" for text, at in zip(a.str_tokens, a.units, strict=True) if a.position in at), ""
    )
    hook = a.metadata.get("output_hook")
    return f"{'prediction after' if hook is None else f'{hook} at'} token {a.position}{text}"


def predicted_bars(predictions: Sequence[Prediction]) -> tuple[Bars, ...]:
    """The most probable next tokens, if there are any."""
    bars = tuple(Bar(name=p.text, value=p.probability, note=f"token {p.token}") for p in predictions)
    return (Bars(title="predicted next token", bars=bars, percent=True, aside=True),) if bars else ()


def _stacked(scores: Sequence[Tensor]) -> Float[Tensor, " units"]:
    return torch.stack(list(scores)).float() if scores else torch.zeros(0)
