"""The weights and norms through which a component's output reaches y: what a host says about its model."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from tl_jacobian.final_norm import NormAffine


class OutputProjection(NamedTuple):
    """How heads write into the residual stream: ``sum over heads of z_h W_h, + bias``."""

    weight: Float[Tensor, "heads d_head d_model"]
    bias: Float[Tensor, " d_model"] | None


@runtime_checkable
class Anatomy(Protocol):
    """Read from the model when it is asked."""

    @property
    def n_layers(self) -> int: ...

    def output_projection(self, layer: int) -> OutputProjection: ...

    def attention_post_norm(self, layer: int) -> NormAffine | None:
        """Gain and bias of the norm behind a block's attention (Gemma 2 and 3), or None."""
        ...

    def final_norm(self) -> NormAffine | None:
        """Gain and bias of the norm before the unembedding, or None where there is no norm."""
        ...
