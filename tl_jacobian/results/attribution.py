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
from tl_jacobian.results.arguments import whole
from tl_jacobian.results.base import FrozenDict, Value
from tl_jacobian.results.drawing import renderer
from tl_jacobian.results.own_scores import OneLinearization, score_tensor
from tl_jacobian.results.panels import (
    EVERYWHERE,
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
from tl_jacobian.results.segments import InSegments, TokenText, read
from tl_jacobian.results.tokens import Region, Regions, Word

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

T = TypeVar("T")
Positions = tuple[int, ...]  # of one unit

# How scores of several tokens, which move inside one joint epsilon-ball, make one. All who combine scores read it here.
COMBINE: Mapping[Combine, Callable[[Tensor], Tensor]] = {
    "root_sum_squares": lambda scores: scores.square().sum().sqrt(),
    "sum": lambda scores: scores.sum(),
}

# What a group's joint score is divided by to be one per token: n equal scores make 1 times theirs.
PER_TOKEN: Mapping[Combine, tuple[Callable[[int], float], str]] = {
    "root_sum_squares": (math.sqrt, "root mean square per token"),
    "sum": (float, "mean per token"),
}


def of_squares(squares: Tensor, combine: Combine) -> Tensor:
    """Scores of which these are the squares, as they add up over directions: norms, or the squares themselves.

    >>> of_squares(torch.tensor([4.0]), "root_sum_squares"), of_squares(torch.tensor([4.0]), "sum")
    (tensor([2.]), tensor([4.]))
    """
    return squares.sqrt() if combine == "root_sum_squares" else squares


@words.four_digits
class Prediction(NamedTuple):
    """One entry of the predicted next-token distribution."""

    token: int
    text: str
    probability: float


@words.four_digits
class Ranked(NamedTuple):
    """One entry of :meth:`Attribution.top`."""

    unit: int
    text: str
    score: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Attribution(Value, InSegments):
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
        inside: after :meth:`segments`, the scores per token that it was made from: pictures fold them out.
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
    inside: Attribution | None = None
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

    @classmethod
    def from_scores(
        cls,
        lin: OneLinearization,
        scores: Any,
        *,
        name: str,
        target: int | None = None,
        explains: str | None = None,
        combine: Combine = "sum",
        stderr: Any = None,
        unit: str = "",
    ) -> Attribution:
        """Scores that were made elsewhere, as a value that pictures, segments, curves and comparisons take.

        Args:
            lin: the linearization of the prompt that they are of: what ``linearize`` gives.
            scores: one for each of ``lin.tokens``: a tensor, an array or a list, signed or not.
            name: what to call the method; the attribution's ``scope``.
            target: id of the token that is explained, if it is one: curves then watch that token's log-probability
                (default: the most probable one's).
            explains: what is explained, in words; default the target's text.
            combine: how scores of several tokens make one: ``"sum"``, for scores that add up (gradient x input,
                integrated gradients, SHAP), or ``"root_sum_squares"``, for norms.
            stderr: standard error of each score.
            unit: what one score measures: ``"logits"``.

        Raises:
            ArgumentError: there isn't one finite number for each token.

        >>> import tl_jacobian as tj
        >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is")
        >>> mine = tj.Attribution.from_scores(lin, [0.0, 1.0, 0.0, 3.0, -1.0], name="mine")
        >>> mine.top(1)
        [Ranked(unit=3, text=' France', score=3.0)]
        """
        n = len(lin.str_tokens)
        text = None if target is None else repr(lin.decode(target))
        return cls(
            scores=score_tensor(scores, n),
            stderr=None if stderr is None else score_tensor(stderr, n, "stderr"),
            scope=name,
            tokens=tuple(lin.tokens.tolist()),
            str_tokens=lin.str_tokens,
            position=lin.position,
            target=explains or text or "scores made elsewhere",
            combine=combine,
            word_groups=lin.words,
            answer_start=getattr(lin, "answer_start", None),
            regions=lin.regions,
            predictions=tuple(getattr(lin, "predictions", ())) if lin.output_hook is None else (),
            metadata={
                "score": unit,
                "output_hook": lin.output_hook,
                **({} if target is None else {"target_token": target}),
                **lin.facts,
            },
        )

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

    def __add__(self, other: object) -> Any:
        raise ArgumentError(
            "attributions don't add up: most scores are norms, and a sum has another; explain the "
            "sum itself (output_scope(lin, fn)), an answer as a whole (linearize(..., answer=)), or add their .scores"
        )

    __radd__ = __add__

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
        groups, index = self.word_groups, self._by_token()
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
        groups, index = [sorted(unit) for unit in units], self._by_token()
        check_units(groups, len(self.tokens))
        if missing := [at for group in groups for at in group if at not in index]:
            raise ArgumentError(f"token {missing[0]} has no score here, expected tokens of the part that was taken")
        return self._merged([[index[at] for at in group] for group in groups], texts)

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

    # -- segments: see InSegments --------------------------------------------------

    def _token_text(self) -> TokenText:
        """Of the prompt's part the prompt alone: an answer often quotes it."""
        pieces, words, end = self.pieces(), self.word_groups, self.answer_start
        if end is not None and all(at < end for unit in self.units for at in unit):
            sizes = list(accumulate(word.size for word in words))
            pieces, words = pieces[:end], words[: sizes.index(end) + 1] if end in sizes else ()
        return read(pieces, words)

    def pieces(self) -> list[str | None]:
        """The text of each token, None of those that have no score.

        Raises:
            ArgumentError: a unit has several tokens.
        """
        by_token = self._by_token()
        return [self.str_tokens[by_token[at]] if at in by_token else None for at in range(len(self.tokens))]

    def _by_token(self) -> dict[int, int]:
        """The unit of each token that has a score of its own.

        Raises:
            ArgumentError: a unit has several tokens.
        """
        found = {positions[0]: i for i, positions in enumerate(self.units) if len(positions) == 1}
        if len(found) < len(self):
            raise ArgumentError(
                "this attribution is per word or segment, expected one score for each token: leave out .words(), "
                ".segments() and the like before, or take .inside"
            )
        return found

    def _of_regions(self, regions: Sequence[Region], mean: bool) -> Attribution:
        return in_segments(self, regions, targets=1 if mean else None, reading_order=False)  # the template's own last

    def _begins(self) -> list[int]:
        return sorted({*super()._begins(), *([self.answer_start] if self.answer_start else [])})

    def _of_segments(self, segments: Sequence[Region], mean: bool) -> Attribution:
        return in_segments(self, segments, targets=1 if mean else None)

    def per_token_of(self, targets: int = 1) -> Attribution:
        """Joint scores as those that each token would have to have for them (and each of so many merged targets)."""
        whole("targets", targets, least=1)
        share, what = PER_TOKEN[self.combine]
        by = torch.tensor([share(n * targets) for n in self.sizes], dtype=torch.float64)
        errors, unit = self.stderr, words.score_unit(self.metadata)
        return dataclasses.replace(
            self,
            scores=(self.scores.double() / by).float(),
            stderr=None if errors is None else (errors.double() / by).float(),
            metadata={**self.metadata, "score": f"{unit}, {what}" if unit else what},
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

    def panels(self, *, skip_first: bool = True, tokens: bool = False) -> tuple[Panel, ...]:
        """The coloured units, and beside them the most probable next tokens; segments as blocks.

        Args:
            skip_first: leave token 0, which an attention sink often dominates, out of the colours.
            tokens: draw the tokens of segments in terminals and figures too; in pages they can be folded out.
        """
        units, hidden = named_units(self), hidden_units(self.units, skip_first)
        strip = TokenStrip(
            title=words.ruled(scope_title(self.scope), self.metadata),
            detail=words.explained(self.target, self.metadata),
            facts=(explained_position(self), *words.sinks(self.metadata), *words.model_facts(self.metadata)),
            legend=words.some([words.score_unit(self.metadata)]),
            units=units,
            rows=(strip_row(self, hidden),),
            hidden=hidden,
            inside=inside_strip([self], skip_first, tokens),
        )
        return strip, *predicted_bars(self.predictions)

    def show(self, *, skip_first: bool = True, tokens: bool = False) -> None:
        """Draw it: in Jupyter as HTML, elsewhere in the terminal. Options: :meth:`panels`."""
        renderer().show(self.panels(skip_first=skip_first, tokens=tokens))

    def plot(self, ax: Axes | None = None, *, skip_first: bool = True, tokens: bool = False) -> Axes:
        """Draw it with matplotlib (extra ``plot``); returns its axes. Options: :meth:`panels`."""
        return renderer().figure(self.panels(skip_first=skip_first, tokens=tokens), ax)


def in_segments(
    a: Attribution, segments: Sequence[Region], targets: int | None = None, *, reading_order: bool = True
) -> Attribution:
    """An attribution per token as one per segment; those of which it has no token are left out.

    Args:
        a: per token; it stays inside.
        segments: disjoint ones.
        targets: None: scores are joint ones; else per token, and per target of so many that were merged into ``a``.
        reading_order: by their first tokens; else as they are given.
    """
    by_token = a._by_token()
    seen = [Region(name, tuple(at for at in positions if at in by_token)) for name, positions in segments]
    seen = [segment for segment in seen if segment.positions]
    if reading_order:
        seen.sort(key=lambda segment: segment.positions)
    groups = [[by_token[at] for at in segment.positions] for segment in seen]
    made = dataclasses.replace(a._merged(groups, [segment.name for segment in seen]), inside=a)
    return made if targets is None else made.per_token_of(targets)


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
        "label": f"{words.ruled(scope_title(a.scope), a.metadata)}: {words.explained(a.target, a.metadata)}",
        "values": tuple(scores),
        "scale": scale_of(score for i, score in enumerate(scores) if i not in hidden),
        "errors": None if errors is None else tuple(errors.tolist()),
        "framed": answer_begins(a),
    }
    return StripRow(**{**made, **fields})


def inside_strip(attributions: Sequence[Attribution], skip_first: bool, tokens: bool) -> TokenStrip | None:
    """The tokens that segments are made of, a row for each attribution of one text; None where there are none inside.

    Args:
        attributions: the last one sees the whole text.
        skip_first: leave token 0 out of the colours.
        tokens: draw them everywhere, not only where a block can be folded out.
    """
    parts = [a.inside for a in attributions if a.inside is not None]
    if not parts or len(parts) < len(attributions):
        return None
    hidden = hidden_units(parts[-1].units, skip_first)
    return TokenStrip(
        views=EVERYWHERE if tokens else ("page",),
        units=named_units(parts[-1]),
        rows=tuple(strip_row(a, hidden) for a in parts),
        hidden=hidden,
    )


def answer_begins(a: Attribution) -> tuple[int, ...]:
    """The unit with which the answer begins, where one was explained."""
    return tuple(i for i, at in enumerate(a.units) if a.answer_start is not None and min(at) == a.answer_start)


def explained_position(a: Attribution) -> str:
    """What was explained, where: ``"prediction after token 12 ' is'"``.

    For an answer ``"answer after token 12 ' is', from the framed one on"``; for another output
    ``"blocks.5.hook_resid_post at token 12 ' is'"``.
    """
    start, framed = a.answer_start, answer_begins(a)
    a = a.inside or a  # a segment's name isn't the token's text
    position = a.position if start is None else start - 1
    text = next(
        (f" {words.quoted(text)}" for text, at in zip(a.str_tokens, a.units, strict=True) if position in at), ""
    )
    hook, what = a.metadata.get("output_hook"), "prediction" if start is None else "answer"
    on = ", from the framed one on" if framed else ""
    if hook is None:
        return f"{what} after token {position}{text}{on}"
    return f"{hook} at token {position}{text}" + (" and along the answer" if start is not None else "") + on


def predicted_bars(predictions: Sequence[Prediction]) -> tuple[Bars, ...]:
    """The most probable next tokens, if there are any."""
    bars = tuple(Bar(name=p.text, value=p.probability, note=f"token {p.token}") for p in predictions)
    return (Bars(title="predicted next token", bars=bars, percent=True, aside=True),) if bars else ()


def _stacked(scores: Sequence[Tensor]) -> Float[Tensor, " units"]:
    return torch.stack(list(scores)).float() if scores else torch.zeros(0)
