"""From a row of a corpus, whatever it holds, to a prompt or to what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tl_jacobian.corpus.prompt import CorpusPrompt
from tl_jacobian.errors import CorpusError


class Unreadable(NamedTuple):
    """In place of a row that can't be read."""

    why: str


def prompts_of(rows: Iterable[Any], column: str, source: str) -> list[CorpusPrompt]:
    """One prompt a row: text, an object, or an :class:`Unreadable`.

    Raises:
        CorpusError: there is no row, none can be read, or none has the column.
    """
    found: list[CorpusPrompt] = []
    named = set()  # columns of the corpus, for the message
    for index, row in enumerate(rows):
        found.append(prompt_of(index, row, column))
        if isinstance(row, Mapping) and len(named) < 20:
            named |= {str(name) for name in row}
    if not found:
        raise CorpusError(f"{source} holds no prompts, expected at least one")
    if all(p.error for p in found):
        hint = f". Its columns are {sorted(named)}; choose with column= (--column)" if named - {column} else ""
        raise CorpusError(
            f"none of the {len(found)} prompts of {source} can be read; the first: {found[0].error}{hint}"
        )
    return found


def prompt_of(index: int, row: Any, column: str) -> CorpusPrompt:
    """The prompt of a row, or one that says what is wrong with it."""
    if isinstance(row, Unreadable):
        return CorpusPrompt(index, str(index), error=row.why)
    if not isinstance(row, Mapping):
        row = {column: row}
    name = row.get("id")
    known = _known(name, (str, int, float))
    found = CorpusPrompt(index, str(name) if known else str(index))
    if not known and name is not None:
        return _broken(found, f"id {shown(name)}, expected text or a number")
    return _filled(found, row, column)


def _filled(found: CorpusPrompt, row: Mapping[str, Any], column: str) -> CorpusPrompt:
    text, tokens, target = row.get(column), row.get("tokens"), row.get("target")
    if target is not None and not _known(target, (str, int)):
        return _broken(found, f"target {shown(target)}, expected text or a token id")
    if tokens is not None:
        if not isinstance(tokens, list) or not all(_known(t, (int,)) for t in tokens):
            return _broken(found, f"tokens {shown(tokens)}, expected a list of token ids")
        text = text if isinstance(text, str) else None
    elif column not in row:
        return _broken(found, f"there is no column {column!r}, expected one with text (it has {sorted(map(str, row))})")
    elif not isinstance(text, str):
        return _broken(found, f"column {column!r} is {shown(text)}, expected text")
    if (bad := _not_unicode(text, target)) is not None:
        return _broken(found, f"{shown(bad)} holds half a surrogate pair, expected valid Unicode text")
    return CorpusPrompt(found.index, found.id, text, None if tokens is None else tuple(tokens), target)


def _broken(found: CorpusPrompt, why: str) -> CorpusPrompt:
    return CorpusPrompt(found.index, found.id, error=why)


def _known(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _not_unicode(*texts: Any) -> str | None:
    for text in texts:
        if isinstance(text, str):
            try:
                text.encode("utf-8")
            except UnicodeEncodeError:
                return text
    return None


def shown(value: Any) -> str:
    """A value and its type, at a length that fits a message."""
    text = ascii(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
