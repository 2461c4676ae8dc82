"""Which numbers would be float64 on an accelerator that has none (Apple's), told on a CPU."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary


class OnDevice(TorchFunctionMode):
    """Follows what is computed from some tensors, as if they lay on another device, until it is moved to the CPU.

    Attributes:
        float64: where, in the library, a float64 tensor was made there.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()
        self.float64: set[str] = set()
        self._there = WeakTensorKeyDictionary(dict.fromkeys(tensors, True))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if func is Tensor.to and len(tensors) == 2:
            tensors = tensors[1:]  # where the other one is
        if _to_cpu(func, args, kwargs):
            return out.view_as(out)  # on a CPU it would be the very same tensor
        if any(t in self._there for t in tensors):
            for leaf in tree_leaves(out):
                if isinstance(leaf, Tensor):
                    self._there[leaf] = True
                    if leaf.dtype == torch.float64:
                        self.float64.add(_place())
        return out


def _to_cpu(func: Any, args: Any, kwargs: Any) -> bool:
    return func is Tensor.cpu or (func is Tensor.to and any(str(a) == "cpu" for a in (*args[1:], *kwargs.values())))


def _place() -> str:
    mine = [f for f in traceback.extract_stack() if "tl_jacobian/" in f.filename and "/tests/" not in f.filename]
    return f"{mine[-1].filename.split('tl_jacobian/')[-1]}:{mine[-1].lineno}" if mine else "outside the library"
