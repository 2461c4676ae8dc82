"""Attention sinks: tokens that attention goes to whatever is asked, told by their massive activations.

Models park attention that has nowhere to go on a token or two (Xiao et al., arXiv 2309.17453), most often the first,
whose residual stream they make so large that after a norm it is the same for every prompt (Sun et al., arXiv
2402.17762). In the demo model such tokens have 150 to 200 times the norm of others and get 25% to 80% of all
attention; the next ones have 11 times and 11% (benchmarks/attention_sinks.py). A second BOS token is one too, and so is
the mark at which a chat template begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.core.unembedding import precise

# Times the norm of an ordinary token somewhere in the model: between 11 and 150 (see above).
_MASSIVE = 40.0


def residual_norms(between: Sequence[Tensor]) -> Float[Tensor, "layers batch pos"] | None:
    """Norms of the residual stream before each block; None where it isn't seen there in one shape."""
    shapes = {h.shape for h in between}
    if len(shapes) != 1 or len(next(iter(shapes))) != 3:
        return None
    with torch.no_grad():
        return torch.stack([precise(h.detach()).norm(dim=-1).cpu() for h in between])


def attention_sinks(norms: Float[Tensor, "layers pos"], texts: Sequence[str]) -> list[dict[str, Any]]:
    """The tokens with massive activations: ``{"position": 0, "text": "<s>", "norm": 170.0}``.

    ``norm`` is the largest over layers, in units of that of an ordinary token there: the lower quartile, for of a short
    prompt half the tokens may be sinks.

    >>> attention_sinks(torch.tensor([[1.0, 1.0, 2.0], [300.0, 2.0, 3.0]]), ["<s>", "a", "b"])
    [{'position': 0, 'text': '<s>', 'norm': 150.0}]
    """
    ordinary = norms.kthvalue(1 + (norms.shape[1] - 1) // 4, dim=1, keepdim=True).values  # quantile would sort
    peak = (norms / ordinary.clamp(min=torch.finfo(norms.dtype).tiny)).amax(dim=0)
    found = (peak > _MASSIVE).nonzero()[:, 0].tolist()
    return [{"position": at, "text": texts[at], "norm": float(f"{peak[at].item():.3g}")} for at in found]
