"""One JSON codec for every value: exact, checksummed, versioned, and never executable.

A file is one JSON object that anything can read::

    {"format": "tl_jacobian.attribution", "version": 2, "sha256": "9f2c…", "value": {…}}

``value`` holds the fields of the dataclass. The file is ASCII. Numbers are exact: the shortest decimal form that
gives the same float back. What JSON lacks is written so: NaN in an array is null, other numbers that aren't finite
are ``{"$float": "inf"}``. The checksum is that of the whole file with its own digits set to zero, so that a flipped
bit, a truncation, an edit by hand or a key that stands twice is found out before anything is read into a value.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import torch
from torch import Tensor

from tl_jacobian.errors import AttributionFileError

T = TypeVar("T")
VERSION = 2
_DIGITS = 64
_HEAD = re.compile(rb'\A\{"format":"(tl_jacobian\.\w+)","version":(\d+),"sha256":"([0-9a-f]{64})","value":')
_SPECIAL = "$float"
_ESCAPED = "$map"


# -- out -----------------------------------------------------------------------------


def encode(value: Any, format: str) -> bytes:
    """A dataclass as the bytes of a file.

    Args:
        value: a dataclass of numbers, text, tensors, arrays, named tuples, mappings, and dataclasses of these.
        format: ``"tl_jacobian.attribution"``: what it is.
    """
    head = f'{{"format":"{format}","version":{VERSION},"sha256":"{"0" * _DIGITS}","value":'.encode()
    body = head + _json(_plain(value)) + b"}\n"
    return body.replace(b"0" * _DIGITS, _checksum(body), 1)


def to_plain(value: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON values, for records of other files; :func:`from_plain` reads them."""
    return _plain(value)


def _json(value: Any) -> bytes:
    # Not msgspec's, which can't write the lone surrogates that texts of tokens may hold.
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode("ascii")


def _plain(value: Any) -> Any:
    """JSON values; what JSON lacks as the module says."""
    if isinstance(value, (Tensor, np.ndarray)):
        return _numbers(value.tolist())
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        found = {str(key): _plain(item) for key, item in value.items()}
        return {_ESCAPED: found} if len(found) == 1 and next(iter(found)) in (_SPECIAL, _ESCAPED) else found
    if isinstance(value, (tuple, list, frozenset)):
        return [_plain(item) for item in (sorted(value) if isinstance(value, frozenset) else value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return {_SPECIAL: str(float(value))}
    return value


def _numbers(value: Any) -> Any:
    """The nested list of an array; NaN, which an array has many of at times, is null."""
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else {_SPECIAL: str(value)}
    return value


# -- in ------------------------------------------------------------------------------


def decode(data: bytes, kinds: Mapping[str, type[T]], expected: str = "value") -> T:
    """The value that :func:`encode` wrote.

    Args:
        data: the bytes of a file.
        kinds: the class of each format that is accepted.
        expected: what is expected, in words, for messages.

    Raises:
        AttributionFileError: damaged, truncated or edited; of another format, or of a version that isn't known here.
    """
    format, body = _opened(data, expected)
    if format not in kinds:
        what = format.removeprefix("tl_jacobian.").replace("_", " ")
        kind = what.title().replace(" ", "")
        raise AttributionFileError(
            f"this is a saved {what}, expected a saved {expected}; its own class loads it: {kind}"
        )
    try:
        return from_plain(kinds[format], json.loads(body)["value"])
    except RecursionError as error:
        raise AttributionFileError(f"damaged {expected}: nested too deeply to be one") from error
    except (msgspec.MsgspecError, ValueError, TypeError, KeyError, OverflowError, RuntimeError) as error:
        raise AttributionFileError(f"damaged {expected}: {_short(error)}") from error


def from_plain(kind: type[T], fields: Any) -> T:
    """The value that :func:`to_plain` took apart.

    Raises:
        msgspec.ValidationError, ValueError, TypeError: it is none; messages carry the path of the field.
    """
    raw = _special(fields)
    # In a thread of its own: where the caller checks shapes with jaxtyping, an axis has one size throughout a call,
    # and the rows of a map would have to be of one length. jaxtyping remembers sizes by thread.
    with ThreadPoolExecutor(1) as alone:
        return alone.submit(msgspec.convert, raw, type=kind, strict=True, dec_hook=_built).result()


def _opened(data: bytes, expected: str) -> tuple[str, bytes]:
    """The format, and the bytes if they are those that were written."""
    head = _HEAD.match(data)
    if head is None:
        raise AttributionFileError(f"{_foreign(data, expected)}, expected a saved {expected}")
    format, version, digits = head[1].decode(), int(head[2]), head[3]
    if version != VERSION:
        raise AttributionFileError(
            f"version {version} of the {expected} format isn't read here, expected {VERSION}; "
            + ("upgrade tl-jacobian" if version > VERSION else "save it again with this version of tl-jacobian")
        )
    blank = data.replace(digits, b"0" * _DIGITS, 1)
    if _checksum(blank) != digits:
        raise AttributionFileError(
            f"damaged {expected}: its bytes don't match its checksum, so it was cut short, flipped or edited after it "
            "was saved; take it from a backup, or make it again"
        )
    return format, data


def _foreign(data: bytes, expected: str) -> str:
    """What a file without our head is, as far as one can tell."""
    old = re.search(rb'"format":\s*"(tl_jacobian\.\w+)",\s*"version":\s*(\d+)', data[:200])
    if old is not None and int(old[2]) < VERSION:
        return f"version {int(old[2])} of the format of {old[1].decode()!r} isn't read here: make it again"
    if old is not None:
        return f"damaged {expected}: its first bytes were changed after it was saved"
    return f"not a saved {expected}: it begins with {data[:40]!r}"


def _short(error: Exception) -> str:
    return f"{error}"[:1500] or type(error).__name__


def _special(value: Any) -> Any:
    """Undo :func:`_plain`'s tags."""
    if isinstance(value, list):
        return [_special(item) for item in value]
    if isinstance(value, dict):
        if len(value) == 1:
            if _SPECIAL in value:
                return float(value[_SPECIAL])
            if _ESCAPED in value:
                return {key: _special(item) for key, item in value[_ESCAPED].items()}
        return {key: _special(item) for key, item in value.items()}
    return value


def _built(kind: Any, value: Any) -> Any:
    """A list of numbers as the array that a field is annotated with, in float64 or int64; text as a path."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    array_type = getattr(kind, "array_type", kind)
    whole = any("int" in str(dtype) for dtype in getattr(kind, "dtypes", ()))
    rows = _filled(value, int if whole else float)
    if array_type is Tensor:
        return torch.tensor(rows, dtype=torch.int64 if whole else torch.float64)
    if array_type is np.ndarray:
        return np.array(rows, dtype=np.int64 if whole else np.float64)
    raise TypeError(f"expected a {kind}, which isn't read from files")


def _filled(value: Any, number: type) -> Any:
    """A nested list of numbers, null as NaN."""
    if isinstance(value, list):
        return [_filled(item, number) for item in value]
    if value is None and number is float:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (number, int)):
        raise ValueError(f"expected numbers, got {value!r:.80}")
    return number(value)
