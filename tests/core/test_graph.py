"""Graph: vector-Jacobian products against one torch.autograd.grad a row."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tl_jacobian.core import graph as module
from tl_jacobian.core.graph import MAX_CHUNK, Graph
from tl_jacobian.errors import MemoryBudgetError

BATCH, POS, D_IN, D_OUT = 2, 3, 4, 5


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def again(x: Tensor) -> Tensor:
    """Rows that don't mix, positions that do, nothing linear."""
    mixed = torch.einsum("bpi,pio->bo", x.sin(), randn(POS, D_IN, D_OUT, seed=1, dtype=x.dtype))
    return mixed * mixed.sigmoid()


def toy(dtype: torch.dtype = torch.float64, **options: Any) -> Graph:
    x = randn(BATCH, POS, D_IN, dtype=dtype).requires_grad_()
    return Graph(x, again(x), **{"bytes_per_direction": 800, **options})


def naive(graph: Graph, v: Tensor) -> Tensor:
    """One backward pass a direction and row of the batch."""
    out = torch.zeros(len(v), *graph.x.shape, dtype=graph.x.dtype)
    for i in range(len(v)):
        for row in range(BATCH):
            (g,) = torch.autograd.grad((graph.y[row] * v[i, row]).sum(), graph.x, retain_graph=True)
            out[i] += g
    return out


@pytest.mark.parametrize("k", [1, 2, 33])
def test_pushing_is_the_transpose_of_pulling(k):
    graph, dx, v = toy(), randn(k, BATCH, POS, D_IN, seed=3), randn(D_OUT, BATCH, D_OUT, seed=2)
    pushed = graph.pusher()(dx)
    for row in range(BATCH):
        j = torch.autograd.functional.jacobian(lambda x, r=row: again(x)[r], graph.x.detach())[:, row]
        torch.testing.assert_close(pushed[:, row], torch.einsum("opi,kpi->ko", j, dx[:, row]), rtol=1e-12, atol=1e-12)
    along = torch.einsum("kro,nro->kn", pushed, v)
    torch.testing.assert_close(along, torch.einsum("krpi,nrpi->kn", dx, graph.pull(v)), rtol=1e-11, atol=1e-11)


def test_several_outputs_of_one_row():
    x = randn(1, POS, D_IN).requires_grad_()
    y = torch.stack([x[0, : i + 1].sin().sum(0) for i in range(POS)])
    graph = Graph(x, y, 1, rows=(0,) * POS)
    v = torch.zeros(POS, POS, D_IN, dtype=torch.float64)
    v[range(POS), range(POS)] = randn(POS, D_IN, seed=2)
    pulled = graph.pull(v)[:, 0]
    for i in range(POS):
        (alone,) = torch.autograd.grad(y[i], x, v[i, i], retain_graph=True)
        torch.testing.assert_close(pulled[i], alone[0])
        assert pulled[i, i + 1 :].eq(0).all()


@pytest.mark.parametrize("k", [1, 2, 31, 32, 33, 70])
def test_pull_equals_row_by_row(k):
    graph, v = toy(), randn(k, BATCH, D_OUT, seed=2)
    torch.testing.assert_close(graph.pull(v), naive(graph, v), rtol=1e-12, atol=1e-12)


def test_rows_of_the_batch_do_not_mix():
    graph, v = toy(), torch.zeros(2, BATCH, D_OUT, dtype=torch.float64)
    v[0, 0], v[1, 1] = 1.0, 1.0
    grads = graph.pull(v)
    assert grads[0, 1].eq(0).all()
    assert grads[1, 0].eq(0).all()
    assert grads[0, 0].ne(0).all()


def test_a_graph_can_be_pulled_again():
    graph, v = toy(), randn(3, BATCH, D_OUT, seed=2)
    assert torch.equal(graph.pull(v), graph.pull(v))
    assert graph.x.grad is None


def test_stream_gives_chunks_in_order(monkeypatch):
    monkeypatch.setattr(module, "MAX_CHUNK", 4)
    graph, v = toy(), randn(10, BATCH, D_OUT, seed=2)
    parts = list(graph.stream(v))
    assert [len(p) for p in parts] == [4, 4, 2]
    torch.testing.assert_close(torch.cat(parts), naive(graph, v))


def test_stream_makes_a_chunk_only_when_asked(monkeypatch):
    monkeypatch.setattr(module, "MAX_CHUNK", 1)
    graph, asked = toy(), []
    original = Graph._products_to
    monkeypatch.setattr(Graph, "_products_to", lambda self, v, to: asked.append(len(v)) or original(self, v, to))
    stream = graph.stream(randn(5, BATCH, D_OUT, seed=2))
    assert asked == []
    next(stream)
    assert asked == [1]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_the_chunk_size_changes_no_product(monkeypatch, chunk):
    graph, v = toy(), randn(7, BATCH, D_OUT, seed=2)
    monkeypatch.setattr(module, "MAX_CHUNK", chunk)
    torch.testing.assert_close(graph.pull(v), naive(graph, v), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("each", "room", "chunk"),
    [
        (800, 1 << 30, MAX_CHUNK),
        (800, 8_000, 10),
        (400, 8_000, 20),
        (800, 8_799, 10),
        (800, 8_800, 11),
        (80_000, 8_000, 1),  # even one direction is over the limit: it must still run
        (0, 8_000, MAX_CHUNK),
    ],
)
def test_the_chunk_size_is_bounded_by_memory(each, room, chunk):
    assert toy(bytes_per_direction=each, room=room).chunk == chunk


def test_products_that_do_not_fit_together_are_refused():
    graph = toy(bytes_per_direction=100, room=400, results=2 * 5 * BATCH * POS * D_IN * 8)
    assert graph.chunk == 4
    assert len(graph.pull(randn(5, BATCH, D_OUT, seed=2))) == 5
    assert len(graph.pusher()(randn(5, BATCH, POS, D_IN, seed=2))) == 5
    assert len(list(graph.stream(randn(6, BATCH, D_OUT, seed=2)))) == 2  # one chunk at a time is no result
    message = r"6 products with \(2, 3, 4\) embeddings would take 2.3KiB, but the budget .* leaves 1.9KiB.*max_memory="
    with pytest.raises(MemoryBudgetError, match=message):
        graph.pull(randn(6, BATCH, D_OUT, seed=2))
    with pytest.raises(MemoryBudgetError, match=message):
        graph.pusher()(randn(6, BATCH, POS, D_IN, seed=2))


def layered(skip: bool) -> Graph:
    """Three layers, the last one with or without a path around the second; checkpointed in part."""
    x = randn(1, POS, D_IN).requires_grad_()
    first = x.sin() * 2
    second = checkpoint(lambda h: (h @ randn(D_IN, D_IN, seed=4)).tanh(), first, use_reentrant=False)
    third = (second + first).exp() if skip else second.exp()
    return Graph(x, third.sum(1), 1, between=(x, first, second))


@pytest.mark.parametrize(("skip", "segments"), [(False, 3), (True, 2)])
def test_pushing_goes_through_segments(skip, segments):
    graph, dx = layered(skip), randn(4, 1, POS, D_IN, seed=3)
    assert len(graph.chain) == segments + 1
    whole = Graph(graph.x, graph.y, 1)
    assert len(whole.chain) == 2
    torch.testing.assert_close(graph.pusher()(dx), whole.pusher()(dx), rtol=1e-12, atol=1e-12)


def test_what_cannot_be_differentiated_twice_is_found_out_before_any_work():
    x = randn(1, 8, D_IN, dtype=torch.float32).requires_grad_()
    heads = x[None].sin()
    fused = torch.nn.functional.scaled_dot_product_attention(heads, heads, heads)
    graph = Graph(x, fused[0, :, -1], 1)
    with pytest.raises(RuntimeError, match="not implemented"):
        graph.pusher()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("k", [1, 3])
def test_the_callers_grad_mode_does_not_matter(mode, k):
    graph, v = toy(), randn(k, BATCH, D_OUT, seed=2)
    expected = naive(graph, v)
    with mode():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        pulled = graph.pull(randn(k, BATCH, D_OUT, seed=2))  # v made inside the mode
        pulled_too = graph.pull(v)
        assert before == (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
    torch.testing.assert_close(pulled, expected)
    torch.testing.assert_close(pulled_too, expected)
    assert not pulled.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("k", [1, 3])
def test_a_checkpointed_part_is_recomputed_in_any_grad_mode(mode, k):
    """Gradient checkpointing runs the forward pass again inside the backward one."""
    x = randn(BATCH, POS, D_IN).requires_grad_()
    y = checkpoint(lambda h: h.sin().sum(1).tanh(), x, use_reentrant=False, preserve_rng_state=False)
    expected = naive(Graph(x, y, 1), randn(k, BATCH, D_IN, seed=2))
    with mode():
        torch.testing.assert_close(Graph(x, y, 1).pull(randn(k, BATCH, D_IN, seed=2)), expected)


@pytest.mark.parametrize("k", [1, 3])
def test_products_made_in_inference_mode_are_ordinary_tensors(k):
    """Even where the way back is so short that the direction itself comes out."""
    x = randn(BATCH, 1, D_IN).requires_grad_()
    graph = Graph(x, x.squeeze(1), 1)
    with torch.inference_mode():
        parts = list(graph.stream(randn(k, BATCH, D_IN, seed=2)))
    assert not any(part.is_inference() for part in parts)


def test_the_grad_mode_comes_back_between_chunks_and_after_an_error(monkeypatch):
    monkeypatch.setattr(module, "MAX_CHUNK", 1)
    graph = toy()
    with torch.no_grad():
        for _ in graph.stream(randn(3, BATCH, D_OUT, seed=2)):
            assert not torch.is_grad_enabled()
        x = randn(BATCH, POS, D_IN)
        with pytest.raises(RuntimeError, match="cannot be empty"):
            Graph(x, x.sum(1), 1).pull(randn(1, BATCH, D_IN, seed=2))
        assert not torch.is_grad_enabled()


def test_directions_take_the_graphs_precision():
    graph = toy(dtype=torch.float32)
    v = randn(2, BATCH, D_OUT, seed=2)
    assert graph.pull(v).dtype == torch.float32
    torch.testing.assert_close(graph.pull(v), naive(graph, v.float()))


def test_half_precision_goes_through():
    graph = toy(dtype=torch.bfloat16)
    v = randn(2, BATCH, D_OUT, seed=2, dtype=torch.float32)
    assert graph.pull(v).dtype == torch.float32
    torch.testing.assert_close(graph.pull(v), naive(graph, v.bfloat16()).float(), rtol=0.05, atol=0.05)


def test_parameters_that_require_grad_get_none():
    weight = torch.nn.Parameter(randn(D_IN, D_OUT, seed=1))
    x = randn(BATCH, POS, D_IN).requires_grad_()
    Graph(x, (x.sum(1) @ weight).tanh(), 1).pull(randn(3, BATCH, D_OUT, seed=2))
    assert weight.grad is None


class Picky(torch.autograd.Function):
    """Looks at numbers in its backward pass, which batching forbids."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * x.cos() if grad.abs().sum().item() > 0 else torch.zeros_like(x)


def test_what_can_not_be_batched_goes_one_at_a_time():
    x = randn(BATCH, POS, D_IN).requires_grad_()
    picky, plain = Graph(x, again(Picky.apply(x)), 1), Graph(x, again(x.sin()), 1)
    v, dx = randn(3, BATCH, D_OUT, seed=2), randn(3, BATCH, POS, D_IN, seed=3)
    torch.testing.assert_close(picky.pull(v), plain.pull(v), rtol=1e-12, atol=1e-12)
    assert not picky.batches
    assert plain.batches
    torch.testing.assert_close(picky.pull(v), plain.pull(v), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(picky.pusher()(dx), plain.pusher()(dx), rtol=1e-12, atol=1e-12)


def test_an_error_that_is_not_of_batching_is_told():
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            raise RuntimeError("a hook of yours")

    x = randn(BATCH, POS, D_IN).requires_grad_()
    with pytest.raises(RuntimeError, match="a hook of yours"):
        Graph(x, again(Broken.apply(x)), 1).pull(randn(2, BATCH, D_OUT))
