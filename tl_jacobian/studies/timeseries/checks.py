"""Checks that the time-series modules share: numbers of options, and series as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64
from torch import Tensor

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import check_unmasked, is_missing


def series_of(values: Any, name: str = "values", *, least: int = 2) -> Float64[np.ndarray, " n"]:
    """A series as a float64 array of its own.

    Args:
        values: a list, array, tensor or pandas Series of numbers.
        name: what to call it in messages.
        least: the shortest that will do.

    Raises:
        ArgumentError: not one-dimensional, not real numbers, too short, or not finite (says where).
    """
    check_unmasked(name, values)
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
    if array.dtype.kind == "O" and (missing := [i for i, one in enumerate(array.flat) if is_missing(one)]):
        raise ArgumentError(
            f"{name}[{missing[0]}] is {array.flat[missing[0]]} ({len(missing)} of {array.size} are missing): "
            "leave those out, or fill them"
        )
    if array.dtype.kind not in "iuf":
        raise ArgumentError(f"{name} have dtype {array.dtype}, expected real numbers")
    return array.astype(np.float64)
