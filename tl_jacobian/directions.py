"""What products with a Jacobian are asked for, checked: directions, changes of x, positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tl_jacobian.errors import DirectionError, PromptError
from tl_jacobian.plain import is_id


def check_direction(v: Any, y: Float[Tensor, " d_model"], ndims: tuple[int, ...] = (1,)) -> None:
    """Raise DirectionError unless v is a direction (or a stack of directions) in y."""
    d_model = len(y)
    wanted = " or ".join({1: f"({d_model},)", 2: f"(k, {d_model})"}[n] for n in ndims)
    if not isinstance(v, Tensor):
        raise DirectionError(f"v is a {type(v).__name__}, expected a tensor of shape {wanted}")
    if v.ndim not in ndims or v.shape[-1] != d_model or not len(v):
        raise DirectionError(f"v has shape {tuple(v.shape)}, expected {wanted}")
    if not v.is_floating_point():
        raise DirectionError(f"v has dtype {v.dtype}, expected a floating-point one; use v.float()")
    if v.device != y.device:
        raise DirectionError(f"v is on {v.device}, expected {y.device}; use v.to(lin.y.device)")
    if not v.isfinite().all():
        raise DirectionError(f"v has {int((~v.isfinite()).sum())} non-finite entries, expected none")


def check_change(dx: Any, wanted: tuple[int, int]) -> None:
    """Raise DirectionError unless dx is a change of all inputs, of shape ``wanted``, or a stack of them."""
    if not isinstance(dx, Tensor) or dx.ndim not in (2, 3) or tuple(dx.shape[-2:]) != wanted or not len(dx):
        got = tuple(dx.shape) if isinstance(dx, Tensor) else f"a {type(dx).__name__}"
        raise DirectionError(f"dx is {got}, expected a tensor of shape {wanted} or (k, {wanted[0]}, {wanted[1]})")
    if not dx.is_floating_point() or not dx.isfinite().all():
        raise DirectionError(
            f"dx (dtype {dx.dtype}) isn't finite floating point; use dx.float(), or look for NaN in it"
        )


def check_positions(positions: Any, n: int) -> list[int]:
    """Positions counted from the start.

    Raises:
        PromptError: not a list of integers, or one is outside the prompt's n tokens.
    """
    is_list = isinstance(positions, Sequence) and not isinstance(positions, str)
    if not is_list or not len(positions) or not all(is_id(p) for p in positions):
        raise PromptError(f"positions={positions!r}, expected a list of at least one integer, or None for all")
    counted = [int(p) for p in positions]
    for p in counted:
        if not -n <= p < n:
            raise PromptError(f"position {p} is outside the linearised prompt, expected -{n} to {n - 1}")
    return [p % n for p in counted]
