"""A prompt with a sentence and its translation in it: the words of each, and the tokens of each word.

Text is never tokenised in pieces: a word has other tokens inside a prompt than alone. The prompt is
tokenised once, every token's text is matched against it from left to right, and a word's tokens are
those whose characters overlap the word's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from string import Formatter
from typing import NamedTuple

import regex

from tl_jacobian.errors import ArgumentError, PromptError
from tl_jacobian.results.arguments import excerpt, warn
from tl_jacobian.results.tokens import CHARACTER, KATAKANA, UNSPACED, Word, whole_characters

Segmenter = Callable[[str], Sequence[str]]
_UNSPACED = regex.compile(f"[{UNSPACED}]")
_SEGMENT = regex.compile(rf"{KATAKANA}|(?:(?![{UNSPACED}])\S)+|{CHARACTER}")
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


def fill(template: str, source: str, target: str, segmenter: Segmenter | None = None) -> Filled:
    """Put a sentence and its translation into a template; ``segmenter`` as for :func:`split_words`.

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
            words[name] = _words(name, values[name], len(text), segmenter)
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


def _words(name: str, sentence: object, start: int, segmenter: Segmenter | None) -> tuple[Span, ...]:
    words = split_words(sentence, start, segmenter) if isinstance(sentence, str) else ()
    if not words:
        raise ArgumentError(f"{name}={sentence!r}, expected a sentence of at least one word")
    return words


class Span(NamedTuple):
    """A word and where it is: ``text[start:stop]``."""

    text: str
    start: int
    stop: int


class Units(NamedTuple):
    """A text cut into the words asked for and what is between them, each token in exactly one.

    Attributes:
        words: text and number of tokens of each unit, spaces and punctuation included.
        at: which unit each word is.
        tokens: the tokens of each word.
    """

    words: tuple[Word, ...]
    at: tuple[int, ...]
    tokens: tuple[range, ...]


def split_words(text: str, start: int = 0, segmenter: Segmenter | None = None) -> tuple[Span, ...]:
    """What stands between spaces, without the punctuation around it; punctuation alone is no word.

    Apostrophes and hyphens inside stay: ``l'eau`` and ``peut-être`` are one word each. Scripts that write no spaces
    (Chinese, Japanese, Thai, Lao, Khmer, Burmese) are split as Unicode does where it has no dictionary: into
    characters, vowels with their consonants, katakana together.

    Args:
        text: a sentence.
        start: where it begins in a longer text.
        segmenter: a function from a text to the list of its words, in order: ``jieba.lcut``, say.

    Raises:
        ArgumentError: the segmenter gives what isn't in the text.

    >>> [word.text for word in split_words("« L'eau est froide », dit-il ...")]
    ["L'eau", 'est', 'froide', 'dit-il']
    >>> [word.text for word in split_words("我喝tea。")]
    ['我', '喝', 'tea']
    """
    pieces = _pieces(text) if segmenter is None else _segments(text, segmenter)
    return tuple(_spans(text, pieces, start))


def _spans(text: str, pieces: Iterator[tuple[int, int]], start: int) -> Iterator[Span]:
    for begin, end in pieces:
        inside = [i for i in range(begin, end) if unicodedata.category(text[i])[0] in "LMN"]
        if inside:
            first, last = inside[0], inside[-1] + 1
            yield Span(text[first:last], start + first, start + last)


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    for run in re.finditer(r"\S+", text):
        if not _UNSPACED.search(run[0]):
            yield run.span()
        else:
            yield from (part.span() for part in _SEGMENT.finditer(text, *run.span()))


def _segments(text: str, segmenter: Segmenter) -> Iterator[tuple[int, int]]:
    found = segmenter(text)
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise ArgumentError(f"segmenter gave {excerpt(found)}, expected the list of a text's words")
    at = 0
    for word in found:
        begin = text.find(word, at) if isinstance(word, str) else -1
        if begin < 0:
            raise ArgumentError(
                f"segmenter gave {excerpt(word)}, which isn't in {excerpt(text[at:])}, expected the text's words in "
                "their order, none of them changed"
            )
        at = begin + len(word)
        yield begin, at


def check_spaces(segmenter: Segmenter | None, *texts: str) -> None:
    """Say so where a text's words can't be told by spaces, and nothing else tells them."""
    if segmenter is None and (shown := next((text for text in texts if _UNSPACED.search(text)), None)):
        warn(
            f"{excerpt(shown, 60)} is in a script that writes no spaces between words, so each character stands for a "
            "word: pass segmenter=, a function from a text to the list of its words (jieba.lcut for Chinese, "
            "pythainlp.word_tokenize for Thai)"
        )


def joined(text: str, words: Sequence[Span], spans: Sequence[tuple[int, int]]) -> tuple[Span, ...]:
    """Words that nothing stands between and that share a token as one: neither has a score of its own.

    >>> joined("中国人", split_words("中国人"), [(0, 2), (2, 3)])
    (Span(text='中国', start=0, stop=2), Span(text='人', start=2, stop=3))
    """
    crossed = {at for start, stop in spans for at in range(start + 1, stop)}
    found: list[Span] = []
    for word in words:
        if found and found[-1].stop == word.start and word.start in crossed:
            start = found.pop().start
            word = Span(text[start : word.stop], start, word.stop)
        found.append(word)
    return tuple(found)


def token_spans(
    text: str, pieces: Sequence[str], decode: Callable[[int, int], str], outside: Collection[int] = ()
) -> list[tuple[int, int]]:
    """Where in ``text`` each of its tokens is; tokens that share a character share its place.

    Args:
        pieces: the text of each token.
        decode: text of tokens ``start:stop``, asked where a character is spread over several.
        outside: tokens that may stand for nothing in the text: a BOS token, say.

    Raises:
        PromptError: the tokens don't spell the text, so that no word could be found in it.

    >>> token_spans("The cat", [" The", " c", "at"], lambda a, b: "")
    [(0, 3), (3, 5), (5, 7)]
    """
    found: list[tuple[int, int]] = []
    at = 0
    for piece in whole_characters(pieces, decode):
        stop = _after(text, at, piece, len(found) in outside)
        if stop is None:
            raise _unlike(text, at, piece.text)
        found += [(at, stop)] * piece.size
        at = stop
    if at < len(text):
        raise _unlike(text, at, "")
    return found


def _after(text: str, at: int, piece: Word, may_be_outside: bool) -> int | None:
    """Where ``piece`` ends if it begins at ``at``; None if it doesn't begin there."""
    if text.startswith(piece.text, at):
        return at + len(piece.text)
    if may_be_outside:
        return at
    # SentencePiece puts a space of its own before a text.
    if at == 0 and piece.text.startswith(" ") and text.startswith(piece.text[1:]):
        return len(piece.text) - 1
    return None


def _unlike(text: str, at: int, piece: str) -> PromptError:
    normal = unicodedata.normalize("NFC", text)
    hint = '; pass the text in Unicode normal form: unicodedata.normalize("NFC", text)' if normal != text else ""
    return PromptError(
        f"the tokenizer's tokens don't spell the text: at character {at} it reads {text[at : at + 20]!r}, and the next "
        f"token {piece!r}, so words can't be found by their characters; expected a tokenizer that changes no text{hint}"
    )


def units_of(text: str, words: Sequence[Span], spans: Sequence[tuple[int, int]], pieces: Sequence[str]) -> Units:
    """Tokens grouped by the words they are in; tokens between words stay alone.

    Raises:
        PromptError: one token holds parts of two words.

    >>> units_of("a bc.", split_words("a bc."), [(0, 1), (1, 3), (3, 5)], ["a", " b", "c."])[:2]
    ((Word(text='a', size=1), Word(text=' bc.', size=2)), (0, 1))
    """
    tokens = [_tokens_of(word, spans) for word in words]
    owner = {token: i for i, members in enumerate(tokens) for token in members}
    if len(owner) < sum(map(len, tokens)):
        shared = next(t for t in owner if sum(t in members for members in tokens) > 1)
        raise PromptError(
            f"token {shared} {pieces[shared]!r} holds parts of two words, which then have no score of their own; "
            "expected a tokenizer whose tokens end at spaces"
        )
    groups = list(_grouped(spans, owner))
    first = {owner[group[0]]: at for at, group in enumerate(groups) if group[0] in owner}
    return Units(
        tuple(Word(_text(text, group, spans, pieces), len(group)) for group in groups),
        tuple(first[i] for i in range(len(words))),
        tuple(tokens),
    )


def _tokens_of(word: Span, spans: Sequence[tuple[int, int]]) -> range:
    members = [i for i, (start, stop) in enumerate(spans) if start < word.stop and stop > word.start]
    return range(members[0], members[-1] + 1)


def _grouped(spans: Sequence[tuple[int, int]], owner: dict[int, int]) -> Iterator[range]:
    """Runs of tokens of one word, or that share one character outside words."""
    start = 0
    for i in range(1, len(spans) + 1):
        if i == len(spans) or not _together(spans, owner, i):
            yield range(start, i)
            start = i


def _together(spans: Sequence[tuple[int, int]], owner: dict[int, int], i: int) -> bool:
    """Whether token ``i`` is in one unit with the token before it."""
    if i in owner or i - 1 in owner:
        return owner.get(i) == owner.get(i - 1)
    return spans[i] == spans[i - 1] and spans[i][0] < spans[i][1]


def _text(text: str, group: range, spans: Sequence[tuple[int, int]], pieces: Sequence[str]) -> str:
    """What a unit says; a token outside the text keeps its own name."""
    return text[spans[group[0]][0] : spans[group[-1]][1]] or pieces[group[0]]
