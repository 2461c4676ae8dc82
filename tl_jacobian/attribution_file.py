"""Attributions as JSON: readable anywhere, versioned, exact, and never executable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import torch

from tl_jacobian.attribution import Attribution, Prediction
from tl_jacobian.errors import AttributionFileError
from tl_jacobian.files import atomic
from tl_jacobian.tokens import Word

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
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise AttributionFileError(f'not a saved attribution: expected a JSON object with "format": "{FORMAT}"')
    if data.get("version") != VERSION:
        raise AttributionFileError(
            f"version {data.get('version')!r} of the attribution format is unknown, expected {VERSION}; "
            "upgrade tl-jacobian"
        )
    try:
        return _build(data)
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise AttributionFileError(f"damaged attribution: {type(error).__name__}: {error}") from error


def save(a: Attribution, path: str | Path) -> None:
    """Write one attribution; the file is whole or absent."""
    with atomic(path) as file:
        json.dump(to_json(a), file, ensure_ascii=True, allow_nan=False, indent=1)
        file.write("\n")


def load(path: str | Path) -> Attribution:
    """Read one attribution; see :meth:`Attribution.load`."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or a number of thousands of digits
        raise AttributionFileError(f"{path} is damaged or truncated, expected JSON: {error}") from error
    try:
        return from_json(data)
    except AttributionFileError as error:
        raise AttributionFileError(f"{path}: {error}") from error


def _build(data: dict[str, Any]) -> Attribution:
    stderr = data["stderr"]
    return Attribution(
        scores=_floats(data["scores"]),
        stderr=None if stderr is None else _floats(stderr),
        scope=_is(str, data["scope"]),
        target=_is(str, data["target"]),
        position=_is(int, data["position"]),
        combine=_combine(data["combine"]),
        tokens=tuple(_is(int, t) for t in _is(list, data["tokens"])),
        str_tokens=tuple(_is(str, t) for t in _is(list, data["str_tokens"])),
        sizes=tuple(_is(int, s) for s in _is(list, data["sizes"])),
        word_groups=tuple(Word(_is(str, text), _is(int, size)) for text, size in _is(list, data["words"])),
        predictions=tuple(_prediction(*row) for row in _is(list, data["predictions"])),
        metadata=_is(dict, data["metadata"]),
    )


def _is(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"expected {kind.__name__}, got {value!r}")
    return value


def _prediction(token: Any, text: Any, probability: Any) -> Prediction:
    if not 0 <= probability <= 1:
        raise ValueError(f"probability {probability!r}, expected 0 to 1")
    return Prediction(_is(int, token), _is(str, text), float(probability))


def _floats(values: Any) -> torch.Tensor:
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in _is(list, values)):
        raise TypeError("scores must be numbers")
    tensor = torch.tensor([float(v) for v in values], dtype=torch.float32)
    if not tensor.isfinite().all():
        raise ValueError("scores must be finite numbers")
    return tensor


def _combine(value: Any) -> Any:
    if value not in ("root_sum_squares", "sum"):
        raise ValueError(f'combine={value!r}, expected "root_sum_squares" or "sum"')
    return value
