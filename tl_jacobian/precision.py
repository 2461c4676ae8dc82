"""Where half precision isn't enough: sums over many numbers, and parts that must add up."""

from __future__ import annotations

import torch
from torch import Tensor


def precise(tensor: Tensor) -> Tensor:
    """In float32 at least, where it is.

    >>> precise(torch.ones(1, dtype=torch.bfloat16)).dtype, precise(torch.ones(1, dtype=torch.float64)).dtype
    (torch.float32, torch.float64)
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def exact(tensor: Tensor) -> Tensor:
    """In float64 on the CPU (some accelerators have none), without its graph.

    >>> exact(torch.ones(1, requires_grad=True))
    tensor([1.], dtype=torch.float64)
    """
    return tensor.detach().to("cpu", torch.float64)
