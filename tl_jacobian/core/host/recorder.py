"""The hooks of one recorded forward pass, and what they saw, in the shape in which TransformerLens shows it.

TransformerBridge's raw activations may have another shape than its hooks see (heads side by side,
say); its hook points carry the conversion.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from tl_jacobian.core.cancel import stop_if_asked
from tl_jacobian.core.hooks import Z, is_square, layer_of, parsed
from tl_jacobian.core.host.base import Trace, Watch
from tl_jacobian.core.linalg.blockwise import leaf
from tl_jacobian.errors import ContractError, HookPointError


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
    layers, asked = {n for n in map(layer_of, names) if n is not None}, layer_of(str(name))
    if asked is not None and layers and asked not in layers:
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


Cut = Literal["norm", "unembed", "never"]


@dataclass(frozen=True)
class Places:
    """The explained positions.

    Attributes:
        n_pos: length of the padded prompts.
        rows, positions: of each explained position, its prompt and its place there.
    """

    n_pos: int
    rows: Int[Tensor, " outputs"]
    positions: Int[Tensor, " outputs"]

    def choose(self, hidden: Tensor) -> Tensor:
        """The explained positions of a ``(batch, pos, ...)`` activation, as ``(outputs, 1, ...)``."""
        chosen = hidden[self.rows.to(hidden.device), self.positions.to(hidden.device)]
        return rearrange(chosen, "outputs ... -> outputs 1 ...")


class Recorder:
    """Hooks of one forward pass, and what they saw.

    Args:
        places: the explained positions.
        watch: which activations x and y are, and which others to keep.
        cut: before which module the other positions are dropped.
        n_heads: the model's, into which heads' outputs are cut; 0: as the hook point cuts them.
        lift: makes the activation at the source what x is made of: in float32, say.
    """

    def __init__(
        self,
        places: Places,
        watch: Watch,
        cut: Cut,
        n_heads: int = 0,
        lift: Callable[[Tensor], Tensor] = lambda activation: activation,
    ) -> None:
        self.places = places
        self.n_heads = n_heads
        self.watch = watch
        self.cut = cut
        self.lift = lift
        self.x: Tensor | None = None
        self.y: Tensor | None = None
        self.resid: Tensor | None = None
        self.final: Tensor | None = None
        self.between: list[Tensor] = []
        self.taps: dict[str, Tensor] = {}
        self.odd: dict[str, tuple[int, ...]] = {}
        self.open = True  # a recomputed block runs these hooks again: then they keep nothing

    # -- the hooks -------------------------------------------------------------------

    def source(self, point: nn.Module, args: Any, output: Tensor) -> Tensor:
        """x: everything from here on is a function of it."""
        seen = self.lift(shown(point, output))
        own = rearrange(self._positioned(self.watch.source, seen), "batch pos ... -> batch pos (...)")
        x = leaf(own if self.watch.value is None else self._given(own))
        if self.open:
            self.x = x
        return raw(point, x.clone().view_as(seen))  # a hook may change it in place, which a leaf forbids

    def _given(self, own: Tensor) -> Tensor:
        """The caller's value in the place of the activation."""
        value = self.watch.value
        assert value is not None
        if value.shape != own.shape:
            raise HookPointError(
                f"the value for {self.watch.source} has shape {tuple(value.shape)}, expected {tuple(own.shape)}"
            )
        return value.to(own, copy=True)

    def output(self, point: nn.Module, args: Any, output: Tensor) -> Tensor:
        """y, where it isn't the unembedding's input. What follows can't matter, so it isn't recorded."""
        seen = self._positioned(str(self.watch.output), shown(point, output))
        y = rearrange(
            self.places.choose(seen), "outputs 1 ... -> outputs (...)"
        )  # also when recomputed: the same graph must come out
        if self.open:
            self.y = y
        return output.detach()

    def tap(self, name: str, point: nn.Module, args: Any, output: Tensor) -> Tensor:
        """An activation on the way; a view, so that its gradient is that of what reads it *here*."""
        if self.n_heads and parsed(name).path == Z and output.ndim == 3 and output.shape[2] % self.n_heads == 0:
            seen = rearrange(output, "batch pos (head d) -> batch pos head d", head=self.n_heads)
            back = rearrange(seen, "batch pos head d -> batch pos (head d)")
        else:
            seen = shown(point, output)
            seen = seen.view_as(seen)
            back = raw(point, seen)
        if not self._fits(name, seen):
            return output
        if self.open:
            self.taps[name] = seen
        return back

    def _fits(self, name: str, seen: Tensor) -> bool:
        """Whether an activation has its tokens where they are expected; where it needn't, a note is made."""
        if is_square(name):
            return True
        if self.watch.named is None or name in self.watch.named:
            self._positioned(name, seen)
        elif not self._has_positions(seen):
            self.odd[name] = tuple(seen.shape)
            return False
        return True

    def passing(self, name: str, point: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        """The residual stream where a hook point sees it pass: itself, so that its gradient is that of all its readers.

        On TransformerBridge hook_resid_mid is the input of a norm, and the stream goes on beside it.
        """
        if self.open and self._fits(name, args[0]):
            self.taps[name] = args[0]

    def block(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        stop_if_asked()
        stream = (v for v in (*args, *kwargs.values()) if isinstance(v, Tensor) and v.requires_grad)
        if self.open and (first := next(stream, None)) is not None:
            self.between.append(first)

    def final_norm(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        chosen = self.places.choose(args[0])
        self.resid = chosen[:, 0].detach()
        return (chosen, *args[1:]) if self.cut == "norm" else None

    def unembed(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        done = self.cut == "norm" and self.resid is not None
        chosen = args[0] if done else self.places.choose(args[0])
        self.final = chosen[:, 0]
        return (chosen, *args[1:]) if self.cut != "never" else None

    # -- what they saw ---------------------------------------------------------------

    def _positioned(self, name: str, seen: Tensor) -> Float[Tensor, "batch pos *d"]:
        """Refuse activations that aren't ``(batch, pos, ...)`` for every position."""
        if is_square(name) or not self._has_positions(seen):
            late = name.startswith(("ln_final", "unembed"))
            why = "it comes after the final norm, where y is" if late else "tl_jacobian can't tell its positions"
            raise HookPointError(
                f"activations at {name} have shape {tuple(seen.shape)}, expected (batch, {self.places.n_pos} "
                f"positions, ...): {why}; choose a hook point inside the blocks"
            )
        return seen

    def _has_positions(self, seen: Tensor) -> bool:
        return seen.ndim >= 3 and seen.shape[1] == self.places.n_pos

    def trace(self, logits: Tensor) -> Trace:
        """Everything that was seen; the recorder lets go of it."""
        y = self.final if self.watch.output is None else self.y
        if self.x is None or y is None or self.final is None:
            missing = self.watch.source if self.x is None else self.watch.output if y is None else None
            raise ContractError(
                f"the forward pass never reached {missing or 'the unembedding'}; can't linearise this model there"
            )
        if self.cut == "never":
            logits = self.places.choose(logits)
        found = Trace(
            x=self.x,
            resid=self.resid,
            y=y,
            logits=logits[:, 0].detach(),
            between=tuple(self.between),
            final=self.final.detach(),
            taps=self.taps,
            odd=self.odd,
        )
        self.open, self.x, self.y, self.final, self.between, self.taps = False, None, None, None, [], {}
        return found
