"""Attributions as JSON: readable anywhere, versioned, exact, and never executable."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from tl_jacobian.errors import AttributionFileError
from tl_jacobian.results.attribution import Attribution, Prediction
from tl_jacobian.results.files import atomic
from tl_jacobian.results.tokens import Word

T = TypeVar("T")
FORMAT = "tl_jacobian.attribution"
VERSION = 1


def to_json(a: Attribution) -> dict[str, Any]:
    """The attribution as plain JSON values. float32 scores are exact as JSON numbers."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "scope": a.scope,
        "target": a.target,
        "position": a.position,
        "combine": a.combine,
        "tokens": list(a.tokens),
        "str_tokens": list(a.str_tokens),
        "sizes": list(a.sizes),
        "scores": a.scores.tolist(),
        "stderr": None if a.stderr is None else a.stderr.tolist(),
        "words": [list(w) for w in a.word_groups],
        "predictions": [list(p) for p in a.predictions],
        "metadata": dict(a.metadata),
    }


def from_json(data: Any) -> Attribution:
    """The attribution that :func:`to_json` wrote.

    Raises:
        AttributionFileError: not one, or of a newer version.
    """
    return checked(data, FORMAT, _build)


def _what(name: str) -> str:
    return name.removeprefix("tl_jacobian.").replace("_", " ")


def checked(data: Any, name: str, build: Callable[[dict[str, Any]], T]) -> T:
    """What ``build`` makes of a JSON object that says it is of format ``name``, in the version known here."""
    what = _what(name)
    if not isinstance(data, dict) or data.get("format") != name:
        found = str(data.get("format", "")) if isinstance(data, dict) else ""
        hint = (
            f"; this is a saved {_what(found)}, which its own class loads" if found.startswith("tl_jacobian.") else ""
        )
        raise AttributionFileError(f'not a saved {what}: expected a JSON object with "format": "{name}"{hint}')
    if data.get("version") != VERSION:
        raise AttributionFileError(
            f"version {data.get('version')!r} of the {what} format is unknown, expected {VERSION}; upgrade tl-jacobian"
        )
    try:
        return build(data)
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise AttributionFileError(f"damaged {what}: {type(error).__name__}: {error}") from error


def save(a: Attribution, path: str | Path) -> None:
    """Write one attribution; the file is whole or absent."""
    write(to_json(a), path, indent=1)


def write(data: dict[str, Any], path: str | Path, *, indent: int | None = None) -> None:
    """Write plain values as JSON; the file is whole or absent."""
    with atomic(path) as file:
        json.dump(data, file, ensure_ascii=True, allow_nan=False, indent=indent)
        file.write("\n")


def load(path: str | Path) -> Attribution:
    """Read one attribution; see :meth:`Attribution.load`."""
    return read(path, from_json)


def read(path: str | Path, parse: Callable[[Any], T]) -> T:
    """What ``parse`` makes of a JSON file; every error names the file."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or a number of thousands of digits
        raise AttributionFileError(f"{path} is damaged or truncated, expected JSON: {error}") from error
    try:
        return parse(data)
    except AttributionFileError as error:
        raise AttributionFileError(f"{path}: {error}") from error


def _build(data: dict[str, Any]) -> Attribution:
    stderr = data["stderr"]
    return Attribution(
        scores=_floats(data["scores"]),
        stderr=None if stderr is None else _floats(stderr),
        scope=is_a(str, data["scope"]),
        target=is_a(str, data["target"]),
        position=is_a(int, data["position"]),
        combine=combine(data["combine"]),
        tokens=tuple(is_a(int, t) for t in is_a(list, data["tokens"])),
        str_tokens=tuple(is_a(str, t) for t in is_a(list, data["str_tokens"])),
        sizes=tuple(is_a(int, s) for s in is_a(list, data["sizes"])),
        word_groups=words(data["words"]),
        predictions=tuple(_prediction(*row) for row in is_a(list, data["predictions"])),
        metadata=is_a(dict, data["metadata"]),
    )


def is_a(kind: type[T], value: Any) -> T:
    """``value`` if it is a ``kind``; JSON's booleans aren't integers.

    Raises:
        TypeError: it isn't.
    """
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"expected {kind.__name__}, got {value!r}")
    return value


def words(rows: Any) -> tuple[Word, ...]:
    """Pairs of text and size as words."""
    return tuple(Word(is_a(str, text), is_a(int, size)) for text, size in is_a(list, rows))


def _prediction(token: Any, text: Any, probability: Any) -> Prediction:
    if not 0 <= probability <= 1:
        raise ValueError(f"probability {probability!r}, expected 0 to 1")
    return Prediction(is_a(int, token), is_a(str, text), float(probability))


def _floats(values: Any) -> torch.Tensor:
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in is_a(list, values)):
        raise TypeError("scores must be numbers")
    tensor = torch.tensor([float(v) for v in values], dtype=torch.float32)
    if not tensor.isfinite().all():
        raise ValueError("scores must be finite numbers")
    return tensor


def combine(value: Any) -> Any:
    """A rule by which scores of several tokens make one."""
    if value not in ("root_sum_squares", "sum"):
        raise ValueError(f'combine={value!r}, expected "root_sum_squares" or "sum"')
    return value
