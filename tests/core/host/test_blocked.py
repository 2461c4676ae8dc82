"""Attention in blocks of queries: the numbers of the plain path, of every order, on every architecture and host."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from allocations import Allocations
from cases import CONTEXT, D_HEAD, HEADS, LAYERS, cases, shared, slow
from torch import nn

import tl_jacobian as tj
from tl_jacobian.core.hooks import in_block
from tl_jacobian.core.host import blocked, transformer_lens
from tl_jacobian.core.host.blocked import Blocked
from tl_jacobian.core.host.hosts import resolve
from tl_jacobian.core.host.operations import rewriting
from tl_jacobian.core.linalg.blockwise import blocks_of

IDS = [(i * 37) % 200 for i in range(40)]
# A bridge's softmax is computed in float32, whatever the model's precision: 4e-7 was seen.
TOLERANCE = {"hooked": 1e-13, "bridge": 3e-6}
one_a_host = pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=["llama"]))


@pytest.fixture
def rules(monkeypatch):
    """The rules of all runs, in blocks of at most 7 queries however short the prompt."""
    made: list[Blocked] = []

    class Short(Blocked):
        def __init__(self, n, here, size):
            super().__init__(n, here, 7 * HEADS * n * 4)
            made.append(self)

    monkeypatch.setattr(transformer_lens, "Blocked", Short)
    monkeypatch.setattr(transformer_lens, "LONG", 1)
    return made


def products(model, **options):
    lin = tj.linearize(model, IDS, **options)
    g = torch.Generator().manual_seed(0)
    v, dx = (torch.randn(3, *t.shape, dtype=t.dtype, generator=g) for t in (lin.graph.y, lin.graph.x))
    found = [lin.y, lin.graph.pull(v[:1]), lin.graph.pull(v), lin.graph.pusher()(dx)]
    assert lin.graph.batches
    return lin, found


def compare(model, state, rules, monkeypatch, **options):
    lin, found = products(model, **options)
    assert rules[-1].n == len(IDS)
    assert [(rule.attended, rule.made_whole) for rule in rules] == [(LAYERS, 0)] * len(rules)
    assert "blocks of queries" in lin.facts["attention"]
    monkeypatch.setattr(transformer_lens, "LONG", 1000)
    plain, expected = products(model, **options)
    assert "attention" not in plain.facts
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() <= TOLERANCE[state.split("-")[0]] * b.norm()


@pytest.mark.each_architecture
@pytest.mark.parametrize(("architecture", "state"), cases())
def test_numbers_of_the_plain_path(architecture, state, rules, monkeypatch):
    compare(shared(architecture, state), state, rules, monkeypatch)


@one_a_host
@pytest.mark.parametrize(
    "rule",
    ["gim", *slow("frozen_attention+frozen_norms", "frozen_norms")],
)
def test_backward_rules(architecture, state, rule, rules, monkeypatch):
    compare(shared(architecture, state), state, rules, monkeypatch, rule=rule)


@one_a_host
def test_blocks_that_are_run_again(architecture, state, rules, monkeypatch):
    model = shared(architecture, state)
    most = resolve(model).footprint(1, len(IDS), 1).peak(recompute=False, directions=4) - 1
    lin, found = products(model, max_memory=most, rule="gim")
    assert "again" in lin.facts["activations"]
    assert "attention" in lin.facts
    assert all(p.requires_grad for p in model.parameters())  # several directions together thaw them as one does
    monkeypatch.setattr(transformer_lens, "LONG", 1000)
    for a, b in zip(found, products(model, rule="gim")[1], strict=True):
        assert (a - b).norm() <= TOLERANCE[state] * b.norm()


@one_a_host
def test_half_precision(architecture, state, rules, monkeypatch):
    model = shared(architecture, state, torch.bfloat16)
    found = tj.linearize(model, IDS)
    monkeypatch.setattr(transformer_lens, "LONG", 1000)
    plain = tj.linearize(model, IDS)
    assert "attention" in found.facts
    torch.testing.assert_close(found.vjp(found.y), plain.vjp(plain.y), rtol=1e-4, atol=1e-4)


@one_a_host
def test_prompts_of_several_lengths(architecture, state, rules, monkeypatch):
    model = shared(architecture, state)
    found = tj.linearize(model, [IDS, IDS[:25]])
    monkeypatch.setattr(transformer_lens, "LONG", 1000)
    for a, b in zip(found, tj.linearize(model, [IDS, IDS[:25]]), strict=True):
        torch.testing.assert_close(a.vjp(a.y), b.vjp(b.y), rtol=1e-4, atol=1e-5)  # a bridge's softmax


# -- who reads scores or patterns --------------------------------------------------------------


@one_a_host
@pytest.mark.parametrize("name", ["hook_pattern", "hook_attn_scores"])
def test_hooks_on_patterns_see_the_whole(architecture, state, name, rules):
    model, seen = shared(architecture, state), []
    with model.hooks(fwd_hooks=[(in_block(1, f"attn.{name}"), lambda value, hook: seen.append(value.clone()))]):
        lin = tj.linearize(model, IDS)
    assert "attention" not in lin.facts
    assert type(seen[-1]) is torch.Tensor
    assert seen[-1].shape == (1, HEADS, len(IDS), len(IDS))


@one_a_host
def test_recorded_patterns_are_whole(architecture, state, rules):
    lin = tj.linearize(shared(architecture, state), IDS, record="sources")
    assert "attention" not in lin.facts
    for pattern in (value for name, value in lin.taps.items() if name.endswith("pattern")):
        assert type(pattern) is torch.Tensor


@pytest.mark.parametrize(("architecture", "state"), cases("bridge", of=["llama"]))
def test_a_hook_that_reads_what_attention_hands_on(architecture, state, rules):
    model, seen = shared(architecture, state), []
    handle = model.blocks[1].attn.register_forward_hook(lambda module, args, out: seen.append(out[1] * 1))
    try:
        tj.linearize(model, IDS)
    finally:
        handle.remove()
        transformer_lens._WHOLE.discard(model)
    sums = seen[-1].sum(-1)
    torch.testing.assert_close(sums, torch.ones(1, HEADS, len(IDS), dtype=sums.dtype), rtol=1e-6, atol=1e-6)


# -- other attention than the suite's models have ------------------------------------------------

N = 9


def numbers():
    return torch.linspace(-1, 2, 2 * N * 4, dtype=torch.float64).sin().view(1, 2, N, 4).requires_grad_()


def masked(scores):
    return torch.where(torch.ones(N, N, dtype=torch.bool).tril(), scores, -torch.inf)


def plain(q, k, v):
    return masked(q @ k.mT / 2).softmax(-1) @ v


def alibi_in_place(q, k, v):
    scores = q @ k.mT
    scores += -torch.arange(N, dtype=q.dtype).flip(0)
    scores.masked_fill_(~torch.ones(N, N, dtype=torch.bool).tril(), torch.finfo(q.dtype).min)
    return torch.nn.functional.dropout(scores.softmax(dim=-1), 0.5, training=False) @ v


def sinks(q, k, v):
    scores = torch.cat([masked(q @ k.mT), torch.ones(2, 3, N, 1, dtype=q.dtype)], dim=-1)
    scores = scores - scores.max(dim=-1, keepdim=True).values
    return torch.softmax(scores, dim=-1)[..., :-1].to(q.dtype) @ v


def flat_heads(q, k, v):
    bias = torch.linspace(0, 1, N, dtype=q.dtype).expand(6, 1, N)
    scores = bias.baddbmm(batch1=q.reshape(6, N, 4), batch2=k.reshape(6, N, 4).mT, beta=1.0, alpha=0.5)
    pattern = masked(scores.view(2, 3, N, -1)).softmax(-1)
    return (pattern.view(6, N, -1) @ v.reshape(6, N, 4)).view(2, 3, N, 4)


def relative_bias(q, k, v):
    """One that depends on the input."""
    return (masked(q @ k.mT) + (q.sum(-1, keepdim=True) - k.sum(-1)[..., None, :])).softmax(-1) @ v


def window(q, k, v):
    near = torch.ones(N, N, dtype=torch.bool).tril() & torch.ones(N, N, dtype=torch.bool).triu(-3)
    return torch.tanh(q @ k.mT / 5).mul(5).masked_fill(~near, -torch.inf).softmax(-1) @ v


def both_ways(q, k, v):
    return (q @ k.mT).softmax(-1) @ v


def differential(q, k, v):
    return (masked(q @ k.mT).softmax(-1) - 0.3 * masked(k @ q.mT).softmax(-1)) @ v


@pytest.mark.parametrize(
    "attention", [plain, alibi_in_place, sinks, flat_heads, relative_bias, window, both_ways, differential]
)
def test_other_attention(attention):
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, N, 4, dtype=torch.float64, generator=g, requires_grad=True) for _ in range(3))
    rule = Blocked(N, size=2 * q[..., 0].numel() * q.element_size())  # two rows
    with rewriting((rule,)):
        found = attention(q, k, v)
    assert (rule.attended, rule.made_whole) == (1, 0)
    expected, u = attention(q, k, v), torch.randn(2, 3, N, 4, dtype=torch.float64, generator=g)
    torch.testing.assert_close(found, expected)
    for a, b in zip(*(torch.autograd.grad(y, (q, k, v), u) for y in (found, expected)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "reads", [lambda p: p.mT.contiguous().mT, lambda p: p[:, :, 2:4].sum() * p, lambda p: torch.sort(p, -1).values]
)
def test_what_is_not_of_rows_is_made_as_a_whole(reads):
    q = numbers()
    rule = Blocked(N, size=1)
    with rewriting((rule,)):
        found = reads((q @ q.mT).softmax(-1)) @ q
    assert rule.made_whole
    expected = reads((q @ q.mT).softmax(-1)) @ q
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), q), torch.autograd.grad(expected.sum(), q))


def test_kernels_of_somebody_elses_are_refused():
    class Mine(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

    q = numbers()
    with rewriting((Blocked(N),)), pytest.raises(tj.errors.UnsupportedModelError, match="patterns are whole then"):
        Mine.apply(q @ q.mT).softmax(-1) @ q


def test_weights_as_large_as_the_prompt_are_long_are_no_scores():
    x, weight = torch.ones(1, N, N), torch.ones(N, N)
    with rewriting((Blocked(N),)):
        assert type(nn.functional.linear(x, weight)) is torch.Tensor
        assert type(x @ weight) is torch.Tensor


@pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=["llama"]))
def test_a_gpu_has_few_blocks(architecture, state, monkeypatch):
    """So few that Python, which starts each one's kernels, isn't what is waited for; it is planned with, too."""
    model, prompt = shared(architecture, state), [i % 200 for i in range(CONTEXT)]
    expected = tj.semantic_scope(tj.linearize(model, prompt)).scores
    monkeypatch.setattr(transformer_lens, "LONG", CONTEXT)
    monkeypatch.setattr(blocked, "_CACHED", HEADS * CONTEXT * 8)  # a row
    planned = []
    for on_cpu in (True, False):
        cut = list[int]()
        monkeypatch.setattr(
            blocked, "blocks_of", lambda n, rows, back, cut=cut: cut.append(rows) or blocks_of(n, rows, back)
        )
        monkeypatch.setattr(type(resolve(model)), "_on_cpu", on_cpu)
        torch.testing.assert_close(tj.semantic_scope(tj.linearize(model, prompt)).scores, expected)
        assert cut
        assert all(rows == 1 if on_cpu else rows >= CONTEXT for rows in cut)
        planned.append(resolve(model).footprint(1, CONTEXT, 1).run)
    assert planned[0] < planned[1]


# -- memory ------------------------------------------------------------------------------------


@pytest.mark.slow  # followed operation by operation
@pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=["llama"]))
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("rows", [2, CONTEXT])
def test_predicted_memory(architecture, state, recompute, rows, monkeypatch):
    """A block of scores is small beside the whole, as where prompts are long; or it is the whole, as on a GPU."""
    monkeypatch.setattr(transformer_lens, "LONG", CONTEXT)
    monkeypatch.setattr(blocked, "_CACHED", rows * HEADS * CONTEXT * 4)
    model, prompt, k = shared(architecture, state, torch.float32), [i % 200 for i in range(CONTEXT)], 4
    need = dataclasses.replace(resolve(model).footprint(1, CONTEXT, 1), head=0, holes=0)
    budget = need.peak(True) + 10_000_000 * (not recompute)
    tj.linearize(model, prompt)
    with Allocations() as counted:
        lin = counted.run(lambda: tj.linearize(model, prompt, max_memory=budget + 300_000))
        graph = dataclasses.replace(lin.graph, room=1 << 40, results=None)
        pulled = counted.run(lambda: graph.pull(torch.ones(k, *lin.graph.y.shape)))
        pushed = counted.run(lambda: graph.pusher()(torch.ones(k, *lin.graph.x.shape)))
    assert "attention" in lin.facts
    assert D_HEAD < CONTEXT
    assert ("again" in lin.facts["activations"]) == recompute
    del pulled, pushed
    (_, kept), (pull, _), (push, _) = counted.runs
    assert kept <= need.kept(recompute)
    assert kept + pull <= need.peak(recompute, k, push=False) <= 3.5 * (kept + pull)
    assert kept + push <= need.peak(recompute, k) <= 3.5 * (kept + push)
