"""Stopping a computation half way: cooperative, asked between a model's blocks, forward and backward.

Who may lose interest (a reader who clicks on) computes inside :func:`cancellable`. Every forward pass of this library
then asks before each block, every backward pass where gradients arrive between two blocks, and every loop with a
progress bar at each step. What is raised leaves the model as any exception does: as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

from tl_jacobian.errors import Cancelled

Asked = Callable[[], bool]
_ASKED: ContextVar[Asked | None] = ContextVar("asked to stop", default=None)


@contextmanager
def cancellable(asked: Asked) -> Iterator[None]:
    """Computations in here end with :class:`~tl_jacobian.errors.Cancelled` soon after ``asked()`` becomes true.

    >>> with cancellable(lambda: True):
    ...     stop_if_asked()
    Traceback (most recent call last):
    ...
    tl_jacobian.errors.Cancelled: cancelled
    """
    token = _ASKED.set(asked)
    try:
        yield
    finally:
        _ASKED.reset(token)


def stop_if_asked() -> None:
    """Raise Cancelled if this computation isn't wanted any more."""
    if (asked := _ASKED.get()) is not None:
        _stop(asked)


def _stop(asked: Asked) -> None:
    if asked():
        raise Cancelled("cancelled")


@contextmanager
def stopping_at(places: Sequence[Tensor]) -> Iterator[None]:
    """A backward pass in here also asks where gradients arrive at these recorded tensors.

    The question is handed to the hooks themselves: autograd runs those of another device in a thread of its own.
    """
    asked = _ASKED.get()
    if asked is None:
        yield
        return
    _stop(asked)
    handles = [place.register_hook(lambda _, asked=asked: _stop(asked)) for place in places if place.requires_grad]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
