"""NumberCodec: which tokens a number is, checked on the tokenizer for every number there is.

A series can only be read from tokens if each number is the same tokens wherever it stands, and if
what a model sees before a number doesn't change when the number follows. Neither is a given: a
tokenizer may merge digits, or a separator's space with the number after it. So every number is
tokenised in context, and a tokenizer that does either is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from tl_jacobian.errors import ArgumentError, PromptError
from tl_jacobian.timeseries.checks import check_count

_MOST_DIGITS = 4
_SPACES = " ▁Ġ"
Ids = tuple[int, ...]
Encode = Callable[[str], list[int]]
Pieces = Callable[[Ids], list[str]]


@dataclass(frozen=True, kw_only=True)
class NumberCodec:
    """How one tokenizer writes the numbers of so many digits, with a separator after each.

    Attributes:
        low: the smallest number; 10 for two digits, as numbers have no leading zeros.
        numbers: token ids of ``low``, ``low + 1``, …; all of one length.
        separator: token ids of the separator.
        text: the separator's text.
        lead: token ids that the tokenizer puts before every text (a dummy prefix), in most cases none.

    >>> codec = NumberCodec(low=0, numbers=((5,), (6,), (7,)), separator=(9,), text=",", lead=())
    >>> codec.encode([2, 0])
    (7, 9, 5, 9)
    >>> codec.decode([7, 9, 5, 9])
    (2, 0)
    """

    low: int
    numbers: tuple[Ids, ...]
    separator: Ids
    text: str
    lead: Ids

    @property
    def high(self) -> int:
        """The largest number."""
        return self.low + len(self.numbers) - 1

    @property
    def width(self) -> int:
        """Tokens of a number."""
        return len(self.numbers[0])

    @property
    def stride(self) -> int:
        """Tokens from one number to the next."""
        return self.width + len(self.separator)

    @cached_property
    def _by_tokens(self) -> dict[Ids, int]:
        return {ids: self.low + i for i, ids in enumerate(self.numbers)}

    def encode(self, integers: Sequence[int]) -> Ids:
        """Token ids of numbers, a separator after each; without BOS and :attr:`lead`.

        Raises:
            ArgumentError: a number is out of range.
        """
        for i in integers:
            if not self.low <= i <= self.high:
                raise ArgumentError(f"{i} can't be written, expected numbers from {self.low} to {self.high}")
        return tuple(token for i in integers for token in (*self.numbers[int(i) - self.low], *self.separator))

    def decode(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """Numbers of token ids, those that a model generated for instance; the last separator may be missing.

        Raises:
            PromptError: the ids aren't numbers with separators between them.
        """
        ids, found = tuple(int(token) for token in tokens), []
        for start in range(0, len(ids), self.stride):
            number, after = ids[start : start + self.width], ids[start + self.width : start + self.stride]
            ended = after == self.separator or (not after and start + self.width == len(ids))
            if number not in self._by_tokens or not ended:
                raise PromptError(
                    f"tokens {start} to {min(start + self.stride, len(ids)) - 1} are {list(number + after)}, expected "
                    f"a number from {self.low} to {self.high} and the separator {self.text!r}, {list(self.separator)}"
                )
            found.append(self._by_tokens[number])
        return tuple(found)


def number_codec(encode: Encode, pieces: Pieces, digits: int, separator: str) -> NumberCodec:
    """The codec of a tokenizer, every number checked.

    Args:
        encode: token ids of a text, nothing added.
        pieces: the text of each of some token ids.
        digits: of each number, 1 to 4.
        separator: text between numbers.

    Raises:
        ArgumentError: the options can't be, or the tokenizer doesn't keep numbers apart: which text gave which tokens.
    """
    digits = check_count("digits", digits, 1, _MOST_DIGITS)
    if not separator or any(c.isdigit() for c in separator):
        raise ArgumentError(f"separator={separator!r}, expected text without digits, such as ','")
    low, high = (10 ** (digits - 1) if digits > 1 else 0), 10**digits - 1
    reader = _Reader(encode, pieces, separator, low)
    numbers = tuple(reader.number(n) for n in range(low, high + 1))
    codec = NumberCodec(low=low, numbers=numbers, separator=reader.after, text=separator, lead=reader.lead(numbers[0]))
    reader.check_shapes(codec)
    _check_together(reader, codec)
    return codec


class _Reader:
    """Numbers tokenised after ``low`` and a separator, as a model sees them."""

    def __init__(self, encode: Encode, pieces: Pieces, separator: str, low: int) -> None:
        self.ids = lambda text: tuple(encode(text))
        self.pieces = pieces
        self.separator = separator
        self.before = f"{low}{separator}"
        self.context = self.ids(self.before)
        self.after = self._rest(f"{self.before}{low}", f"{self.before}{low}{separator}")

    def number(self, n: int) -> Ids:
        """Tokens of a number; after it the separator must be its own tokens again."""
        ids = self._rest(self.before, f"{self.before}{n}")
        after = self._rest(f"{self.before}{n}", f"{self.before}{n}{self.separator}")
        if after != self.after:
            text = f"{self.before}{n}{self.separator}"
            raise self.refusal(text, f"the separator to be {self.shown(self.after)} after {n} as after other numbers")
        return ids

    def _rest(self, start: str, text: str) -> Ids:
        """What a text's tokens add to those of its beginning, which must stay as they are."""
        first, ids = self.ids(start), self.ids(text)
        if ids[: len(first)] != first or len(ids) == len(first):
            raise self.refusal(text, f"it to begin with the tokens of {start!r}, {self.shown(first)}, and go on")
        return ids[len(first) :]

    def lead(self, number: Ids) -> Ids:
        """What comes before the first number of a text, where the number itself must be as anywhere else."""
        tail = number + self.after
        if self.context[-len(tail) :] != tail:
            raise self.refusal(self.before, f"it to end with {self.shown(tail)}, as it does after other numbers")
        return self.context[: -len(tail)]

    def check_shapes(self, codec: NumberCodec) -> None:
        """Every number must be cut into tokens at the same digits."""
        cuts = self._cuts(codec.numbers[0])
        for n, ids in enumerate(codec.numbers, codec.low):
            if self._cuts(ids) != cuts:
                expected = f"tokens of {' + '.join(map(str, cuts))} digits, as in {codec.low}"
                raise self.refusal(f"{self.before}{n}", expected)
            if "".join(self._texts(ids)) != str(n):
                raise self.refusal(f"{self.before}{n}", f"its last tokens to read {str(n)!r}")
        if len(set(codec.numbers)) < len(codec.numbers):
            raise self.refusal(self.before, "different tokens for different numbers")

    def _texts(self, ids: Ids) -> list[str]:
        return [piece.strip(_SPACES) for piece in self.pieces(ids)]

    def _cuts(self, ids: Ids) -> list[int]:
        return [len(piece) for piece in self._texts(ids)]

    def shown(self, ids: Ids) -> str:
        return str(list(self.pieces(ids)))

    def refusal(self, text: str, expected: str, got: str | None = None) -> ArgumentError:
        got = self.shown(self.ids(text)) if got is None else got
        return ArgumentError(
            f"this tokenizer doesn't keep numbers apart: {text!r} gives the tokens {got}, expected {expected}. "
            "Try another separator (',' and ' ' are usual), another number of digits, or another model"
        )


def _check_together(reader: _Reader, codec: NumberCodec) -> None:
    """All numbers in one text, in two orders, must be the tokens that they are alone."""
    rising = list(range(codec.low, codec.high + 1))
    step = next(s for s in (7, 11, 13) if len(rising) % s)  # has no divisor in common: visits every number
    for integers in (rising, [rising[i * step % len(rising)] for i in range(len(rising))]):
        text = "".join(f"{n}{codec.text}" for n in integers)
        expected, got = codec.lead + codec.encode(integers), reader.ids(text)
        if got != expected:
            raise _misfit(reader, codec, integers, got, expected)


def _misfit(reader: _Reader, codec: NumberCodec, integers: list[int], got: Ids, expected: Ids) -> ArgumentError:
    """Which numbers of a long text aren't the tokens that they are alone."""
    at = next((i for i, pair in enumerate(zip(got, expected, strict=False)) if pair[0] != pair[1]), len(expected) - 1)
    place = max(0, at - len(codec.lead)) // codec.stride
    first = len(codec.lead) + max(0, place - 1) * codec.stride
    part = "".join(f"{n}{codec.text}" for n in integers[max(0, place - 1) : place + 2])
    around = slice(first, first + 3 * codec.stride)
    return reader.refusal(f"… {part} …", reader.shown(expected[around]), reader.shown(got[around]))
