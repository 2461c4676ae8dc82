"""A whole answer, linearised as one: its tokens' predictions are explained together, by one backward pass.

The prompt and the answer run once. The answer's i-th token is predicted at the position before it, whose final hidden
state is row i of y; whatever is asked of an answer is a sum over these rows, and what they pull back adds up. Tokens of
the answer that come before others are inputs too; its last one is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_jacobian.core.graph import Graph
from tl_jacobian.core.hooks import Taps
from tl_jacobian.core.host.base import Anatomy
from tl_jacobian.core.host.weights import Weights
from tl_jacobian.core.linearization import Linearization, Linearized
from tl_jacobian.core.rerun import Rerun
from tl_jacobian.core.unembedding import Unembedding
from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import checked, whole
from tl_jacobian.results.tokens import Regions

# What the answer has of its last position.
_SHARED = (
    "tokens",
    "str_tokens",
    "head",
    "graph",
    "bare_norm",
    "input_hook",
    "output_hook",
    "taps",
    "anatomy",
    "regions",
    "encode",
    "decode",
    "read",
    "shown_as",
    "facts",
    "hooked",
    "weights",
)


@dataclass(frozen=True, eq=False, repr=False)
class AnswerLinearization(Linearized):
    """One forward pass of a prompt and its answer, linearised at the token embeddings of both.

    Args:
        members: linearizations of the explained positions, of one forward pass, in order.
        answer: the explained tokens: ``answer[i]`` is what is to follow ``members[i].position``.
        answer_start: place of the answer's first token among the tokens, whether it is explained or not.
        text: of the explained tokens.

    Attributes:
        y: final hidden states, exactly what the unembedding consumes; ``(answer, d_model)``, float32 or better.
        logits: the model's own, before each explained token; ``(answer, d_vocab)``.
        tokens: ids of prompt and answer up to and including the last explained position (the answer's last token
            comes after it, and is none of them).
        position: the last explained position; ``positions`` all of them.
        log_probs: log-probability of each explained token; ``(answer,)``, in nats.
        head, bare_norm, input_hook, output_hook, taps, facts: as for :class:`Linearization`.

    Directions have the shape of y: ``vjp`` takes ``(answer, d_model)`` or ``(k, answer, d_model)``. One position's
    :class:`Linearization` is ``lin[i]``; its products share this forward pass.

    >>> import tl_jacobian as tj
    >>> lin = tj.linearize(tj.load_demo_model(), "The capital of France is", answer=" Paris, of course.")
    >>> lin.y.shape, lin.text
    (torch.Size([5, 576]), ' Paris, of course.')
    >>> tj.semantic_scope(lin).target
    "log-probability of the answer ' Paris, of course.'"
    """

    __expected__: ClassVar[str] = "a linearized answer: linearize(model, prompt, answer=...)"

    members: tuple[Linearization, ...]
    answer: tuple[int, ...]
    answer_start: int
    text: str
    y: Float[Tensor, "answer d_model"] = field(init=False)
    logits: Float[Tensor, "answer d_vocab"] = field(init=False)
    tokens: Int[Tensor, " pos"] = field(init=False)
    str_tokens: tuple[str, ...] = field(init=False)
    head: Unembedding = field(init=False)
    graph: Graph = field(init=False)
    bare_norm: bool = field(init=False)
    input_hook: str = field(init=False)
    output_hook: str | None = field(init=False)
    taps: Taps = field(init=False)
    anatomy: Anatomy | None = field(init=False)
    regions: Regions = field(init=False)
    rerun: Rerun | None = field(init=False)
    encode: Callable[[str], list[int]] | None = field(init=False)
    decode: Callable[[int], str] = field(init=False)
    read: Callable[[int, int], str] | None = field(init=False)
    shown_as: Callable[[str], list[int]] | None = field(init=False)
    facts: Mapping[str, Any] = field(init=False)
    hooked: tuple[str, ...] = field(init=False)
    weights: Weights | None = field(init=False)

    def __post_init__(self) -> None:
        if not self.members or len(self.members) != len(self.answer):
            raise ArgumentError(
                f"{len(self.members)} linearizations for {len(self.answer)} explained tokens, expected one each"
            )
        last = self.members[-1]
        if any(one.graph is not last.graph or one.prompt_row != last.prompt_row for one in self.members):
            raise ArgumentError("the linearizations of an answer come from one forward pass of one prompt")
        for name in _SHARED:
            object.__setattr__(self, name, getattr(last, name))
        object.__setattr__(self, "y", torch.stack([one.y for one in self.members]))
        object.__setattr__(self, "logits", torch.stack([one.logits for one in self.members]))
        again = None if last.rerun is None else last.rerun.of_answer(self.positions, self.answer, self.answer_start)
        object.__setattr__(self, "rerun", again)

    @property
    def rows(self) -> tuple[int, ...]:
        return tuple(one.row for one in self.members)

    @property
    def positions(self) -> tuple[int, ...]:
        """Of the tokens after which the explained ones follow."""
        return tuple(one.position for one in self.members)

    @cached_property
    def log_probs(self) -> Float[Tensor, " answer"]:
        """log p of each explained token, in nats."""
        at = torch.tensor(self.answer, device=self.logits.device)
        return self.logits.log_softmax(dim=-1).gather(1, at[:, None])[:, 0]

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, i: int) -> Linearization:
        """The linearization of the position that predicts the i-th explained token."""
        return self.members[i]

    def __repr__(self) -> str:
        return (
            f"AnswerLinearization({self.answer_start} tokens of prompt; explains {self.text!r}, {len(self)} tokens, "
            f"log p = {self.log_probs.sum().item():.3g}; d_model={self.d_model}; {self.facts.get('host', 'no host')}"
            f"{self._under()})"
        )

    @checked
    def jacobian(self, i: int, positions: Sequence[int] | None = None) -> Float[Tensor, "n d_model d_in"]:
        """The full Jacobians of row i of y: those of ``lin[i]``, :meth:`Linearization.jacobian`."""
        return self.members[whole("i", i, -len(self), len(self) - 1)].jacobian(positions)
