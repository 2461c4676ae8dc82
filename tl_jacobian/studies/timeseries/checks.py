"""Checks that the time-series modules share: numbers of options, and series as arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float64
from torch import Tensor

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import is_id


def check_count(name: str, value: object, least: int = 1, most: int | None = None) -> int:
    """An option as an integer from ``least`` to ``most``; refuses anything else."""
    if not is_id(value) or not least <= int(value) <= (math.inf if most is None else most):  # type: ignore[call-overload]
        span = f"at least {least}" if most is None else f"{least} to {most}"
        raise ArgumentError(f"{name}={value!r}, expected an integer, {span}")
    return int(value)  # type: ignore[call-overload]


def check_number(name: str, value: Any, above: float = -math.inf, *, least: float = -math.inf) -> float:
    """An option as a finite float, more than ``above`` and at least ``least``; refuses anything else."""
    number = _float(value)
    if number is None or not math.isfinite(number) or number <= above or number < least:
        limit = f", more than {above:g}" if above > -math.inf else f", at least {least:g}" if least > -math.inf else ""
        raise ArgumentError(f"{name}={value!r}, expected a finite number{limit}")
    return number


def _float(value: Any) -> float | None:
    if isinstance(value, (bool, np.bool_, str, bytes)):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        return None


def series_of(values: Any, name: str = "values", *, least: int = 2) -> Float64[np.ndarray, " n"]:
    """A series as a float64 array of its own.

    Args:
        values: a list, array, tensor or pandas Series of numbers.
        name: what to call it in messages.
        least: the shortest that will do.

    Raises:
        ArgumentError: not one-dimensional, not real numbers, too short, or not finite (says where).
    """
    array = _array(values, name)
    if array.ndim != 1:
        raise ArgumentError(f"{name} have shape {array.shape}, expected (n,): one series of numbers at a time")
    if len(array) < least:
        raise ArgumentError(f"{name} are {len(array)} numbers, expected at least {least}")
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise ArgumentError(
            f"{name}[{bad[0]}] is {array[bad[0]]} ({len(bad)} of {len(array)} aren't finite): "
            "leave those out, or fill them"
        )
    return array


def _array(values: Any, name: str) -> Float64[np.ndarray, "*n"]:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(f"can't read {name} as an array of numbers ({error}); expected shape (n,)") from error
    if array.dtype.kind not in "iuf":
        raise ArgumentError(f"{name} have dtype {array.dtype}, expected real numbers")
    return array.astype(np.float64)
