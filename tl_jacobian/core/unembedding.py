"""Unembedding: from the final hidden state to logits, and directions back.

Torch only, so that every scope can be tested on a toy. Half precision isn't enough for sums over many numbers, and
for parts that must add up: ``precise`` and ``exact`` say what is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from tl_jacobian.core.linalg.product import product, unrounded


def precise(tensor: Tensor) -> Tensor:
    """In float32 at least, where it is.

    >>> precise(torch.ones(1, dtype=torch.bfloat16)).dtype, precise(torch.ones(1, dtype=torch.float64)).dtype
    (torch.float32, torch.float64)
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def exact(tensor: Tensor) -> Tensor:
    """In float64, on the CPU (Apple's GPUs have none), without its graph: what results are summed in.

    >>> exact(torch.ones(1, requires_grad=True))
    tensor([1.], dtype=torch.float64)
    """
    return tensor.detach().cpu().to(torch.float64)


def wide(tensor: Tensor) -> Tensor:
    """In float64 without its graph, where it is if there are such numbers: what is large, and summed up there.

    >>> wide(torch.ones(1, requires_grad=True))
    tensor([1.], dtype=torch.float64)
    """
    return exact(tensor) if tensor.device.type == "mps" else tensor.detach().to(torch.float64)


def log_prob(logits: Float[Tensor, "*answer d_vocab"], tokens: Sequence[int]) -> Float[Tensor, ""]:
    """log p of a token, or of all tokens of an answer together, in nats; with its graph.

    >>> log_prob(torch.zeros(3, 4), [0, 1, 2]).exp().item() == 4**-3
    True
    """
    rows = logits.reshape(len(tokens), -1)
    return -cross_entropy(rows, torch.tensor(tokens, device=rows.device), reduction="sum")


@dataclass(frozen=True, eq=False)
class Unembedding:
    """The map y -> logits, ``cap(scale (((y - shift) / gain) W + b))``.

    Attributes:
        weight: W_U; shape ``(d_model, d_vocab)``, the model's own tensor (never copied).
        bias: b_U; shape ``(d_vocab,)``, or None.
        soft_cap: c of Gemma's ``c tanh(z / c)``, or None.
        gain, shift: of the final norm, where the model folded them into W and b but y is
            taken before folding (see :mod:`tl_jacobian.core.norms`); shape ``(d_model,)``.
        scale: what the model multiplies its logits by, before the cap (Cohere, Granite, Falcon-H1).

    >>> head = Unembedding(torch.eye(2), bias=torch.tensor([0.0, 1.0]))
    >>> head.logits(torch.tensor([1.0, 2.0]))
    tensor([1., 3.])
    """

    weight: Float[Tensor, "d_model d_vocab"]
    bias: Float[Tensor, " d_vocab"] | None = None
    soft_cap: float | None = None
    gain: Float[Tensor, " d_model"] | None = None
    shift: Float[Tensor, " d_model"] | None = None
    scale: float = 1.0

    @property
    def d_model(self) -> int:
        return self.weight.shape[0]

    @property
    def d_vocab(self) -> int:
        return self.weight.shape[1]

    @unrounded()
    def logits(self, y: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_vocab"]:
        """The model's logits for final hidden states y, in y's precision or the weight's if higher."""
        dtype = torch.promote_types(y.dtype, self.weight.dtype)
        z = self._unfold(y.to(dtype))
        z = z @ self.weight if self.weight.dtype == dtype else product(z, self.weight)
        if self.bias is not None:
            z = z + self.bias.to(dtype)
        z = z if self.scale == 1 else self.scale * z
        return z if self.soft_cap is None else self.soft_cap * torch.tanh(z / self.soft_cap)

    def slope(self, logits: Float[Tensor, " d_vocab"]) -> Float[Tensor, " d_vocab"]:
        """Derivative of each logit in its own sum over y: the scale, times ``1 - (z / cap)^2`` under a soft-cap."""
        if self.soft_cap is None:
            return torch.full_like(logits, self.scale)
        return self.scale * (1 - (logits / self.soft_cap).square())

    def direction(self, token: int, logits: Float[Tensor, " d_vocab"]) -> Float[Tensor, " d_model"]:
        """Gradient of one logit in y: the paper's w_target (eq. 3), scale and soft-cap included."""
        column = self.weight[:, token].to(logits.dtype)
        return self.fold(column * self.slope(logits)[token])

    def fold(self, v: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Directions that W reads, as directions in y."""
        return v if self.gain is None else v * _reciprocal(self.gain).to(v)

    def _unfold(self, y: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        y = y if self.shift is None else y - self.shift.to(y)
        return y if self.gain is None else y * _reciprocal(self.gain).to(y)

    def is_centered(self) -> bool:
        """Whether W has zero mean over the vocabulary (``center_unembed=True``).

        Centring zeroes the mean of every feature, so a few of them tell. Random weights have
        means near ``1 / sqrt(d_vocab)`` of their size; centring leaves rounding (measured:
        1e-8 in float32, 1e-5 in bfloat16), so one part in 10^4 separates the two.
        """
        weight = precise(self.weight[:8].detach())
        return bool(weight.mean(dim=1).abs().mean() <= 1e-4 * weight.abs().mean())


def _reciprocal(gain: Float[Tensor, " d_model"]) -> Float[Tensor, " d_model"]:
    """1 / gain, and zero where the norm switched a feature off (nothing flows through it)."""
    return torch.where(gain == 0, torch.zeros_like(gain), 1 / gain)
