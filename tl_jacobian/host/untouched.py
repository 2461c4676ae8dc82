"""Running somebody else's model without leaving a trace on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

Hook = Callable[..., Any]
State = Sequence[tuple[nn.Module, dict[str, Any]]]


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


def state_of(module: nn.Module, names: Sequence[str]) -> State:
    """These attributes of a module and of all inside it, such as its hooks, to come back to."""
    return [(m, {name: _copy(m.__dict__[name]) for name in names}) for m in nn.Module.modules(module)]


@contextmanager
def in_state(state: State) -> Iterator[None]:
    """Modules with the attributes of another moment inside; then today's again, the very same objects."""
    today = [(module, {name: module.__dict__[name] for name in other}) for module, other in state]
    try:
        for module, other in state:
            module.__dict__.update({name: _copy(value) for name, value in other.items()})
        yield
    finally:
        for module, now in today:
            module.__dict__.update(now)


def _copy(value: Any) -> Any:
    return value.copy() if hasattr(value, "copy") else value
