"""Interactions of tokens against explicit Jacobians, on every architecture and host; their errors, segments, answers.

Values are float32: 1e-5 is allowed on one model, as in tests/analyses/scopes/test_oracles.py.
"""

from __future__ import annotations

import naive
import pytest
import torch
from cases import cases, shared

import tl_jacobian as tj
from tl_jacobian.core.linalg.gram import GramSums
from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.interactions import TokenInteractions

PROMPT, ANSWER, TARGET = list(b"Paris is in"), list(b" F."), 101
ALWAYS = {("gemma3", "bridge"), ("gpt2", "hooked")}
every_case = pytest.mark.parametrize(
    ("architecture", "state"), [pytest.param(*c, marks=() if c in ALWAYS else pytest.mark.slow) for c in cases()]
)
one_a_host = pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=("gpt2",)))


def close(found, wanted, rtol=1e-5):
    torch.testing.assert_close(found, wanted.float(), rtol=rtol, atol=rtol * wanted.abs().max().item())


def metric_of(lin):
    """F to y, through whatever the head does."""
    y = lin.y.detach().requires_grad_()
    to_logits = torch.autograd.functional.jacobian(lin.unembedding.logits, y)
    p = lin.logits.softmax(-1)
    return to_logits.T @ (torch.diag(p) - torch.outer(p, p)) @ to_logits


def fisher_pairs(lin):
    j = lin.jacobian()
    return torch.einsum("soi,op,tpi->st", j, metric_of(lin), j)


@every_case
def test_fisher_pairs_are_those_of_explicit_jacobians(architecture, state):
    lin = tj.linearize(shared(architecture, state), PROMPT)
    found, wanted = tj.token_interactions(lin, method="exact"), fisher_pairs(lin)
    close(found.values, wanted)
    assert torch.equal(found.values.diagonal(), tj.fisher_scope(lin, method="exact").scores)
    norms = wanted.diagonal().sqrt()
    close(found.correlation().values, wanted / torch.outer(norms, norms))


@every_case
def test_pairs_of_a_direction_are_inner_products_of_gradients(architecture, state):
    model = shared(architecture, state)
    run, lin = naive.run(model, PROMPT), tj.linearize(model, PROMPT)
    g = naive.grad(run.logits[-1, TARGET], run.x)
    found = tj.token_interactions(lin, "semantic", target=TARGET)
    close(found.values, g @ g.T)
    scores = tj.semantic_scope(lin, TARGET).scores
    close(found.values.diagonal(), scores.double().square(), 1e-6)
    v = lin.y
    close(tj.token_interactions(lin, v).values, lin.vjp(v) @ lin.vjp(v).T)


@one_a_host
def test_low_rank_and_answers(architecture, state):
    model = shared(architecture, state)
    lin, answer = tj.linearize(model, PROMPT), tj.linearize(model, PROMPT, answer=ANSWER)
    rank = tj.fisher_spectrum(lin, k=3)
    g = lin.vjp(rank.eigenvalues.sqrt()[:, None] * rank.directions)
    close(tj.token_interactions(lin, rank=3).values, torch.einsum("ksd,ktd->st", g, g), 1e-4)
    wanted = torch.zeros(len(answer.tokens), len(answer.tokens), dtype=torch.float64)
    for one in answer:
        n = len(one.tokens)
        wanted[:n, :n] += fisher_pairs(one)
    close(tj.token_interactions(answer, method="exact").values, wanted)
    g = answer.vjp(tj.analyses.scopes.simple.explain_logit(answer, None, None).v[0])
    found = tj.token_interactions(answer, "semantic")
    close(found.values, g @ g.T)
    assert found.answer_start == len(PROMPT)


@pytest.mark.parametrize(("architecture", "state"), cases("bridge", of=("gemma2",)))
@pytest.mark.parametrize("rule", ["gim"])
def test_under_a_backward_rule(architecture, state, rule):
    lin = tj.linearize(shared(architecture, state), PROMPT, rule=rule)
    found = tj.token_interactions(lin, method="exact")
    close(found.values, fisher_pairs(lin))
    assert found.metadata["rule"] == rule
    assert rule in found.panels()[0].title


@one_a_host
def test_estimates_come_of_the_probes_of_the_diagonal(architecture, state):
    lin = tj.linearize(shared(architecture, state), PROMPT)
    how = dict(method="estimate", n_products=20)
    before = torch.Generator().manual_seed(5)
    alone = tj.fisher_scope(lin, **how, generator=torch.Generator().manual_seed(5))
    found = tj.token_interactions(lin, **how, generator=before)
    assert torch.equal(found.values.diagonal(), alone.scores)
    assert torch.equal(found.stderr.diagonal(), alone.stderr)
    assert found.metadata["n_products"] == alone.metadata["n_products"]
    close(tj.token_interactions(lin, rtol=1e-6, method="estimate").values, fisher_pairs(lin))
    exact = tj.token_interactions(lin, n_products=40, method="estimate")  # as many as there are directions
    assert exact.metadata["method"] == "exact"
    assert exact.stderr is None
    close(exact.values, fisher_pairs(lin))


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "state", "n_products"), [("gpt2", "bridge", 24), ("gemma2", "bridge", 16)])
def test_errors_are_those_that_they_claim(architecture, state, n_products):
    """Over seeds: within one standard error in about two thirds, within two in nearly all; and no bias."""
    lin = tj.linearize(shared(architecture, state), PROMPT)
    wanted, seeds = fisher_pairs(lin), (torch.Generator().manual_seed(seed) for seed in range(60))
    found = [tj.token_interactions(lin, method="estimate", n_products=n_products, generator=seed) for seed in seeds]
    off = ~torch.eye(len(PROMPT), dtype=torch.bool)
    values = torch.stack([f.values[off].double() for f in found])
    errors = torch.stack([f.stderr[off].double() for f in found])
    z = (values - wanted[off]) / errors
    assert 0.64 < (z.abs() < 1).double().mean() < 0.85
    assert (z.abs() < 2).double().mean() > 0.91  # what fisher_scope says of its scores
    bias = (values.mean(0) - wanted[off]) / (values.std(0) / len(found) ** 0.5)
    assert bias.abs().mean() < 1.2  # of a normal number 0.8


@one_a_host
def test_segments_are_what_one_change_of_all_their_tokens_does(architecture, state):
    lin = tj.linearize(shared(architecture, state), PROMPT)
    found = tj.token_interactions(lin, method="exact")
    parts = found.segments({"a": range(1, 5), "b": range(6, 9)}, rest=None)
    j = lin.jacobian()
    a, b = j[1:5].sum(0), j[6:9].sum(0)
    f = metric_of(lin)
    wanted = torch.tensor([[torch.trace(x.T @ f @ y) for y in (a, b)] for x in (a, b)])
    close(parts.values, wanted)
    close(found.segments({"a": range(1, 5), "b": range(6, 9)}, rest=None, mean=True).values[0, 1], wanted[0, 1] / 12)
    words = found.words()
    assert words.str_tokens == tj.fisher_scope(lin).words().str_tokens
    assert [p.first for p in words.correlation().top(1)]
    with pytest.raises(ArgumentError, match="don't add up"):
        found.correlation().words()
    with pytest.raises(ArgumentError, match="already"):
        words.segments({"a": range(1, 5)})


@pytest.mark.slow
def test_half_precision():
    model = shared("llama", "bridge", torch.bfloat16)
    found = tj.token_interactions(tj.linearize(model, PROMPT), method="exact")
    wanted = tj.token_interactions(tj.linearize(naive.twin(model), PROMPT), method="exact")
    close(found.values, wanted.values, 1e-4)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_products_of_any_size(size):
    g = size * torch.tensor([[[3.0, 4.0], [4.0, -3.0], [3.0, 4.0]]])
    sums = GramSums(3)
    sums.take(g)
    torch.testing.assert_close(sums.mean / size / size, torch.tensor([[25.0, 0, 25], [0, 25, 0], [25, 0, 25]]).double())


def test_what_it_cannot_be_asked():
    lin = tj.linearize(shared(*cases()[0]), PROMPT)
    with pytest.raises(ArgumentError, match="direction"):
        tj.token_interactions(lin, lambda one: tj.semantic_scope(one))
    with pytest.raises(ArgumentError, match="takes no rank"):
        tj.token_interactions(lin, "semantic", rank=2)
    with pytest.raises(ArgumentError, match=r"rtol.*low_rank"):
        tj.token_interactions(lin, method="low_rank", rtol=0.1)
    dead = TokenInteractions(
        values=torch.diag(torch.tensor([0.0, 4.0])),
        scope="direction",
        target="v",
        tokens=(1, 2),
        str_tokens=("a", "b"),
        position=1,
    )
    assert dead.correlation().values[0].isnan().all()
    assert dead.correlation().values[1, 1] == 1
