"""Counterfactuals: what editing a prompt's words does to a prediction, beside a scope's scores, as a frozen value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from scipy import stats

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results import words
from tl_jacobian.results.attribution import Prediction
from tl_jacobian.results.base import Value
from tl_jacobian.results.panels import Cell, Panel, Scale, Table, scale_of

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["removed", "replaced"]
Effect = Literal["change", "kl"]
_RESAMPLES = 4999
_HEADER = ("score", "edit", "value", "change", "KL, nats", "predicted")
_FEWEST = 3  # words: the ranks of two agree or don't, by chance alone


@words.four_digits
class Edit(NamedTuple):
    """One edited prompt.

    Attributes:
        at, word: which word of the prompt was edited, by index and text; the first one's index for a phrase.
        score: the scope's score of that word, or of the phrase's together, in the unedited prompt.
        kind: ``"removed"`` or ``"replaced"``.
        replacement: what stands in its place; empty where removed.
        value: the target's log-probability (or difference of logits) in the edited prompt.
        change: ``value`` minus that of the unedited prompt.
        kl: Kullback-Leibler divergence of the edited prompt's prediction from the unedited one's, in nats.
        prediction: the most probable next token of the edited prompt.
        n_words: how many words were edited at once.
    """

    at: int
    word: str
    score: float
    kind: Kind
    replacement: str
    value: float
    change: float
    kl: float
    prediction: Prediction
    n_words: int = 1


@words.four_digits
class RankAgreement(NamedTuple):
    """Whether words with high scores are those whose edits change the prediction most.

    Attributes:
        spearman: rank correlation of the words' scores and the sizes of their changes.
        p: of a correlation as high as this, or higher, if scores and sizes of changes had nothing to do with each
            other. One-sided: it asks only whether the two go together, so it is near 1 where they go against each
            other. From permutations: of all orders where there are few, else of 4999, which is never below 1 in 5000.
        n: words.
        first: the word with the highest score.
        rank_of_first: place of its change among all, largest first; 1 if no other word changes more.
    """

    spearman: float
    p: float
    n: int
    first: str
    rank_of_first: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Counterfactuals(Value):
    """Edits of a prompt, each with what it did to the prediction.

    Attributes:
        prompt: the unedited text.
        words: its words.
        scores: the scope's score of each word.
        scope: where the scores are from, with what was explained: ``"semantic: logit of ' Paris'"``.
        quantity: what ``value`` and ``change`` are: ``"log-probability of ' Paris'"``.
        value: of the unedited prompt.
        prediction: the unedited prompt's most probable next token.
        edits: in the words' order.
        metadata: by what model, and what the scores are (JSON values).

    >>> edits = [Edit(i, w, s, "removed", "", 0.0, c, abs(c), Prediction(0, "x", 0.5))
    ...          for i, (w, s, c) in enumerate([("a", 3.0, -2.0), ("b", 1.0, 0.1), ("c", 2.0, -1.0)])]
    >>> c = Counterfactuals(prompt="a b c", words=("a", "b", "c"), scores=(3.0, 1.0, 2.0), scope="s", quantity="q",
    ...                     value=0.0, prediction=Prediction(0, "x", 0.5), edits=tuple(edits))
    >>> c.agreement().spearman, c.agreement().rank_of_first
    (1.0, 1)
    """

    prompt: str
    words: tuple[str, ...]
    scores: tuple[float, ...]
    scope: str
    quantity: str
    value: float
    prediction: Prediction
    edits: tuple[Edit, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._freeze("metadata")
        if len(self.words) != len(self.scores):
            raise ArgumentError(f"{len(self.scores)} scores for {len(self.words)} words, expected one each")

    def __repr__(self) -> str:
        changed = sum(e.prediction.token != self.prediction.token for e in self.edits)
        return (
            f"Counterfactuals({self.quantity} = {self.value:.3g}; {len(self.edits)} edits of {len(self.words)} words; "
            f"{changed} change the top prediction {self.prediction.text!r})"
        )

    def top(self, k: int = 3, effect: Effect = "change") -> list[Edit]:
        """The ``k`` edits that change most, largest first."""
        return sorted(self.edits, key=lambda e: -abs(getattr(e, effect)))[: max(k, 0)]

    def agreement(
        self, kind: Kind = "removed", *, effect: Effect = "change", skip_first: bool = False, skip_last: bool = False
    ) -> RankAgreement:
        """Scores beside changes, word by word; of several replacements of a word the mean size counts, phrases don't.

        Args:
            kind: which edits: removing and replacing a word aren't the same size of intervention.
            effect: ``"change"`` of the target's value, or ``"kl"`` of the whole distribution.
            skip_first: leave out the prompt's first word, whose score an attention sink often dominates.
            skip_last: leave out its last word, without which another place is explained.

        Raises:
            ArgumentError: fewer than three words were edited so, or all scores or changes are equal: nothing to rank.
        """
        if kind not in ("removed", "replaced") or effect not in ("change", "kl"):
            raise ArgumentError(f'{kind=}, {effect=}: expected "removed" or "replaced", and "change" or "kl"')
        kept = range(int(skip_first), len(self.words) - int(skip_last))
        chosen = [e for e in self.edits if e.kind == kind and e.at in kept and e.n_words == 1]
        sizes = {e.at: np.mean([abs(getattr(o, effect)) for o in chosen if o.at == e.at]) for e in chosen}
        indices, size = list(sizes), np.array(list(sizes.values()))
        score = np.array([self.scores[i] for i in indices])
        if len(indices) < _FEWEST or np.ptp(score) == 0 or np.ptp(size) == 0:
            raise ArgumentError(
                f"{len(indices)} words were {kind}, expected {_FEWEST} or more with scores and changes that differ: "
                "there is nothing to rank"
            )
        best = int(score.argmax())
        rank = 1 + int((size > size[best]).sum())
        return RankAgreement(*_spearman(score, size), len(indices), self.words[indices[best]], rank)

    # -- out of Python -------------------------------------------------------------

    def to_dataframe(self) -> pd.DataFrame:
        """One row an edit: at, word, score, kind, replacement, value, change, kl, prediction, probability, n_words."""
        import pandas as pd  # heavy to import, and a dependency of TransformerLens anyway

        table = pd.DataFrame([e._asdict() for e in self.edits], columns=list(Edit._fields))
        made, sizes = table.pop("prediction"), table.pop("n_words")
        return table.assign(prediction=[p.text for p in made], probability=[p.probability for p in made], n_words=sizes)

    # -- pictures ------------------------------------------------------------------

    def panels(self, *, skip_first: bool = True) -> tuple[Panel, ...]:
        """The edits as a table, those of the highest-scored word first, scores and changes on colours."""
        scores, changes = scale_of(self.scores), scale_of(e.change for e in self.edits)
        table = Table(
            title="Counterfactuals",
            detail=f"{self.quantity} = {words.number(self.value)}",
            facts=(*self._facts(), self._columns, *words.model_facts(self.metadata)),
            header=(self._unit, *_HEADER),
            rows=tuple(self._cells(edit, scores, changes) for edit in ranked(self.edits)),
            numbers=(1, 3, 4, 5),
            above=self.prompt,
        )
        return (table,)

    def _cells(self, edit: Edit, scores: Scale, changes: Scale) -> tuple[Cell, ...]:
        new = " *" if edit.prediction.token != self.prediction.token else ""
        predicted = f"{words.quoted(edit.prediction.text)} {edit.prediction.probability:.0%}{new}"
        return (
            Cell(f"{edit.at} {edit.word}"),
            Cell(words.number(edit.score), _shade(edit.score, scores)),
            Cell(f"→ {edit.replacement}" if edit.kind == "replaced" else "removed"),
            Cell(words.number(edit.value)),
            Cell(f"{edit.change:+.3g}", _shade(edit.change, changes)),
            Cell(words.number(edit.kl)),
            Cell(predicted),
        )

    @property
    def _unit(self) -> str:
        """What is edited: a word, or a segment."""
        return str(self.metadata.get("unit", "word"))

    @property
    def _columns(self) -> str:
        along, of = (
            (", summed along the answer", " of another answer") if "answer_tokens" in self.metadata else ("", "")
        )
        return (
            f"KL: how far the whole distribution of the next token moves{along}, whatever the target's share in it; "
            f"predicted: the most probable {'first' if of else 'next'} token{of}, after the edit"
        )

    def _facts(self) -> tuple[str, ...]:
        """The unedited prompt's prediction, and whether scores and changes rank words alike."""
        predicted = f"{words.quoted(self.prediction.text)} predicted with {self.prediction.probability:.0%}"
        before = f"{predicted} (*: another is)"
        try:
            found = self.agreement()
        except ArgumentError:
            return before, self.scope
        p = "p < 0.001" if found.p < 0.001 else f"p = {found.p:.3f}"
        return (
            before,
            f"scores: {self.scope}",
            f"scores and sizes of changes by removal: Spearman {found.spearman:.2f} ({p}, one-sided: whether the two "
            f"go together; {found.n} {self._unit}s); the {self._unit} scored highest, {words.quoted(found.first)}, is "
            f"number {found.rank_of_first} by change",
        )


def _shade(value: float, scale: Scale) -> float:
    """How strong a number's colour is, with its sign."""
    return scale.strength(value) * (-1.0 if value < 0 else 1.0)


def _spearman(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Rank correlation, and how often permutations of x give as high a one (all of them, where they are few)."""
    a, b = (stats.zscore(stats.rankdata(values)) for values in (x, y))

    def correlation(values: np.ndarray, axis: int = -1) -> Any:
        return np.mean(values * b, axis=axis)

    found = stats.permutation_test(
        (a,),
        correlation,
        permutation_type="pairings",
        alternative="greater",
        n_resamples=_RESAMPLES,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return round(float(found.statistic), 12), float(found.pvalue)


def ranked(edits: Sequence[Edit]) -> list[Edit]:
    """Edits by their word's score, highest first; those of one word together."""
    return sorted(edits, key=lambda e: (-e.score, e.at))
