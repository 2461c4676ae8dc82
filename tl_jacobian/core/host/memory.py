"""How much memory a transformer's linearization takes, from the numbers of its config, and how much can be had now.

Every constant is an upper bound on what was counted, allocation by allocation, on seven
architectures in three precisions, and tests/core/host/test_footprint.py holds them to it; what
processes really take is measured by benchmarks/memory.py. For each block, and per token:

- a transformer block keeps some numbers of the residual stream's, the heads' and the MLP's
  width, and for each head at least one attention pattern, a number for each pair of tokens;
- one direction on its way back has three such matrices alive at once, and recording the
  backward pass (for Jacobian-vector products) two more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

from tl_jacobian.core.hooks import is_square
from tl_jacobian.core.host.blocked import block_bytes
from tl_jacobian.core.linalg.fisher import BLOCK
from tl_jacobian.core.memory import Footprint

_CGROUPS = Path("/sys/fs/cgroup")
# Files of a container's limit, its use, and its statistics with the name there of file pages that
# the kernel would give up: control groups version 2, then version 1.
_LAYOUTS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def available(devices: Iterable[torch.device]) -> int:
    """Bytes free on all the devices together, those that PyTorch holds but doesn't use included."""
    cuda, others = [], []
    for device in devices:
        (cuda if device.type == "cuda" else others).append(device)
    return sum(map(_on_cuda, cuda)) + (_on_host() if others else 0)


def _on_cuda(device: torch.device) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _on_host() -> int:
    limits = [left for layout in _LAYOUTS if (left := _in_container(_CGROUPS, *layout)) is not None]
    return min([psutil.virtual_memory().available, *limits])


def _in_container(root: Path, limit: str, used: str, statistics: str, reclaimable: str) -> int | None:
    """Bytes that a container's limit leaves; None without one."""
    try:
        left = int((root / limit).read_text()) - int((root / used).read_text())
        rows = dict(line.split() for line in (root / statistics).read_text().splitlines())
    except (OSError, ValueError):  # no such files, or no limit ("max")
        return None
    return max(0, left + int(rows.get(reclaimable, 0)))


_STREAM, _HEADS, _GATED_MLP, _PLAIN_MLP = 5, 4, 3, 4  # what a block keeps, in widths
_RUN_PATTERNS = 4  # where nothing is recorded: scores, masked scores, softmax and what is made of it
_AGAIN = 4  # recording a block's backward pass, in what the block keeps
_DIRECTION_STREAM, _DIRECTION_MLP = 8, 4  # one direction on its way back, in widths
_DIRECTION_PATTERNS, _AGAIN_PATTERNS = 3, 2
# Where attention is computed in blocks of queries, in the size of a block's scores.
_RUN_IN_BLOCKS, _DIRECTION_IN_BLOCKS, _AGAIN_IN_BLOCKS, _HOLES_IN_BLOCKS = 3, 4, 5, 3
# There a direction is never at attention's and the MLP's widest point together.
_DIRECTION_STREAM_IN_BLOCKS, _DIRECTION_MLP_IN_BLOCKS, _AGAIN_WIDE_IN_BLOCKS = 5, 3, 2.5
_ENDS = 6  # outside the blocks, in widths of the residual stream
_LOGITS = 4  # logits, ours and the model's, their difference
# Freed memory that needn't be given back, around each recomputed block's input, in widths of the residual stream.
_HOLES = 0.5
_MARGIN = 1.25


class Habits(NamedTuple):
    """What a host does that its config doesn't tell.

    Attributes:
        softmax_bytes: a number of an attention pattern inside the softmax; 0: as the model's.
        scrubs: whether NaN are looked for in the pattern, which keeps it twice and a flag.
        copies_weights: whether blocks keep rearranged copies of their weights.
        mask_bytes: what its masks take for every two positions, where patterns are never made.
    """

    softmax_bytes: int
    scrubs: bool
    copies_weights: bool
    mask_bytes: int


class Sizes(NamedTuple):
    """A forward pass: n_prompts of n_pos tokens, y wanted at n_outputs of them."""

    n_prompts: int
    n_pos: int
    n_outputs: int
    d_vocab: int
    itemsize: int

    @property
    def tokens(self) -> int:
        return self.n_prompts * self.n_pos

    @property
    def precise(self) -> int:
        """Bytes of a number where half precision isn't enough."""
        return max(self.itemsize, 4)


def footprint(
    cfg: Any,
    sizes: Sizes,
    habits: Habits,
    taps: Sequence[str] = (),
    in_blocks: bool = False,
    on_cpu: bool = True,
) -> Footprint:
    """Bytes of a TransformerLens model's linearization that keeps the activations at ``taps`` too.

    Args:
        in_blocks: whether attention is computed in blocks of queries.
        on_cpu: whether freed memory may stay with the C library, which PyTorch's allocator for a GPU has again itself.
    """
    wide, patterns = _block_widths(cfg, sizes), sizes.n_prompts * cfg.n_heads * sizes.n_pos**2
    if in_blocks:
        return _in_blocks(cfg, sizes, habits, taps, wide, patterns, on_cpu)
    softmax = max(habits.softmax_bytes or sizes.itemsize, sizes.itemsize)
    capped = sizes.itemsize if (getattr(cfg, "attn_scores_soft_cap", None) or 0) > 0 else 0
    copied = habits.copies_weights * _block_weights(cfg) * sizes.itemsize
    block = wide + patterns * (_pattern(sizes.itemsize, habits) + capped) + sizes.n_pos**2
    return _footprint(
        cfg,
        sizes,
        habits,
        taps,
        block=block + copied,
        run=wide + patterns * (_RUN_PATTERNS * softmax + capped) + copied,
        again=_AGAIN * wide + patterns * (_AGAIN_PATTERNS * softmax + capped),
        direction=_direction(cfg, sizes) + patterns * _DIRECTION_PATTERNS * softmax,
        work=0,
        holes=left_free(cfg, sizes) * on_cpu,
        mask=3 * sizes.itemsize,
    )


def _in_blocks(
    cfg: Any, sizes: Sizes, habits: Habits, taps: Sequence[str], wide: int, patterns: int, on_cpu: bool
) -> Footprint:
    """Of patterns there is a block at a time, whatever the number of directions."""
    block = min(block_bytes(on_cpu), patterns * sizes.itemsize)
    copied = habits.copies_weights * _block_weights(cfg) * sizes.itemsize
    return _footprint(
        cfg,
        sizes,
        habits,
        taps,
        block=wide + copied,
        run=wide + copied + _RUN_IN_BLOCKS * block,
        again=int(_AGAIN_WIDE_IN_BLOCKS * wide) + _AGAIN_IN_BLOCKS * block,
        direction=_direction(cfg, sizes, _DIRECTION_STREAM_IN_BLOCKS, _DIRECTION_MLP_IN_BLOCKS),
        work=_DIRECTION_IN_BLOCKS * block,
        holes=(left_free(cfg, sizes) + _HOLES_IN_BLOCKS * block) * on_cpu,
        mask=habits.mask_bytes,
    )


def _footprint(cfg: Any, sizes: Sizes, habits: Habits, taps: Sequence[str], mask: int, **parts: int) -> Footprint:
    """With what doesn't depend on attention; ``mask``: bytes that masks take for every two positions."""
    masks = mask * sizes.n_prompts * sizes.n_pos**2
    parts |= dict(
        ends=masks + _ends(cfg, sizes) + sum(_tap(cfg, sizes, name) for name in taps),
        stream=sizes.tokens * cfg.d_model * sizes.itemsize,
        head=_head(cfg, sizes, habits),
    )
    return Footprint(n_blocks=cfg.n_layers, **{name: int(_MARGIN * size) for name, size in parts.items()})


def left_free(cfg: Any, sizes: Sizes) -> int:
    """Bytes that may stay free in the C library's heap while blocks are run again (:class:`~.heap.Heap`)."""
    return int(_HOLES * cfg.n_layers * sizes.tokens * cfg.d_model * sizes.itemsize)


def _block_widths(cfg: Any, sizes: Sizes) -> int:
    heads, mlp = cfg.n_heads * cfg.d_head, _GATED_MLP if getattr(cfg, "gated_mlp", False) else _PLAIN_MLP
    rounded = _HEADS * heads + mlp * _d_mlp(cfg)
    return sizes.tokens * (_STREAM * cfg.d_model * sizes.precise + rounded * sizes.itemsize)


def _pattern(itemsize: int, habits: Habits) -> int:
    """What one number of an attention pattern keeps: the softmax's result, cast, scrubbed."""
    softmax = habits.softmax_bytes or itemsize
    cast = itemsize if softmax != itemsize else 0
    return softmax + cast + (itemsize + 1) * habits.scrubs


def _block_weights(cfg: Any) -> int:
    gated = 3 * cfg.d_model * _d_mlp(cfg) if getattr(cfg, "gated_mlp", False) else 0
    return 4 * cfg.d_model * cfg.n_heads * cfg.d_head + gated


def _ends(cfg: Any, sizes: Sizes) -> int:
    return (_ENDS * sizes.tokens * cfg.d_model + _LOGITS * sizes.n_outputs * sizes.d_vocab) * sizes.precise


def _tap(cfg: Any, sizes: Sizes, name: str) -> int:
    """One recorded activation, and its gradient. Inside attention and MLP they may be wider than the stream."""
    if is_square(name):
        return 2 * sizes.n_prompts * cfg.n_heads * sizes.n_pos**2 * sizes.itemsize
    inner = max(cfg.d_model, cfg.n_heads * cfg.d_head, _d_mlp(cfg) if ".mlp." in name else 0)
    return 2 * sizes.tokens * inner * sizes.itemsize


def _direction(cfg: Any, sizes: Sizes, stream: int = _DIRECTION_STREAM, mlp: int = _DIRECTION_MLP) -> int:
    spread = 2 * sizes.n_outputs * cfg.d_model  # the direction itself, for each output
    back = sizes.tokens * (stream * cfg.d_model + mlp * _d_mlp(cfg))
    return (spread + back) * sizes.precise


def _head(cfg: Any, sizes: Sizes, habits: Habits) -> int:
    """A copy of the unembedding; later Fisher's factor, a block of the vocabulary at a time."""
    copied = habits.copies_weights * cfg.d_model * sizes.d_vocab * sizes.itemsize
    columns = min(sizes.d_vocab, BLOCK)
    return max(copied, (4 * columns * cfg.d_model + 3 * 32 * sizes.d_vocab) * sizes.precise)


def _d_mlp(cfg: Any) -> int:
    experts = getattr(cfg, "experts_per_token", None) or 1
    return experts * (getattr(cfg, "d_mlp", None) or 4 * cfg.d_model)
