"""Segments: a recorded computation cut into a chain, so that products can go through it a piece at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

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
