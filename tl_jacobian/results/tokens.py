"""Tokens as text: what a reader sees, and how tokens make up words and numbers.

Attribution scores live on tokens, people think in words. A *word* here is a run of
tokens with no space between them and of one kind (letters or a number, its currency and
its thousands with it); punctuation, special tokens and the characters of scripts written
without spaces stand alone, a character being what readers take for one (Unicode's grapheme
clusters; Thai and Lao vowels go with their consonant, katakana with each other).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import regex

_VISIBLE = {"\n": "↵", "\r": "␍", "\t": "⇥"}
# Scripts without spaces between words: Thai, Lao, Myanmar, Khmer, kana, CJK.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_UNSPACED = re.compile(f"[{UNSPACED}]")
# Thai and Lao write some vowels before or behind the consonant, as characters that Unicode keeps apart from it.
_BEFORE, _BEHIND = "\u0e40-\u0e44\u0ec0-\u0ec4", "\u0e30\u0e32\u0e33\u0e45\u0e46\u0eb0\u0eb2\u0eb3\u0ec6"
_THAI = r"[\p{Thai}\p{Lao}]"
CHARACTER = rf"(?:[{_BEFORE}](?={_THAI}))?\X(?:(?<={_THAI})[{_BEHIND}])*"
KATAKANA = r"[\p{Katakana}ー]+"
# 1,234.56 has groups of three digits. What goes on after a comma is a list of numbers, as a series is written.
_NUMBER = r"(?<![\d.,])\p{Sc}?\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![.,]?\d|,$)|\p{Sc}\d"
_WHOLE = regex.compile(f"{_NUMBER}|{KATAKANA}|{CHARACTER}")
_WHOLE_ASCII = regex.compile(_NUMBER)
_SPECIAL = re.compile(r"<[|/]?\w[\w|/ ]*\|?>")
PARTIAL = "\ufffd"  # what decoding gives for a token that holds part of a character


class Word(NamedTuple):
    """A group of consecutive tokens: its text, and how many tokens it spans."""

    text: str
    size: int


class Region(NamedTuple):
    """Tokens that belong together, such as all that one speaker said: a name, and positions, not always neighbours."""

    name: str
    positions: tuple[int, ...]


# What is known of a prompt's parts, by kind: the "roles" and "messages" of a conversation.
Regions = Mapping[str, tuple[Region, ...]]


def visible(text: str) -> str:
    r"""``text`` with whitespace and control characters made visible.

    >>> visible(" a\n")
    ' a↵'
    >>> visible("\x00\u202e")
    '\\x00\\u202e'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_VISIBLE.get(c) or (_escape(c) if _hidden(c) else c) for c in text)


def _hidden(char: str) -> bool:
    """Control, format (bidi overrides, zero-width) and separator characters."""
    joiner = char in "\u200c\u200d"  # these belong to emoji and Indic words
    return not joiner and unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def group_words(pieces: Sequence[str], decode: Callable[[int, int], str] | None = None) -> tuple[Word, ...]:
    """Group token texts into words and numbers.

    Args:
        pieces: the text of each token, leading spaces included.
        decode: text of tokens ``start:stop``, asked where a character is spread over
            several tokens. Default: the pieces joined.

    >>> [w.text for w in group_words([" un", "believ", "able", ",", " $", "3", ".", "1", "4", "!"])]
    [' unbelievable', ',', ' $3.14', '!']
    """
    read = decode or (lambda start, stop: "".join(pieces[start:stop]))
    atoms = whole_characters(pieces, read)
    words: list[Word] = []
    inside, start = _inside("".join(atom.text for atom in atoms)), 0
    for i, atom in enumerate(atoms):
        around = [a.text for a in atoms[max(0, i - 2) : i + 2]]
        start += len(atoms[i - 1].text) if i else 0
        if i and (_continues(around, min(i, 2)) or (start in inside and not _is_special(around, min(i, 2)))):
            words[-1] = Word(words[-1].text + atom.text, words[-1].size + atom.size)
        else:
            words.append(atom)
    return tuple(words)


def whole_characters(pieces: Sequence[str], read: Callable[[int, int], str]) -> list[Word]:
    """Tokens, those that share a character merged; an empty one goes with the token before it."""
    atoms: list[Word] = []
    start = 0
    for stop in range(1, len(pieces) + 1):
        if _cut_inside(pieces, stop) and read(start, stop).endswith(PARTIAL):
            continue
        if atoms and not "".join(pieces[start:stop]):
            atoms[-1] = Word(atoms[-1].text, atoms[-1].size + stop - start)
        else:
            whole = PARTIAL in "".join(pieces[start:stop])
            atoms.append(Word(read(start, stop) if whole else "".join(pieces[start:stop]), stop - start))
        start = stop
    return atoms


def _cut_inside(pieces: Sequence[str], i: int) -> bool:
    """Whether the boundary before token ``i`` may fall inside a character."""
    return i < len(pieces) and pieces[i - 1].endswith(PARTIAL) and pieces[i].startswith(PARTIAL)


def _inside(text: str) -> set[int]:
    """Where a boundary would cut a character or a number in two."""
    whole = _WHOLE_ASCII if text.isascii() else _WHOLE
    return {at for m in whole.finditer(text) if not m[0].isspace() for at in range(m.start() + 1, m.end())}


def _is_special(pieces: Sequence[str], i: int) -> bool:
    """Whether a special token is on either side."""
    return bool(_SPECIAL.fullmatch(pieces[i - 1]) or _SPECIAL.fullmatch(pieces[i]))


def _continues(pieces: Sequence[str], i: int) -> bool:
    """Whether piece ``i`` belongs to the same word as piece ``i - 1``."""
    before, after = pieces[i - 1], pieces[i]
    if not before or not after:
        return not before
    if _is_special(pieces, i):
        return False
    if not before.strip(" "):  # a space of its own belongs to what follows it
        return not after[0].isspace()
    left, right = before[-1], after[0]
    if _UNSPACED.match(left) or _UNSPACED.match(right):
        return False
    return _same_word(left, right) or _inside_word(pieces, i) or _after_mark(pieces, i)


def _same_word(left: str, right: str) -> bool:
    """Letters go with letters (and their combining marks), digits with digits."""
    if left.isdigit() or right.isdigit():
        return left.isdigit() and right.isdigit()
    return _wordlike(left) and _wordlike(right)


def _wordlike(char: str) -> bool:
    return unicodedata.category(char)[0] in "LM"


def _after_mark(pieces: Sequence[str], i: int) -> bool:
    """Whether piece ``i`` is the ``t`` of ``don | ' | t`` or the ``14`` of ``3 | . | 14``."""
    return len(pieces[i - 1]) == 1 and _inside_word(pieces, i - 1)


def _inside_word(pieces: Sequence[str], i: int) -> bool:
    """Whether piece ``i`` starts with the mark of ``don't`` or ``3.14`` (no space around it)."""
    if not 0 < i < len(pieces):
        return False
    before, mark = pieces[i - 1], pieces[i]
    after = pieces[i + 1] if i + 1 < len(pieces) else ""
    rest = mark[1:] or after  # "'t" is one token in some vocabularies, two in others
    if not before or not rest:
        return False
    if mark[0] in "'’" and _wordlike(before[-1]) and _wordlike(rest[0]):
        return True
    return mark[0] == "." and before[-1].isdigit() and rest[0].isdigit()
