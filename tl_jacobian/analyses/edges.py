"""Edge attribution: what sending one component's clean output to one later component alone would do, for every pair.

To first order the effect of an edge is the change that the sender writes into the residual stream, times the metric's
gradient in what the receiver reads there (arXiv 2310.10348): with D_s = clean minus corrupted output of s, as it is
written, and G_r = the gradient that comes back through r alone, sum_t D_s,t . G_r,t. One forward and backward pass of
the corrupted prompt gives the gradient at every component's output; from there to what it reads is a product with its
own Jacobian alone. Path patching (arXiv 2304.05969) measures an edge: the receiver's output is computed with D_s added
to what it reads, and put into the corrupted run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.analyses.patching import Aim, Metric, PromptPair, aim_of, named
from tl_jacobian.core.hooks import MLP_OUT, RESID_MID, RESID_POST, RESID_PRE, K, Q, V, Z, in_block
from tl_jacobian.core.host.backward import Rule
from tl_jacobian.core.host.hosts import resolve
from tl_jacobian.core.host.precision import Precision
from tl_jacobian.core.linearize import model_first
from tl_jacobian.core.progress import is_watched
from tl_jacobian.core.progress import progress as bar_of
from tl_jacobian.core.prompts import Target
from tl_jacobian.core.unembedding import precise
from tl_jacobian.errors import ArgumentError, HookPointError, UnsupportedModelError
from tl_jacobian.results.arguments import checked, excerpt, whole
from tl_jacobian.results.edges import Edge, EdgeAttribution
from tl_jacobian.results.grid import Cell, Grid


class Layer(NamedTuple):
    """Hook points of one block.

    Attributes:
        reads: the stream that attention reads; ``mlp_reads`` that its MLP reads, the same in parallel blocks.
        after: the stream behind the heads' output.
    """

    number: int
    reads: str
    mlp_reads: str
    z: str
    mlp_out: str
    after: str


@model_first
@checked
def edge_attribution(
    model: Any,
    clean: Any,
    corrupted: Any,
    *,
    target: Target | None = None,
    minus: Target | None = None,
    metric: Metric | None = None,
    check: int | Sequence[Any] = 10,
    progress: bool = True,
    clean_cache: Any = None,
    corrupted_cache: Any = None,
    prepend_bos: bool | None = None,
    precision: Precision = None,
    rule: Rule = None,
) -> EdgeAttribution:
    """Predicted effects of all edges among heads, MLPs and the logits, the largest of them checked by path patching.

    A head as a receiver reads the stream through its queries, keys and values together; what grouped heads share counts
    for each.

    Args:
        model, clean, corrupted: as for :func:`predict_patching`; so are target, minus, metric, the caches and the rest.
            Under a ``rule`` with frozen attention a head's edges are those into its values, as in attribution graphs.
        check: how many of the largest edges to measure, two runs each; 0: none. Or which: pairs of a sender and a
            receiver, such as ``("L3H5", "L7MLP")``, or edges as :meth:`EdgeAttribution.top` hands them out.
        progress: whether a bar on stderr shows how far measuring is, where a terminal is there and it takes long.

    Returns:
        Senders x receivers, in units of the metric. A row adds up to the effect of patching the sender for everybody.

    Raises:
        ArgumentError: ``check`` has an edge that isn't there; names the nearest.
        HookPointError: the model doesn't show its heads' outputs, its MLPs' and the stream between them.

    >>> import tl_jacobian as tj
    >>> pair = "The capital of France is", "The capital of Italy is"
    >>> e = edge_attribution(tj.load_demo_model(), *pair, check=1)
    >>> e.effects.values.shape, e.checked[0].predicted * e.checked[0].measured > 0
    (torch.Size([300, 301]), True)
    """
    asked = check if isinstance(check, Sequence) else whole("check", check, 0)
    points = resolve(model, precision).hook_points()

    def made(paths: tuple[str, ...]) -> PromptPair:
        def names(layer: int) -> list[str]:
            return [n for path in paths if (n := in_block(layer, path)) in points or path not in (RESID_MID, *_QKV)]

        options: dict[str, Any] = dict(everywhere=callable(metric), caches=(clean_cache, corrupted_cache), rule=rule)
        return PromptPair(model, clean, corrupted, names, prepend_bos, precision, **options)

    try:
        pair = made((RESID_PRE, *_QKV, Z, RESID_MID, MLP_OUT, RESID_POST))
    except HookPointError:  # some models have such names and never reach them, or a cache hasn't kept them
        pair = made((RESID_PRE, Z, RESID_MID, MLP_OUT, RESID_POST))
    aim = aim_of(pair, target, minus, metric)
    edges = Edges(pair, aim)
    effects = edges.grid()
    after, before = pair.values(aim)
    found = []
    largest = isinstance(asked, int)
    cells = effects.top(asked, skip_first=False) if largest else [_edge(effects, one) for one in asked]
    with bar_of(len(cells), "path patches", hidden=not (progress and is_watched())) as bar:
        for cell in cells:
            measured = edges.measured(cell.row, cell.column_name) - before
            found.append(Edge(cell.row_name, cell.column_name, cell.value, measured))
            bar.update()
    return EdgeAttribution(
        effects=effects, checked=tuple(found), clean=after, corrupted=before, metadata=effects.metadata
    )


def _edge(effects: Grid, pair: Any) -> Cell:
    """The cell of an edge by its ends' names."""
    if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) < 2:
        raise ArgumentError(f"check has {excerpt(pair)}, expected a sender and a receiver: ('L0H0', 'logits')")
    row, column = named(pair[0], effects.rows, "sender", "check"), named(pair[1], effects.columns, "receiver", "check")
    value = effects.values[row, column].item()
    if math.isnan(value):
        raise ArgumentError(f"no edge leads from {pair[0]} to {pair[1]}: a receiver comes after its sender")
    return Cell(row, column, pair[0], pair[1], value)


class Edges:
    """All edges of one pair of prompts."""

    def __init__(self, pair: PromptPair, aim: Aim) -> None:
        self.pair, self.aim = pair, aim
        n = pair.host.anatomy(None).n_layers
        self.layers = [self._layer(i, n) for i in range(n)]
        self.grads, _, self.run = pair.gradients(aim, "gradient", 1)
        self.senders: list[str] = []
        self.receivers: list[str] = []
        self.written: Float[Tensor, "senders pos d_model"] = torch.cat(list(self._written()))

    def _layer(self, i: int, n: int) -> Layer:
        reads, z, mlp, mid, post = (in_block(i, path) for path in (RESID_PRE, Z, MLP_OUT, RESID_MID, RESID_POST))
        sequential = mid in self.pair.names
        if self.pair.taps[z].ndim != 4:
            raise HookPointError(f"{z} has shape {tuple(self.pair.taps[z].shape)}, expected (batch, pos, head, d_head)")
        return Layer(i, reads, mid if sequential else reads, z, mlp, mid if sequential else post)

    # -- what senders write ----------------------------------------------------------

    def _written(self) -> Iterator[Float[Tensor, "senders pos d_model"]]:
        """Clean minus corrupted, as it stands in the stream; heads first, then the MLP, layer by layer."""
        for layer in self.layers:
            clean, corrupted = self.pair.taps[layer.z]
            heads = clean.shape[1]
            self.senders += [f"L{layer.number}H{h}" for h in range(heads)]
            yield precise(self._by_head(layer, clean - corrupted))
            self.senders.append(f"L{layer.number}MLP")
            yield precise(self._of_mlp(layer))[None]

    def _by_head(self, layer: Layer, dz: Float[Tensor, "pos head d_head"]) -> Float[Tensor, "head pos d_model"]:
        """Through the output projection, where that alone stands behind a head; else the Jacobian of what does."""
        projection = self.pair.host.anatomy(None).output_projection(layer.number)
        z = self.pair.taps[layer.z][1]
        if projection is not None and projection.weight.shape[:2] == z.shape[1:]:
            weight = projection.weight.to(dz)
            bias = 0 if projection.bias is None else projection.bias.to(dz)
            taps = self.pair.taps
            wrote = torch.einsum("phi,hio->po", z, weight) + bias
            before, after = taps[layer.reads][1], taps[layer.after][1]
            if layer.after != layer.mlp_reads:  # a parallel block's MLP has written too
                after = after - taps[layer.mlp_out][1]
            if (after - before - wrote).norm() <= _ROUNDING * (after.norm() + before.norm()):
                return torch.einsum("phi,hio->hpo", dz, weight)
        start, end = (self.run.taps.tensor(name) for name in (layer.z, layer.after))
        return self.run.graph.push_between(start, end, _one_head_each(dz)[:, None])[:, 0]

    def _of_mlp(self, layer: Layer) -> Float[Tensor, "pos d_model"]:
        """What the MLP's difference is once it stands in the stream: a norm or a factor may follow it."""
        clean, corrupted = self.pair.taps[layer.mlp_out]
        start, end = (self.run.taps.tensor(name) for name in (layer.mlp_out, in_block(layer.number, RESID_POST)))
        if layer.after == layer.mlp_reads:
            after, before = self.pair.taps[in_block(layer.number, RESID_POST)][1], self.pair.taps[layer.mlp_reads][1]
            if (after - before - corrupted).norm() <= _ROUNDING * (after.norm() + before.norm()):
                return clean - corrupted
        return self.run.graph.push_between(start, end, (clean - corrupted)[None, None])[0, 0]

    # -- what receivers read ---------------------------------------------------------

    def _read(self) -> Iterator[tuple[list[str], int, Float[Tensor, "receivers pos d_model"]]]:
        """Names, how many senders come before, and the metric's gradient through each of them alone."""
        before = 0
        for layer in self.layers:
            heads = self.pair.taps[layer.z].shape[2]
            parallel = layer.mlp_reads == layer.reads
            of_mlp = self.by_mlp(layer)
            yield [f"L{layer.number}H{h}" for h in range(heads)], before, self._by_heads(layer, of_mlp)
            yield [f"L{layer.number}MLP"], before + (0 if parallel else heads), of_mlp[None]
            before += heads + 1
        yield ["logits"], before, precise(self.grads[in_block(self.layers[-1].number, RESID_POST)])[None]

    def by_mlp(self, layer: Layer) -> Float[Tensor, "pos d_model"]:
        """What comes back to the stream through the MLP: all less what passes it by, where that can be told."""
        if self._adds_up(layer) and layer.after == layer.mlp_reads:
            return precise(self.grads[layer.mlp_reads]) - precise(self.grads[in_block(layer.number, RESID_POST)])
        tensor = self.run.taps.tensor
        gm = self.grads[layer.mlp_out][None, None]
        return self._or_zeros(
            self.run.graph.between_many(tensor(layer.mlp_out), tensor(layer.mlp_reads), gm), layer.reads, 1
        )[0]

    def _by_heads(self, layer: Layer, of_mlp: Float[Tensor, "pos d_model"]) -> Float[Tensor, "heads pos d_model"]:
        """What comes back to the stream through each head."""
        found = self.by_groups(layer)
        if found is not None and self._is_all(layer, found.sum(0), of_mlp):
            return found
        return self.one_by_one(layer)

    def one_by_one(self, layer: Layer) -> Float[Tensor, "heads pos d_model"]:
        """A direction for each head, through all of attention."""
        tensor, gz = self.run.taps.tensor, self.grads[layer.z]
        found = self.run.graph.between_many(tensor(layer.z), tensor(layer.reads), _one_head_each(gz)[:, None])
        return self._or_zeros(found, layer.reads, gz.shape[1])

    def by_groups(self, layer: Layer) -> Float[Tensor, "heads pos d_model"] | None:
        """The same where queries, keys and values are seen, and no more than they lead back; None elsewhere.

        From z to them attention doesn't mix heads: those of different groups, which have keys and values of their own,
        share a direction. From there to the stream each head goes alone.
        """
        graph, tensor, gz = self.run.graph, self.run.taps.tensor, self.grads[layer.z]
        heads = gz.shape[1]
        ends = [tensor(name) for path in _QKV if (name := in_block(layer.number, path)) in self.pair.names]
        if not _are_heads(ends, heads) or not self._adds_up(layer):
            return None
        members = heads // ends[1].shape[2]
        member = torch.arange(heads, device=gz.device) % members
        apart = torch.stack([gz * (member == i)[None, :, None] for i in range(members)])
        found = graph.between_all([tensor(layer.z)], ends, [apart[:, None]])
        own = [(end, _own(g[:, 0], heads)[:, None]) for end, g in zip(ends, found, strict=True) if g is not None]
        (back,) = graph.between_all([end for end, _ in own], [tensor(layer.reads)], [g for _, g in own])
        return self._or_zeros(back, layer.reads, heads)

    def _adds_up(self, layer: Layer) -> bool:
        """Whether the stream behind a block is that before it plus what was written: then gradients do so, too."""
        post = in_block(layer.number, RESID_POST)
        fine = torch.finfo(self.grads[post].dtype).eps <= torch.finfo(torch.float32).eps
        before, after = self.pair.taps[layer.mlp_reads][1], self.pair.taps[post][1]
        wrote = self.pair.taps[layer.mlp_out][1]
        if layer.mlp_reads == layer.reads:
            return fine
        return fine and bool((after - before - wrote).norm() <= _ROUNDING * (after.norm() + before.norm()))

    def _is_all(
        self, layer: Layer, through: Float[Tensor, "pos d_model"], of_mlp: Float[Tensor, "pos d_model"]
    ) -> bool:
        """Whether nothing else leads from a block's attention back to the stream: a gate beside it, say."""
        before, after = precise(self.grads[layer.reads]), precise(self.grads[layer.after])
        rest = before - after - (of_mlp if layer.mlp_reads == layer.reads else 0)
        return bool((rest - through).norm() <= _ROUNDING * (before.norm() + after.norm()))

    def _or_zeros(self, found: Tensor | None, name: str, k: int) -> Float[Tensor, "k pos d_model"]:
        return self.grads[name].new_zeros(k, *self.grads[name].shape) if found is None else precise(found[:, 0])

    def grid(self) -> Grid:
        """Every edge's effect."""
        columns = []
        written = rearrange(self.written, "sender pos d -> sender (pos d)")
        for names, before, grads in self._read():
            self.receivers += names
            part = written.new_full((len(written), len(names)), torch.nan)
            part[:before] = written[:before] @ rearrange(grads, "receiver pos d -> (pos d) receiver").to(written)
            columns.append(part.cpu())
        return Grid(
            values=torch.cat(columns, dim=1).float(),
            rows=tuple(self.senders),
            columns=tuple(self.receivers),
            title=f"predicted effect of every edge on {self.aim.name}",
            quantity=f"change of {self.aim.name}",
            row_axis="sender",
            column_axis="receiver",
            signed=True,
            metadata={
                "clean": self.pair.ids[0],
                "corrupted": self.pair.ids[1],
                **self.aim.tokens,
                **self.pair.host.facts(),
            },
        )

    # -- path patching ---------------------------------------------------------------

    def measured(self, sender: int, receiver: str) -> float:
        """The metric with that edge patched."""
        change = self.written[sender][None]

        def add(stream: Tensor) -> Tensor:
            return stream + change.to(stream)

        if receiver == "logits":
            return self._metric({in_block(self.layers[-1].number, RESID_POST): add})
        number, head = receiver[1:].removesuffix("MLP"), None
        if "H" in number:
            number, head = number.split("H")
        layer = self.layers[int(number)]
        reads, out = (layer.mlp_reads, layer.mlp_out) if head is None else (layer.reads, layer.z)
        seen: list[Tensor] = []

        def keep(activation: Tensor) -> Tensor:
            seen.append(activation.clone())
            return activation

        self.pair.host.edited(self.pair.ids[1], {reads: add, out: keep})

        def put(activation: Tensor) -> Tensor:
            if head is None:
                return seen[0]
            if activation.ndim != 4:
                raise UnsupportedModelError(
                    f"{out} has shape {tuple(activation.shape)} for hooks, expected heads apart"
                )
            patched = activation.clone()
            patched[:, :, int(head)] = seen[0][:, :, int(head)]
            return patched

        return self._metric({out: put})

    def _metric(self, edits: dict[str, Callable[[Tensor], Tensor]]) -> float:
        logits = self.pair.host.edited(self.pair.ids[1], edits)
        with torch.no_grad():
            return float(self.aim.fn(self.pair.asked(logits)))


_QKV = (Q, K, V)
# A sum of what was written must give the stream; its numbers are rounded to float32 where norms work in that.
_ROUNDING = 1e-5


def _one_head_each(values: Float[Tensor, "pos head d_head"]) -> Float[Tensor, "head pos head d_head"]:
    """A copy for each head, all others zero."""
    heads = values.shape[1]
    mask = torch.eye(heads, dtype=values.dtype, device=values.device)
    return values[None] * mask[:, None, :, None]


def _are_heads(ends: Sequence[Tensor], heads: int) -> bool:
    """Whether queries, keys and values are there, by head, keys and values maybe for a group of heads."""
    if len(ends) != 3 or any(end.ndim != 4 for end in ends):
        return False
    q, k, v = (end.shape[2] for end in ends)
    return q == heads and k == v and heads % k == 0


def _own(grads: Float[Tensor, "members pos groups d_head"], heads: int) -> Float[Tensor, "heads pos groups d_head"]:
    """From those of a group's members, all groups at once, to those of each head: its own group's, others zero."""
    members, groups = len(grads), grads.shape[2]
    if groups == heads:
        grads = grads.sum(0, keepdim=True)  # queries are each head's own
        members = 1
    head = torch.arange(heads, device=grads.device)
    mask = torch.nn.functional.one_hot(head // members, groups).to(grads)
    return grads[head % members] * mask[:, None, :, None]
