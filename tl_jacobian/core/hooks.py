"""Names of hook points, what ``linearize(record=...)`` keeps of them, and activations as one prompt sees them.

The grammar of TransformerLens's names is here alone: ``"blocks.3.attn.hook_z"`` is ``"attn.hook_z"`` of block 3, and
what has no block, such as ``"hook_embed"``, is a name as it stands.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from tl_jacobian.errors import ArgumentError, HookPointError

EMBED, POS_EMBED = "hook_embed", "hook_pos_embed"
# In each block, in the order in which the residual stream meets them. Parallel blocks (Pythia, Phi) have no RESID_MID.
RESID_PRE, RESID_MID, RESID_POST = "hook_resid_pre", "hook_resid_mid", "hook_resid_post"
Q, K, V = "attn.hook_q", "attn.hook_k", "attn.hook_v"
PATTERN, Z, MLP_POST = "attn.hook_pattern", "attn.hook_z", "mlp.hook_post"
ATTN_OUT, MLP_OUT = "hook_attn_out", "hook_mlp_out"
# What takes attention's place in other models (state spaces, convolutions, linear attention), stands beside it
# (Falcon-H1), or follows the MLP (RWKV's channel mixing instead of one, Gemma's per-layer embeddings).
MIXERS = (
    "hook_mixer_out",
    "hook_time_mix_out",
    "linear_attn.hook_out",
    "mamba.hook_out",
    "conv.hook_out",
    "shortconv.hook_out",
)
FURTHER = ("hook_channel_mix_out", "post_per_layer_input_norm.hook_out")
WRITERS = {**dict.fromkeys((ATTN_OUT, *MIXERS), 0), **dict.fromkeys((MLP_OUT, *FURTHER), 1)}
_ORDER = (RESID_PRE, Q, K, V, PATTERN, Z, ATTN_OUT, *MIXERS, RESID_MID, MLP_POST, MLP_OUT, *FURTHER)
# TransformerBridge's own names of what has another one on every host.
_NATIVE = {"hook_in": RESID_PRE, "hook_out": RESID_POST, "attn.o.hook_in": Z}
_BLOCK = re.compile(r"blocks\.(-?\d+)\.(.+)")


class HookName(NamedTuple):
    """A hook point's name in its parts.

    Attributes:
        layer: number of the block; None outside of blocks.
        path: where in the block.
    """

    layer: int | None
    path: str

    @property
    def kind(self) -> str:
        """What is seen there: ``"z"`` at ``"attn.hook_z"``."""
        return self.path.rsplit(".", 1)[-1].removeprefix("hook_")


def parsed(name: str) -> HookName:
    """The parts of a name; TransformerBridge's own names are read as those that every host has.

    >>> parsed("blocks.3.attn.hook_z"), parsed("hook_embed").layer
    (HookName(layer=3, path='attn.hook_z'), None)
    >>> parsed("blocks.3.hook_out")
    HookName(layer=3, path='hook_resid_post')
    """
    match = _BLOCK.fullmatch(name)
    return HookName(int(match[1]), _NATIVE.get(match[2], match[2])) if match else HookName(None, name)


def layer_of(name: str) -> int | None:
    """Number of the block that a hook point is in; None outside of blocks."""
    return parsed(name).layer


def in_block(layer: int, path: str) -> str:
    """The hook point at ``path`` in a block.

    >>> in_block(3, Z)
    'blocks.3.attn.hook_z'
    """
    return f"blocks.{layer}.{path}"


# What can be recorded together.
GROUPS = {
    "resid": (RESID_PRE, RESID_MID, RESID_POST),
    "components": (POS_EMBED, ATTN_OUT, *MIXERS, MLP_OUT, *FURTHER),
    "heads": (Z,),
    "sources": (V, PATTERN),
}
# Parts of a group.
_PARTS = {parsed(path).kind: (path,) for path in (RESID_PRE, RESID_MID, RESID_POST, ATTN_OUT, MLP_OUT)}
Record = Annotated[
    bool | str | Sequence[str] | None,
    f"True, or a list of {', '.join(map(repr, GROUPS))} or names of hook points",
]


def wanted(record: Record, points: Iterable[str], option: str = "record") -> tuple[list[str], set[str]]:
    """Names of the hook points to record, in the model's order, and which of them were asked for by name.

    A group may also be ``"resid_pre"`` and the like, a name ``"5.resid_pre"``, as grids label their rows.

    >>> wanted("resid", ["hook_embed", "blocks.0.hook_resid_post", "blocks.0.hook_resid_pre"])[0]
    ['blocks.0.hook_resid_pre', 'blocks.0.hook_resid_post']
    """
    asked = _asked(record)
    for name in asked:
        if not isinstance(name, str):
            groups = ", ".join(map(repr, GROUPS))
            raise ArgumentError(f"{option}={record!r}, expected True, or a list of {groups} or names of hook points")
    points = list(points)
    known = GROUPS | _PARTS
    paths = {path for name in asked for path in known.get(name, ())}
    by_name = {full_name(points, name) for name in asked if name not in known}
    for name in by_name:
        if "." not in name and name not in points:  # no hook point looks like that: a group was meant
            groups = ", ".join(map(repr, known))
            raise HookPointError(
                f"{option}={record!r}: {name!r} is neither a group ({groups}) nor the name of a hook point"
            )
    found = {point for point in points if parsed(point).path in paths and not _doubles(point, points)}
    return sorted(found | by_name, key=place), by_name


def _doubles(point: str, points: Collection[str]) -> bool:
    """Whether a hook point's name is TransformerBridge's own for one that is there under another."""
    return _canonical(point) != point and _canonical(point) in points


def _asked(record: Any) -> list[Any]:
    """Groups and names as a list."""
    if record is None or isinstance(record, bool):
        return list(GROUPS) if record else []
    return [*record] if isinstance(record, Iterable) and not isinstance(record, str) else [record]


def label_of(name: str) -> str:
    """``"blocks.3.hook_resid_pre"`` as ``"3.resid_pre"``."""
    return name.removeprefix("blocks.").replace("hook_", "")


def full_name(points: Collection[str], name: str) -> str:
    """The hook point that a name or a label stands for; a name that is neither as it is.

    >>> full_name(["blocks.3.hook_resid_pre"], "3.resid_pre")
    'blocks.3.hook_resid_pre'
    """
    if name in points:
        return name
    meant = _canonical(name)
    return next((p for p in points if name in (label_of(p), label_of(_canonical(p))) or _canonical(p) == meant), name)


def _canonical(name: str) -> str:
    """A name as every host has it."""
    layer, path = parsed(name)
    return name if layer is None else in_block(layer, path)


def is_square(name: str) -> bool:
    """Whether activations there are attention's ``(batch, head, to, from)``; all others are ``(batch, pos, ...)``."""
    return parsed(name).kind in ("pattern", "attn_scores")


def place(name: str) -> tuple[int, int, str]:
    """Sorts hook points by layer, then by their order within a block."""
    layer, path = parsed(name)
    return -1 if layer is None else layer, _ORDER.index(path) if path in _ORDER else len(_ORDER), name


def check_reached(by_name: Iterable[str], taps: Mapping[str, Tensor]) -> None:
    """Refuse hook points that were asked for by name and saw no activation."""
    for name in by_name:
        if name not in taps:
            raise HookPointError(
                f"{name} exists but wasn't reached in the forward pass: some hook points fire only when the model is "
                "told to (use_attn_result, use_split_qkv_input, ...); switch it on, or record another"
            )


@dataclass(frozen=True, eq=False)
class Taps(Mapping[str, Tensor]):
    """A mapping from hook points to activations, ``(pos, ...)``; attention patterns are ``(head, pos, pos)``.

    Labels of grids' rows (``"3.resid_pre"``) are as good as full names.

    Attributes:
        recorded: the whole batch's activations, attached to the graph.
        row: this prompt's.
        n_pos: how many of its tokens can matter.
        odd: shapes of activations that a group would hold and that don't have one value a token: left out.
        points: the model's hook points, where anything was recorded.
    """

    recorded: Mapping[str, Tensor] = field(repr=False)
    row: int = 0
    n_pos: int = 0
    odd: Mapping[str, tuple[int, ...]] = field(default_factory=dict, repr=False)
    points: tuple[str, ...] = field(default=(), repr=False)

    def __getitem__(self, name: str) -> Float[Tensor, "*activation"]:
        return self.cut(name, self.tensor(name).detach())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.full_name(name) in self.recorded

    def __iter__(self) -> Iterator[str]:
        return iter(self.recorded)

    def __len__(self) -> int:
        return len(self.recorded)

    def get(self, name: str, default: Any = None) -> Any:
        """The activation, or ``default`` where it wasn't recorded."""
        try:
            return self[name]
        except HookPointError:
            return default

    def full_name(self, name: str) -> str:
        """The recorded hook point that a label stands for; other names as they are."""
        return full_name(self.recorded, name)

    def tensor(self, name: str) -> Tensor:
        """The whole batch's activation, attached to the graph.

        Raises:
            HookPointError: it wasn't recorded.
        """
        if (found := self.recorded.get(self.full_name(name))) is not None:
            return found
        if name in self.odd:
            raise HookPointError(
                f"{name} was left out of what was recorded: its activations have shape {self.odd[name]}, expected "
                "(batch, positions, ...), one for each token; choose another hook point"
            )
        near = difflib.get_close_matches(str(name), list(self.recorded), n=1, cutoff=0.0)
        hint = f" (the nearest that was: {near[0]!r})" if near else ""
        raise HookPointError(
            f"{name!r} wasn't recorded{hint}; ask for it: linearize(model, prompt, record=[{str(name)!r}]), or "
            "record=True for all that the drill-down uses"
        )

    def cut(self, name: str, batch: Tensor) -> Float[Tensor, "*activation"]:
        """This prompt's part of an activation, or of its gradient: ``(*k, batch, ...)`` to ``(*k, ...)``."""
        lead = batch.ndim - self.tensor(name).ndim
        mine = batch.select(lead, self.row)
        if is_square(self.full_name(name)):
            return mine.narrow(lead + 1, 0, self.n_pos).narrow(lead + 2, 0, self.n_pos)
        return mine.narrow(lead, 0, self.n_pos)
