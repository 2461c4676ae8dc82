"""What a table of named numbers must be, and rows found by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from torch import Tensor

from tl_jacobian.errors import ArgumentError

Axes = tuple[tuple[str, Sequence[str]], tuple[str, Sequence[str]]]  # what rows are, their names; the same of columns


def check_shape(values: Tensor, axes: Axes) -> None:
    """Refuse a table without one name for each row and each column."""
    names = (len(axes[0][1]), len(axes[1][1]))
    if tuple(values.shape) != names:
        raise ArgumentError(
            f"values of shape {tuple(values.shape)} for {names[0]} rows and {names[1]} columns, "
            f"expected shape {names}: one name for each row and each column"
        )
    if 0 in names:
        raise ArgumentError(f"a grid of {names[0]} rows and {names[1]} columns, expected at least one of each")


def check_numbers(values: Tensor, axes: Axes, *, signed: bool) -> None:
    """Refuse infinite numbers, and negative ones where there are to be none; NaN is no number."""
    if values.isinf().any():
        raise ArgumentError(
            f"{_place(values.isinf(), axes)} is infinite, expected finite numbers, or NaN where there is none; "
            "look for overflow in the model, for instance with dtype=float32"
        )
    if not signed and (values < 0).any():
        raise ArgumentError(
            f"{_place(values < 0, axes)} is {values[values < 0][0].item():.3g}, expected none below zero in a grid "
            "that isn't signed: pass signed=True"
        )


def _place(where: Tensor, axes: Axes) -> str:
    """The first place where a condition holds, in words."""
    return ", ".join(f"{axis} {names[i]!r}" for i, (axis, names) in zip(where.nonzero()[0].tolist(), axes, strict=True))


def rows_of(name: str, rows: Sequence[str], axis: str) -> list[int]:
    """The rows called ``name``; where there are none, those with it between dots; else those that contain it.

    Raises:
        ArgumentError: there are none of these either.
    """
    rules = (lambda row: row == name, lambda row: name in row.split("."), lambda row: name in row)
    found = next((at for rule in rules if (at := [i for i, row in enumerate(rows) if rule(row)])), [])
    if not found:
        raise ArgumentError(
            f"no row is called {name!r} or has that as a part; the nearest is {nearest(name, rows)!r} "
            f"of {len(rows)} {axis}s from {rows[0]!r} to {rows[-1]!r}"
        )
    return found


def nearest(name: str, names: Sequence[str]) -> str:
    """The one of ``names`` that looks most like ``name``."""
    return difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
