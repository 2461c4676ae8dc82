"""A norm at the scale that it had in one forward pass: then it is linear, and a sum goes through it part by part."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.errors import UnsupportedModelError
from tl_jacobian.final_norm import NormAffine


@dataclass(frozen=True, eq=False)
class FrozenNorm:
    """``h -> gain * (h - mean(h)) / scale + bias`` (LayerNorm) or ``gain * h / scale`` (RMSNorm), scale fixed.

    Attributes:
        gain, bias: what the norm does after normalising.
        scale: what it divided by.
        centred: whether it subtracts the mean.
    """

    gain: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"]
    scale: float
    centred: bool

    def __call__(self, parts: Float[Tensor, "*parts d_model"]) -> Float[Tensor, "*parts d_model"]:
        """What each part of the norm's input adds to its output, its bias aside."""
        return self.gain * _centre(parts.to(self.gain), self.centred) / self.scale

    def pull(self, v: Float[Tensor, "*k d_model"]) -> Float[Tensor, "*k d_model"]:
        """Directions at the output as directions at the input: ``v . norm(h) = pull(v) . h``."""
        return _centre(self.gain * v.to(self.gain) / self.scale, self.centred)


def freeze(
    h: Float[Tensor, " d_model"], y: Float[Tensor, " d_model"], affine: NormAffine | None, what: str
) -> FrozenNorm:
    """The norm that made y of h, from what it did: its scale is measured, and whether it subtracts the mean.

    Args:
        h, y: its input and output.
        affine: gain and bias; None where there is no norm (y is h).
        what: its name, for the error.

    Raises:
        UnsupportedModelError: no scale makes y of h.
    """
    h, target = h.double(), y.to(h.device, torch.float64)
    one = torch.ones_like(h)
    if affine is None:
        return FrozenNorm(one, 0 * one, 1.0, centred=False)
    gain, bias = affine.gain.to(h), affine.bias.to(h)
    fits = [_fit(h, target - bias, gain, centred) for centred in (False, True)]
    (error, scale), centred = min((fit, centred) for centred, fit in enumerate(fits))
    # Many norms work in float32 whatever the model's precision; half precision rounds h, y and the gain.
    allowed = 32 * max(torch.finfo(y.dtype).eps, torch.finfo(torch.float32).eps)
    if error > allowed:
        raise UnsupportedModelError(
            f"{what} isn't a LayerNorm or RMSNorm at a fixed scale: its output is {error:.1%} away from that (allowed: "
            f"{allowed:.1g}), so nothing can be split through it; remove hooks on it, or report the architecture"
        )
    return FrozenNorm(gain, bias, scale, bool(centred))


def _fit(h: Tensor, target: Tensor, gain: Tensor, centred: bool) -> tuple[float, float]:
    """The least-squares scale, and how far it leaves ``gain * h / scale`` from the target, relatively."""
    made = gain * _centre(h, centred)
    inverse = (made @ target) / (made @ made).clamp_min(1e-300)
    error = (made * inverse - target).norm() / target.norm().clamp_min(1e-300)
    return error.item(), 1 / inverse.item() if inverse else 1.0


def _centre(h: Tensor, centred: bool) -> Tensor:
    return h - h.mean(dim=-1, keepdim=True) if centred else h
