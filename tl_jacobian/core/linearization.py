"""Linearization: the waist of the library. Everything below makes one, everything above uses one.

A scope needs nothing but what is here: the final hidden state y, the logits, the
unembedding between them, and vector-Jacobian products back to the token embeddings.
One position is explained, or a whole answer (:mod:`tl_jacobian.core.answer`), whose y has a row for each of its tokens.
A batch is several prompts, or several positions of one, linearised in one forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, overload

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from tl_jacobian.core.graph import Graph
from tl_jacobian.core.hooks import EMBED, Taps
from tl_jacobian.core.host.base import Anatomy
from tl_jacobian.core.host.weights import Weights
from tl_jacobian.core.progress import progress
from tl_jacobian.core.rerun import Rerun
from tl_jacobian.core.unembedding import Unembedding
from tl_jacobian.errors import ArgumentError, DirectionError, HookPointError
from tl_jacobian.results.arguments import checked
from tl_jacobian.results.arguments import positions as places
from tl_jacobian.results.attribution import Prediction
from tl_jacobian.results.tokens import Regions, Word, group_words

_OF_RULE = ("rule", "held_fixed")  # of the facts


def without_rule(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts for a result that no gradient through the model goes into: a backward rule changes nothing of it.

    >>> without_rule({"host": "bridge", "rule": "gim", "held_fixed": "norms"}), without_rule({"held_fixed": "weights"})
    ({'host': 'bridge'}, {'held_fixed': 'weights'})
    """
    return {name: fact for name, fact in facts.items() if not ("rule" in facts and name in _OF_RULE)}


def check_direction(v: Any, y: Float[Tensor, "*own"], stacked: bool | None = False) -> None:
    """Raise DirectionError unless v is a direction in y.

    Args:
        v: what the caller gave.
        y: final hidden states.
        stacked: whether a stack of directions is expected; None: either is right.
    """
    one, many = str(tuple(y.shape)), f"(k, {', '.join(map(str, y.shape))})"
    wanted = {False: one, True: many, None: f"{one} or {many}"}[stacked]
    if not isinstance(v, Tensor):
        raise DirectionError(f"v is a {type(v).__name__}, expected a tensor of shape {wanted}")
    is_stack = v.ndim == y.ndim + 1
    fits = v.shape[v.ndim - y.ndim :] == y.shape and v.ndim in (y.ndim, y.ndim + 1) and len(v) > 0
    if not fits or (stacked is not None and is_stack != stacked):
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


class Linearized:
    """What the linearization of one position and that of a whole answer have in common: products with the Jacobian.

    Attributes:
        y: final hidden states, ``(d_model,)`` or one row for each explained position; directions have its shape.
        tokens: ids of the tokens that can matter; ``str_tokens`` their texts, ``words`` their groups.
        head: the model's unembedding.
        graph: the recorded forward pass.
        rows: of ``graph.y``, which this y is.
    """

    __expected__: ClassVar[str] = "one linearization (linearize(model, prompt), or batch[i])"

    y: Float[Tensor, "*own"]
    logits: Float[Tensor, "*positions d_vocab"]
    tokens: Int[Tensor, " pos"]
    str_tokens: tuple[str, ...]
    head: Unembedding
    graph: Graph
    bare_norm: bool
    input_hook: str
    output_hook: str | None
    taps: Taps
    anatomy: Anatomy | None
    regions: Regions
    rerun: Rerun | None
    encode: Callable[[str], list[int]] | None
    decode: Callable[[int], str]
    read: Callable[[int, int], str] | None
    shown_as: Callable[[str], list[int]] | None
    facts: Mapping[str, Any]
    hooked: tuple[str, ...]
    weights: Weights | None

    def _under(self) -> str:
        """Where the caller's hooks ran, for the repr."""
        some, more = ", ".join(self.hooked[:3]), len(self.hooked) - 3
        return f"; under hooks at {some}" + (f" and {more} more" if more > 0 else "") if some else ""

    @property
    def rows(self) -> tuple[int, ...]:
        raise NotImplementedError

    @property
    def words(self) -> tuple[Word, ...]:
        """Tokens grouped into words and numbers."""
        return self._words

    @cached_property  # when first asked for: a prompt may have many positions
    def _words(self) -> tuple[Word, ...]:
        return group_words(self.str_tokens, self.read)

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
    def facts_without_rule(self) -> dict[str, Any]:
        """Facts for a result that no gradient through the model goes into: a backward rule changes nothing of it."""
        return without_rule(self.facts)

    @property
    def per(self) -> str:
        """What scores are measured against: a unit of this."""
        return "embedding norm" if self.input_hook == EMBED else f"activation norm at {self.input_hook}"

    @property
    def position(self) -> int:
        """The last explained position, which is the last of ``tokens``."""
        return len(self.tokens) - 1

    @property
    def positions(self) -> tuple[int, ...]:
        """All explained positions, one for each row of y."""
        return (self.position,)

    @property
    def d_model(self) -> int:
        return self.y.shape[-1]

    @property
    def prompt_row(self) -> int:
        """This prompt's row of the forward pass (``rows`` are those of its final hidden states)."""
        return self.graph.rows[self.rows[0]]

    @checked
    def vjp(self, v: Float[Tensor, "*own d_model"]) -> Float[Tensor, "*_k pos d_in"]:
        """v^T J_t for every token t (eq. 2): one backward pass, or a batched one for k directions.

        Args:
            v: a direction, of the shape of ``y``, or a stack of k; finite, on any device.

        Returns:
            ``(pos, d_model)`` or ``(k, pos, d_model)`` on the device of the embeddings, in
            float32 or better. Where y has several rows, what they pull back adds up.

        Raises:
            DirectionError: v has another shape, or isn't finite.
            ContractError: the model's weights have changed, or a product isn't finite.
        """
        self.check_direction(v, stacked=None)
        self.check_fresh()
        one = v.ndim == self.y.ndim
        grads = self.graph.pull(self.spread(v[None] if one else v))[:, self.prompt_row, : len(self.tokens)]
        return grads[0] if one else grads

    @checked
    def vjp_at(self, v: Float[Tensor, "*own d_model"], names: Sequence[str]) -> dict[str, Float[Tensor, "*activation"]]:
        """v^T dy/da for recorded activations a: their gradients, all from one backward pass.

        Args:
            v: of the shape of ``y``.
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
        self, v: Float[Tensor, "k *own d_model"], names: Sequence[str], optional: Collection[str] = ()
    ) -> Iterator[dict[str, Float[Tensor, " chunk *activation"]]]:
        """:meth:`vjp_at` for k directions, a memory-bounded chunk of them at a time.

        Hook points that are ``optional`` are left out where y doesn't depend on them.
        """
        self.check_direction(v, stacked=True)
        self.check_fresh()
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
    def jvp(self, dx: Float[Tensor, "*k pos d_in"]) -> Float[Tensor, "*own d_model"]:
        """Sum over tokens of J_t dx_t: the first-order change of y when the embeddings change by dx.

        Args:
            dx: ``(pos, d_model)`` or ``(k, pos, d_model)``, finite.

        Returns:
            Of the shape of ``y``, or a stack of k, on its device, in float32 or better.

        Raises:
            DirectionError: dx has another shape, or isn't finite.
        """
        x = self.graph.x
        check_change(dx, (len(self.tokens), x.shape[-1]))
        self.check_fresh()
        many = dx if dx.ndim == 3 else dx[None]
        spread = many.new_zeros(len(many), *x.shape)
        spread[:, self.prompt_row, : len(self.tokens)] = many
        dy = self.graph.pusher()(spread)[:, list(self.rows)].reshape(len(many), *self.y.shape)
        return dy if dx.ndim == 3 else dy[0]

    def check_fresh(self) -> None:
        """Raise ContractError if the model's weights have changed since the forward pass."""
        if self.weights is not None:
            self.weights.check()

    def check_direction(self, v: Tensor, stacked: bool | None = False) -> None:
        """Raise DirectionError unless v is a usable direction (or a stack of them)."""
        check_direction(v, self.y, stacked)

    def spread(self, v: Float[Tensor, "k *own d_model"]) -> Float[Tensor, "k outputs d_model"]:
        """v in this y's rows of the graph, zero in its neighbours'."""
        out = v.new_zeros(len(v), len(self.graph.y), self.d_model)
        out[:, list(self.rows)] = v.reshape(len(v), len(self.rows), self.d_model)
        return out


@dataclass(frozen=True, eq=False, repr=False)
class Linearization(Linearized):
    """One prompt's forward pass, linearised at its token embeddings.

    Attributes:
        y: final hidden state at ``position``, exactly what the unembedding consumes;
            ``(d_model,)``, float32 or better.
        logits: the model's own logits at ``position``; ``(d_vocab,)``, float32 or better.
        tokens: ids of the tokens that can matter: those up to and including ``position``.
        str_tokens: their texts.
        words: the same, grouped into words and numbers.
        regions: of a conversation, whose tokens they are: ``"roles"`` and ``"messages"``; else empty.
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
        decode: token id -> text.
        read: text of tokens ``start:stop`` of the prompt; None: their texts joined.
        shown_as: text -> the tokens that ``decode`` gives it for; None: they are looked for one by one.
        facts: host, model, processing state and versions, for an attribution's metadata.
        hooked: where the caller had hooks in the forward pass.
        weights: the model's at the forward pass; None on a toy.
    """

    __expected__: ClassVar[str] = (
        "one position's linearization: batch[i], lin[i] of an answer, or linearize(model, prompt) (tokens of shape "
        "(1, pos) are a batch: tokens[0])"
    )

    y: Float[Tensor, " d_model"]
    logits: Float[Tensor, " d_vocab"]
    tokens: Int[Tensor, " pos"]
    str_tokens: tuple[str, ...]
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
    read: Callable[[int, int], str] | None = field(default=None, repr=False)
    shown_as: Callable[[str], list[int]] | None = field(default=None, repr=False)
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)
    hooked: tuple[str, ...] = ()
    weights: Weights | None = field(default=None, repr=False)
    regions: Regions = field(default_factory=dict, repr=False)

    @property
    def rows(self) -> tuple[int, ...]:
        return (self.row,)

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
            f"predicts {best.text!r} with {best.probability:.0%}; {self.facts.get('host', 'no host')}"
            f"{self._under()})"
        )

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
        self.check_fresh()
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


if TYPE_CHECKING:
    from typing_extensions import TypeVar

    L = TypeVar("L", bound=Linearized, default=Linearization)
else:  # from Python 3.13 on, beartype takes a default for the bound
    from typing import TypeVar

    L = TypeVar("L", bound=Linearized)


@dataclass(frozen=True, eq=False)
class LinearizationBatch(Sequence[L], Generic[L]):
    """Several linearizations; a sequence of :class:`Linearization`, or of whole answers'.

    Scopes take a batch as they take a single linearization, and share one backward pass among the prompts of one
    forward pass. Each prompt's scores are those it gets alone.

    Raises:
        ArgumentError: its members' outputs differ in size, or aren't linearizations.
    """

    __expected__: ClassVar[str] = "a batch of them"

    members: tuple[L, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        if (other := next((m for m in self.members if not isinstance(m, Linearized)), None)) is not None:
            raise ArgumentError(f"a {type(other).__name__} in a batch, expected linearizations")
        if len(widths := sorted({one.d_model for one in self.members})) > 1:
            raise ArgumentError(f"linearizations whose y have {widths} entries, expected one model and one output_hook")

    @overload
    def __getitem__(self, index: int) -> L: ...
    @overload
    def __getitem__(self, index: slice) -> LinearizationBatch[L]: ...
    def __getitem__(self, index: int | slice) -> L | LinearizationBatch[L]:
        if isinstance(index, slice):
            return LinearizationBatch(self.members[index])
        return self.members[index]

    def __len__(self) -> int:
        return len(self.members)
