"""Whether a model's weights are still those of an earlier moment: what a linearization belongs to.

Three things are compared. Which tensors there are, where they lie and how often they were changed in place costs
nothing. Numbers of each, spread over it, tell what is written past autograd (``p.data.mul_(...)``), which counts as no
change. What can escape: such a write to a few entries that the samples miss, tensors that are neither parameters nor
buffers, and buffers that the model itself replaces as it runs (tables of rotary embeddings). Runs of the same model
compare its logits besides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from tl_jacobian.core.host.loan import modules_of, place_of
from tl_jacobian.errors import ContractError

_SAMPLES = 64  # of each tensor; about a millisecond for a hundred million weights


class _Weight(NamedTuple):
    """A parameter or buffer: where it is found, what was found there, and its state."""

    name: str
    owner: Mapping[str, Tensor | None]
    key: str
    tensor: Tensor
    address: int
    version: int
    derived: bool  # a buffer that isn't saved: the model makes it, and may make it anew

    def change(self) -> str | None:
        """What has happened to it, in a word; None: nothing that can be seen without reading it."""
        now = self.owner.get(self.key)
        if now is None or now is not self.tensor:
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
        self._modules = [(name, module, list(module._modules.values())) for name, module in modules]
        self._weights = list(_found(modules))
        self._samples = self._sampled()

    def check(self) -> None:
        """Raise ContractError, naming the first weight that isn't what it was."""
        for name, module, inside in self._modules:
            if list(module._modules.values()) != inside:
                raise _changed(f"what is inside {place_of(name, module) or 'the model'} was exchanged")
        for weight in self._weights:
            if (how := weight.change()) is not None:
                raise _changed(f"{weight.name} was {how}")
        for then, now in zip(self._samples, self._sampled(), strict=True):
            if not torch.equal(then, now):
                raise _changed(f"{self._first(then, now)} has other values")

    def same(self) -> bool:
        """Whether :meth:`check` would pass."""
        try:
            self.check()
        except ContractError:
            return False
        return True

    def _alike(self) -> dict[tuple[torch.device, torch.dtype], list[tuple[str, Tensor]]]:
        """Those whose samples can be joined. Weights elsewhere (offloaded: on the meta device) have no numbers."""
        groups: dict[tuple[torch.device, torch.dtype], list[tuple[str, Tensor]]] = {}
        for weight in self._weights:
            for part in _plain(weight.tensor):
                if not (part.is_meta or part.is_quantized) and part.numel():
                    groups.setdefault((part.device, part.dtype), []).append((weight.name, part))
        return groups

    def _sampled(self) -> list[Tensor]:
        """Bytes: a NaN is the same as itself."""
        joined = (torch.cat([_sample(part) for _, part in group]) for group in self._alike().values())
        return [samples.contiguous().view(torch.uint8) for samples in joined]

    def _first(self, then: Tensor, now: Tensor) -> str:
        """Name of the weight whose sample isn't what it was."""
        for group in self._alike().values():
            sizes = [_sample(part).numel() * part.element_size() for _, part in group]
            if sum(sizes) == then.numel() and then.device == group[0][1].device:
                pairs = zip(group, then.split(sizes), now.split(sizes), strict=True)
                if (name := next((name for (name, _), a, b in pairs if not torch.equal(a, b)), None)) is not None:
                    return name
        return "a weight"


def _changed(what: str) -> ContractError:
    return ContractError(
        f"the model's weights were changed after linearize() ({what}), so y, logits and gradients are those of another "
        "model; call linearize() again"
    )


def _found(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[_Weight]:
    """Each once, under its first name."""
    seen: set[int] = set()
    for prefix, module in modules:
        for owner, derived in ((module._parameters, set()), (module._buffers, module._non_persistent_buffers_set)):
            for key, tensor in owner.items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    name = f"{place_of(prefix, module)}.{key}".lstrip(".")
                    yield _Weight(name, owner, key, tensor, tensor.data_ptr(), _version(tensor), key in derived)


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
    flat = tensor.detach().reshape(-1) if tensor.is_contiguous() else tensor.detach().flatten()
    return flat[:: max(1, len(flat) // _SAMPLES)][:_SAMPLES]
