"""Gradient checkpointing of a model's blocks: keep their inputs, run them again in each backward pass.

The second run happens later, when the caller's hooks may have gone, flags changed and weights
moved on. It runs under the hooks, modes and frozen weights of the first one, its result is
compared with the first one's, and a difference is refused rather than differentiated.
Neither run leaves a trace on a model that is somebody else's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from tl_jacobian.core.host.operations import Rules, rewriting
from tl_jacobian.core.unembedding import precise
from tl_jacobian.errors import ContractError

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


# What torch.nn.Module calls on the way: hooks of every kind, and train or eval mode.
_STATE = (
    "training",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
)


@contextmanager
def recomputed(blocks: Iterable[nn.Module], rules: Rules) -> Iterator[None]:
    """A forward pass inside keeps each block's input, and nothing of what the block computes from it.

    Operations that ``rules`` rewrite in it are rewritten when they are run again.

    The blocks' ``forward`` is replaced while the context is open; hooks on a block as a whole stay
    outside of what is run again. Random numbers drawn inside a block are drawn again as they were.
    """
    with ExitStack() as stack, set_checkpoint_early_stop(False):  # to the end, for the result to be compared
        for block in blocks:
            own = block.__dict__.get("forward")
            stack.callback(_put_back, block, own)
            block.__dict__["forward"] = partial(_checkpointed, rules, block, block.forward)
        yield


def _put_back(block: nn.Module, forward: Any) -> None:
    if forward is None:
        block.__dict__.pop("forward", None)
    else:
        block.__dict__["forward"] = forward


def _checkpointed(rules: Rules, block: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    run = partial(_Run(block, forward), **kwargs)
    contexts = lambda: (nullcontext(), rewriting(rules))  # noqa: E731  # the first run's are open already
    return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=True, context_fn=contexts)


class _Run:
    """One call of one block: the first time as it comes, then again as it was."""

    def __init__(self, block: nn.Module, forward: Callable[..., Any]) -> None:
        self.block = block
        self.forward = forward
        self.digest: Tensor | None = None  # of the first run

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.digest is None:
            out = self._forward(args, kwargs)
            # Taken after the run: TransformerBridge wires up hooks of its own in a block's first one.
            self.state, self.weights = state_of(self.block, _STATE), _weights(self.block)
            self.digest = _digest(out)
            return out
        if _weights(self.block) != self.weights:
            raise ContractError(
                "the model's weights were changed after linearize(), which recomputes each block in the backward "
                "pass (max_memory=); call linearize() again"
            )
        with in_state(self.state), frozen(nn.Module.parameters(self.block)):
            out = self._forward(args, kwargs)
        _check_same(_digest(out), self.digest)
        return out

    def _forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with forgetful(self.block):
            return self.forward(*map(_own, args), **{name: _own(value) for name, value in kwargs.items()})


def _own(value: Any) -> Any:
    """A copy of the residual stream: a hook may change it in place, and the next run needs it as it came."""
    return value.clone() if isinstance(value, Tensor) and value.requires_grad else value


@contextmanager
def forgetful(module: nn.Module) -> Iterator[None]:
    """Attributes in which a module would keep a part of the graph are put back.

    TransformerBridge's attention keeps its last pattern, and with it every activation before it.
    """
    before = [(m, dict(m.__dict__)) for m in nn.Module.modules(module)]
    try:
        yield
    finally:
        for part, old in before:
            for name, value in list(part.__dict__.items()):
                if isinstance(value, Tensor) and value.grad_fn is not None and value is not old.get(name):
                    part.__dict__[name] = old.get(name)


def _weights(block: nn.Module) -> list[tuple[int, int]]:
    """Changes when a weight is replaced or changed in place."""
    return [(p.data_ptr(), p._version) for p in nn.Module.parameters(block)]


def _digest(out: Any) -> Tensor:
    """Two numbers a token, detached: the output itself may be changed in place later."""
    hidden = precise((out[0] if isinstance(out, tuple) else out).detach())
    return torch.stack((hidden.norm(dim=-1), hidden.sum(dim=-1) / hidden.shape[-1] ** 0.5))


def _check_same(now: Tensor, then: Tensor) -> None:
    """A sum of signed numbers is compared on the scale of their norm."""
    allowed = torch.finfo(then.dtype).eps ** 0.5 * then[0]
    if now.shape != then.shape or not ((now - then).abs() <= allowed).all():
        raise ContractError(
            "a block gave other values when the backward pass ran it again: a hook depends on something that has "
            "changed since linearize(), such as a counter or a cache; make the hook give the same values each "
            "time, or let linearize() keep all activations (a larger max_memory=, or a shorter prompt)"
        )
