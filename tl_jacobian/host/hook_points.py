"""Hook points by name, and activations in the shape in which TransformerLens shows them.

TransformerBridge's raw activations may have another shape than its hooks see (heads side by side,
say); its hook points carry the conversion.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from tl_jacobian.errors import HookPointError


def hook_point(points: Mapping[str, nn.Module], name: str) -> nn.Module:
    """The hook point of that name.

    Raises:
        HookPointError: there is none; names the nearest, or the range of layers.
    """
    if isinstance(name, str) and name in points:
        return points[name]
    raise HookPointError(f"this model has no hook point {name!r}{_hint(points, name)}")


def _hint(points: Iterable[str], name: Any) -> str:
    names = list(points)
    layers = {int(m[1]) for n in names if (m := re.match(r"blocks\.(\d+)\.", n))}
    asked = re.match(r"blocks\.(-?\d+)\.", str(name))
    if asked and layers and int(asked[1]) not in layers:
        return f": its layers are 0 to {max(layers)}"
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else "; model.hook_dict lists them all"


def shown(point: nn.Module, activation: Tensor) -> Tensor:
    """An activation as hooks see it: ``(batch, pos, head, d_head)`` for attention heads, on every host."""
    conversion = getattr(point, "hook_conversion", None)
    return activation if conversion is None else conversion.convert(activation)


def raw(point: nn.Module, activation: Tensor) -> Tensor:
    """Back to what the model goes on with."""
    conversion = getattr(point, "hook_conversion", None)
    return activation if conversion is None else conversion.revert(activation)
