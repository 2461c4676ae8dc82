"""Norms on the way to y: the final one's gain and bias, and any of them at the scale that it had.

``fold_ln`` moves gain and bias into the unembedding. y is then a bare normalised vector of
constant length, and only the original gain and bias bring back the paper's y. At the scale that a norm had
in one forward pass it is linear, and a sum goes through it part by part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tl_jacobian.core.unembedding import exact
from tl_jacobian.errors import UnsupportedModelError

FinalNorm = nn.Module | Tensor | tuple[Tensor, Tensor | None]


class NormAffine(NamedTuple):
    """What a norm does after normalising: ``gain * h + bias``."""

    gain: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"]


def affine_of(norm: FinalNorm, d_model: int, like: Tensor | None = None) -> NormAffine:
    """The effective gain and bias of a norm module, or of its weight (and bias).

    A module is *measured*, not read: it is applied to h and -h for an h that every norm
    leaves as it is up to scale (zero mean, unit variance). So Gemma's ``1 + weight`` and
    every other parametrisation come out right.

    Args:
        norm: module, weight, or ``(weight, bias)``. A weight is taken as the gain itself.
        d_model: the width it must have.
        like: a tensor of the device and precision to measure in, float32 at least; default the module's own. A
            half-precision module must be able to take float32.

    >>> affine_of(nn.LayerNorm(4), 4).gain
    tensor([1., 1., 1., 1.])
    """
    affine = _measure(norm, d_model, like) if isinstance(norm, nn.Module) else _unpack(norm)
    if affine.gain.shape != (d_model,) or affine.bias.shape != (d_model,):
        raise UnsupportedModelError(
            f"final_norm has gain of shape {tuple(affine.gain.shape)} and bias of shape "
            f"{tuple(affine.bias.shape)}, but the model's d_model is {d_model}; pass the norm that stands "
            "before this model's unembedding (model.model.norm, transformer.ln_f, ...)"
        )
    return affine


def _unpack(norm: Tensor | tuple[Tensor, Tensor | None]) -> NormAffine:
    weight, bias = norm if isinstance(norm, tuple) else (norm, None)
    return NormAffine(weight.detach(), torch.zeros_like(weight) if bias is None else bias.detach())


def _measure(norm: nn.Module, d_model: int, like: Tensor | None) -> NormAffine:
    like = next(norm.parameters(), torch.zeros(())) if like is None else like
    h = _probe(d_model).to(like.device, torch.promote_types(like.dtype, torch.float32))
    scale = 1e3  # far above any eps inside the norm's square root
    with torch.no_grad():
        try:
            plus, minus, twice = norm(scale * h), norm(-scale * h), norm(2 * scale * h)
            affine = NormAffine((plus - minus) / (2 * h), (plus + minus) / 2)
        except RuntimeError as error:
            raise UnsupportedModelError(
                f"final_norm={type(norm).__name__} can't be applied to a vector of d_model={d_model}: {error}"
            ) from error
    # A module that rounds to bfloat16 rounds each of the two by up to 0.4%.
    if not torch.allclose(plus, twice, rtol=2e-2, atol=1e-3 * float(plus.abs().max())):
        raise UnsupportedModelError(
            f"final_norm={type(norm).__name__} doesn't normalise: twice the input gives another output; "
            "pass the norm that stands before the unembedding (model.model.norm, transformer.ln_f, ...)"
        )
    return affine


def _probe(d_model: int) -> Float[Tensor, " d_model"]:
    """A vector without zeros, of zero mean and unit variance: +1, -1, +1, ..."""
    h = torch.ones(d_model, dtype=torch.float64)
    h[1::2] = -1
    if d_model % 2:
        h[-1] = -2.0 if d_model > 1 else 1.0
        h[-2:-1] = 1.0
    return h / h.square().mean().sqrt()


def is_bare(resid: Float[Tensor, "batch d_model"], y: Float[Tensor, "batch d_model"]) -> bool:
    """Whether y is its norm's input rescaled (LayerNorm: recentred too), with no gain or bias.

    Then ||y|| is the same for every input and its gradient is rounding noise. Judged from
    one forward pass, so it holds for any host and any way of folding: the angle between the
    two is a rounding error exactly when the norm has no gain of its own.
    """
    precise, resid = exact(y), exact(resid)
    centered = resid - resid.mean(dim=-1, keepdim=True)
    # Norms work in float32 whatever the model's precision, and centring a vector with a large
    # mean cancels some digits; then y is rounded to the model's precision. Trained gains turn
    # y by far more: by 0.2 to 0.6 in the demo model and GPT-2 alike.
    noise = max(16 * torch.finfo(torch.float32).eps, 2 * torch.finfo(y.dtype).eps)
    return any(_sine(precise, reference) < noise for reference in (resid, centered))


def _sine(a: Float[Tensor, "batch d_model"], b: Float[Tensor, "batch d_model"]) -> float:
    """Largest sine of the angle between rows of a and b."""
    a, b = a / a.norm(dim=-1, keepdim=True), b / b.norm(dim=-1, keepdim=True)
    return (a - (a * b).sum(-1, keepdim=True) * b).norm(dim=-1).max().item()


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
    h, target = exact(h), exact(y)
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
            f"{allowed:.1g}), so nothing can be split through it: another layer stands behind it (a prediction head, "
            "say), or a hook does; remove hooks on it, or take layer_influence, which splits nothing"
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
