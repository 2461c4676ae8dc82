"""Links: which words of two sentences say the same, as pairs of their indices; given, or read off a matrix."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor

from tl_jacobian.errors import ArgumentError
from tl_jacobian.plain import is_id


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
