"""AttributionMap: the attributions of many predictions of one text, as a target x source matrix.

Like an :class:`~tl_jacobian.results.attribution.Attribution` it knows nothing of models. It holds one attribution for
each target, so that nothing is lost, and derives the matrix from them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results import words
from tl_jacobian.results.arguments import is_id
from tl_jacobian.results.attribution import (
    COMBINE,
    Attribution,
    Combine,
    Positions,
    in_segments,
    inside_strip,
    named_units,
    split,
    split_words,
    strip_row,
)
from tl_jacobian.results.base import FrozenDict, Value
from tl_jacobian.results.drawing import renderer
from tl_jacobian.results.panels import Cell, HeatMap, Panel, Scale, StripRow, Table, TokenStrip, hidden_units, scale_of
from tl_jacobian.results.scopes import scope_title
from tl_jacobian.results.segments import InSegments, TokenText, read
from tl_jacobian.results.tokens import Region, Regions, Word

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_MOST_TARGETS = 6  # that are named where they are one
_STRONGEST = 3  # sources of each target that are named in the terminal


@dataclass(frozen=True, eq=False, kw_only=True)
class AttributionMap(Value, InSegments):
    """How strongly each token of a text influences each prediction made along it.

    A row is a target: the next-token prediction at one position. A column is a source: a token
    (or word) that the prediction may depend on, so a map of every position is lower-triangular.

    Attributes:
        attributions: one for each target, in reading order; ``map[i]`` is the i-th.
        next_texts: for each target, the token (or word) that really follows in the text;
            None where the text ends.
        target_words: which targets belong together, as (word, number of targets): those whose
            following tokens are parts of one word. :meth:`words` merges them.
        regions: of a conversation, the token positions of its ``"roles"`` and ``"messages"``, those of the token that
            follows the last target included.
        metadata: what was mapped, and how its targets were chosen (JSON values).

    Raises:
        ArgumentError: the attributions aren't of one text, in reading order, by one scope.

    >>> one, two = (Attribution(scores=torch.arange(1.0, n + 1), scope="direction", tokens=(5, 6)[:n], target="v",
    ...                         str_tokens=("It", " is")[:n], position=n - 1) for n in (1, 2))
    >>> m = AttributionMap(attributions=(one, two), next_texts=(" is", None))
    >>> m.scores
    tensor([[1., 0.],
            [1., 2.]])
    >>> m[-1].top(1)
    [Ranked(unit=1, text=' is', score=2.0)]
    """

    attributions: tuple[Attribution, ...]
    next_texts: tuple[str | None, ...]
    target_words: tuple[Word, ...] = ()
    regions: Regions = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._freeze("metadata")
        self._set("regions", FrozenDict(self.regions))
        _check_rows(self.attributions)
        if len(self.next_texts) != len(self):
            raise ArgumentError(f"{len(self.next_texts)} next_texts for {len(self)} targets, expected one each")
        if self.target_words and sum(w.size for w in self.target_words) != len(self):
            raise ArgumentError(
                f"target_words of {[w.size for w in self.target_words]} targets don't add up to {len(self)} targets"
            )

    def __len__(self) -> int:
        return len(self.attributions)

    def __getitem__(self, index: int) -> Attribution:
        if isinstance(index, slice):
            raise IndexError(f"rows {index!r}: a map gives one row at a time; tj.compare(list(m)[1:3]) shows several")
        if not is_id(index) or not -len(self) <= index < len(self):
            raise IndexError(f"row {index!r} of a map of {len(self)} rows; which token each explains is in .positions")
        return self.attributions[index]

    def __iter__(self) -> Iterator[Attribution]:
        return iter(self.attributions)

    def __repr__(self) -> str:
        text = "".join(self.str_tokens)
        excerpt = repr(text[:40]) + ("…" if len(text) > 40 else "")
        return f"AttributionMap({self.scope}: {len(self)} targets x {len(self.str_tokens)} sources of {excerpt})"

    # -- the matrix ----------------------------------------------------------------

    @cached_property
    def scores(self) -> Float[Tensor, "targets sources"]:
        """Influence of each source on each target; CPU float32, 0 where :attr:`mask` is False.

        The unit is that of the attributions: see ``map[i].metadata["score"]``.
        """
        return matrix([a.scores for a in self.attributions])

    @cached_property
    def stderr(self) -> Float[Tensor, "targets sources"] | None:
        """Standard errors of :attr:`scores`, or None unless every target has them."""
        errors = [errors for a in self.attributions if (errors := a.stderr) is not None]
        return matrix(errors) if len(errors) == len(self) else None

    @cached_property
    def mask(self) -> Bool[Tensor, "targets sources"]:
        """True where the source comes before the prediction: elsewhere it can't matter."""
        return torch.arange(len(self.str_tokens)) < torch.tensor([len(a) for a in self])[:, None]

    @property
    def scope(self) -> str:
        return self.attributions[0].scope

    @property
    def combine(self) -> Combine:
        """How scores of several tokens make one: see :meth:`words`."""
        return self.attributions[0].combine

    @property
    def positions(self) -> tuple[int, ...]:
        """For each target, the token whose *next-token prediction* is explained."""
        return tuple(a.position for a in self)

    @property
    def targets(self) -> tuple[str, ...]:
        """What was explained in each row, in words: ``"logit of ' Paris'"``."""
        return tuple(a.target for a in self)

    @property
    def tokens(self) -> tuple[int, ...]:
        """Ids of the source tokens: the text up to the last explained position."""
        return self.attributions[-1].tokens

    @property
    def str_tokens(self) -> tuple[str, ...]:
        """Text of each source (token, or word after :meth:`words`)."""
        return self.attributions[-1].str_tokens

    @property
    def units(self) -> tuple[Positions, ...]:
        """Token positions of each source."""
        return self.attributions[-1].units

    def words(self, *, split_first: bool = True) -> AttributionMap:
        """The map per word, on both sides.

        Sources are merged as :meth:`Attribution.words` does. Targets are merged where they predict
        parts of one word. For Fisher traces both are sums: the information of a word's tokens
        adds up along the text. For vector scopes both are roots of sums of squares: the Frobenius
        norm of the Jacobian from the source word to the word's targets taken as a vector. It isn't
        the influence on the *sum* of those targets, which norms alone don't tell (at most the
        square root of their number times as much).

        Standard errors of sums add up, those of roots are dropped; so is what was predicted where
        several targets are merged.

        Args:
            split_first: keep token 0 apart from the rest of the first word: see :meth:`Attribution.words`.
        """
        if not all(a.per_token for a in self):
            return self
        sources = self.attributions[-1].word_groups
        if split_first:
            sources = split_words(sources, dict(enumerate(self.str_tokens)), 1)
        targets = self.target_words or tuple(Word(text or "", 1) for text in self.next_texts)
        sizes = [word.size for word in targets]
        rows = split([a.grouped(*cut_words(sources, a)) for a in self], sizes)
        ends = [texts[0] is None for texts in split(self.next_texts, sizes)]
        return AttributionMap(
            attributions=tuple(merged(group) for group in rows),
            next_texts=tuple(None if end else word.text for word, end in zip(targets, ends, strict=True)),
            regions=self.regions,
            metadata={**self.metadata, "units": "words"},
        )

    # -- segments: see InSegments --------------------------------------------------

    def _begins(self) -> list[int]:
        written = self.metadata.get("generated_from")  # by the model itself
        return sorted({*super()._begins(), *([written] if written else [])})

    def _token_text(self) -> TokenText:
        """The source tokens, and the one that follows the last of them, where the text goes on."""
        last, follows = self[-1], self.next_texts[-1]
        if follows is None or last.position + 1 < len(last.tokens):
            return read(last.pieces(), last.word_groups)
        groups = (*last.word_groups, Word(follows, 1)) if last.word_groups else ()
        return read([*last.pieces(), follows], groups)

    def _of_segments(self, segments: Sequence[Region], mean: bool) -> AttributionMap:
        """Both sides: sources, and the targets that predict a segment's tokens, as :meth:`words` merges them.

        Per token means per source token and per target. What no token follows is a target of its own; targets that see
        no segment are left out.
        """
        n = len(self._token_text())
        owner = {at: i for i, (_, positions) in enumerate(segments) for at in positions}
        groups: dict[int, list[Attribution]] = {}
        for a in self:
            at = a.position + 1
            if (at in owner or at >= n) and any(source < len(a.tokens) for source in owner):
                groups.setdefault(owner.get(at, -1), []).append(a)
        if not groups:
            raise ArgumentError(
                "none of the map's targets predicts and sees a token of these segments: pass rest='rest'"
            )
        found = sorted(groups.items(), key=lambda group: group[1][-1].position)
        return AttributionMap(
            attributions=tuple(
                in_segments(merged(rows), segments, targets=len(rows) if mean else None) for _, rows in found
            ),
            next_texts=tuple(segments[i].name if i >= 0 else None for i, _ in found),
            regions=self.regions,
            metadata={**self.metadata, "units": "segments"},
        )

    # -- out of Python -------------------------------------------------------------

    def to_dataframe(self) -> pd.DataFrame:
        """One row for each pair that can matter: target, source, score, stderr, and their texts."""
        import pandas as pd  # heavy to import, and a dependency of TransformerLens anyway

        tables = []
        for a, follows in zip(self, self.next_texts, strict=True):
            table = a.to_dataframe().drop(columns="tokens")
            table = table.rename(columns={"position": "source", "text": "source_text"})
            table.insert(0, "target", a.position)
            table.insert(1, "next_text", follows)
            table.insert(2, "explained", a.target)
            tables.append(table.assign(value=a.metadata.get("value", math.nan)))
        return pd.concat(tables, ignore_index=True)

    # -- pictures ------------------------------------------------------------------

    def panels(self, *, skip_first: bool = True, per_row: bool = True) -> tuple[Panel, ...]:
        """The heat map; the text as one target sees it; and the strongest sources of each, in words.

        Args:
            skip_first: leave token 0, which an attention sink often dominates, out of colours and rankings.
            per_row: full colour is the largest score of each row, not of the whole map.

        Raises:
            ArgumentError: a score isn't finite.
        """
        units = named_units(self[-1])
        hidden = hidden_units(self.units, skip_first)
        coming = [self._coming(i) for i in range(len(self))]
        inside = inside_strip(self.attributions, skip_first, tokens=False)
        names = [
            f"→ {coming[i]}" if inside else f"{len(a) - 1} {words.quoted(a.str_tokens[-1])} → {coming[i]}"
            for i, a in enumerate(self)
        ]
        rows = [
            strip_row(
                a,
                hidden,
                label=f"→ {coming[i]}{self._chance(i)}: {words.explained(a.target, a.metadata)}",
                framed=tuple(at for at, positions in enumerate(self.units) if a.position + 1 in positions),
                coming=coming[i],
            )
            for i, a in enumerate(self)
        ]
        kept = [tuple(x for i, x in enumerate(row.values) if i not in hidden) for row in rows]
        everything = scale_of(x for row in kept for x in row)
        scales = [scale_of(row, signed=everything.signed) for row in kept] if per_row else [everything]
        rows = [msgspec.structs.replace(row, scale=scales[i if per_row else 0]) for i, row in enumerate(rows)]
        strip = TokenStrip(
            views=("page",),
            title=("one prediction at a time" if inside is None else "what drove each segment")
            + ("" if per_row else ", all on the scale above"),
            units=units,
            rows=tuple(rows),
            together=inside is not None,  # blocks are few
            chosen=len(rows) - 1,
            hidden=hidden,
            inside=inside,
        )
        return (
            self._heat_map(rows, names, scales, hidden),
            strip,
            self._ranking(names, skip_first),
        )

    def _heat_map(
        self,
        rows: Sequence[StripRow],
        names: Sequence[str],
        scales: Sequence[Scale],
        hidden: Positions,
    ) -> HeatMap:
        last, units = self[-1], named_units(self[-1])
        return HeatMap(
            title=words.ruled(scope_title(self.scope), last.metadata),
            detail="attribution map",
            facts=(*words.sinks(last.metadata), *words.model_facts(last.metadata)),
            values=tuple(row.values for row in rows),
            rows=tuple(names),
            columns=units,
            row_axis="target",
            column_axis="source",
            scales=tuple(scales),
            quantity=words.score_unit(last.metadata),
            numbered=last.inside is None,
            hidden=hidden,
        )

    def _ranking(self, names: Sequence[str], skip_first: bool) -> Table:
        """The strongest sources of each target: in a terminal a wide map has no room for texts."""
        found = [words.listed(a.top(_STRONGEST, skip_first=skip_first)) for a in self]
        return Table(
            views=("terminal",),
            header=("prediction", "strongest sources"),
            rows=tuple((Cell(name), Cell(text)) for name, text in zip(names, found, strict=True)),
        )

    def _coming(self, i: int) -> str:
        """The token (or word) that really follows target ``i``, or the one predicted where the text ends."""
        follows, likely = self.next_texts[i], self[i].predictions
        if follows is not None:
            return words.quoted(follows)
        return f"{words.quoted(likely[0].text)} (predicted)" if likely else "(the text ends)"

    def _chance(self, i: int) -> str:
        """How probable what follows was, where that is known: ``" (p = 77%)"``."""
        return next((f" (p = {p.probability:.1%})" for p in self[i].predictions if p.text == self.next_texts[i]), "")

    def show(self, *, skip_first: bool = True, per_row: bool = True) -> None:
        """Draw the map: in Jupyter as HTML, elsewhere in the terminal. Options: :meth:`panels`."""
        renderer().show(self.panels(skip_first=skip_first, per_row=per_row))

    def to_html(self, path: str | Path, *, skip_first: bool = True, per_row: bool = True) -> Path:
        """Write one self-contained HTML page that works offline; returns its path. Options: :meth:`panels`."""
        return renderer().write(self.panels(skip_first=skip_first, per_row=per_row), path)

    def plot(self, ax: Axes | None = None, *, skip_first: bool = True, per_row: bool = True) -> Axes:
        """Draw the heat map with matplotlib (extra ``plot``); returns its axes. Options: :meth:`panels`."""
        return renderer().figure(self.panels(skip_first=skip_first, per_row=per_row), ax)


# -- rows ------------------------------------------------------------------------------


def matrix(rows: Sequence[Float[Tensor, " _"]]) -> Float[Tensor, "targets sources"]:
    """Rows of growing length as one matrix, zero where they end."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def cut_words(groups: Sequence[Word], a: Attribution) -> tuple[list[int], list[str]]:
    """The text's words as far as one target sees them: its last word may be a beginning only."""
    sizes: list[int] = []
    for word in groups:
        if (left := len(a) - sum(sizes)) > 0:
            sizes.append(min(word.size, left))
    texts = [word.text for word in groups[: len(sizes)]]
    if sizes and sizes[-1] < groups[len(sizes) - 1].size:
        texts[-1] = "".join(a.str_tokens[-sizes[-1] :])
    return sizes, texts


def merged(rows: Sequence[Attribution]) -> Attribution:
    """Targets that predict parts of one word, as one."""
    last = rows[-1]
    if len(rows) == 1:
        return last
    errors = [errors for a in rows if (errors := a.stderr) is not None]
    known = last.combine == "sum" and len(errors) == len(rows)  # they add up at most: see Attribution.grouped
    details = {k: v for k, v in last.metadata.items() if k not in ("value", "target_token", "target_rule")}
    return dataclasses.replace(
        last,
        scores=_columns([a.scores for a in rows], COMBINE[last.combine]),
        stderr=_columns(errors, COMBINE["sum"]) if known else None,
        target=_several([a.target for a in rows]),
        predictions=(),
        metadata={**details, "merged_positions": [a.position for a in rows]},
    )


def _several(targets: Sequence[str]) -> str:
    """``"logit of ' a', logit of ' b'"``; of many the first, the last and how many they are."""
    names = list(dict.fromkeys(targets))
    return ", ".join(names) if len(names) <= _MOST_TARGETS else f"{names[0]}, …, {targets[-1]} ({len(targets)} targets)"


def _columns(rows: Sequence[Float[Tensor, " _"]], combine: Callable[[Tensor], Tensor]) -> Float[Tensor, " units"]:
    """Each column of a matrix as one number."""
    return torch.stack([combine(column) for column in matrix([row.double() for row in rows]).T]).float()


def _check_rows(rows: Sequence[Attribution]) -> None:
    """Refuse attributions that aren't rows of one map: of one text, in reading order, by one scope."""
    if not rows:
        raise ArgumentError("a map of no targets, expected at least one attribution")
    for before, after in pairwise(rows):
        if before.position >= after.position:
            raise ArgumentError(f"targets at positions {before.position}, {after.position}: expected increasing ones")
        if after.tokens[: len(before.tokens)] != before.tokens:
            raise ArgumentError(
                f"the targets at positions {before.position} and {after.position} are of different texts, expected one"
            )
        if (before.scope, before.combine) != (after.scope, after.combine):
            raise ArgumentError(
                f"targets of scopes {before.scope!r} and {after.scope!r} in one map, expected one scope"
            )
        rules = [a.metadata.get("rule") or "exact" for a in (before, after)]
        if rules[0] != rules[1]:
            raise ArgumentError(
                f"targets of backward rules {rules[0]!r} and {rules[1]!r} in one map, expected one rule: linearize all "
                "with the same rule="
            )
    for a in rows:
        if not _fits(a, rows[-1].units):
            raise ArgumentError(f"the target at position {a.position} has other units than the last target")


def _fits(a: Attribution, widest: Sequence[Positions]) -> bool:
    """Whether these units are the first of the widest row's, as far as the target sees the text."""
    seen = [tuple(at for at in unit if at < len(a.tokens)) for unit in widest]
    return list(a.units) == seen[: len(a)] and not any(seen[len(a) :])
