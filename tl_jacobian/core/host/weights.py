"""Whether a model's weights are still those of an earlier moment: what a linearization belongs to.

Three things are compared. Which tensors there are, where they lie and how often they were changed in place costs
nothing. Numbers of each, spread over it, tell what is written past autograd (``p.data.mul_(...)``), which counts as no
change. What can escape: such a write to a few entries that the samples miss, tensors that are neither parameters nor
buffers, and buffers that the model itself replaces as it runs (tables of rotary embeddings). Runs of the same model
compare its logits besides.

What is remembered holds neither the model nor its weights: a model that is let go of is freed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from tl_jacobian.core.host.loan import modules_of, place_of
from tl_jacobian.errors import ContractError

_TENSORS = (Tensor, nn.Parameter)  # others may know few operations
_SAMPLES = 64  # of each tensor; about a millisecond for a hundred million weights


class _Weight(NamedTuple):
    """A parameter or buffer: where it is found, what was found there, and its state."""

    name: str
    module: ref[nn.Module]
    kind: str  # where the module keeps it
    key: str
    own: Callable[[], Tensor | None]
    address: int
    version: int
    derived: bool  # a buffer that isn't saved: the model makes it, and may make it anew

    def change(self) -> str | None:
        """What has happened to it, in a word; None: nothing that can be seen without reading it."""
        module = self.module()
        now = None if module is None else module.__dict__[self.kind].get(self.key)
        if now is None or now is not self.own():
            return None if self.derived else "replaced"
        if now.data_ptr() != self.address:
            return "replaced"
        return "changed in place" if _version(now) != self.version else None


class Weights:
    """The weights of one moment.

    Args:
        roots: the model, and what belongs to it without being a submodule.

    >>> layer = nn.Linear(2, 2)
    >>> weights = Weights([layer])
    >>> weights.check()
    >>> _ = layer.weight.data.mul_(2)
    >>> weights.check()
    Traceback (most recent call last):
    ...
    tl_jacobian.errors.ContractError: the model's weights were changed after linearize() (weight has other values), ...
    """

    def __init__(self, roots: Iterable[nn.Module]) -> None:
        modules = list(modules_of(*roots))
        self._modules = [(name, ref(module), _inside(module)) for name, module in modules]
        self._weights = list(_found(modules))
        self._number = _number(module for _, module in modules)
        self._samples = self._sampled()

    def check(self) -> None:
        """Raise ContractError, naming the first weight that isn't what it was."""
        for name, which, inside in self._modules:
            if (module := which()) is None or _inside(module) != inside:
                what = name if module is None else place_of(name, module)
                raise _changed(f"what is inside {what or 'the model'} was exchanged")
        for weight in self._weights:
            if (how := weight.change()) is not None:
                raise _changed(f"{weight.name} was {how}")
        for then, now in zip(self._samples, self._sampled(), strict=True):
            if not torch.equal(then, now):
                raise _changed(f"{self._first(then, now)} has other values")

    def same(self) -> bool:
        """Whether :meth:`check` would pass, and nothing has been added."""
        try:
            self.check()
        except ContractError:
            return False
        return self._number == _number(module for _, which, _ in self._modules if (module := which()) is not None)

    def of(self, *roots: nn.Module) -> bool:
        """Whether these roots are among what was looked at."""
        return {id(root) for root in roots} <= {id(which()) for _, which, _ in self._modules}

    def _alike(self) -> dict[tuple[torch.device, torch.dtype], list[tuple[str, Tensor]]]:
        """Those whose samples can be joined. Weights elsewhere (offloaded: on the meta device) have no numbers."""
        groups: dict[tuple[torch.device, torch.dtype], list[tuple[str, Tensor]]] = {}
        for weight in self._weights:
            if (tensor := weight.own()) is None:
                continue
            for part in _plain(tensor):
                if not (part.is_meta or part.is_quantized) and part.numel():
                    groups.setdefault((part.device, part.dtype), []).append((weight.name, part))
        return groups

    def _sampled(self) -> list[Tensor]:
        """Bytes: a NaN is the same as itself."""
        with torch.no_grad():
            joined = [torch.cat([_sample(tensor) for _, tensor in group]) for group in self._alike().values()]
            return [samples.view(torch.uint8) for samples in joined]

    def _first(self, then: Tensor, now: Tensor) -> str:
        """Name of the weight whose sample isn't what it was."""
        for group in self._alike().values():
            sizes = [_sample(tensor).numel() * tensor.element_size() for _, tensor in group]
            if sum(sizes) == then.numel() and then.device == group[0][1].device:
                pairs = zip(group, then.split(sizes), now.split(sizes), strict=True)
                if (name := next((name for (name, _), a, b in pairs if not torch.equal(a, b)), None)) is not None:
                    return name
        return "a weight"


# From a model to its weights as they were last looked at.
_LAST: WeakKeyDictionary[nn.Module, Weights] = WeakKeyDictionary()


def weights_of(model: nn.Module, *roots: nn.Module) -> Weights:
    """The weights as they are now: those of the last time, as long as nothing of them has changed."""
    last = _LAST.get(model)
    if last is None or not last.of(*roots) or not last.same():
        last = _LAST[model] = Weights(roots)
    return last


def _inside(module: nn.Module) -> list[ref[nn.Module] | None]:
    return [None if m is None else ref(m) for m in module.__dict__["_modules"].values()]


def _number(modules: Iterable[nn.Module]) -> int:
    """How many parameters and buffers they have."""
    return sum(len(module.__dict__["_parameters"]) + len(module.__dict__["_buffers"]) for module in modules)


def _changed(what: str) -> ContractError:
    return ContractError(
        f"the model's weights were changed after linearize() ({what}), so y, logits and gradients are those of another "
        "model; call linearize() again"
    )


def _found(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[_Weight]:
    """Each once, under its first name."""
    seen: set[int] = set()
    for prefix, module in modules:
        for kind, derived in (("_parameters", set()), ("_buffers", module._non_persistent_buffers_set)):
            for key, tensor in module.__dict__[kind].items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    name = f"{place_of(prefix, module)}.{key}".lstrip(".")
                    made = key in derived
                    # What the model makes may be gone when its samples are compared.
                    own = partial(_itself, tensor) if made else ref(tensor)
                    where = ref(module), kind, key
                    yield _Weight(name, *where, own, tensor.data_ptr(), _version(tensor), made)


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _plain(tensor: Tensor) -> Iterator[Tensor]:
    """What holds a weight's numbers: itself, or what it wraps (a quantised weight's integers and scales)."""
    if is_traceable_wrapper_subclass(tensor):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _plain(getattr(tensor, name))
    else:
        yield tensor


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _sample(tensor: Tensor) -> Tensor:
    n = tensor.numel()
    step = max(1, n // _SAMPLES)
    if type(tensor) in _TENSORS and tensor.is_contiguous():  # in one operation: there are hundreds of them
        return tensor.as_strided((min(_SAMPLES, -(-n // step)),), (step,))
    return tensor.detach().flatten()[::step][:_SAMPLES]
