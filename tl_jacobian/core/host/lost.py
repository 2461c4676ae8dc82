"""Gradients that get lost on the way: parts of a model through which values flow, but no gradient.

A hook may detach what it sees, on purpose or not; a module may compute without autograd (torch's quantised ones) or
detach a part of its work. Scores are then those of another function than the model. Two things tell:

- a module whose output has no gradient though its input has one, whose output moves when the embeddings are
  nudged, and moves y when it is itself changed. (Rotary tables don't move, and so they are no loss.)
- J delta beside the change of y when the embeddings move by delta, by central differences of two sizes. A loss
  makes the same difference at either size; rounding, curvature and the jumps of a mixture's router don't. In half
  precision, or with TF32 products, nothing could be told from rounding.

It is looked at once for a model and a set of hooks, on nudged copies of the prompt: the hooks see them too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tl_jacobian.core.host.base import Trace
from tl_jacobian.core.host.loan import place_of
from tl_jacobian.core.host.weights import Weights
from tl_jacobian.core.unembedding import exact

# A nudge of each embedding, relative to its norm. By benchmarks/lost_gradient.py, in float32: whole models miss up to
# 0.1% at these steps, one detached MLP of the demo model's thirty is 43%, half of one in the suite's 12% or more.
_STEPS = (2e-3, 5e-4)
_TOLERANCE = 0.05
_PROBES = 3


class Found(NamedTuple):
    places: tuple[str, ...]
    gap: float | None

    @property
    def is_loss(self) -> bool:
        return bool(self.places) or self.gap is not None


Look = Callable[[str, tuple[Any, ...], Any], Any]  # name of a module, what goes in, what comes out
Record = Callable[[Look], Trace]  # one run at the prompt's own x
Run = Callable[[Tensor, Look | None], Tensor]  # y of runs at other values of x, (n, pos, d); nothing is recorded
_KNOWN: WeakKeyDictionary[nn.Module, tuple[Weights, dict[Hashable, Found]]] = WeakKeyDictionary()


def known(model: nn.Module, weights: Weights, key: Hashable, find: Callable[[], Found]) -> Found:
    """What was found before, of the same weights and hooks; else what is found now."""
    before = _KNOWN.get(model)
    if before is None or before[0] is not weights:
        before = _KNOWN[model] = weights, {}
    if key not in before[1]:
        before[1][key] = find()
    return before[1][key]


def search(record: Record, run: Run) -> Found:
    """Look for both kinds of loss; every module is shown to a function on the way."""
    numbers: dict[str, tuple[Tensor, ...]] = {}
    trace = record(partial(_without_gradient, numbers))
    if not trace.y.requires_grad:
        return Found((), None)  # nothing is left: linearize() says so
    x = trace.x.detach()
    delta = _direction(x)
    moved: dict[str, tuple[Tensor, ...]] = {}
    if numbers:
        step = max(_STEPS[0], 4 * torch.finfo(x.dtype).eps)
        run(x + step * delta, partial(_remember, moved, numbers))
        numbers = {name: v for name, v in numbers.items() if _moved(v, moved.get(name, v))}
    if numbers:
        other = run(x, partial(_change, numbers))
        numbers = {} if torch.equal(other, trace.y.detach()) else numbers
    return Found(tuple(numbers), _gap(trace, x, delta, run))


def _gap(trace: Trace, x: Tensor, delta: Tensor, run: Run) -> float | None:
    """The part of y's change that J delta misses, the same at either size of step; None: none that can be told."""
    tf32 = trace.y.is_cuda and torch.get_float32_matmul_precision() != "highest"  # the caller's choice
    if torch.finfo(trace.y.dtype).eps > 1e-6 or (tf32 and trace.y.dtype == torch.float32):
        return None
    v = torch.randn(_PROBES, *trace.y.shape, generator=torch.Generator().manual_seed(1)).to(trace.y)
    grads = [torch.autograd.grad(trace.y, trace.x, one, retain_graph=True)[0] for one in v]
    promised = torch.stack([(exact(grad) * exact(delta)).sum() for grad in grads])
    steps = torch.tensor([*_STEPS, *(-step for step in _STEPS)], dtype=torch.float64)
    there, back = exact(run(x + steps[:, None, None].to(x) * delta, None)).chunk(2)
    change = (there - back) / (2 * steps[: len(_STEPS), None])
    true = change @ exact(v[:, 0]).T  # for each step, along each probe
    first, second = true - promised
    steady = (first - second).norm() <= 0.3 * second.norm()
    gap = (second.norm() / true[1].norm()).item()
    return gap if steady and gap > _TOLERANCE else None


def _direction(x: Float[Tensor, "1 pos d"]) -> Float[Tensor, "1 pos d"]:
    """A random direction for each embedding, as long as it is."""
    random = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    return nn.functional.normalize(random, dim=-1) * x.norm(dim=-1, keepdim=True)


def looking(look: Look, name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
    """``look`` as a hook of a module, behind those of the caller."""
    return look(place_of(name, module), (*args, *kwargs.values()), output)


def _numbers(values: Any) -> tuple[Tensor, ...]:
    """The floating-point tensors among what goes into a module, or comes out."""
    values = values if isinstance(values, (tuple, list)) else (values,)
    return tuple(v for v in values if isinstance(v, Tensor) and v.is_floating_point())


def _without_gradient(found: dict[str, tuple[Tensor, ...]], name: str, given: Any, output: Any) -> None:
    out = _numbers(output)
    if out and not any(map(_goes_on, out)) and any(v.requires_grad for v in _numbers(given)):
        found[name] = tuple(v.clone() for v in out)


def _goes_on(value: Tensor) -> bool:
    """Whether a gradient goes on from here; through operators that have no derivative PyTorch lets none, and warns."""
    node = value.grad_fn
    if node is None:
        return value.requires_grad
    return not any("NotImplemented" in n.name() for n in (node, *(n for n, _ in node.next_functions if n is not None)))


def _remember(found: dict[str, tuple[Tensor, ...]], names: Collection[str], name: str, given: Any, output: Any) -> None:
    if name in names:
        found[name] = tuple(v.clone() for v in _numbers(output))


def _change(names: Collection[str], name: str, given: Any, output: Any) -> Any:
    if name not in names:
        return None
    if isinstance(output, (tuple, list)):
        return type(output)(v * 1.1 if isinstance(v, Tensor) and v.is_floating_point() else v for v in output)
    return output * 1.1


def _moved(before: tuple[Tensor, ...], after: tuple[Tensor, ...]) -> bool:
    return any(a.shape == b.shape and not torch.equal(a, b) for a, b in zip(before, after, strict=True))
