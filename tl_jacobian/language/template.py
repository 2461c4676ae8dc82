"""A prompt with a sentence and its translation in it, and where each of them is."""

from __future__ import annotations

from string import Formatter
from typing import NamedTuple

from tl_jacobian.errors import ArgumentError
from tl_jacobian.language.words import Span, split_words

_FIELDS = ["source", "target"]


class Filled(NamedTuple):
    """A template with its sentences.

    Attributes:
        text: the prompt.
        source, target: the words of the two sentences, where they are in the prompt.
    """

    text: str
    source: tuple[Span, ...]
    target: tuple[Span, ...]


def fill(template: str, source: str, target: str) -> Filled:
    """Put a sentence and its translation into a template.

    Raises:
        ArgumentError: the template hasn't the fields {source} and {target} once each, in this order, or a
            sentence has no word.

    >>> filled = fill("French: {source} English: {target}", "Il dort.", "He sleeps.")
    >>> filled.text, filled.target[0]
    ('French: Il dort. English: He sleeps.', Span(text='He', start=26, stop=28))
    """
    parts = _parse(template)
    values = {"source": source, "target": target}
    text, words = "", {}
    for before, name in parts:
        text += before
        if name:
            words[name] = _words(name, values[name], len(text))
            text += values[name]
    return Filled(text, words["source"], words["target"])


def _parse(template: str) -> list[tuple[str, str | None]]:
    """Pairs of plain text and the field after it."""
    try:
        found = list(Formatter().parse(template))
    except (ValueError, TypeError) as error:
        raise ArgumentError(f"template={template!r} can't be read: {error}; write {{{{ for a brace") from error
    if [name for _, name, _, _ in found if name is not None] != _FIELDS or any(f or c for _, _, f, c in found):
        raise ArgumentError(
            f"template={template!r}, expected the fields {{source}} and {{target}} once each and in this order (what "
            'comes after a prediction can\'t drive it), such as "German: {source} English: {target}"'
        )
    return [(before, name) for before, name, _, _ in found]


def _words(name: str, sentence: object, start: int) -> tuple[Span, ...]:
    words = split_words(sentence, start) if isinstance(sentence, str) else ()
    if not words:
        raise ArgumentError(f"{name}={sentence!r}, expected a sentence of at least one word")
    return words
