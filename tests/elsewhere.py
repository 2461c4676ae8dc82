"""A second device that no machine lacks: its tensors lie on the CPU, and say that they don't.

Inside :func:`elsewhere` a tensor that was made there (``device="cuda"``, ``.to("cuda")``, or from others there) names
that device, and meeting a tensor of the CPU, NumPy or a generator of the CPU is the error that a GPU would make of it.
Numbers are those of the CPU. What C++ makes on its own (inside of a backward pass) isn't seen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

DEVICE = torch.device("cuda", 0)
_MARK = "_is_elsewhere"
# What may be handed tensors of both: copies, indices on the CPU, and what only asks.
_MIX = {"copy_", "__getitem__", "__setitem__", "index_put_", "__set__", "_set_grad", "type_as", "to", "set_"} | {
    *("expand_as", "view_as", "reshape_as", "is_same_size"),
}


def is_elsewhere(tensor: Any) -> bool:
    return getattr(tensor, _MARK, False)


def _mark(value: Any) -> Any:
    if isinstance(value, Tensor):
        setattr(value, _MARK, True)
    elif isinstance(value, (tuple, list)):
        for one in value:
            _mark(one)
    return value


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


def _device_in(args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.device | None:
    """The device that a call names."""
    for value in (*args, kwargs.get("device")):
        if isinstance(value, torch.device):
            return value
        if isinstance(value, str) and value.split(":")[0] in ("cpu", "cuda"):
            return torch.device(value)
    return None


def _on_cpu(value: Any) -> Any:
    named = (isinstance(value, torch.device) and value.type == "cuda") or (
        isinstance(value, str) and value[:4] == "cuda"
    )
    return torch.device("cpu") if named else value


class _Elsewhere(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        given = list(_tensors((*args, *kwargs.values())))
        there = [t for t in given if is_elsewhere(t)]
        if name == "__get__":
            return self._asked(func, args, bool(there))
        named = _device_in(args[1:] if there or given else args, kwargs)
        if there and name == "numpy":
            raise TypeError("can't convert cuda:0 device type tensor to numpy: .cpu() first")
        if name in ("get_device",):
            return 0 if there else -1
        if there and name not in _MIX and any(t.ndim and not is_elsewhere(t) for t in given):
            shapes = [(tuple(t.shape), "cuda" if is_elsewhere(t) else "cpu") for t in given]
            raise RuntimeError(f"expected all tensors to be on the same device: {name} of {shapes}")
        generator = kwargs.get("generator")
        wanted = (named is not None and named.type == "cuda") or (bool(there) and named is None and name != "cpu")
        if generator is not None and wanted:
            raise RuntimeError(f"{name}: expected a generator of cuda, got one of {generator.device}")
        if name in ("to", "type_as") and len(given) > 1:  # .to(other)
            wanted = is_elsewhere(given[1])
        elif name in ("copy_", "__setitem__", "index_put_", "set_") or name == "__getitem__":
            wanted = is_elsewhere(args[0])
        elif name == "cuda":
            wanted, func, args = True, Tensor.clone, args[:1]
        made = func(*map(_on_cpu, args), **{key: _on_cpu(value) for key, value in kwargs.items()})
        if name in ("to", "cpu") and isinstance(made, Tensor) and made is args[0] and wanted != is_elsewhere(args[0]):
            made = made.view_as(made)
        return _mark(made) if wanted else made

    def _asked(self, func: Any, args: Any, there: bool) -> Any:
        attribute = getattr(getattr(func, "__self__", None), "__name__", "")
        if there and attribute == "device":
            return DEVICE
        if there and attribute == "is_cuda":
            return True
        made = func(*args)
        return _mark(made) if there and attribute != "grad_fn" else made


@contextlib.contextmanager
def elsewhere(model: nn.Module) -> Iterator[nn.Module]:
    """A model, moved there."""
    roots = (model, getattr(model, "original_model", model))
    for module in {id(m): m for root in roots for m in nn.Module.modules(root)}.values():
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None:
                _mark(tensor)
        for tensor in vars(module).values():
            if isinstance(tensor, Tensor):
                _mark(tensor)
        config = vars(module).get("cfg")
        if config is not None and hasattr(config, "device"):
            config.device = DEVICE
    with mock.patch.multiple(torch.cuda, get_rng_state=_state, set_rng_state=_set_state), _Elsewhere():
        yield model


def _state(device: Any = None) -> Tensor:
    return torch.zeros(1, dtype=torch.uint8)


def _set_state(state: Tensor, device: Any = None) -> None:
    pass
