"""What the baselines share: x of one prompt, what is explained at other values of x, and gradients there.

A logit is explained, or the difference of two, or the log-probability of a whole answer. The answer stays what it is,
whatever is done to x: its tokens are asked for in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.analyses.scopes.apply import Explained, one_of
from tl_jacobian.analyses.scopes.simple import explain_logit
from tl_jacobian.core.answer import AnswerLinearization
from tl_jacobian.core.linearization import Linearized
from tl_jacobian.core.products import pulled
from tl_jacobian.core.progress import progress
from tl_jacobian.core.prompts import Target, resolve_target
from tl_jacobian.core.rerun import Rerun
from tl_jacobian.core.unembedding import exact, log_prob
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


def checked_rerun_of(lin: Linearized) -> Rerun:
    """:func:`rerun_of`, after a run at the linearization's own x.

    Raises:
        ContractError: it doesn't give the linearization's logits any more.
    """
    rerun, known = rerun_of(lin), _CHECKED.get()
    if known is None or id(lin) not in known:
        rerun.check(inputs_of(lin), lin.logits)
    if known is not None:
        known[id(lin)] = lin
    return rerun


_CHECKED: ContextVar[dict[int, Linearized] | None] = ContextVar("checked", default=None)


@contextmanager
def checked_once() -> Iterator[None]:
    """Inside, each linearization is run at its own x before the first of several analyses alone."""
    token = _CHECKED.set({})
    try:
        yield
    finally:
        _CHECKED.reset(token)


class Quantity(NamedTuple):
    """What is explained, the same in every run.

    Attributes:
        token, other: whose logit, minus whose.
        answer: the tokens of an answer, whose log-probability it is instead.
    """

    token: int | None = None
    other: int | None = None
    answer: tuple[int, ...] = ()

    def of(self, logits: Float[Tensor, "n *answer d_vocab"]) -> Float[Tensor, " n"]:
        """Its value in each run, in float64."""
        if self.answer:
            return torch.stack([log_prob(exact(one), self.answer) for one in logits])
        return exact(logits[:, self.token] - (0.0 if self.other is None else logits[:, self.other]))

    def explained(self, lin: Linearized) -> Explained:
        """Its directions in a run."""
        return explain_logit(lin, self.token, self.other)


def quantity(lin: Linearized, target: Target | None, minus: Target | None) -> Quantity:
    """What Semantic Scope explains of a linearization.

    Raises:
        TargetError: a target isn't one token, or is given with an answer.
    """
    if isinstance(lin, AnswerLinearization):
        explain_logit(lin, target, minus)  # refuses either
        return Quantity(answer=lin.answer)
    return Quantity(explained_tokens(lin, target)[0], None if minus is None else explained_tokens(lin, minus)[0])


def explained_tokens(lin: Linearized, target: Target | None) -> tuple[int, ...]:
    """The token that is asked for after the prompt, or those of the answer."""
    if not isinstance(lin, AnswerLinearization):
        return (resolve_target(lin, target),)  # type: ignore[arg-type]
    if target is not None:
        explain_logit(lin, target)  # which says why not
    return lin.answer


def unit_of(lin: Linearized) -> str:
    """Of what is explained."""
    return "nats" if isinstance(lin, AnswerLinearization) else "logits"


def prompt_length(lin: Linearized) -> int:
    """How many tokens may be taken away: those of an answer stay, since they are what is asked for."""
    return lin.answer_start if isinstance(lin, AnswerLinearization) else len(lin.tokens)


def batches(
    n: int, make: Callable[[Tensor], Float[Tensor, "chunk pos d_in"]], batch: int, what: str
) -> Iterator[Float[Tensor, "chunk pos d_in"]]:
    """Values of x for n runs, a batch at a time; a progress bar when it takes long."""
    with progress(n, what) as bar:
        for part in torch.arange(n).split(batch):
            yield make(part)
            bar.update(len(part))


def gradients(rerun: Rerun, values: Float[Tensor, "n pos d_in"], what: Quantity) -> Float[Tensor, "n pos d_in"]:
    """The explained quantity's gradient in x at each of n values: one backward pass for each forward pass."""
    found = []
    for runs in rerun.linearized(values):
        own = values.new_empty(len(runs), *values.shape[1:])
        for slots, grads in pulled(runs, [what.explained(run).v for run in runs]):
            for at, _, member in slots:
                own[member] = grads[at, runs[member].prompt_row]
        found.append(own)
    return torch.cat(found)
