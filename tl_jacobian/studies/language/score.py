"""How good an alignment is: links against gold links, ranks of gold words, and what to beat.

A = links found, S = sure gold links, P = possible ones, S among them (Och and Ney, 2003, "A Systematic Comparison of
Various Statistical Alignment Models"):

    precision = |A & P| / |A|     recall = |A & S| / |S|     AER = 1 - (|A & S| + |A & P|) / (|A| + |S|)

Chance is what equal scores get: every tie is resolved by its expectation over random orders, in closed form.

The gold set that comes with the package (``alignments.json``) was written for this library: short sentences in five
languages with English translations, linked word by word by hand, many with another word order than the translation's.
They were linked a second time without sight of the first links: of 212 and 211 sure links, 211 were the same, before
the five links on which the two differed were settled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tl_jacobian.errors import ArgumentError, AttributionFileError
from tl_jacobian.results.alignment import Link, WordAlignment, links_inside, parse_links, read_links
from tl_jacobian.results.arguments import checked
from tl_jacobian.results.words import four_digits
from tl_jacobian.studies.language.words import split_words

if TYPE_CHECKING:
    from tl_jacobian.results.alignment import Links
else:
    Links = Any  # reading them says what they may be


@dataclass(frozen=True, kw_only=True)
class AlignedPair:
    """A sentence, its English translation, and which of their words say the same.

    Attributes:
        language: of the source.
        source, target: the sentences.
        sure: links that anyone would draw.
        possible: further ones that a link may but needn't be drawn for: auxiliaries, articles, phrases.
    """

    language: str
    source: str
    target: str
    sure: frozenset[Link]
    possible: frozenset[Link] = frozenset()

    def __post_init__(self) -> None:
        n, m = len(self.source_words), len(self.target_words)
        outside = [link for link in self.sure | self.possible if not (0 <= link[0] < n and 0 <= link[1] < m)]
        if outside or not self.sure:
            raise ArgumentError(
                f"{self.source!r} has {n} words and {self.target!r} {m}; expected at least one sure link and all of "
                f"them inside, got {sorted(outside) or 'no sure link'}"
            )

    @property
    def source_words(self) -> tuple[str, ...]:
        return tuple(word.text for word in split_words(self.source))

    @property
    def target_words(self) -> tuple[str, ...]:
        return tuple(word.text for word in split_words(self.target))

    @property
    def template(self) -> str:
        """The paper's prompt with the languages' names."""
        return f"{self.language}: {{source}} English: {{target}}"


@checked
def aligned_pairs(*languages: str) -> tuple[AlignedPair, ...]:
    """The shipped pairs, of all languages or of those named.

    Raises:
        ArgumentError: there is none of a language.

    >>> pair = aligned_pairs("French")[0]
    >>> pair.source, pair.target
    ('La petite fille porte une robe bleue.', 'The little girl wears a blue dress.')
    """
    known = sorted({pair.language for pair in _shipped()})
    if unknown := [name for name in languages if name not in known]:
        raise ArgumentError(f"no pairs of language {unknown[0]!r}, expected some of {', '.join(map(repr, known))}")
    return tuple(pair for pair in _shipped() if not languages or pair.language in languages)


@checked
def read_pairs(path: str | Path) -> tuple[AlignedPair, ...]:
    """Pairs of a JSON file of the shipped one's form: links as ``"0-0 1-2"``, source-target, by word from 0.

    Raises:
        AttributionFileError: the file is damaged, or its words aren't what its sentences are split into.
    """
    return _parsed(Path(path).read_bytes(), str(path))


@cache
def _shipped() -> tuple[AlignedPair, ...]:
    return _parsed(files("tl_jacobian.studies.language").joinpath("alignments.json").read_bytes(), "alignments.json")


class _Written(msgspec.Struct):
    """A pair as files have it."""

    language: str
    source: str
    target: str
    source_words: list[str]
    target_words: list[str]
    sure: str
    possible: str = ""

    def pair(self) -> AlignedPair:
        pair = AlignedPair(
            language=self.language,
            source=self.source,
            target=self.target,
            sure=parse_links(self.sure),
            possible=parse_links(self.possible),
        )
        _check_words(self.source_words, pair.source_words)
        _check_words(self.target_words, pair.target_words)
        return pair


class _Pairs(msgspec.Struct):
    format: Literal["tl_jacobian.aligned_pairs"]
    version: Literal[1]
    pairs: list[_Written]


def _parsed(data: bytes, name: str) -> tuple[AlignedPair, ...]:
    try:
        return tuple(written.pair() for written in msgspec.json.decode(data, type=_Pairs).pairs)
    except (msgspec.MsgspecError, ValueError) as error:
        raise AttributionFileError(f"{name} isn't a file of aligned pairs, or it is damaged: {error}") from error


def _check_words(written: Sequence[Any], split: Sequence[str]) -> None:
    """Links count words: a file says which words it counted."""
    if list(written) != list(split):
        raise ValueError(f"words {list(written)}, expected those that the sentence is split into: {list(split)}")


@four_digits
class LinkScore(NamedTuple):
    """Links against gold links; see the module's formulas.

    Attributes:
        aer: alignment error rate, 0 to 1, lower is better.
        precision: NaN where no link was found.
        f1: harmonic mean of precision and recall.
    """

    aer: float
    precision: float
    recall: float
    f1: float


@four_digits
class AlignmentScore(NamedTuple):
    """One sentence pair's alignment against its gold links.

    Attributes:
        aer, precision, recall, f1: of each target word's link to its highest source word.
        reciprocal_rank: of the highest gold word in a target word's row, mean over target words that have gold
            links (sure or possible); 1 is best.
        average_precision: of the gold words in a target word's row, mean over the same.
    """

    aer: float
    precision: float
    recall: float
    f1: float
    reciprocal_rank: float
    average_precision: float


@checked
def link_score(links: Links, sure: Links, possible: Links = ()) -> LinkScore:
    """Links against sure and possible gold links; sure ones are possible too.

    Each as (source, target) pairs of word indices, or as text like ``"0-0 1-2"``.

    Raises:
        ArgumentError: they are something else, or there is no sure link to find.

    >>> score = link_score({(0, 0), (1, 1)}, sure={(0, 0)}, possible={(1, 1), (2, 1)})
    >>> score.aer, score.precision, score.recall
    (0.0, 1.0, 1.0)
    """
    found, s = read_links(links), read_links(sure, "sure")
    p = s | read_links(possible, "possible")
    return _rates(len(found), len(s), len(found & s), len(found & p))


def _rates(n_found: int, n_sure: int, n_hit_sure: int | float, n_hit: int | float) -> LinkScore:
    if not n_sure:
        raise ArgumentError("no sure gold link, expected at least one: there is nothing to recall")
    precision = n_hit / n_found if n_found else math.nan
    recall = n_hit_sure / n_sure
    f1 = 2 * precision * recall / (precision + recall) if n_hit and recall else 0.0
    return LinkScore(1 - (n_hit_sure + n_hit) / (n_found + n_sure), precision, recall, f1)


@checked
def score_alignment(alignment: WordAlignment, sure: Links, possible: Links = ()) -> AlignmentScore:
    """An alignment against gold links, as (source, target) pairs of word indices or as text like ``"0-0 1-2"``.

    A target word's link goes to its highest source word; shared by ties, so that equal scores get exactly what
    links drawn at random get on average.

    Raises:
        ArgumentError: not links, no sure one, or one to a word that isn't there.

    >>> a = WordAlignment.of_matrix(torch.tensor([[0.1, 2.0], [3.0, 0.2]]), ["noir", "chat"], ["cat", "black"])
    >>> score_alignment(a, sure=[(1, 0), (0, 1)])
    AlignmentScore(aer=0.0, precision=1.0, recall=1.0, f1=1.0, reciprocal_rank=1.0, average_precision=1.0)
    """
    matrix = alignment.matrix.double()
    s = _mask(sure, matrix, "sure")
    p = s | _mask(possible, matrix, "possible")
    highest = (matrix == matrix.amax(1, keepdim=True)).double()
    links = highest / highest.sum(1, keepdim=True)
    rates = _rates(len(matrix), int(s.sum()), (links * s).sum().item(), (links * p).sum().item())
    rows = [(row.tolist(), gold.tolist()) for row, gold in zip(matrix, p, strict=True) if gold.any()]
    ranks = [reciprocal_rank(row, gold) for row, gold in rows]
    precisions = [average_precision(row, gold) for row, gold in rows]
    return AlignmentScore(*rates, sum(ranks) / len(rows), sum(precisions) / len(rows))


def _mask(links: Links, matrix: Float[Tensor, "t s"], name: str) -> Bool[Tensor, "t s"]:
    mask = torch.zeros(matrix.shape, dtype=torch.bool)
    for source, target in links_inside(links, matrix.shape[1], matrix.shape[0], name):
        mask[target, source] = True
    return mask


@checked
def reciprocal_rank(scores: Sequence[float], gold: Sequence[bool]) -> float:
    """1 / rank of the highest gold entry, expected over random orders of equal scores.

    >>> reciprocal_rank([3.0, 2.0, 1.0], [False, True, True]), reciprocal_rank([1.0, 1.0], [True, False])
    (0.5, 0.75)
    """
    best = max(score for score, is_gold in zip(scores, gold, strict=True) if is_gold)
    above = sum(score > best for score in scores)
    tied = [is_gold for score, is_gold in zip(scores, gold, strict=True) if score == best]
    n, g = len(tied), sum(tied)
    # The first gold one of the tied is at place r where the r - 1 before it are others.
    chances = [math.comb(n - r, g - 1) / math.comb(n, g) for r in range(1, n - g + 2)]
    return sum(chance / (above + r) for r, chance in enumerate(chances, start=1))


@checked
def average_precision(scores: Sequence[float], gold: Sequence[bool]) -> float:
    """Mean over gold entries of the precision at their rank, expected over random orders of equal scores.

    (McSherry and Najork, 2008, "Computing information retrieval performance measures efficiently in the presence
    of tied scores".)

    >>> average_precision([3.0, 2.0, 1.0], [True, False, True])
    0.8333333333333333
    """
    total, above, gold_above = 0.0, 0, 0
    for level in sorted(set(scores), reverse=True):
        tied = [is_gold for score, is_gold in zip(scores, gold, strict=True) if score == level]
        n, g = len(tied), sum(tied)
        for i in range(1, n + 1):
            before = gold_above + ((i - 1) * (g - 1) / (n - 1) if n > 1 else 0.0)  # gold ones, if i is one
            total += g / n * (before + 1) / (above + i)
        above, gold_above = above + n, gold_above + g
    return total / sum(gold)


@checked
def chance_alignment(source_words: Sequence[str], target_words: Sequence[str]) -> WordAlignment:
    """Equal influence of all: its score is that of chance."""
    _check_any(source_words=source_words, target_words=target_words)
    equal = torch.ones(len(target_words), len(source_words))
    return WordAlignment.of_matrix(equal, source_words, target_words, "chance")


@checked
def diagonal_alignment(source_words: Sequence[str], target_words: Sequence[str]) -> WordAlignment:
    """The same relative place in both sentences: what an alignment must beat to have read the words.

    >>> sorted(diagonal_alignment(["le", "chat", "dort"], ["the", "cat", "sleeps"]).links())
    [Link(source=0, target=0), Link(source=1, target=1), Link(source=2, target=2)]
    """
    _check_any(source_words=source_words, target_words=target_words)
    source, target = ((torch.arange(len(words)) + 0.5).double() / len(words) for words in (source_words, target_words))
    closeness = 1 - (target[:, None] - source).abs()
    return WordAlignment.of_matrix(closeness, source_words, target_words, "diagonal")


def _check_any(**words: Sequence[str]) -> None:
    """Refuse sentences without a word."""
    for name, found in words.items():
        if not len(found):
            raise ArgumentError(f"{name}={found!r}, expected at least one word")
