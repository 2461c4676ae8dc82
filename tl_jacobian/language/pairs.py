"""Sentence pairs with gold links: those that come with the package, and files of one's own.

The shipped set (``alignments.json``) was written for this library: short sentences in five languages with English
translations, linked word by word by hand, many with another word order than the translation's. They were linked a
second time without sight of the first links: of 212 and 211 sure links, 211 were the same, before the five links on
which the two differed were settled.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from tl_jacobian.attribution_file import checked, is_a, read
from tl_jacobian.errors import ArgumentError
from tl_jacobian.language.words import split_words
from tl_jacobian.links import Link, parse_links

FORMAT = "tl_jacobian.aligned_pairs"


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


def read_pairs(path: str | Path) -> tuple[AlignedPair, ...]:
    """Pairs of a JSON file of the shipped one's form: links as ``"0-0 1-2"``, source-target, by word from 0.

    Raises:
        AttributionFileError: the file is damaged, or its words aren't what its sentences are split into.
    """
    return read(path, from_json)


def from_json(data: Any) -> tuple[AlignedPair, ...]:
    """Pairs of a file's JSON value; raises as :func:`read_pairs` does."""
    return checked(data, FORMAT, lambda value: tuple(map(_pair, is_a(list, value["pairs"]))))


@cache
def _shipped() -> tuple[AlignedPair, ...]:
    return from_json(json.loads(files("tl_jacobian.language").joinpath("alignments.json").read_text(encoding="utf-8")))


def _pair(item: Any) -> AlignedPair:
    pair = AlignedPair(
        language=is_a(str, item["language"]),
        source=is_a(str, item["source"]),
        target=is_a(str, item["target"]),
        sure=parse_links(is_a(str, item["sure"])),
        possible=parse_links(is_a(str, item["possible"])),
    )
    _check_words(item["source_words"], pair.source_words)
    _check_words(item["target_words"], pair.target_words)
    return pair


def _check_words(written: Sequence[Any], split: Sequence[str]) -> None:
    """Links count words: a file says which words it counted."""
    if list(written) != list(split):
        raise ValueError(f"words {list(written)}, expected those that the sentence is split into: {list(split)}")
