"""A series as a prompt: rescaled, rounded to numbers of a few digits, written with a separator after each.

The paper follows Gruver et al. (2023) and Liu et al. (2024): two-digit numbers and commas, "29,30,31,33,".
In Llama 3 every two-digit number is one token; in others, the demo model among them, every digit is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int, Int64

from tl_jacobian.errors import ArgumentError, PromptError
from tl_jacobian.frozen import owned
from tl_jacobian.timeseries.checks import check_number, series_of
from tl_jacobian.timeseries.codec import NumberCodec, number_codec


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
        object.__setattr__(self, "values", owned(self.values))
        object.__setattr__(self, "integers", owned(self.integers, np.int64))

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
        self.model = source if hasattr(source, "tokenizer") else None
        self.tokenizer = source.tokenizer if self.model is not None else source
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
        n_ctx = getattr(getattr(self.model, "cfg", None), "n_ctx", None)
        return n_ctx if n_ctx and n_ctx > 0 else None

    def bos(self, prepend: bool | None) -> tuple[int, ...]:
        """The BOS token, if it is wanted."""
        if prepend is None:
            prepend = getattr(getattr(self.model, "cfg", None), "default_prepend_bos", None)
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
        extra = check_number("margin", margin, least=0.0) * width
        return _resolved(float(array.min()) - extra, float(array.max()) + extra)
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise ArgumentError(f"data_range={given!r}, expected (low, high)")
    low, high = (check_number("data_range", end) for end in given)
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
