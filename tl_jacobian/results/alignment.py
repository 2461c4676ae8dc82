"""WordAlignment: how strongly each word of a sentence drives each word of its translation, as a frozen value.

It knows nothing of models. The influence may come from any scope, or from a matrix of one's own. *Links* say which
words of the two sentences say the same, as pairs of their indices; given, or read off the matrix.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results import words
from tl_jacobian.results.arguments import checked, excerpt, is_id
from tl_jacobian.results.attribution import Positions, Ranked, check_units
from tl_jacobian.results.base import Value
from tl_jacobian.results.drawing import renderer
from tl_jacobian.results.grid import Grid, grid_panels
from tl_jacobian.results.panels import Frame, Panel, StripRow, TokenStrip, hidden_units, named_positions, scale_of
from tl_jacobian.results.scopes import Combine, scope_title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class Link(NamedTuple):
    """A word of the source and a word of the target, by index, that say the same."""

    source: int
    target: int


Links = str | Collection[tuple[int, int]]
LinkRule = Literal["argmax", "intersection"] | float


@checked
def parse_links(text: str) -> frozenset[Link]:
    """Links as ``"0-0 1-2"``: source-target, counted from 0, as alignment tools write them.

    Raises:
        ArgumentError: it isn't written so.

    >>> sorted(parse_links("0-0 1-2"))
    [Link(source=0, target=0), Link(source=1, target=2)]
    """
    return _parsed(text, "text")


def _parsed(text: str, name: str) -> frozenset[Link]:
    try:
        return frozenset(Link(*map(int, pair.split("-", 1))) for pair in text.split())
    except (ValueError, TypeError) as error:
        raise ArgumentError(f'{name}={excerpt(text)}: links can\'t be read, expected pairs like "0-0 1-2"') from error


def read_links(links: Links, name: str = "links") -> frozenset[Link]:
    """Pairs of word indices (source, target), or a text that :func:`parse_links` reads.

    Args:
        links: what a user gave.
        name: of the argument, for messages.

    Raises:
        ArgumentError: they are something else.
    """
    if isinstance(links, str):
        return _parsed(links, name)
    pairs = None if isinstance(links, Mapping) else _pairs(links)
    if pairs is None:
        raise ArgumentError(
            f"{name}={links!r}, expected pairs of word indices (source, target), both counted from 0, such as "
            '[(0, 0), (1, 2)]; parse_links reads them from text like "0-0 1-2"'
        )
    return frozenset(Link(int(source), int(target)) for source, target in pairs)


def _pairs(links: Any) -> list[tuple[Any, Any]] | None:
    """The pairs, or None where something else was given."""
    try:
        pairs = [tuple(pair) for pair in links]
    except TypeError:
        return None
    return pairs if all(len(pair) == 2 and all(map(is_id, pair)) for pair in pairs) else None


def links_inside(links: Links, n_source: int, n_target: int, name: str) -> frozenset[Link]:
    """Gold links between sentences of so many words, read as by :func:`read_links`.

    Raises:
        ArgumentError: they aren't links, or one is of a word that isn't there.

    >>> sorted(links_inside("1-0", 2, 1, "sure"))
    [Link(source=1, target=0)]
    """
    found = read_links(links, name)
    for source, target in sorted(found):
        if not (0 <= source < n_source and 0 <= target < n_target):
            raise ArgumentError(
                f"gold link {source}-{target} (source-target) is outside {n_source} source words and {n_target} "
                "target words, both counted from 0"
            )
    return found


def link_words(
    matrix: Float[Tensor, "targets sources"], shares: Float[Tensor, "targets sources"], method: LinkRule
) -> frozenset[Link]:
    """The words that an alignment's matrix links; rules and errors: :meth:`WordAlignment.links`."""
    rows = {Link(int(row.argmax()), t) for t, row in enumerate(matrix) if row.any()}
    if method == "argmax":
        return frozenset(rows)
    if method == "intersection":
        columns = {Link(s, int(column.argmax())) for s, column in enumerate(shares.T) if column.any()}
        return frozenset(rows & columns)
    if isinstance(method, (str, bool)) or not 0 < method <= 1:
        raise ArgumentError(f'method={method!r}, expected "argmax", "intersection" or a share above 0, at most 1')
    return frozenset(Link(s, t) for t, s in (shares >= method).nonzero().tolist())


# -- the value -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, kw_only=True)
class WordAlignment(Value):
    """How strongly each unit of a text drives the prediction of each target word in it.

    Attributes:
        influence: of each unit on each target word; shape ``(targets, units)``, CPU float32, finite, not
            negative; 0 from the target word on. Its unit is that of the scope's scores.
        units: the whole text in pieces: words, and what is between them.
        sources, targets: which units the words of the two sentences are.
        source_words, target_words: the words without spaces and punctuation.
        scope: where the influence is from: ``"fisher"``, ``"temperature"``, ...
        combine: how scores of several tokens make one (Euclidean for a norm, sum for a trace).
        positions: token positions of each unit, where it is known; default none.
        metadata: what exactly was explained, and by what (JSON values).

    >>> a = WordAlignment.of_matrix(torch.tensor([[0.1, 2.0], [3.0, 0.2]]), ["noir", "chat"], ["cat", "black"])
    >>> sorted(a.links())
    [Link(source=0, target=1), Link(source=1, target=0)]
    >>> a.row("cat").top(1)
    [Ranked(unit=1, text='chat', score=2.0)]
    """

    influence: Float[Tensor, "targets units"]
    units: tuple[str, ...]
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    source_words: tuple[str, ...]
    target_words: tuple[str, ...]
    scope: str
    combine: Combine = "root_sum_squares"
    positions: tuple[Positions, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_matrix(
        cls,
        matrix: Float[Tensor, "targets sources"],
        source_words: Sequence[str],
        target_words: Sequence[str],
        scope: str = "given",
    ) -> WordAlignment:
        """An alignment from any matrix, one row for each target word, of no text but the words."""
        n, m = len(source_words), len(target_words)
        if matrix.shape != (m, n):
            raise ArgumentError(
                f"a matrix of shape {tuple(matrix.shape)} for {m} target words and {n} source words, expected {(m, n)}"
            )
        return cls(
            influence=torch.nn.functional.pad(matrix, (0, m)),
            units=(*source_words, *target_words),
            sources=tuple(range(n)),
            targets=tuple(range(n, n + m)),
            source_words=tuple(source_words),
            target_words=tuple(target_words),
            scope=scope,
        )

    def __post_init__(self) -> None:
        self._own("influence", dtype=torch.float32)
        self._freeze("metadata")
        self._check()

    def _check(self) -> None:
        shape = (len(self.targets), len(self.units))
        pairs = (("sources", self.sources, self.source_words), ("targets", self.targets, self.target_words))
        influence = self.influence
        if tuple(influence.shape) != shape:
            raise ArgumentError(
                f"influence of shape {tuple(influence.shape)}, expected {shape}: targets x units of the text"
            )
        for name, at, named in pairs:
            if len(at) != len(named) or not named or not all(0 <= i < len(self.units) for i in at):
                raise ArgumentError(
                    f"{len(named)} words for {name}={at}, expected one or more, each with its unit, 0 to {shape[1] - 1}"
                )
        if not influence.isfinite().all() or (influence < 0).any():
            raise ArgumentError("influence holds a negative or infinite number or NaN, expected sizes from 0 up")
        if self.positions and len(self.positions) != len(self.units):
            raise ArgumentError(f"{len(self.positions)} positions for {len(self.units)} units, expected one each")
        check_units(self.positions, 1 + max((at for unit in self.positions for at in unit), default=0))

    def __repr__(self) -> str:
        pairs = ", ".join(
            f"{self.target_words[t]}={self.source_words[s]}" for s, t in sorted(self.links(), key=_by_target)
        )
        return f"WordAlignment({self.scope}: {len(self.target_words)} x {len(self.source_words)} words; {pairs})"

    # -- numbers -------------------------------------------------------------------

    @cached_property
    def matrix(self) -> Float[Tensor, "targets sources"]:
        """Influence of each source word on each target word."""
        return self.influence[:, list(self.sources)]

    @cached_property
    def shares(self) -> Float[Tensor, "targets sources"]:
        """:attr:`matrix` with each row divided by its sum; a row of zeros stays one."""
        matrix = self.matrix
        return matrix / reduce(matrix, "target source -> target 1", "sum").clamp_min(torch.finfo(torch.float32).tiny)

    def links(self, method: LinkRule = "argmax") -> frozenset[Link]:
        """Which words are aligned.

        Args:
            method: ``"argmax"`` links each target word to the source word that drives it most (the
                first of several); ``"intersection"`` keeps those that are also the target word which their
                source word drives most (of each row's share, for rows differ in size); a number links
                every pair with at least that share of its row.

        Raises:
            ArgumentError: no such method, or a share outside 0 to 1.
        """
        return link_words(self.matrix, self.shares, method)

    def relative(self) -> WordAlignment:
        """How much more each source word drives a target word than it drives them all on average.

        Every share divided by the mean of its column: a source word that drives everything (one of many
        tokens, say) no longer outshines the others. Not the paper's, and no longer an influence.
        """
        shares = self.shares
        lift = shares / reduce(shares, "target source -> source", "mean").clamp_min(torch.finfo(torch.float32).tiny)
        influence = torch.zeros_like(self.influence)
        influence[:, list(self.sources)] = lift
        details = {**self.metadata, "score": "share of the row over the source word's mean share"}
        return dataclasses.replace(self, influence=influence, scope=f"{self.scope}, relative", metadata=details)

    def row(self, word: str | int) -> AlignedWord:
        """One target word, by its text or its index (negative ones count from the end).

        Raises:
            ArgumentError: there is no such word, or several.
        """
        return AlignedWord(alignment=self, index=_place_of(word, self.target_words))

    def to_grid(self, *, per_row: bool = True) -> Grid:
        """The matrix as a heat map: target words x source words.

        Args:
            per_row: each row as shares of its sum, so that rows of all sizes can be read on one scale.
        """
        unit = str(self.metadata.get("score") or "influence")
        return Grid(
            values=self.shares if per_row else self.matrix,
            rows=self.target_words,
            columns=self.source_words,
            title=f"{scope_title(self.scope)}: word alignment",
            quantity="share of the row" if per_row else unit,
            row_axis="target word",
            column_axis="source word",
            signed=False,
            units=tuple(self.positions[i] for i in self.sources) if self.positions else (),
            metadata=self.metadata,
        )

    # -- out of Python -------------------------------------------------------------

    def to_dataframe(self) -> pd.DataFrame:
        """The matrix, a row for each target word and a column for each source word, in the sentences' order."""
        import pandas as pd  # heavy to import, and a dependency of TransformerLens anyway

        rows, columns = pd.Index(self.target_words, name="target word"), pd.Index(self.source_words, name="source word")
        return pd.DataFrame(self.matrix.numpy(), index=rows, columns=columns)

    # -- pictures ------------------------------------------------------------------

    def panels(self, *, skip_first: bool = True, sure: Links = (), possible: Links = ()) -> tuple[Panel, ...]:
        """The heat map of shares, and the text once for each target word, which is framed.

        As in the paper's figures 3 and 13, source words are shaded by their influence on the framed word's
        prediction. Other words before it have influence too; how much of all the source words hold is said.

        Args:
            skip_first: leave out a source word that is token 0 (an attention sink), where positions are known.
            sure, possible: gold links to be framed, solid and dashed: (source, target) pairs of word indices, or
                text like ``"0-0 1-2"``.

        Raises:
            ArgumentError: something else, or a link to a word that isn't there.
        """
        n, m = len(self.source_words), len(self.target_words)
        certain, likely = links_inside(sure, n, m, "sure"), links_inside(possible, n, m, "possible")
        frames = [Frame(row=link.target, column=link.source) for link in sorted(certain)]
        frames += [Frame(row=link.target, column=link.source, dashed=True) for link in sorted(likely - certain)]
        note = "framed: gold links" + (" (dashed: possible)" if likely else "") if frames else ""
        rows = [self.row(i) for i in range(m)]
        return *grid_panels(self.to_grid(), skip_first=skip_first, frames=frames, notes=[note]), _strip(
            rows, skip_first
        )

    def plot(self, ax: Axes | None = None, *, skip_first: bool = True, sure: Links = (), possible: Links = ()) -> Axes:
        """Draw it with matplotlib (extra ``plot``); returns the heat map's axes. Options: :meth:`panels`."""
        return renderer().figure(self.panels(skip_first=skip_first, sure=sure, possible=possible), ax)


@dataclass(frozen=True, eq=False, kw_only=True)
class AlignedWord(Value):
    """One target word of an alignment, and the source words that drive it; :meth:`WordAlignment.row` makes it.

    Attributes:
        alignment: what it is a row of.
        index: of the target word.
    """

    alignment: WordAlignment
    index: int

    def __post_init__(self) -> None:
        self._set("index", _place_of(self.index, self.alignment.target_words))

    @property
    def word(self) -> str:
        return self.alignment.target_words[self.index]

    @property
    def scores(self) -> Float[Tensor, " sources"]:
        """Influence of each source word."""
        return self.alignment.matrix[self.index]

    @property
    def source_share(self) -> float:
        """Influence of the source words together, of that of everything before the target word.

        Shares of a trace, or of a squared norm: what adds up over tokens. NaN where nothing else is known to
        have influence (an alignment of a matrix alone).
        """
        square = 1 if self.alignment.combine == "sum" else 2
        whole = self.alignment.influence[self.index].double().pow(square).sum().item()
        sources = self.scores.double().pow(square).sum().item()
        return sources / whole if whole > sources else math.nan

    def top(self, k: int = 3, *, skip_first: bool = True) -> list[Ranked]:
        """The ``k`` source words that drive it most.

        Args:
            k: how many at most.
            skip_first: leave out a source word that is token 0, where positions are known.
        """
        a, scores = self.alignment, self.scores.tolist()
        hidden = _hidden_sources(a, skip_first)
        order = [i for i in sorted(range(len(scores)), key=lambda i: -scores[i]) if i not in hidden]
        return [Ranked(i, a.source_words[i], scores[i]) for i in order[: max(k, 0)]]

    def __repr__(self) -> str:
        best = ", ".join(f"{text!r} {score:.3g}" for _, text, score in self.top())
        return f"AlignedWord({self.word!r}: {best})"

    def to_dataframe(self) -> pd.DataFrame:
        """One row a source word: source, word, influence, share of the row."""
        import pandas as pd  # heavy to import, and a dependency of TransformerLens anyway

        a = self.alignment
        columns = {
            "source": range(len(a.source_words)),
            "word": list(a.source_words),
            "influence": self.scores.tolist(),
            "share": a.shares[self.index].tolist(),
        }
        return pd.DataFrame(columns)

    def panels(self, *, skip_first: bool = True) -> tuple[Panel, ...]:
        """The text, source words shaded and the target word framed."""
        return (_strip([self], skip_first),)


def _hidden_sources(a: WordAlignment, skip_first: bool) -> tuple[int, ...]:
    """Source words left out of the colours; other words have none anyway."""
    return hidden_units([a.positions[i] for i in a.sources] if a.positions else (), skip_first)


def _strip(rows: Sequence[AlignedWord], skip_first: bool) -> TokenStrip:
    """The text of an alignment, once for each target word."""
    a = rows[0].alignment
    positions = a.positions or ((),) * len(a.units)
    hidden = tuple(a.sources[i] for i in _hidden_sources(a, skip_first))
    units = named_positions(a.units, positions)
    influence = a.influence.tolist()
    return TokenStrip(
        title=words.ruled(scope_title(a.scope), a.metadata),
        detail="which source words drive the prediction of each framed word",
        facts=words.model_facts(a.metadata),
        units=units,
        rows=tuple(_strip_row(row, influence[row.index], hidden, skip_first) for row in rows),
        hidden=hidden,
    )


def _strip_row(row: AlignedWord, influence: Sequence[float], hidden: Sequence[int], skip_first: bool) -> StripRow:
    a = row.alignment
    framed = a.targets[row.index]
    seen = 1 + max(framed, *a.sources)  # what comes later can't matter
    scale = scale_of((influence[i] for i in a.sources if i not in hidden), signed=False)
    best = words.listed(row.top(skip_first=skip_first))
    share = row.source_share
    held = "" if math.isnan(share) else f"source words hold {share:.0%} of all influence on it"
    return StripRow(
        values=tuple(influence[i] if i in a.sources else math.nan for i in range(seen)),
        scale=scale,
        label=row.word,
        facts=words.some([best, words.score_unit(a.metadata), held]),
        framed=(framed,),
    )


def _by_target(link: Link) -> tuple[int, int]:
    return link.target, link.source


def _place_of(word: str | int, words: Sequence[str]) -> int:
    """Which target word is meant, by its text or its index; errors: :meth:`WordAlignment.row`."""
    n = len(words)
    if is_id(word):
        if not -n <= int(word) < n:
            raise ArgumentError(f"target word {word} of {n}, expected {-n} to {n - 1}")
        return int(word) % n
    found = [i for i, text in enumerate(words) if text == word]
    if len(found) != 1:
        names = ", ".join(f"{i} {text!r}" for i, text in enumerate(words))
        raise ArgumentError(
            f"{word!r} is {len(found)} target words, expected one of {names}; an index tells them apart"
        )
    return found[0]
