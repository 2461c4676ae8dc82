"""What the baselines share: x of one prompt, one logit at other values of x, and gradients there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.analyses.scopes.apply import one_of
from tl_jacobian.analyses.scopes.simple import explain_logit
from tl_jacobian.core.linearization import Linearization, Linearized
from tl_jacobian.core.products import pulled
from tl_jacobian.core.progress import progress
from tl_jacobian.core.prompts import Target, resolve_target
from tl_jacobian.core.rerun import Rerun
from tl_jacobian.errors import ArgumentError

BATCH = 16  # runs in one forward pass


def inputs_of(lin: Linearized) -> Float[Tensor, "pos d_in"]:
    """x of one prompt, up to the explained position."""
    return lin.graph.x.detach()[lin.prompt_row, : len(lin.tokens)]


def rerun_of(lin: Linearized) -> Rerun:
    """The means to run this linearization's model again.

    Raises:
        ArgumentError: it isn't one linearization, or has no model.
    """
    if (rerun := one_of(lin).rerun) is None:
        raise ArgumentError("this linearization has no model to run again; make it with linearize(model, prompt)")
    return rerun


def checked_rerun_of(lin: Linearization) -> Rerun:
    """:func:`rerun_of`, after a run at the linearization's own x.

    Raises:
        ContractError: it doesn't give the linearization's logits any more.
    """
    rerun = rerun_of(lin)
    rerun.check(inputs_of(lin), lin.logits)
    return rerun


def pair(lin: Linearization, target: Target | None, minus: Target | None) -> tuple[int, int | None]:
    """The tokens whose logits are explained, the same in every run."""
    return resolve_target(lin, target), None if minus is None else resolve_target(lin, minus)


def value_of(logits: Float[Tensor, "n d_vocab"], token: int, other: int | None) -> Float[Tensor, " n"]:
    """The explained logit, or difference of logits, of each run."""
    return logits[:, token] - (0.0 if other is None else logits[:, other])


def batches(
    n: int, make: Callable[[Tensor], Float[Tensor, "chunk pos d_in"]], batch: int, what: str
) -> Iterator[Float[Tensor, "chunk pos d_in"]]:
    """Values of x for n runs, a batch at a time; a progress bar when it takes long."""
    with progress(n, what) as bar:
        for part in torch.arange(n).split(batch):
            yield make(part)
            bar.update(len(part))


def logit_gradients(
    rerun: Rerun, values: Float[Tensor, "n pos d_in"], token: int, other: int | None
) -> Float[Tensor, "n pos d_in"]:
    """The explained logit's gradient in x at each of n values: one backward pass for each forward pass."""
    found = []
    for runs in rerun.linearized(values):
        own = values.new_empty(len(runs), *values.shape[1:])
        for slots, grads in pulled(runs, [explain_logit(run, token, other).v for run in runs]):
            for at, _, member in slots:
                own[member] = grads[at, runs[member].prompt_row]
        found.append(own)
    return torch.cat(found)
