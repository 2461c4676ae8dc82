"""The residual stream at the explained position as the sum of what was written into it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tl_jacobian.errors import HookPointError
from tl_jacobian.frozen_norm import FrozenNorm, freeze
from tl_jacobian.linearization import Linearization
from tl_jacobian.precision import exact

_STREAM = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|mid|post)")
# Within a block: where the stream is cut, and who writes after that.
_CUTS = {"pre": 0, "mid": 1, "post": 2}
_WRITERS = {"hook_attn_out": 0, "hook_mlp_out": 1}


@dataclass(frozen=True, eq=False)
class Stream:
    """What the explained activation is made of.

    Attributes:
        parts: by name, what each component wrote at the explained position; float64.
        hooks: of those that have one, their hook point.
        total: the residual stream there.
        norm: from there to y, at the scale it had.
    """

    parts: dict[str, Float[Tensor, " d_model"]]
    hooks: dict[str, str]
    total: Float[Tensor, " d_model"]
    norm: FrozenNorm


def stream_of(lin: Linearization) -> Stream:
    """Take the residual stream at y apart.

    Raises:
        HookPointError: components weren't recorded, or the input or output isn't the residual stream.
        UnsupportedModelError: the final norm isn't one.
    """
    start, stop = _edge(lin.input_hook, first=True), _edge(lin.output_hook, first=False)
    name = "embed" if lin.input_hook == "hook_embed" else lin.input_hook
    parts = {name: exact(lin.graph.x.detach()[lin.prompt_row, lin.position])}
    hooks = {}
    if lin.input_hook == "hook_embed" and "hook_pos_embed" in lin.taps:
        parts["pos_embed"] = exact(lin.taps["hook_pos_embed"][lin.position])
    for tap in lin.taps:
        if (place := _writer(tap)) is not None and start <= place < stop:
            hooks[_name(tap)] = tap
            parts[_name(tap)] = exact(lin.taps[tap][lin.position])
    _check_complete(lin, hooks, start, stop)
    y = lin.graph.y.detach()[lin.row]
    total = lin.resid if lin.output_hook is None and lin.resid is not None else y
    affine = None if lin.output_hook or lin.anatomy is None else lin.anatomy.final_norm()
    return Stream(parts, hooks, exact(total), freeze(total, y, affine, "the final norm"))


def _edge(hook: str | None, *, first: bool) -> tuple[int, int]:
    """Where the stream is cut, as (layer, how many of its writers come before)."""
    if hook == ("hook_embed" if first else None):
        return (-1, 0) if first else (10**9, 0)
    if match := _STREAM.fullmatch(str(hook)):
        return int(match[1]), _CUTS[match[2]]
    raise HookPointError(
        f"{hook} isn't the residual stream, so it isn't a sum of what components wrote: expected "
        f"{'hook_embed or ' if first else ''}blocks.L.hook_resid_pre, _mid or _post"
    )


def _writer(tap: str) -> tuple[int, int] | None:
    """(layer, order within it) of a component that writes into the stream."""
    match = re.fullmatch(r"blocks\.(\d+)\.(hook_attn_out|hook_mlp_out)", tap)
    return (int(match[1]), _WRITERS[match[2]]) if match else None


def _name(tap: str) -> str:
    """``"blocks.3.hook_attn_out"`` as ``"3.attn"``."""
    _, layer, hook = tap.split(".")
    return f"{layer}.{hook.removeprefix('hook_').removesuffix('_out')}"


def _check_complete(lin: Linearization, hooks: dict[str, str], start: tuple[int, int], stop: tuple[int, int]) -> None:
    n_layers = lin.anatomy.n_layers if lin.anatomy is not None else 0
    for layer in range(n_layers):
        for hook, order in _WRITERS.items():
            tap = f"blocks.{layer}.{hook}"
            if start <= (layer, order) < stop and tap not in hooks.values():
                raise HookPointError(
                    f"{tap} wasn't recorded, so the parts wouldn't add up: call linearize(model, prompt, "
                    'record=["components"]), or record=True'
                )
