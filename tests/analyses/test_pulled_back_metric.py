"""Fisher's information pulled back to embeddings, against explicit Jacobians and against what a step really does."""

from __future__ import annotations

import pytest
import torch
from cases import cases, shared

import tl_jacobian as tj
from tl_jacobian.analyses import spectra as module
from tl_jacobian.errors import ArgumentError, PromptError

PROMPT = list(b"Paris is in")
ALWAYS = {("gemma2", "bridge-compat"), ("gpt2", "hooked")}
every_case = pytest.mark.parametrize(
    ("architecture", "state"), [pytest.param(*c, marks=() if c in ALWAYS else pytest.mark.slow) for c in cases()]
)
one_a_host = pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=("gpt2",)))
ROUNDING = 1e-5  # norms and softmax of Hugging Face are float32: 2e-7 of the largest


def metric(lin, at):
    """J^T F J of these tokens side by side."""
    y = lin.y.detach().requires_grad_()
    to_logits = torch.autograd.functional.jacobian(lin.unembedding.logits, y)
    p = lin.logits.softmax(-1)
    j = to_logits @ torch.cat(list(lin.jacobian(at)), dim=1)
    return j.T @ (torch.diag(p) - torch.outer(p, p)) @ j


@every_case
def test_it_is_the_spectrum_of_explicit_jacobians(architecture, state):
    lin = tj.linearize(shared(architecture, state), PROMPT)
    scores = tj.fisher_scope(lin, method="exact").scores
    for at in ([3], [3, -4]):
        s, f = tj.fisher_spectrum(lin, k=5, at=at if len(at) > 1 else 3), metric(lin, at)
        wanted = torch.linalg.eigvalsh(f).flip(0)
        torch.testing.assert_close(s.eigenvalues, wanted[:5], rtol=ROUNDING, atol=ROUNDING * wanted[0].item())
        r = s.embeddings.flatten(1)
        torch.testing.assert_close(r @ r.T, torch.eye(5).double(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(r @ f, s.eigenvalues[:, None] * r, rtol=0, atol=ROUNDING * wanted[0].item())
        assert s.trace == pytest.approx(f.trace().item(), rel=ROUNDING)
        assert s.trace == pytest.approx(scores[at].sum().item(), rel=1e-4)
        assert s.effective_rank == pytest.approx((f.trace() ** 2 / f.square().sum()).item(), rel=1e-4)


@one_a_host
def test_where_a_direction_leads(architecture, state):
    """y moves along ``directions``, and the tokens that it is said to raise rise: by a real step."""
    lin = tj.linearize(shared(architecture, state), PROMPT)
    s, x = tj.fisher_spectrum(lin, k=2, at=[2, 5]), lin.graph.x.detach()[0]
    dx, step = torch.zeros_like(x), 1e-3
    dx[[2, 5]] = s.embeddings[0].to(x)
    factor = module.FisherFactor(lin.unembedding, lin.logits)
    led, said = (factor.push(y[None].to(lin.y))[0] for y in (lin.jvp(dx), s.directions[0]))
    torch.testing.assert_close(led / led.norm(), said / said.norm(), rtol=1e-3, atol=1e-4)
    logits = lin.rerun.logits(torch.stack([x + step * dx, x - step * dx])).log_softmax(-1)
    change = (logits[0] - logits[1]) / (2 * step)
    p = lin.logits.softmax(-1)
    assert (p * change.square()).sum().item() == pytest.approx(s.eigenvalues[0].item(), rel=1e-2)
    best = s.moves(0, 1).rises[0]
    assert (p * change)[best.token] > 0


@one_a_host
def test_tokens_that_lie_that_way(architecture, state):
    model = shared(architecture, state)
    lin = tj.linearize(model, PROMPT)
    s, own, seen = tj.fisher_spectrum(lin, k=1, at=[4]), lin.graph.x.detach()[0, 4], []
    with torch.no_grad():
        for ids in torch.arange(300).split(60):
            model.run_with_hooks(ids[None], fwd_hooks=[("hook_embed", lambda value, hook: seen.append(value))])
    steps = torch.cat(seen, dim=1)[0] - own
    r = s.embeddings[0, 0].to(steps)
    cosines = ((steps @ r) / steps.norm(dim=1)).nan_to_num()
    order = cosines.argsort(descending=True)
    (near,) = s.toward[0]
    assert [t.token for t in near.along] == order[:8].tolist()
    assert [t.token for t in near.against] == order.flip(0)[:8].tolist()
    assert near.along[0].cosine == pytest.approx(cosines.max().item(), abs=1e-6)
    assert near.along[0].step == pytest.approx((steps @ r)[order[0]].item(), rel=1e-5)
    assert s.panels()[0].header[-2:] == ("lies toward", "away from")


@one_a_host
def test_block_lanczos_finds_the_same(architecture, state, monkeypatch):
    lin = tj.linearize(shared(architecture, state), PROMPT)
    whole = tj.fisher_spectrum(lin, k=1, at=[1, 2, 3])
    monkeypatch.setattr(module, "_DENSE_JACOBIAN", 0)
    monkeypatch.setattr(module, "_PRODUCTS", 0)
    few = tj.fisher_spectrum(lin, k=1, at=[1, 2, 3], rtol=0.2)
    assert few.metadata["method"] == "block Lanczos"
    assert (few.eigenvalues - whole.eigenvalues).abs() <= few.bound + 1e-9
    assert abs(few.trace - whole.trace) <= 4 * few.trace_stderr


def test_under_a_rule_and_of_activations_inside():
    model = shared(*cases("bridge", of=("llama",))[0])
    lin = tj.linearize(model, PROMPT, rule="gim")
    s, f = tj.fisher_spectrum(lin, k=2, at=3), metric(lin, [3])
    torch.testing.assert_close(s.eigenvalues, torch.linalg.eigvalsh(f).flip(0)[:2], rtol=ROUNDING, atol=0)
    assert s.metadata["rule"] == "gim"
    assert "rule" not in tj.fisher_spectrum(lin, k=2).metadata
    inside = tj.linearize(model, PROMPT, input_hook="blocks.1.hook_resid_pre")
    s = tj.fisher_spectrum(inside, k=2, at=3)
    assert s.toward == ((), ())
    assert "lies toward" not in s.panels()[0].header


def test_what_it_cannot_be_asked():
    lin = tj.linearize(shared(*cases()[0]), PROMPT)
    for at in ([3, 3], [3, 3 - len(PROMPT)]):
        with pytest.raises(ArgumentError, match="at="):
            tj.fisher_spectrum(lin, at=at)
    for at, match in (([], "at="), (50, "50")):
        with pytest.raises(PromptError, match=match):
            tj.fisher_spectrum(lin, at=at)
    with pytest.raises(ArgumentError, match="k=33"):
        tj.fisher_spectrum(lin, k=33, at=1)
