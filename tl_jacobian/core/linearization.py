"""Linearization: the waist of the library. Everything below makes one, everything above uses one.

A scope needs nothing but what is here: the final hidden state y, the logits, the
unembedding between them, and vector-Jacobian products back to the token embeddings.
A batch is several prompts, or several positions of one, linearised in one forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, overload

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from tl_jacobian.core.graph import Graph
from tl_jacobian.core.hooks import EMBED, Taps
from tl_jacobian.core.host.base import Anatomy
from tl_jacobian.core.progress import progress
from tl_jacobian.core.rerun import Rerun
from tl_jacobian.core.unembedding import Unembedding
from tl_jacobian.errors import ArgumentError, ContractError, DirectionError, HookPointError
from tl_jacobian.results.arguments import checked
from tl_jacobian.results.arguments import positions as places
from tl_jacobian.results.attribution import Prediction
from tl_jacobian.results.tokens import Word


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
    if v.is_meta:
        raise DirectionError(f"v is on {v.device}, where it has no numbers, expected it on {y.device} or the CPU")
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


@dataclass(frozen=True, eq=False, repr=False)
class Linearization:
    """One prompt's forward pass, linearised at its token embeddings.

    Attributes:
        y: final hidden state at ``position``, exactly what the unembedding consumes;
            ``(d_model,)``, float32 or better.
        logits: the model's own logits at ``position``; ``(d_vocab,)``, float32 or better.
        tokens: ids of the tokens that can matter: those up to and including ``position``.
        str_tokens: their texts; ``words`` groups them.
        position: the token whose next-token prediction is explained; the last of ``tokens``.
        probs, predictions: the predicted distribution, and its ten most probable tokens.
        head: the model's unembedding.
        bare_norm: whether ||y|| is the same for every input (the final norm was folded away).
        input_hook: hook point whose activation is x.
        output_hook: hook point whose activation is y; None: the unembedding's input.
        resid: the final norm's input at ``position``, None without such a norm.
        taps: other activations on the way, by hook point: ``linearize(..., record=)``.
        anatomy: weights and norms between those activations; None on a toy.
        rerun: the same model on other values of x; None on a toy.
        encode: text -> token ids, for targets given as strings.
        decode: token ids -> text.
        facts: host, model, processing state and versions, for an attribution's metadata.
        weights_version: of the unembedding's weight, which is the model's own, at the forward pass.
    """

    __expected__: ClassVar[str] = (
        "one linearization: batch[i], or linearize(model, prompt) (tokens of shape (1, pos) are a batch: tokens[0])"
    )

    y: Float[Tensor, " d_model"]
    logits: Float[Tensor, " d_vocab"]
    tokens: Int[Tensor, " pos"]
    str_tokens: tuple[str, ...]
    words: tuple[Word, ...]
    head: Unembedding
    graph: Graph = field(repr=False)
    row: int = 0
    bare_norm: bool = False
    input_hook: str = EMBED
    output_hook: str | None = None
    resid: Float[Tensor, " d_model"] | None = field(default=None, repr=False)
    taps: Taps = field(default_factory=lambda: Taps({}), repr=False)
    anatomy: Anatomy | None = field(default=None, repr=False)
    rerun: Rerun | None = field(default=None, repr=False)
    encode: Callable[[str], list[int]] | None = field(default=None, repr=False)
    decode: Callable[[int], str] = field(default=str, repr=False)
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)
    weights_version: int = 0

    @property
    def unembedding(self) -> Unembedding:
        """The map from y to the logits; raises as :meth:`check_unembedded` does."""
        self.check_unembedded()
        return self.head

    def check_unembedded(self) -> None:
        """Raise ArgumentError if y isn't what the unembedding consumes."""
        if self.output_hook is not None:
            raise ArgumentError(
                f"this linearization explains {self.output_hook}, which isn't unembedded, so there are no logits to "
                "speak of: use direction_scope(lin, v) or output_scope(lin, fn), or linearize without output_hook="
            )

    @property
    def per(self) -> str:
        """What scores are measured against: a unit of this."""
        return "embedding norm" if self.input_hook == EMBED else f"activation norm at {self.input_hook}"

    @property
    def position(self) -> int:
        return len(self.tokens) - 1

    @property
    def d_model(self) -> int:
        return len(self.y)

    @property
    def prompt_row(self) -> int:
        """This prompt's row of the forward pass (``row`` is that of its final hidden state)."""
        return self.graph.rows[self.row]

    @cached_property
    def probs(self) -> Float[Tensor, " d_vocab"]:
        """The predicted next-token distribution."""
        return self.logits.softmax(dim=-1)

    @cached_property
    def predictions(self) -> tuple[Prediction, ...]:
        """The ten most probable next tokens."""
        top = self.probs.topk(min(10, len(self.probs)))
        rows = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return tuple(Prediction(token, self.decode(token), p) for token, p in rows)

    def __repr__(self) -> str:
        best = self.predictions[0]
        return (
            f"Linearization({len(self.tokens)} tokens up to {self.str_tokens[-1]!r}; d_model={self.d_model}; "
            f"predicts {best.text!r} with {best.probability:.0%}; {self.facts.get('host', 'no host')})"
        )

    @checked
    def vjp(self, v: Float[Tensor, "*k d_model"]) -> Float[Tensor, "*k pos d_in"]:
        """v^T J_t for every token t (eq. 2): one backward pass, or a batched one for k directions.

        Args:
            v: ``(d_model,)`` or ``(k, d_model)``, finite, on any device.

        Returns:
            ``(pos, d_model)`` or ``(k, pos, d_model)`` on the device of the embeddings, in
            float32 or better.

        Raises:
            DirectionError: v has another shape, or isn't finite.
            ContractError: a product isn't finite.
        """
        self.check_direction(v, ndims=(1, 2))
        grads = self.graph.pull(self.spread(v if v.ndim == 2 else v[None]))[:, self.prompt_row, : len(self.tokens)]
        return grads if v.ndim == 2 else grads[0]

    @checked
    def vjp_at(self, v: Float[Tensor, " d_model"], names: Sequence[str]) -> dict[str, Float[Tensor, "*activation"]]:
        """v^T dy/da for recorded activations a: their gradients, all from one backward pass.

        Args:
            v: ``(d_model,)``.
            names: hook points that were recorded.

        Returns:
            For each hook point a tensor of its activation's shape, ``(pos, ...)``.

        Raises:
            DirectionError: see :meth:`vjp`.
            HookPointError: a hook point wasn't recorded, or y doesn't depend on it.
        """
        self.check_direction(v)
        (grads,) = self.stream_at(v[None], names)
        return {name: grad[0] for name, grad in grads.items()}

    @checked
    def stream_at(
        self, v: Float[Tensor, "k d_model"], names: Sequence[str], optional: Collection[str] = ()
    ) -> Iterator[dict[str, Float[Tensor, " chunk *activation"]]]:
        """:meth:`vjp_at` for k directions, a memory-bounded chunk of them at a time.

        Hook points that are ``optional`` are left out where y doesn't depend on them.
        """
        self.check_direction(v, ndims=(2,))
        taps = [self.taps.tensor(name) for name in names]
        for grads in self.graph.stream_to(self.spread(v), taps):
            for name, grad in zip(names, grads, strict=True):
                if grad is None and name not in optional:
                    raise HookPointError(
                        f"what is explained doesn't depend on {name}: it comes after {self.output_hook or 'y'}, before "
                        f"{self.input_hook}, or feeds nothing"
                    )
            yield {n: self.taps.cut(n, g) for n, g in zip(names, grads, strict=True) if g is not None}

    @checked
    def jvp(self, dx: Float[Tensor, "*k pos d_in"]) -> Float[Tensor, "*k d_model"]:
        """Sum over tokens of J_t dx_t: the first-order change of y when the embeddings change by dx.

        Args:
            dx: ``(pos, d_model)`` or ``(k, pos, d_model)``, finite.

        Returns:
            ``(d_model,)`` or ``(k, d_model)`` on the device of ``y``, in float32 or better.

        Raises:
            DirectionError: dx has another shape, or isn't finite.
            ContractError: a product isn't finite.
        """
        x = self.graph.x
        check_change(dx, (len(self.tokens), x.shape[-1]))
        many = dx if dx.ndim == 3 else dx[None]
        spread = many.new_zeros(len(many), *x.shape)
        spread[:, self.prompt_row, : len(self.tokens)] = many
        dy = self.graph.pusher()(spread)[:, self.row]
        return dy if dx.ndim == 3 else dy[0]

    @checked
    def jacobian(self, positions: Sequence[int] | None = None) -> Float[Tensor, "n d_model d_in"]:
        """The full Jacobians J_t = dy/dx_t: d_model backward passes, in batches.

        Args:
            positions: tokens to keep (negative ones count from the end); default all.

        Returns:
            ``(n, d_model_out, d_model_in)`` on the device of the embeddings, in float32 or better.

        Raises:
            PromptError: a position is outside the prompt.
            MemoryBudgetError: so many Jacobians don't fit into what the budget leaves.
        """
        n = len(self.tokens)
        keep = list(range(n)) if positions is None else places(positions, n)
        x = self.graph.x
        size = len(keep) * self.d_model * x.shape[-1] * max(x.element_size(), 4)
        self.graph.check_results(size, f"the Jacobians of {len(keep)} tokens", "ask for fewer positions=")
        dtype = torch.promote_types(x.dtype, torch.float32)
        out = torch.empty(len(keep), self.d_model, x.shape[-1], dtype=dtype, device=x.device)
        identity = torch.eye(self.d_model, dtype=self.y.dtype, device=self.y.device)
        row = 0
        with progress(self.d_model, "rows of the Jacobian") as bar:
            for grads in self.graph.stream(self.spread(identity)):
                out[:, row : row + len(grads)] = rearrange(grads[:, self.prompt_row, keep], "k n d_in -> n k d_in")
                row += len(grads)
                bar.update(len(grads))
        return out

    def check_fresh(self) -> None:
        """Raise ContractError if the unembedding has changed since the forward pass."""
        if self.head.version != self.weights_version:
            raise ContractError(
                "the model's unembedding was changed in place after linearize(), so y and logits are those of another "
                "model; call linearize() again"
            )

    def check_direction(self, v: Tensor, ndims: tuple[int, ...] = (1,)) -> None:
        """Raise DirectionError unless v is a usable direction (or a stack of them)."""
        check_direction(v, self.y, ndims)

    def spread(self, v: Float[Tensor, "k d_model"]) -> Float[Tensor, "k outputs d_model"]:
        """v in this output's row of the graph, zero in its neighbours'."""
        out = v.new_zeros(len(v), len(self.graph.y), self.d_model)
        out[:, self.row] = v
        return out


@dataclass(frozen=True, eq=False)
class LinearizationBatch(Sequence[Linearization]):
    """Several prompts linearised in one forward pass; a sequence of :class:`Linearization`.

    Scopes take a batch as they take a single linearization and share one backward pass
    among its prompts. Each prompt's scores are those it gets alone.
    """

    __expected__: ClassVar[str] = "a batch of them"

    members: tuple[Linearization, ...]

    @overload
    def __getitem__(self, index: int) -> Linearization: ...
    @overload
    def __getitem__(self, index: slice) -> LinearizationBatch: ...
    def __getitem__(self, index: int | slice) -> Linearization | LinearizationBatch:
        if isinstance(index, slice):
            return LinearizationBatch(self.members[index])
        return self.members[index]

    def __len__(self) -> int:
        return len(self.members)
