"""A series as a prompt: rescaled, rounded to numbers of a few digits, written with a separator after each.

The paper follows Gruver et al. (2023) and Liu et al. (2024): two-digit numbers and commas, "29,30,31,33,".
In Llama 3 every two-digit number is one token; in others, the demo model among them, every digit is one.

A series can only be read from tokens if each number is the same tokens wherever it stands, and if
what a model sees before a number doesn't change when the number follows. Neither is a given: a
tokenizer may merge digits, or a separator's space with the number after it. So every number is
tokenised in context (:class:`NumberCodec`), and a tokenizer that does either is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int, Int64

from tl_jacobian.core.host.hosts import resolve
from tl_jacobian.errors import ArgumentError, PromptError
from tl_jacobian.results.arguments import checked, number, whole
from tl_jacobian.results.base import read_only
from tl_jacobian.studies.timeseries.checks import series_of

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
    digits = whole("digits", digits, 1, _MOST_DIGITS)
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


@dataclass(frozen=True, eq=False, kw_only=True)
class SerializedSeries:
    """A series, and the prompt that it became.

    Attributes:
        values: the series, in the data's units; ``(n,)``.
        integers: the numbers that were written; ``(n,)``.
        offset, scale: ``value = offset + scale * integer``, up to rounding.
        tokens: ids of the prompt, a separator last: the next prediction is of the next number's first token.
        groups: for each number its token positions, (start, stop); separators are in none.
        text: the prompt's text, without the BOS token.
        codec: the tokenizer's way to write numbers.
    """

    values: Float64[np.ndarray, " n"]
    integers: Int64[np.ndarray, " n"]
    offset: float
    scale: float
    tokens: tuple[int, ...]
    groups: tuple[tuple[int, int], ...]
    text: str
    codec: NumberCodec

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", read_only(self.values))
        object.__setattr__(self, "integers", read_only(self.integers, np.int64))

    def __len__(self) -> int:
        return len(self.integers)

    def __repr__(self) -> str:
        some = self.text if len(self.text) < 30 else f"{self.text[:14]} … {self.text[-12:]}"
        return f"SerializedSeries({len(self)} numbers, {len(self.tokens)} tokens: {some!r})"

    @property
    def quantized(self) -> Float64[np.ndarray, " n"]:
        """The series as the prompt has it, in the data's units: at most ``scale / 2`` from :attr:`values`."""
        return self.to_data(self.integers)

    def to_data(self, numbers: Int[np.ndarray, "*k"] | Float[np.ndarray, "*k"]) -> Float64[np.ndarray, "*k"]:
        """Numbers of the prompt's kind in the data's units."""
        return self.offset + self.scale * np.asarray(numbers, dtype=np.float64)

    def to_numbers(self, values: Float[np.ndarray, "*k"]) -> Int64[np.ndarray, "*k"]:
        """Values in the data's units, rounded to numbers; outside the codec's range none of them can be written."""
        return np.rint((np.asarray(values, dtype=np.float64) - self.offset) / self.scale).astype(np.int64)


@checked
def serialize(
    values: Any,
    tokenizer: Any,
    *,
    digits: int = 2,
    separator: str = ",",
    data_range: tuple[float, float] | None = None,
    margin: float = 0.1,
    prepend_bos: bool | None = None,
) -> SerializedSeries:
    """Write a series as token ids, one group of tokens for each number.

    Numbers have exactly ``digits`` digits and no leading zeros: 10 to 99 for two. How the tokenizer writes
    each of them is checked, not assumed.

    Args:
        values: ``(n,)`` finite numbers, at least two.
        tokenizer: a TransformerLens model (which also knows its context), or a Hugging Face tokenizer.
        digits: of each number, 1 to 4.
        separator: text after each number.
        data_range: the values written as the smallest and as the largest number; default: the data's own
            range, widened by ``margin``.
        margin: how much of the data's range to leave free on either side, for what comes next to go: a next value
            beyond it can't be written, so no forecast gives it any probability.
        prepend_bos: whether the BOS token comes first; default: the model's own setting. A tokenizer
            alone doesn't know, so it has to be said.

    Raises:
        ArgumentError: the series has a NaN, values out of ``data_range``, another shape; or the tokenizer doesn't
            keep numbers apart (says which text gave which tokens).
        PromptError: the model's context is too short (says how many numbers fit, with room for the next).

    >>> import tl_jacobian as tj
    >>> model = tj.load_demo_model()
    >>> series = serialize([0.0, 0.4, 1.0], model, data_range=(0.0, 1.0))
    >>> series.text, series.groups, series.codec.width
    ('10,46,99,', ((0, 2), (3, 5), (6, 8)), 2)
    """
    array = series_of(values)
    source = Tokens(tokenizer)
    codec = number_codec(source.encode, source.pieces, digits, separator)
    first = source.bos(prepend_bos) + codec.lead
    low, high = _range(array, data_range, margin)
    scale = (high - low) / (codec.high - codec.low)
    offset = low - scale * codec.low
    integers = np.rint((array - offset) / scale).astype(np.int64)
    _check_fits(len(array), len(first), codec, source.n_ctx)
    text = "".join(f"{i}{separator}" for i in integers)
    tokens = first + codec.encode(integers.tolist())
    if codec.lead + tokens[len(first) :] != tuple(source.encode(text)):
        raise ArgumentError(f"this tokenizer writes {text[:40]!r}… otherwise than number by number; choose another")
    starts = [len(first) + i * codec.stride for i in range(len(array))]
    return SerializedSeries(
        values=array,
        integers=integers,
        offset=offset,
        scale=scale,
        tokens=tokens,
        groups=tuple((start, start + codec.width) for start in starts),
        text=text,
        codec=codec,
    )


class Tokens:
    """What serialising needs of a tokenizer, or of a model that has one.

    Raises:
        ArgumentError: it is neither.
    """

    def __init__(self, source: Any) -> None:
        self.host = resolve(source) if hasattr(source, "tokenizer") else None
        self.tokenizer = source if self.host is None else source.tokenizer
        needed = ("encode", "convert_ids_to_tokens")
        if not all(hasattr(self.tokenizer, name) for name in needed):
            raise ArgumentError(
                f"got a {type(source).__name__}, expected a TransformerLens model with a tokenizer, or a "
                "Hugging Face tokenizer"
            )

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def pieces(self, ids: tuple[int, ...]) -> list[str]:
        return [str(piece) for piece in self.tokenizer.convert_ids_to_tokens(list(ids))]

    @property
    def n_ctx(self) -> int | None:
        return None if self.host is None else self.host.n_ctx

    def bos(self, prepend: bool | None) -> tuple[int, ...]:
        """The BOS token, if it is wanted."""
        if prepend is None and self.host is not None:
            prepend = self.host.prepends_bos
        if prepend is None:
            raise ArgumentError(
                "prepend_bos=None, expected True or False: a tokenizer alone doesn't know whether its model wants a "
                "BOS token; or pass the model"
            )
        if prepend and self.tokenizer.bos_token_id is None:
            raise ArgumentError("prepend_bos=True, but this tokenizer has no BOS token; pass prepend_bos=False")
        return (self.tokenizer.bos_token_id,) if prepend else ()


def _range(array: Float64[np.ndarray, " n"], given: Any, margin: float) -> tuple[float, float]:
    """The values of the smallest and the largest number."""
    if given is None:
        width = float(array.max()) - float(array.min())  # Python's floats overflow without a warning
        if not width:
            raise ArgumentError(f"all {len(array)} values are {array[0]:g}: pass data_range=(low, high) to place them")
        extra = number("margin", margin, least=0.0) * width
        return _resolved(float(array.min()) - extra, float(array.max()) + extra)
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise ArgumentError(f"data_range={given!r}, expected (low, high)")
    low, high = (number("data_range", end) for end in given)
    if not low < high:
        raise ArgumentError(f"data_range={given!r}, expected low below high")
    outside = np.flatnonzero((array < low) | (array > high))
    if len(outside):
        raise ArgumentError(
            f"values[{outside[0]}] is {array[outside[0]]:g}, outside data_range=({low:g}, {high:g}) ({len(outside)} of "
            f"{len(array)} are); the data go from {array.min():g} to {array.max():g}: widen the range"
        )
    return _resolved(low, high)


def _resolved(low: float, high: float) -> tuple[float, float]:
    """A range that floating point can divide into numbers."""
    if not np.isfinite(high - low) or high - low < 1e-9 * max(abs(low), abs(high)) or high - low < 1e-290:
        raise ArgumentError(
            f"values from {low!r} to {high!r} can't be rescaled in double precision: subtract their mean, or divide "
            "them by their size"
        )
    return low, high


def _check_fits(n: int, before: int, codec: NumberCodec, n_ctx: int | None) -> None:
    """The prompt, and all tokens of the next number but the last, must fit into the model's context."""
    need = before + n * codec.stride
    if n_ctx is None or need + codec.width - 1 <= n_ctx:
        return
    most = max(0, (n_ctx - before - codec.width + 1) // codec.stride)
    raise PromptError(
        f"{n} numbers take {need} tokens, but the model's context is n_ctx={n_ctx}: at most {most} numbers fit, "
        f"with room for the next; pass the last ones, values[-{most}:]"
    )
