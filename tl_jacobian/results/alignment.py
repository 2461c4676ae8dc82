"""WordAlignment: how strongly each word of a sentence drives each word of its translation, as a frozen value.

It knows nothing of models. The influence may come from any scope, or from a matrix of one's own. Read off it, or
given, are links: which words of the two sentences say the same. An :class:`AlignedWord` is one target word of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.attribution import Ranked
from tl_jacobian.results.base import Frozen
from tl_jacobian.results.grid import Grid
from tl_jacobian.results.plain import is_id
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


def parse_links(text: str) -> frozenset[Link]:
    """Links as ``"0-0 1-2"``: source-target, counted from 0, as alignment tools write them.

    Raises:
        ArgumentError: it isn't written so.

    >>> sorted(parse_links("0-0 1-2"))
    [Link(source=0, target=0), Link(source=1, target=2)]
    """
    try:
        return frozenset(Link(*map(int, pair.split("-", 1))) for pair in text.split())
    except (ValueError, TypeError) as error:
        raise ArgumentError(f'links {text!r} can\'t be read, expected pairs like "0-0 1-2"') from error


def read_links(links: Links, name: str = "links") -> frozenset[Link]:
    """Pairs of word indices (source, target), or a text that :func:`parse_links` reads.

    Args:
        links: what a user gave.
        name: of the argument, for messages.

    Raises:
        ArgumentError: they are something else.
    """
    if isinstance(links, str):
        return parse_links(links)
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


@dataclass(frozen=True)
class AlignedWord:
    """One target word of an alignment; :meth:`WordAlignment.row` makes it.

    Attributes:
        alignment: the :class:`~tl_jacobian.results.alignment.WordAlignment`.
        index: of the target word.
    """

    alignment: Any  # its module imports this one
    index: int

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

    def top(self, k: int = 3) -> list[Ranked]:
        """The ``k`` source words that drive it most."""
        order = self.scores.argsort(descending=True, stable=True)[: max(k, 0)].tolist()
        return [Ranked(i, self.alignment.source_words[i], self.scores[i].item()) for i in order]

    def __repr__(self) -> str:
        best = ", ".join(f"{text!r} {score:.3g}" for _, text, score in self.top())
        return f"AlignedWord({self.word!r}: {best})"

    def show(self) -> None:
        """Draw the text, source words shaded and the target word framed: HTML in Jupyter, else in the terminal."""
        from tl_jacobian.render.alignment_display import show_aligned_word

        show_aligned_word(self)

    def to_html(self, path: str | Path) -> Path:
        """Write the picture as one self-contained page that works offline; returns its path."""
        from tl_jacobian.render.alignment_display import write_alignment

        return write_alignment(self.alignment, path, only=self.index)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the picture with matplotlib (extra ``plot``)."""
        from tl_jacobian.render.alignment_plot import plot_aligned_word

        return plot_aligned_word(self, ax)

    def _repr_html_(self) -> str:
        from tl_jacobian.render.alignment_display import notebook_alignment

        return notebook_alignment(self.alignment, only=self.index)


def place_of(word: str | int, words: Sequence[str]) -> int:
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


@dataclass(frozen=True, eq=False, kw_only=True)
class WordAlignment(Frozen):
    """How strongly each unit of a text drives the prediction of each target word in it.

    Attributes:
        influence: of each unit on each target word; shape ``(targets, units)``, CPU float32, finite, not
            negative; 0 from the target word on. Its unit is that of the scope's scores.
        units: the whole text in pieces: words, and what is between them.
        sources, targets: which units the words of the two sentences are.
        source_words, target_words: the words without spaces and punctuation.
        scope: where the influence is from: ``"fisher"``, ``"temperature"``, ...
        combine: how scores of several tokens make one (Euclidean for a norm, sum for a trace).
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
        self._set("influence", self.influence.detach().to("cpu", torch.float32, copy=True))
        self._protect_metadata()
        self._check()

    def _check(self) -> None:
        shape = (len(self.targets), len(self.units))
        pairs = (("sources", self.sources, self.source_words), ("targets", self.targets, self.target_words))
        if tuple(self.influence.shape) != shape:
            raise ArgumentError(
                f"influence of shape {tuple(self.influence.shape)}, expected {shape}: targets x units of the text"
            )
        for name, at, words in pairs:
            if len(at) != len(words) or not words or not all(0 <= i < len(self.units) for i in at):
                raise ArgumentError(
                    f"{len(words)} words for {name}={at}, expected one or more, each with its unit, 0 to {shape[1] - 1}"
                )
        if not self.influence.isfinite().all() or (self.influence < 0).any():
            raise ArgumentError("influence holds a negative or infinite number or NaN, expected sizes from 0 up")

    def __eq__(self, other: object) -> bool:
        """Equal in every field, numbers bit for bit."""
        if not isinstance(other, WordAlignment):
            return NotImplemented
        same = all(getattr(self, f.name) == getattr(other, f.name) for f in dataclasses.fields(self)[1:])
        return same and torch.equal(self.influence, other.influence)

    __hash__ = None  # type: ignore[assignment]  # holds a tensor

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
        return self.matrix / self.matrix.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)

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
        lift = self.shares / self.shares.mean(0).clamp_min(torch.finfo(torch.float32).tiny)
        influence = torch.zeros_like(self.influence)
        influence[:, list(self.sources)] = lift
        details = {**self.metadata, "score": "share of the row over the source word's mean share"}
        return dataclasses.replace(self, influence=influence, scope=f"{self.scope}, relative", metadata=details)

    def row(self, word: str | int) -> AlignedWord:
        """One target word, by its text or its index (negative ones count from the end).

        Raises:
            ArgumentError: there is no such word, or several.
        """
        return AlignedWord(self, place_of(word, self.target_words))

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
            metadata=self.metadata,
        )

    # -- out of Python -------------------------------------------------------------

    def to_dataframe(self) -> pd.DataFrame:
        """The matrix, a row for each target word and a column for each source word, in the sentences' order."""
        import pandas as pd  # heavy to import, and a dependency of TransformerLens anyway

        rows, columns = pd.Index(self.target_words, name="target word"), pd.Index(self.source_words, name="source word")
        return pd.DataFrame(self.matrix.numpy().copy(), index=rows, columns=columns)

    def save(self, path: str | Path) -> None:
        """Write this alignment as JSON; :meth:`load` gives back an equal one."""
        from tl_jacobian.results.word_alignment_file import save

        save(self, path)

    @staticmethod
    def load(path: str | Path) -> WordAlignment:
        """Read an alignment that :meth:`save` wrote.

        Raises:
            AttributionFileError: the file is damaged, truncated, foreign, or from a newer version.
        """
        from tl_jacobian.results.word_alignment_file import load

        return load(path)

    # -- pictures ------------------------------------------------------------------

    def show(self) -> None:
        """Draw the heat map and each target word's picture: in Jupyter as HTML, elsewhere in the terminal."""
        from tl_jacobian.render.alignment_display import show_alignment

        show_alignment(self)

    def to_html(self, path: str | Path) -> Path:
        """Write the heat map and each target word's picture as one self-contained page; returns its path."""
        from tl_jacobian.render.alignment_display import write_alignment

        return write_alignment(self, path)

    def plot(self, ax: Axes | None = None, *, sure: Links = (), possible: Links = ()) -> Axes:
        """Draw the heat map with matplotlib (extra ``plot``); returns its axes.

        Args:
            ax: default a new figure's.
            sure, possible: gold links to be framed, solid and dashed: (source, target) pairs of word indices, or
                text like ``"0-0 1-2"``.

        Raises:
            ArgumentError: something else, or a link to a word that isn't there.
        """
        from tl_jacobian.render.alignment_plot import plot_alignment

        return plot_alignment(self, ax, sure=sure, possible=possible)

    def _repr_html_(self) -> str:
        from tl_jacobian.render.alignment_display import notebook_alignment

        return notebook_alignment(self)


def _by_target(link: Link) -> tuple[int, int]:
    return link.target, link.source
