"""Running somebody else's model without leaving a trace on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

Hook = Callable[..., Any]


@contextmanager
def frozen(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Parameters don't require grad inside: no activations are kept for weight gradients."""
    thawed = [p for p in parameters if p.requires_grad and p.is_leaf and not p.is_inference()]
    try:
        for p in thawed:
            p.requires_grad_(False)
        yield
    finally:
        for p in thawed:
            p.requires_grad_(True)


@contextmanager
def hooked(
    pre: Iterable[tuple[nn.Module, Hook]],
    post: Iterable[tuple[nn.Module, Hook]],
    pre_with_kwargs: Iterable[tuple[nn.Module, Hook]] = (),
) -> Iterator[None]:
    """Plain PyTorch hooks, each removed by its own handle.

    TransformerLens's bookkeeping never sees them, so the caller's hooks (which run first)
    and ``reset_hooks`` are as they were.
    """
    with ExitStack() as stack:
        for module, hook in pre:
            stack.callback(module.register_forward_pre_hook(hook).remove)
        for module, hook in pre_with_kwargs:
            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        for module, hook in post:
            stack.callback(module.register_forward_hook(hook).remove)
        yield
