"""Segments: passages, sentences, lines of a text, as named sets of token positions.

What is asked for is found in the text that the tokens spell. A token belongs to the segment that holds its first
character that isn't a space; tokens that share a character stay together. Values inherit :class:`InSegments`, which
gives each of them the same methods, and say in one method of their own how scores combine.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from itertools import chain, pairwise
from typing import Any, TypeVar

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import checked, excerpt, is_id, positions
from tl_jacobian.results.tokens import PARTIAL, Region, Regions, Word, whole_characters

Span = tuple[int, int]
S = TypeVar("S", bound="InSegments")
_AROUND = 30  # characters that errors show on either side
_EXPECTED = (
    "expected a piece of the text, re.compile(...), (start, stop) in characters, a range or slice or set of tokens, a "
    "list of these, or a dict of names to them"
)


# -- where tokens are -----------------------------------------------------------------


class TokenText:
    """What tokens spell, and where in it each of them is.

    Attributes:
        text: all tokens' characters.
        spans: start and stop of each token; tokens that share a character share all of what they spell together.

    >>> read(["The", " cat", " sat"], [Word("The", 1), Word(" cat", 1), Word(" sat", 1)]).tokens(4, 11)
    (1, 2)
    """

    def __init__(self, text: str, spans: Sequence[Span]) -> None:
        self.text, self.spans = text, tuple(spans)

    def __len__(self) -> int:
        return len(self.spans)

    @cached_property
    def anchors(self) -> list[int]:
        """For each token the character that decides where it belongs: its first that isn't a space, if it has one."""
        found: list[int] = []
        for start, stop in self.spans:
            piece = self.text[start:stop]
            space = len(piece) - len(piece.lstrip())
            # A token of no character goes with the one before it.
            found.append(found[-1] if start == stop and found else start + (space if space < len(piece) else 0))
        return found

    def tokens(self, start: int, stop: int) -> tuple[int, ...]:
        """Positions of the tokens that belong to ``text[start:stop]``."""
        return tuple(range(bisect_left(self.anchors, start), bisect_left(self.anchors, stop)))

    def spelled(self, positions: Sequence[int]) -> str:
        """What some tokens spell, a gap between them as an ellipsis."""
        spans = sorted({self.spans[i] for i in positions})
        parts = [self.text[slice(*spans[0])]]
        for (_, before), (start, stop) in pairwise(spans):
            parts.append(("" if start == before else " … ") + self.text[start:stop])
        return "".join(parts)

    def around(self, start: int, stop: int) -> str:
        """A place of the text, with what stands beside it."""
        low, high = max(0, start - _AROUND), min(len(self.text), stop + _AROUND)
        inside = (
            self.text[low:high]
            if high - low <= 200
            else f"{self.text[low : low + 100]} … {self.text[high - 90 : high]}"
        )
        return repr(("…" if low else "") + inside + ("…" if high < len(self.text) else ""))


def read(pieces: Sequence[str | None], words: Sequence[Word] = ()) -> TokenText:
    """Find tokens in the text that words spell.

    Args:
        pieces: text of each token, with U+FFFD where it holds part of a character; None where it isn't known.
        words: groups of tokens whose texts hold whole characters; default: what the pieces spell.

    >>> read(["caf", "\ufffd", "\ufffd", "!"], [Word("café", 3), Word("!", 1)]).spans
    ((0, 3), (3, 4), (3, 4), (4, 5))
    """
    known = [("" if not words else PARTIAL) if piece is None else piece for piece in pieces]
    words = words or whole_characters(known, lambda start, stop: "".join(known[start:stop]))
    text, spans, at = "", [], 0
    for word in words:
        spans += [(len(text) + a, len(text) + b) for a, b in _inside(word.text, known[at : at + word.size])]
        text += word.text
        at += word.size
    return TokenText(text, spans)


def _inside(text: str, pieces: Sequence[str]) -> list[Span]:
    """Where in a word each of its tokens is: whole pieces from both ends; what is left in the middle is shared."""
    left, right, first, last = 0, len(text), 0, len(pieces)
    before: list[Span] = []
    after: list[Span] = []
    while first < last and PARTIAL not in pieces[first] and text.startswith(pieces[first], left, right):
        before.append((left, left + len(pieces[first])))
        left, first = before[-1][1], first + 1
    while last > first and PARTIAL not in pieces[last - 1] and text.endswith(pieces[last - 1], left, right):
        after.append((right - len(pieces[last - 1]), right))
        right, last = after[-1][0], last - 1
    return [*before, *[(left, right)] * (last - first), *after[::-1]]


# -- what is asked for ----------------------------------------------------------------


def find(spec: Any, text: TokenText) -> list[Region]:
    """Segments as they are asked for, in the order in which they are.

    Args:
        spec: a part, a list of parts, or names to parts (or lists of them, which are then one segment). A part is a
            piece of the text, which must be in it once; a compiled regular expression, each of whose matches is a
            segment, or all of them one where it has a name; ``(start, stop)`` in characters; or tokens, as a range, a
            slice or a set of positions.
        text: where to look.

    Raises:
        ArgumentError: nothing of that kind; a part isn't there, is there several times, or holds no token; or two
            segments share a token.

    >>> text = read(["The", " cat", " sat", ".", " Why", "?"])
    >>> find({"who": "cat", "ends": re.compile("[.?]")}, text)
    [Region(name='who', positions=(1,)), Region(name='ends', positions=(3, 5))]
    >>> find([(0, 7), range(2, 4)], text)
    [Region(name='The cat', positions=(0, 1)), Region(name=' sat.', positions=(2, 3))]
    """
    if isinstance(spec, Mapping):
        found = [_named(name, part, text) for name, part in spec.items()]
    else:
        found = list(chain.from_iterable(_unnamed(part, text) for part in _parts(spec)))
    if not found:
        raise ArgumentError(f"segments of {excerpt(spec)}: there is none, {_EXPECTED}")
    _check_disjoint(found, text)
    return found


def _parts(spec: Any) -> Sequence[Any]:
    """A list's parts; a part alone is a list of one."""
    span = isinstance(spec, tuple) and len(spec) == 2 and all(map(is_id, spec))
    return spec if isinstance(spec, (list, tuple)) and not span else [spec]


def _named(name: Any, spec: Any, text: TokenText) -> Region:
    if not isinstance(name, str):
        raise ArgumentError(f"a segment is called {excerpt(name)}, expected text")
    members = [i for part in _parts(spec) for found in _tokens_of(part, text, f"segment {name!r}: ") for i in found]
    if not members:
        raise ArgumentError(f"segment {name!r} of {excerpt(spec)} holds nothing, {_EXPECTED}")
    twice = next((i for i in members if members.count(i) > 1), None) if len(set(members)) < len(members) else None
    if twice is not None:
        raise ArgumentError(
            f"segment {name!r} holds token {twice} {text.spelled([twice])!r} twice: its parts overlap, in "
            f"{text.around(*text.spans[twice])}"
        )
    return Region(name, tuple(sorted(members)))


def _unnamed(part: Any, text: TokenText) -> list[Region]:
    """Segments that are called what they say."""
    if isinstance(part, re.Pattern):
        spans = _matches(part, text, "")
        return [Region(text.text[a:b].strip() or text.text[a:b], _within(text, a, b, "")) for a, b in spans]
    (members,) = _tokens_of(part, text, "")
    if isinstance(part, str):
        return [Region(part, members)]
    return [Region(text.text[slice(*part)] if isinstance(part, tuple) else text.spelled(members), members)]


def _tokens_of(part: Any, text: TokenText, whose: str) -> list[tuple[int, ...]]:
    """Positions of the tokens of a part, once for each place where it is."""
    if isinstance(part, re.Pattern):
        return [_within(text, start, stop, whose) for start, stop in _matches(part, text, whose)]
    if isinstance(part, str):
        return [_within(text, *_only_place(part, text, whose), whose)]
    if isinstance(part, tuple) and len(part) == 2 and all(map(is_id, part)):
        start, stop = map(int, part)
        if not 0 <= start < stop <= len(text.text):
            raise ArgumentError(
                f"{whose}characters {start} to {stop}, expected 0 <= start < stop <= {len(text.text)}, the length of "
                f"the text {text.around(0, len(text.text))}"
            )
        return [_within(text, start, stop, whose)]
    if isinstance(part, slice):
        part = range(*part.indices(len(text)))
    if isinstance(part, (range, AbstractSet)):
        if not part:
            raise ArgumentError(f"{whose}{excerpt(part)} holds no token, expected at least one of {len(text)}")
        name = f"{whose}positions"
        return [tuple(sorted(set(positions(list(part), len(text), name, ArgumentError))))]
    raise ArgumentError(f"{whose}{excerpt(part)} is of type {type(part).__name__}, {_EXPECTED}")


def _matches(pattern: re.Pattern[Any], text: TokenText, whose: str) -> list[Span]:
    if not isinstance(pattern.pattern, str):
        raise ArgumentError(f"{whose}{excerpt(pattern)} is a pattern of bytes, expected one of text")
    spans = [match.span() for match in pattern.finditer(text.text) if match[0]]
    if not spans:
        raise ArgumentError(f"{whose}{excerpt(pattern)} matches nothing; looked in {text.around(0, len(text.text))}")
    return spans


def _only_place(piece: str, text: TokenText, whose: str) -> Span:
    """Where a piece of text is."""
    starts = list(_places(piece, text.text)) if piece else []
    if len(starts) == 1:
        return starts[0], starts[0] + len(piece)
    if not starts:
        raise ArgumentError(f"{whose}{excerpt(piece)} isn't in the text{_hint(piece, text)}")
    shown = ", ".join(f"{at} in {text.around(at, at + len(piece))}" for at in starts[:3])
    raise ArgumentError(
        f"{whose}{excerpt(piece)} is in the text {len(starts)} times, at characters {shown}"
        f"{', …' if len(starts) > 3 else ''}; give more of the text, {(starts[0], starts[0] + len(piece))} for one "
        "place, or re.compile(re.escape(...)) for all of them"
    )


def _places(piece: str, text: str) -> Iterator[int]:
    at = text.find(piece)
    while at >= 0:
        yield at
        at = text.find(piece, at + 1)


def _hint(piece: str, text: TokenText) -> str:
    """How much of a piece is there, and what follows in its place."""
    bare = piece.strip()
    if bare and bare != piece and bare in text.text:
        return f", but it is without the spaces around it: pass {excerpt(bare)}"
    known, unknown = 0, len(piece)
    while unknown - known > 1:  # a beginning of a beginning that is there is there
        middle = (known + unknown) // 2
        known, unknown = (middle, unknown) if piece[:middle] in text.text else (known, middle)
    if len(piece[:known].strip()) < 4:
        return f"; looked in {text.around(0, len(text.text))}"
    at = text.text.index(piece[:known])
    there, wanted = text.text[at + known : at + known + 20], piece[known : known + 20]
    return (
        f": its first {known} characters are, at {at} ({text.around(at, at + known)}), and then comes {there!r} in the "
        f"place of {wanted!r}"
    )


def _within(text: TokenText, start: int, stop: int, whose: str) -> tuple[int, ...]:
    found = text.tokens(start, stop)
    if not found:
        raise ArgumentError(
            f"{whose}{text.text[start:stop]!r} at characters {start} to {stop} holds no token's first character, in "
            f"{text.around(start, stop)}: it is part of a token, or the space before one; take a longer piece"
        )
    return found


def _check_disjoint(segments: Sequence[Region], text: TokenText) -> None:
    owner: dict[int, str] = {}
    for name, members in segments:
        for i in members:
            if i in owner:
                raise ArgumentError(
                    f"segments {excerpt(owner[i], 80)} and {excerpt(name, 80)} overlap: both hold token {i} "
                    f"{text.spelled([i])!r}, in {text.around(*text.spans[i])}; expected each token in one at most"
                )
            owner[i] = name


# -- what a text falls into --------------------------------------------------------------

_LINE_END = re.compile(r"\n(?:[^\S\n]*\n)*")  # lines without text belong to the line before them
_PARAGRAPH_END = re.compile(r"\n(?:[^\S\n]*\n)+")
_SENTENCE_END = re.compile(
    r"""(?P<mark>[.!?…]+["'”’»)\]*]*)(?=\s)\s*|(?P<wide>[。！？]+["”’»」』）)]*)\s*|(?P<line>\n\s*)"""
)
_ABBREVIATIONS = frozenset(
    {"mr", "mrs", "ms", "dr", "prof", "st", "vs", "cf", "fig", "eq", "al", "approx", "e.g", "i.e", "u.s"}
)


def line_spans(text: str) -> list[Span]:
    """Lines, empty ones with the line before them."""
    return _cut(text, (match.end() for match in _LINE_END.finditer(text)))


def paragraph_spans(text: str) -> list[Span]:
    """What stands between empty lines."""
    return _cut(text, (match.end() for match in _PARAGRAPH_END.finditer(text)))


def sentence_spans(text: str) -> list[Span]:
    """Sentences, by a rule that knows no language.

    A sentence ends with ``. ! ? …`` (and quotes and brackets after it) before a space, unless a small letter follows,
    or the full stop ends an initial, a list's number or one of a few abbreviations; with ``。！？``; or where a line
    ends, unless the next goes on with a small letter.

    >>> text = "Dr. J. Smith left. Why? He said\\nit was 3.5 km away!"
    >>> [text[a:b].strip() for a, b in sentence_spans(text)]
    ['Dr. J. Smith left.', 'Why?', 'He said\\nit was 3.5 km away!']
    """
    cuts = [0]
    for match in _SENTENCE_END.finditer(text):
        surely = match["wide"] or match[0].count("\n") > 1
        goes_on = text[match.end() : match.end() + 1].islower()
        if surely or not (goes_on or (match["mark"] == "." and _is_short(text[cuts[-1] : match.start()]))):
            cuts.append(match.end())
    return _cut(text, cuts)


def _is_short(before: str) -> bool:
    """Whether the full stop after this ends no sentence."""
    last = before.split()[-1:] or [""]
    word = last[0].lstrip("\"'“‘«([*")
    initial, number = len(word) == 1 and word.isupper(), word.isdigit() and before.strip() == last[0]
    return initial or number or word.lower() in _ABBREVIATIONS


def _cut(text: str, cuts: Iterable[int]) -> list[Span]:
    """Spans between cuts, none of them of spaces alone."""
    first, last = len(text) - len(text.lstrip()), len(text.rstrip())
    return list(pairwise([0, *(cut for cut in cuts if first < cut < last), len(text)])) if text else []


def parts_of(text: TokenText, spans: Sequence[Span]) -> list[Region]:
    """Segments that are called what they say; tokens of parts that begin inside a token belong to that one's part."""
    cut = [(text.text[start:stop].strip(), text.tokens(start, stop)) for start, stop in spans]
    found = [Region(name, members) for name, members in cut if members]
    held = sum(len(members) for _, members in found)
    if held < len(text):  # tokens without a character, at the end of all
        name, members = found.pop() if found else (text.text, ())
        found.append(Region(name, (*members, *range(held, len(text)))))
    return found


# -- all tokens ------------------------------------------------------------------------


def complete(segments: Sequence[Region], n: int, rest: str | None) -> list[Region]:
    """Segments in reading order (by their first tokens), with what they leave over of n tokens as one more.

    Args:
        segments: disjoint ones.
        n: how many tokens there are.
        rest: what to call the others; None leaves them out.

    Raises:
        ArgumentError: a segment has the name of the rest.

    >>> complete([Region("b", (3,)), Region("a", (1,))], 4, "rest")
    [Region(name='rest', positions=(0, 2)), Region(name='a', positions=(1,)), Region(name='b', positions=(3,))]
    """
    taken = {i for segment in segments for i in segment.positions}
    left = tuple(i for i in range(n) if i not in taken)
    if rest is None or not left:
        return sorted(segments, key=lambda segment: segment.positions)
    if any(segment.name == rest for segment in segments):
        raise ArgumentError(f"a segment is called {rest!r}, as what is left over: pass another rest=, or None")
    return sorted([*segments, Region(rest, left)], key=lambda segment: segment.positions)


def first_apart(segments: Sequence[Region], text: TokenText) -> list[Region]:
    """Segments, in reading order, with token 0 as one of its own: an attention sink that pictures can then leave out.

    >>> text = read(["The", " cat", " sat", "."])
    >>> first_apart([Region("The cat sat.", (0, 1, 2, 3))], text)
    [Region(name='The', positions=(0,)), Region(name='The cat sat.', positions=(1, 2, 3))]
    """
    if not segments or segments[0].positions[0] != 0 or len(segments[0].positions) == 1:
        return list(segments)
    name, members = segments[0]
    others = sorted([Region(name, members[1:]), *segments[1:]], key=lambda segment: segment.positions)
    return [Region(text.spelled([0]), (0,)), *others]


class InSegments:
    """A value whose scores can be given for parts of the text in the place of tokens.

    Attributes:
        regions: of a conversation, the token positions of its ``"roles"`` and ``"messages"``; else empty.
    """

    regions: Regions

    def _token_text(self) -> TokenText:
        """All tokens of the text."""
        raise NotImplementedError

    def _of_segments(self: S, segments: Sequence[Region], mean: bool) -> S:
        """The value per segment: disjoint ones in reading order; jointly, or per token."""
        raise NotImplementedError

    def _of_regions(self: S, regions: Sequence[Region], mean: bool) -> S:
        """The value per region of a conversation; jointly, or per token."""
        return self._of_segments(sorted(regions, key=lambda region: region.positions), mean)

    def _begins(self) -> Iterable[int]:
        """Tokens with which something else begins, whatever comes before: a message, an answer."""
        owner = {at: name for name, members in self.regions.get("messages", ()) for at in members}
        return [at for at in sorted(owner) if at and owner[at] != owner.get(at - 1)]

    @property
    def text(self) -> str:
        """What the tokens spell, a BOS token included: the text in which segments are found and characters counted."""
        return self._token_text().text

    @checked
    def segments(self: S, spec: Any, *, mean: bool = False, rest: str | None = "rest", split_first: bool = True) -> S:
        """The same per segment: a passage, what one speaker said, a field of a template.

        A segment's score is that of its tokens jointly, as a word's is: the root of the sum of squares of norms (the
        tokens move inside one joint epsilon-ball), the sum of traces and of signed scores. It grows with length: of
        two passages of alike tokens, one four times as long has twice the norm, and four times the trace.
        ``mean=True`` gives the score per token: the one that each of its tokens would have to have for the same joint
        score, which is the root mean square of norms and the mean of traces and signed scores.

        Segments come in reading order, by their first tokens. A token belongs to the segment that holds its first
        character that isn't a space. Pictures show segments as blocks that fold out to their tokens.

        Args:
            spec: which; one of these, a list of these, or a dict of names to these (or to lists of these: one segment
                of several places):

                - a piece of :attr:`text`, as it is in there, exactly once;
                - ``re.compile(...)``: each match is a segment; with a name all matches are one;
                - ``(start, stop)``: characters of :attr:`text`;
                - ``range(3, 9)``, ``slice(3, 9)``, ``{3, 5}``: tokens.
            mean: per token instead of jointly.
            rest: what to call the unit of all tokens that are in none; None leaves them out.
            split_first: keep token 0 apart from the segment that it begins, so that an attention sink there can be
                left out of pictures and rankings, as for ``words()``.

        Raises:
            ArgumentError: a piece isn't in the text (the message shows where it was looked for) or there several
                times, segments overlap or hold no token, or scores aren't per token.
        """
        text = self._token_text()
        found = complete(find(spec, text), len(text), rest)
        return self._of_segments(first_apart(found, text) if split_first else found, mean)

    @checked
    def sentences(self: S, *, mean: bool = False, split_first: bool = True) -> S:
        """The same per sentence, by a rule that knows no language: after ``. ! ? …`` and at the ends of lines.

        Abbreviations, initials and lines that go on with a small letter are looked out for, and none goes on across
        the ends of a conversation's messages or the beginning of an answer; see :meth:`segments`.
        """
        text, begins = self._token_text(), self._begins()

        def spans(whole: str) -> list[Span]:
            cuts = [0, *(text.spans[at][0] for at in begins if at < len(text)), len(whole)]
            parts = [(a, b) for a, b in pairwise(sorted(set(cuts))) if a < b]
            return [(a + start, a + stop) for a, b in parts for start, stop in sentence_spans(whole[a:b])]

        return self._in_parts(spans, mean, split_first)

    @checked
    def roles(self: S, *, mean: bool = False) -> S:
        """The same per role of a conversation: ``"system"``, ``"user"``, ``"assistant"``, ...

        A role's score is that of all its tokens jointly; ``"template"`` has the tokens that the chat template adds,
        which include a default system prompt. Long messages gather more: they have more tokens to move; per token that
        is evened out. A map has roles on both sides: whose tokens are predicted, and whose they are predicted from.

        Args:
            mean: per token instead of jointly; see :meth:`segments`.

        Raises:
            ArgumentError: the prompt wasn't given as messages, or scores aren't per token.
        """
        return self._by_region("roles", mean)

    @checked
    def messages(self: S, *, mean: bool = False) -> S:
        """The same per message of a conversation: ``"user 1"``, ``"assistant 1"``, ``"user 2"``, ...

        Otherwise as :meth:`roles`.
        """
        return self._by_region("messages", mean)

    def _by_region(self: S, kind: str, mean: bool) -> S:
        self._token_text()  # which says why not, where columns are no tokens or don't add up
        if kind not in self.regions:
            raise ArgumentError(
                f"this {type(self).__name__} knows no {kind}: give linearize() the prompt as messages, "
                '[{"role": "user", "content": "..."}], for which the chat template is applied'
            )
        return self._of_regions(self.regions[kind], mean)

    @checked
    def lines(self: S, *, mean: bool = False, split_first: bool = True) -> S:
        """The same per line, empty lines with the one before; see :meth:`segments`."""
        return self._in_parts(line_spans, mean, split_first)

    @checked
    def paragraphs(self: S, *, mean: bool = False, split_first: bool = True) -> S:
        """The same per paragraph: what stands between empty lines; see :meth:`segments`."""
        return self._in_parts(paragraph_spans, mean, split_first)

    def _in_parts(self: S, spans_of: Callable[[str], list[Span]], mean: bool, split_first: bool) -> S:
        text = self._token_text()
        found = parts_of(text, spans_of(text.text))
        return self._of_segments(first_apart(found, text) if split_first else found, mean)
