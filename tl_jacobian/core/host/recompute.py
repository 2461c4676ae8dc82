"""Gradient checkpointing of a model's blocks: keep their inputs, run them again in each backward pass.

The second run happens later, when the caller's hooks may have gone, flags changed and weights
moved on. It runs under the hooks, modes and frozen weights of the first one, its result is
compared with the first one's, and a difference is refused rather than differentiated.
Neither run leaves a trace on a model that is somebody else's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from copy import copy
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from transformers.cache_utils import Cache

from tl_jacobian.core.host.heap import Heap
from tl_jacobian.core.host.loan import STATE, Loan, lock_of, modules_in, state_of
from tl_jacobian.core.host.operations import Rules, rewriting
from tl_jacobian.core.unembedding import precise
from tl_jacobian.errors import ContractError


def recompute(
    loan: Loan, model: nn.Module, blocks: Iterable[nn.Module], rules: Rules, heap: Heap | None = None
) -> None:
    """Make a forward pass keep each block's input, and nothing of what the block computes from it.

    The blocks' ``forward`` is replaced as long as the loan lasts; hooks on a block as a whole stay outside of what is
    run again. Random numbers drawn inside a block are drawn again as they were.

    Args:
        model: whose lock is taken to run a block again.
        rules: which rewrite operations in the forward pass, and again where it is run again.
        heap: tidied before each run of a block.
    """
    for block in blocks:
        loan.put(block, "forward", partial(_checkpointed, loan, model, rules, heap, block, block.forward))


def fire(loan: Loan, points: Iterable[nn.Module]) -> None:
    """Let TransformerLens see hooks at these hook points, as long as the loan lasts.

    Some (Granite's, whose outputs are scaled on their way into the residual stream) fire only where it does, and lead
    the gradient through themselves only where one of them is for the backward pass.
    """
    for point in points:
        if (own := point.__dict__.get("bwd_hooks")) is not None:
            loan.put(point, "bwd_hooks", [*own, SimpleNamespace(is_permanent=False, context_level=None)])


# To the end, for the result to be compared: for one call where PyTorch (2.9) knows that, else for all in the meantime.
_ALONE = "early_stop" in inspect.signature(checkpoint).parameters
_TO_THE_END: dict[str, Any] = {"early_stop": False} if _ALONE else {}


def _checkpointed(
    loan: Loan,
    model: nn.Module,
    rules: Rules,
    heap: Heap | None,
    block: nn.Module,
    forward: Callable[..., Any],
    *args: Any,
    **kwargs: Any,
) -> Any:
    if not loan.acts:  # another thread's own forward pass
        return forward(*args, **kwargs)
    run = partial(_Run(loan, model, heap, block, forward), **kwargs)
    contexts = lambda: (nullcontext(), rewriting(rules))  # noqa: E731  # the first run's are open already
    with nullcontext() if _ALONE else set_checkpoint_early_stop(False):
        return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=True, context_fn=contexts, **_TO_THE_END)


class _Run:
    """One call of one block: the first time as it comes, then again as it was."""

    def __init__(
        self, loan: Loan, model: nn.Module, heap: Heap | None, block: nn.Module, forward: Callable[..., Any]
    ) -> None:
        self.loan = loan
        self.model = model
        self.heap = heap
        self.block = block
        self.forward = forward
        self.digest: Tensor | None = None  # of the first run

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.heap is not None:
            self.heap.tidy()
        if self.digest is None:
            with Loan() as first, first:
                out = self._forward(first, args, kwargs)
            # Taken after the run: TransformerBridge wires up hooks of its own in a block's first one.
            self.state, self.weights = state_of(self.block, STATE), _weights(self.block)
            self.digest = _digest(out)
            return out
        if _weights(self.block) != self.weights:
            raise ContractError(
                "the model's weights were changed after linearize(), which recomputes each block in the backward "
                "pass (max_memory=); call linearize() again"
            )
        # The backward pass may run in a thread of its own; the model is this one's for the time.
        with lock_of(self.model), Loan() as again, again:
            again.act_for(self.loan)
            again.enter(self.state)
            again.freeze(nn.Module.parameters(self.block))
            out = self._forward(again, args, kwargs)
        _check_same(_digest(out), self.digest)
        return out

    def _forward(self, loan: Loan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        loan.forget(modules_in(self.block))
        return self.forward(*map(_own, args), **{name: _own(value) for name, value in kwargs.items()})


def _own(value: Any) -> Any:
    """A copy of what a run may change in place, and the next one needs as it came: the residual stream, a cache."""
    if isinstance(value, Cache):
        value = copy(value)
        value.layers = [_own_states(layer) for layer in value.layers]
        return value
    return value.clone() if isinstance(value, Tensor) and value.requires_grad else value


def _own_states(layer: Any) -> Any:
    """A layer of a cache whose lists of states are its own; a run puts new tensors into them."""
    layer = copy(layer)
    vars(layer).update({name: copy(held) for name, held in vars(layer).items() if isinstance(held, (list, dict))})
    return layer


def _weights(block: nn.Module) -> list[tuple[int, int]]:
    """Changes when a weight is replaced or changed in place."""
    return [(p.data_ptr(), p._version) for p in nn.Module.parameters(block)]


def _digest(out: Any) -> Tensor:
    """Two numbers a token, detached: the output itself may be changed in place later."""
    hidden = precise((out if isinstance(out, Tensor) else out[0]).detach())
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
