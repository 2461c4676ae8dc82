"""Scores that were made elsewhere: what is needed of a linearization to hold them, and how they are checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.arguments import excerpt
from tl_jacobian.results.tokens import Regions, Word


@runtime_checkable
class HasTokens(Protocol):
    """What results know of a linearization: its tokens, where it looks, and what it was made with."""

    @property
    def tokens(self) -> Tensor: ...
    @property
    def str_tokens(self) -> tuple[str, ...]: ...
    @property
    def words(self) -> tuple[Word, ...]: ...
    @property
    def regions(self) -> Regions: ...
    @property
    def position(self) -> int: ...
    @property
    def output_hook(self) -> str | None: ...
    @property
    def decode(self) -> Any: ...
    @property
    def facts(self) -> Mapping[str, Any]: ...


OneLinearization = Annotated[HasTokens, "one linearization: linearize(model, prompt), or batch[i]"]


def score_tensor(scores: Any, n: int, name: str = "scores") -> Float[Tensor, " pos"]:
    """One finite number for each of n tokens, of a tensor, an array or a list.

    Raises:
        ArgumentError: another shape, another length, no numbers, or one that isn't finite.

    >>> score_tensor(np.array([1, 2]), 2)
    tensor([1., 2.])
    """
    try:
        found = torch.as_tensor(np.asarray(scores) if not isinstance(scores, Tensor) else scores).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(f"{name}={excerpt(scores)}, expected {n} numbers, one for each token") from error
    if found.dtype == torch.bool or found.is_complex():
        raise ArgumentError(f"{name} are of dtype {found.dtype}, expected real numbers, one for each of {n} tokens")
    if found.ndim != 1 or len(found) != n:
        hint = ""
        if found.ndim > 1 and found.shape[0] == 1 and found.shape[1] == n:
            hint = f": {name}[0]" if found.ndim == 2 else f": sum or take the norm over the last axis of {name}[0]"
        elif found.ndim == 1:
            hint = "; a BOS token counts, and so do none of those after the explained position"
        raise ArgumentError(
            f"{name} have shape {tuple(found.shape)}, expected ({n},), one for each of the linearization's tokens{hint}"
        )
    bad = (~found.isfinite()).nonzero().flatten().tolist()
    if bad:
        raise ArgumentError(
            f"{name}[{bad[0]}] is {found[bad[0]].item()} ({len(bad)} of {n} aren't finite), expected finite numbers, "
            "which can be ranked"
        )
    return found.float()
