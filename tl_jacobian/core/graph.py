"""Graph: one recorded forward pass, and products with its Jacobian from either side.

Torch only: x and y may come from a transformer or from two lines in a test. A recorded computation may be cut into
a chain of segments, so that products can go through it a piece at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.core.cancel import stop_if_asked, stopping_at
from tl_jacobian.core.linalg.product import unrounded
from tl_jacobian.core.memory import DEFAULT_ROOM, text_of
from tl_jacobian.errors import ContractError, JacobianScopeError, MemoryBudgetError


@contextmanager
def recording() -> Iterator[None]:
    """Record a graph even inside the caller's ``no_grad()`` or ``inference_mode()``."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def forgetting() -> Iterator[None]:
    """Record no graph, and make ordinary tensors even inside the caller's ``inference_mode()``."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def unit(v: Float[Tensor, " k *shape"]) -> tuple[Float[Tensor, " k *shape"], list[int]]:
    """k directions of about unit size, and the powers of two that were taken out of them; float32 or better.

    A product is linear in its direction, and a power of two is exact: nothing changes but what would under- or
    overflow on the way.

    >>> unit(torch.tensor([[3.0], [1e-40]]))[1]
    [2, -132]
    """
    v = v.to(torch.promote_types(v.dtype, torch.float32))
    powers = [math.frexp(size)[1] for size in v.abs().flatten(1).amax(dim=1).tolist()]
    return scaled(v, [-power for power in powers]), powers


def scaled(v: Float[Tensor, " k *shape"], powers: Sequence[int]) -> Float[Tensor, " k *shape"]:
    """``v[i] * 2**powers[i]``, float32 or better; in two steps, for the power alone may be out of range."""
    v = v.to(torch.promote_types(v.dtype, torch.float32))
    for part in ([power // 2 for power in powers], [power - power // 2 for power in powers]):
        if any(part):
            factors = torch.tensor([math.ldexp(1.0, power) for power in part], dtype=torch.float64)
            v = v * factors.to(v.dtype).to(v.device).view(-1, *[1] * (v.ndim - 1))
    return v


def _finite(product: Float[Tensor, " k *shape"]) -> Float[Tensor, " k *shape"]:
    if not product.isfinite().all():
        bad = int((~product.isfinite()).sum())
        raise ContractError(
            f"{bad} of {product.numel()} numbers of a product with the Jacobian are not finite: it is out of the range "
            f"of {str(product.dtype).removeprefix('torch.')}, or the model's gradient is; take a direction of about "
            "unit size, and look for infinite gradients in the model"
        )
    return product


# A node of autograd's graph and the number of one of its outputs: one recorded tensor.
_Edge = tuple[Any, int]


def chain(x: Tensor, y: Tensor, between: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """x, those of ``between`` through which *every* path from x to y leads, and y.

    A tensor that some path avoids (a hook carries an activation from an early layer to a late
    one, say) would lose that path's share of the derivative, so it is left out.

    Args:
        x: a leaf; y: made from it; between: tensors on the way, in order.

    >>> import torch
    >>> x = torch.ones(2, requires_grad=True)
    >>> h = x.sin(); y = h.exp()
    >>> len(chain(x, y, [h])), len(chain(x, y + x, [h]))
    (3, 2)
    """
    kept = [y]
    for candidate in reversed(between):
        if candidate is not x and not _reaches(kept[0], x, around=candidate):
            kept.insert(0, candidate)
    return (x, *kept)


def _reaches(end: Tensor, x: Tensor, around: Tensor) -> bool:
    """Whether a path leads back from ``end`` to x without passing ``around``."""
    blocked, stack = _edge(around), [_edge(end)]
    seen = {blocked}
    while stack:
        edge = stack.pop()
        node = edge[0]
        if node is None or edge in seen:
            continue
        seen.add(edge)
        if getattr(node, "variable", None) is x:
            return True
        stack.extend(node.next_functions)
    return False


def _edge(tensor: Tensor) -> _Edge:
    return tensor.grad_fn, tensor.output_nr


def _together(ends: Sequence[Tensor], starts: Sequence[Tensor], v: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """v^T d(ends)/d(start) in one backward pass; ``is_grads_batched`` batches no function with a rule of its own."""
    reached: list[bool] = []

    def one(*directions: Tensor) -> tuple[Tensor, ...]:
        found = torch.autograd.grad(ends, starts, directions, retain_graph=True, allow_unused=True)
        reached[:] = [grad is not None for grad in found]
        return tuple(grad for grad in found if grad is not None)

    grads = iter(torch.vmap(one)(*v))
    return [next(grads) if there else None for there in reached]


# Past 32 directions a batched VJP gains nothing more per direction (benchmarks/fisher_cost.py); nor does it on a
# processor past so many rows of its matrix products, directions times prompts times tokens: then each direction less
# in memory is a gain (benchmarks/gpu.py, "rows").
MAX_CHUNK = 32
CPU_ROWS = 800


@dataclass(frozen=True, eq=False)
class Graph:
    """The linearised map from token embeddings x to final hidden states y.

    Attributes:
        x: embeddings, a leaf of the graph; shape ``(batch, pos, d_model)``.
        y: final hidden states at the explained positions; shape ``(outputs, d_model)``.
        rows: the row of x that each output belongs to; default: output i to row i.
        bytes_per_direction: what one direction occupies at the widest point of its way back.
        between: recorded tensors on the way from x to y, in order, such as the residual stream
            between blocks: where products from x's side may be cut into segments.
        room: bytes that directions on their way may take together.
        results: bytes that products handed out together may take; None: as many as there are.
        batches: whether several directions can travel together, as far as is known.
    """

    x: Float[Tensor, "batch pos d_in"]
    y: Float[Tensor, "outputs d_out"]
    bytes_per_direction: int
    rows: tuple[int, ...] = ()
    between: tuple[Float[Tensor, "batch pos d_model"], ...] = ()
    room: int = DEFAULT_ROOM
    results: int | None = None
    batches: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", self.rows or tuple(range(len(self.y))))

    @property
    def chunk(self) -> int:
        """How many directions one batched VJP takes."""
        return self._chunk(self.bytes_per_direction)

    def _chunk(self, each: int) -> int:
        most = CPU_ROWS // self.x.shape[:2].numel() if self.x.device.type == "cpu" else MAX_CHUNK
        return max(1, min(most, self._that_fit(each)))

    def _that_fit(self, each: int) -> int:
        return max(1, min(MAX_CHUNK, self.room // max(1, each)))

    @property
    def held(self) -> int:
        """How many products may be in memory at once, waiting to be pushed forward together."""
        each = 2 * self.x.numel() * max(self.x.element_size(), 4)
        most = MAX_CHUNK if self.results is None else min(MAX_CHUNK, self.results // each)
        return max(self._that_fit(self.bytes_per_direction), most)

    def pull(self, v: Float[Tensor, "k outputs d_out"]) -> Float[Tensor, "k batch pos d_in"]:
        """v^T dy/dx for k directions, all k at once (see :meth:`stream`); outputs of one row add up.

        Float32 or better, whatever the precision of the graph: each direction travels at about unit size.

        Raises:
            ContractError: a product isn't finite.
            MemoryBudgetError: the products don't fit together into what the budget leaves.
        """
        self._check_products(len(v))
        return torch.cat(list(self.stream(v)))

    def stream(self, v: Float[Tensor, "k outputs d_out"]) -> Iterator[Float[Tensor, "chunk batch pos d_in"]]:
        """The products of :meth:`pull`, a memory-bounded chunk of directions at a time."""
        for part in v.split(self.chunk):
            (grad,) = self._products_to(part, [self.x])
            assert grad is not None, "linearize() has checked that y depends on x"
            yield grad

    def stream_to(
        self, v: Float[Tensor, "k outputs d_out"], places: Sequence[Tensor]
    ) -> Iterator[tuple[Tensor | None, ...]]:
        """v^T dy/da for recorded tensors a between x and y, a chunk of directions at a time.

        Each is ``(chunk, *a.shape)``, or None where y doesn't depend on it.
        """
        more = sum(place.numel() * max(place.element_size(), 4) for place in places)
        for part in v.split(self._chunk(self.bytes_per_direction + more)):
            yield self._products_to(part, [self.x, *places])[1:]

    def _products_to(self, v: Float[Tensor, "k outputs d_out"], places: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        attached = [place for place in places if place.requires_grad]
        with recording(), unrounded(), stopping_at(self.between):
            v, powers = unit(v.clone() if v.is_inference() else v)
            found = self._batched([self.y], attached, [v.to(self.y.device, self.y.dtype)])
            grads = iter([None if g is None else _finite(scaled(g, powers)) for g in found])
        return tuple(next(grads) if place.requires_grad else None for place in places)

    def _batched(
        self, ends: Sequence[Tensor], starts: Sequence[Tensor], v: Sequence[Tensor]
    ) -> Sequence[Tensor | None]:
        """v^T d(end)/d(start), all of v at once where every function on the way can be batched, else one at a time."""
        k = len(v[0])
        if k > 1 and self.batches:
            try:
                return _together(ends, starts, v)
            except (JacobianScopeError, torch.OutOfMemoryError):
                raise
            except RuntimeError:  # if it isn't batching, the same comes of one at a time
                pass
        each = [
            torch.autograd.grad(ends, starts, one, retain_graph=True, allow_unused=True) for one in zip(*v, strict=True)
        ]
        if k > 1:
            object.__setattr__(self, "batches", False)
        return [None if found[0] is None else torch.stack(found) for found in zip(*each, strict=True)]

    def between_tensors(self, end: Tensor, start: Tensor, u: Tensor) -> Tensor | None:
        """u^T d(end)/d(start) for two recorded tensors of this graph; None where end doesn't depend on start.

        ``u`` has the shape of ``end``.
        """
        found = self.between_many(end, start, u[None])
        return None if found is None else found[0]

    def between_many(self, end: Tensor, start: Tensor, u: Float[Tensor, " k *shape"]) -> Tensor | None:
        """:meth:`between_tensors` for k directions, ``(k, *start.shape)``, a memory-bounded chunk of them at a time."""
        return self.between_all([end], [start], [u])[0]

    def between_all(self, ends: Sequence[Tensor], starts: Sequence[Tensor], u: Sequence[Tensor]) -> list[Tensor | None]:
        """For k directions ``u_i`` at every end together: ``sum_i u_i^T d(end_i)/d(start)`` at every start.

        ``u_i`` is ``(k, *end_i.shape)``, a product ``(k, *start.shape)``, or None where no end depends on it.
        """
        on = [i for i, end in enumerate(ends) if end.requires_grad]
        attached = [start for start in starts if start.requires_grad]
        if not on or not attached:
            return [None] * len(starts)
        parts: list[list[Tensor | None]] = []
        with recording(), unrounded():
            own = [u[i].clone() if u[i].is_inference() else u[i] for i in on]
            for chunk in zip(*(one.split(self.chunk) for one in own), strict=True):
                largest = torch.stack([one.abs().flatten(1).amax(dim=1).cpu() for one in chunk]).amax(dim=0)
                _, powers = unit(largest[:, None])
                part = [scaled(one, [-power for power in powers]).to(ends[i]) for one, i in zip(chunk, on, strict=True)]
                found = self._batched([ends[i] for i in on], attached, part)
                parts.append([None if one is None else _finite(scaled(one, powers)) for one in found])
        made = iter([None if any(p is None for p in each) else torch.cat(each) for each in zip(*parts, strict=True)])  # type: ignore[arg-type]
        return [next(made) if start.requires_grad else None for start in starts]

    def push_between(self, start: Tensor, end: Tensor, dx: Float[Tensor, " k *shape_in"]) -> Float[Tensor, " k *shape"]:
        """d(end)/d(start) dx for two recorded tensors of this graph and k changes of the first."""
        dx, powers = unit(dx.clone() if dx.is_inference() else dx)
        return _finite(scaled(self.pushed(start, end, dx.to(start.device, start.dtype)), powers))

    def check_results(self, size: int, what: str, remedy: str) -> None:
        """Raise MemoryBudgetError if ``what``, of so many bytes, doesn't fit into what the budget leaves."""
        if self.results is not None and size > self.results:
            raise MemoryBudgetError(
                f"{what} would take {text_of(size)}, but the budget of linearize() leaves {text_of(self.results)} for "
                f"results; {remedy}, or raise its max_memory= by {text_of(2 * (size - self.results))}"
            )

    def _check_products(self, k: int) -> None:
        if k > self._that_fit(self.bytes_per_direction):  # their own are part of what a direction takes
            size = 2 * k * self.x.numel() * max(self.x.element_size(), 4)  # the parts, and all of them joined
            self.check_results(size, f"{k} products with {tuple(self.x.shape)} embeddings", "ask for fewer at a time")

    @cached_property
    def chain(self) -> tuple[Tensor, ...]:
        """x, the tensors between that all paths lead through, and y."""
        return chain(self.x, self.y, self.between)

    def pusher(self) -> Callable[[Float[Tensor, "k batch pos d_in"]], Float[Tensor, "k outputs d_out"]]:
        """Jacobian-vector products: a function from changes of x to first-order changes of y.

        They go through one segment of :attr:`chain` after another, so only one segment's
        activations are in memory twice at a time.

        Raises:
            RuntimeError: a part of the backward pass can't be differentiated (fused attention kernels).
        """
        start, end = self.chain[-2:]
        self.pushed(start, end, torch.zeros_like(start)[None])  # whether it can is known before any work is done

        def push(dx: Float[Tensor, "k batch pos d_in"]) -> Float[Tensor, "k outputs d_out"]:
            self._check_products(len(dx))
            moved, powers = unit(dx.clone() if dx.is_inference() else dx)
            moved = moved.to(self.x.device, self.x.dtype)
            for start, end in pairwise(self.chain):
                moved = self.pushed(start, end, moved)
            return _finite(scaled(moved, powers))

        return push

    def pushed(
        self, start: Float[Tensor, " *shape_in"], end: Float[Tensor, " *shape_out"], dx: Float[Tensor, " k *shape_in"]
    ) -> Float[Tensor, " k *shape_out"]:
        """d(end)/d(start) dx for two recorded tensors that follow each other in :attr:`chain`.

        The product u^T d(end)/d(start) is linear in u, so its own derivative in u is d(end)/d(start).

        Pulling dx back through *it* gives d(end)/d(start) dx: forward mode out of two backward ones.
        """
        stop_if_asked()
        with recording(), unrounded():
            u = torch.ones_like(end, requires_grad=True)  # any u; some functions cut zeros off from the graph
            (back,) = torch.autograd.grad(end, start, u, create_graph=True)
            parts = dx.to(start.device).split(self.chunk)
            made = [self._batched([back], [u], [part])[0] for part in parts]
        return torch.cat(
            [end.new_zeros(len(p), *end.shape) if m is None else m for m, p in zip(made, parts, strict=True)]
        )
