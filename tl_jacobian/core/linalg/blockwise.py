"""A function of tensors, computed a block of rows at a time, that remembers nothing but its inputs.

What is worked out for a block is computed again when a backward pass comes through, and thrown away again; what is
large (attention patterns) exists for one block at a time. The gradient is a function of the same kind, of the inputs
and of the results' gradients: so every derivative can be taken, of any order, and several directions travel together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor


class Block(NamedTuple):
    """Rows ``start`` to ``stop``, and the first ``columns`` columns, which are all that they depend on."""

    start: int
    stop: int
    columns: int


class Cut(NamedTuple):
    """Which dimension of a tensor, counted from its end, are rows, and which columns; None: it has none."""

    rows: int | None = None
    columns: int | None = None

    def of(self, tensor: Tensor, block: Block) -> Tensor:
        """The block's part of a tensor: a view."""
        if self.rows is not None:
            tensor = tensor.narrow(self.rows, block.start, block.stop - block.start)
        if self.columns is not None:
            tensor = tensor.narrow(self.columns, 0, block.columns)
        return tensor


class Like(NamedTuple):
    """What a result looks like."""

    shape: Sequence[int]
    dtype: torch.dtype
    device: torch.device
    cut: Cut

    @classmethod
    def this(cls, tensor: Tensor, cut: Cut, several: int | None = None) -> Like:
        """Like a tensor, or like so many of it."""
        return cls((*([] if several is None else [several]), *tensor.shape), tensor.dtype, tensor.device, cut)


@runtime_checkable
class Body(Protocol):
    """The function for one block: parts of the inputs in, parts of the results out; None: nothing but zeros."""

    def __call__(self, block: Block, *parts: Tensor) -> Sequence[Tensor | None]: ...


def leaf(tensor: Tensor) -> Tensor:
    """The same numbers as the start of a graph; also where directions are batched, unlike ``requires_grad_()``."""
    start = tensor.detach()
    start.requires_grad = True
    return start


def blocks_of(n: int, rows: int, causal: bool) -> tuple[Block, ...]:
    """n rows in blocks of at most so many; causal: a row depends on as many columns as there are rows up to it.

    >>> blocks_of(5, 2, causal=True)
    (Block(start=0, stop=1, columns=1), Block(start=1, stop=3, columns=3), Block(start=3, stop=5, columns=5))
    """
    parts = math.ceil(n / rows)
    ends = [n * i // parts for i in range(parts + 1)]  # of nearly one size
    return tuple(Block(start, stop, stop if causal else n) for start, stop in pairwise(ends))


def blockwise(
    body: Body, blocks: Sequence[Block], inputs: Sequence[Tensor], cuts: Sequence[Cut], results: Sequence[Like]
) -> tuple[Tensor, ...]:
    """The sum over blocks of what ``body`` gives for each, every part put in its place.

    Args:
        body: differentiable in its tensors as often as is wanted; the same whenever it is called.
        inputs: everything that is to be differentiated by; ``cuts``: how each of them is cut.
        results: what comes out.

    >>> import torch
    >>> x, rows = torch.arange(6.0).view(3, 2).requires_grad_(), Cut(rows=-2)
    >>> (y,) = blockwise(lambda _, part: [part.sin()], blocks_of(3, 2, False), [x], [rows], [Like.this(x, rows)])
    >>> torch.equal(y, x.sin()), torch.equal(torch.autograd.grad(y.sum(), x)[0], x.cos())
    (True, True)
    """
    return _Blockwise.apply(body, tuple(blocks), tuple(cuts), tuple(results), *inputs)  # type: ignore[no-any-return,no-untyped-call]


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(
        body: Body, blocks: Sequence[Block], cuts: Sequence[Cut], results: Sequence[Like], *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        totals = [torch.zeros(like.shape, dtype=like.dtype, device=like.device) for like in results]
        inputs = tuple(tensor.detach() for tensor in inputs)
        for block in blocks:
            parts = [cut.of(tensor, block) for cut, tensor in zip(cuts, inputs, strict=True)]
            for total, like, made in zip(totals, results, body(block, *parts), strict=True):
                if made is not None:
                    like.cut.of(total, block).add_(made)
        return tuple(totals)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.body, ctx.blocks, ctx.cuts, ctx.results, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        wanted = tuple(i for i, (node, _) in enumerate(ctx.next_functions) if node is not None and _is_wanted(node))
        cuts = (*ctx.cuts, *(like.cut for like in ctx.results))
        like = [Like.this(tensors[i], ctx.cuts[i]) for i in wanted]
        back = blockwise(Pullback(ctx.body, len(tensors), wanted), ctx.blocks, (*tensors, *grad_outputs), cuts, like)
        found: list[Tensor | None] = [None] * len(tensors)
        for i, grad in zip(wanted, back, strict=True):
            found[i] = grad
        return (None, None, None, None, *found)

    @staticmethod
    def vmap(  # type: ignore[override]  # torch's own is (info, in_dims, *args)
        info: Any,
        in_dims: tuple[Any, ...],
        body: Body,
        blocks: Sequence[Block],
        cuts: Sequence[Cut],
        results: Sequence[Like],
        *inputs: Tensor,
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """Several at once: one after another for each block, which shares what they have in common."""
        dims, n = in_dims[4:], int(info.batch_size)
        inputs = tuple(t if dim is None else t.movedim(dim, 0) for t, dim in zip(inputs, dims, strict=True))
        several = tuple(dim is not None for dim in dims)
        many = [like._replace(shape=(n, *like.shape)) for like in results]
        return blockwise(Several(body, several, n), blocks, inputs, cuts, many), (0,) * len(many)


def _is_wanted(node: Any) -> bool:
    """Whether the backward pass under way goes on there: a second derivative costs more than all the rest."""
    try:
        return bool(torch._C._will_engine_execute_node(node))
    except (AttributeError, RuntimeError):  # a leaf, where it isn't told
        return True


@dataclass(frozen=True)
class Several:
    """A body for n inputs, those marked, stacked along a first dimension; results are stacked too."""

    body: Body
    marked: tuple[bool, ...]
    n: int

    def __call__(self, block: Block, *parts: Tensor) -> Sequence[Tensor | None]:
        each = [[p[i] if mark else p for p, mark in zip(parts, self.marked, strict=True)] for i in range(self.n)]
        if isinstance(self.body, Pullback) and not any(self.marked[: self.body.n_inputs]):
            found = self.body.several(block, each)
        else:
            found = [self.body(block, *one) for one in each]
        return [None if made[0] is None else torch.stack(made) for made in zip(*found, strict=True)]


@dataclass(frozen=True)
class Pullback:
    """The body of a gradient: inputs and gradients of the results in, gradients of the wanted inputs out."""

    body: Body
    n_inputs: int
    wanted: tuple[int, ...]

    def __call__(self, block: Block, *parts: Tensor) -> Sequence[Tensor | None]:
        return self.several(block, [parts])[0]

    def several(self, block: Block, each: Sequence[Sequence[Tensor]]) -> list[Sequence[Tensor | None]]:
        """For the same inputs and several gradients: the function itself is computed once."""
        inputs = list(each[0][: self.n_inputs])
        again = any(part.requires_grad for parts in each for part in parts)  # somebody differentiates this
        with torch.enable_grad():
            for i in self.wanted:  # each a tensor of its own, though two may be the same
                inputs[i] = inputs[i].view_as(inputs[i]) if inputs[i].requires_grad else leaf(inputs[i])
            made = self.body(block, *inputs)
            attached = [i for i, m in enumerate(made) if m is not None and m.requires_grad]
            if not attached:
                return [[None] * len(self.wanted) for _ in each]
            return [
                torch.autograd.grad(
                    [made[i] for i in attached],  # type: ignore[misc]
                    [inputs[i] for i in self.wanted],
                    [parts[self.n_inputs + i] for i in attached],
                    retain_graph=again or parts is not each[-1],
                    create_graph=again,
                    allow_unused=True,
                )
                for parts in each
            ]
