"""The real pretrained model: both hosts against plain autograd on Hugging Face, and folding."""

from __future__ import annotations

import naive
import pytest
import torch

import tl_jacobian as tj
from tl_jacobian.core.host.demo import kinds, load_demo_hf

pytestmark = pytest.mark.slow
PROMPT = "As a smart and honest AI, I always try to be nice and never"
PARIS = "The capital of France is"

every_kind = pytest.mark.parametrize("kind", kinds())


@pytest.fixture(scope="module")
def models():
    return {kind: tj.load_demo_model(kind) for kind in kinds()}


@pytest.fixture(scope="module")
def hf():
    return load_demo_hf()[0].eval()


@pytest.fixture(scope="module")
def folded():
    """The demo model with LayerNorm folded and the unembedding centred, on every host."""
    made = {kind: tj.load_demo_model(kind) for kind in kinds()}
    if "hooked" in made:
        made["hooked"].process_weights_(fold_ln=True, center_writing_weights=False, center_unembed=True)
    made["bridge"].enable_compatibility_mode(disable_warnings=True)
    return made


def close(ours, expected, rtol=2e-3):
    """30 float32 layers on implementations of their own: up to 4e-4 of difference (measured)."""
    torch.testing.assert_close(ours, expected.detach(), rtol=rtol, atol=rtol * expected.max().item())


@every_kind
def test_it_knows_the_capital_of_france(models, kind):
    lin = tj.linearize(models[kind], PARIS)
    assert lin.str_tokens == ("The", " capital", " of", " France", " is")
    best = tj.semantic_scope(lin).predictions[0]
    assert best.text == " Paris"
    assert best.probability == pytest.approx(0.77, abs=0.01)


@every_kind
def test_scopes_equal_autograd_on_the_hugging_face_model(models, hf, kind):
    lin = tj.linearize(models[kind], PROMPT)
    run = naive.run_hf(hf, hf.model.norm, lin.tokens.tolist())
    target = int(lin.logits.argmax())
    torch.testing.assert_close(lin.logits, run.logits[-1].detach(), rtol=1e-3, atol=2e-3)
    close(tj.semantic_scope(lin).scores, naive.grad(run.logits[-1, target], run.x).norm(dim=-1))
    close(tj.temperature_scope(lin).scores, naive.grad(run.y[-1].norm(), run.x).norm(dim=-1))
    u = torch.linalg.eigh(naive_fisher(hf, run.logits[-1]))
    expected = u.eigenvalues[-1] * naive.grad(u.eigenvectors[:, -1] @ run.y[-1], run.x).square().sum(dim=-1)
    close(tj.fisher_scope(lin, method="low_rank").scores, expected, rtol=1e-2)


def naive_fisher(hf, logits):
    """F from the whole vocabulary at once, in float64."""
    w, p = hf.lm_head.weight.detach().double(), logits.detach().double().softmax(-1)
    return (w.T @ (p[:, None] * w) - torch.outer(w.T @ p, w.T @ p)).float()


@pytest.mark.skipif(len(kinds()) < 2, reason="TransformerLens 4 has one host")
def test_exact_fisher_is_the_same_on_both_hosts(models):
    ours, theirs = (tj.fisher_scope(tj.linearize(models[kind], PARIS)).scores for kind in kinds())
    close(ours, theirs)


@every_kind
def test_a_folded_demo_model(models, folded, kind):
    """Temperature refuses, and takes the norm from the checkpoint; Semantic doesn't notice."""
    raw, plain = tj.linearize(models[kind], PROMPT), tj.linearize(folded[kind], PROMPT)
    with pytest.raises(tj.errors.DegenerateScopeError, match=r"\|\|y\|\| = 24 for every input"):
        tj.temperature_scope(plain)
    given = tj.linearize(folded[kind], PROMPT, final_norm="original")
    close(tj.temperature_scope(given).scores, tj.temperature_scope(raw).scores)
    gauge = [tj.temperature_scope(lin, confidence="logit_norm").scores for lin in (plain, raw)]
    close(*gauge)
    # A truncated Fisher depends on the coordinates of y, which the original norm gives back.
    fisher = [tj.fisher_scope(lin, method="low_rank", rank=4).scores for lin in (given, raw)]
    close(*fisher)
    contrast = [tj.semantic_scope(lin, " Paris", minus=" London").scores for lin in (plain, raw)]
    close(*contrast)


@every_kind
def test_a_batch_equals_single_prompts(models, kind):
    prompts = [PARIS, PROMPT, "Hello"]
    batch = tj.temperature_scope(tj.linearize(models[kind], prompts))
    for together, prompt in zip(batch, prompts, strict=True):
        close(together.scores, tj.temperature_scope(tj.linearize(models[kind], prompt)).scores, rtol=1e-3)


def test_rows_of_the_jacobian_and_finite_differences(generator):
    model = tj.load_demo_model("bridge", dtype=torch.float64)
    lin = tj.linearize(model, PARIS)
    tokens = lin.tokens.tolist()
    run = naive.run(model, tokens)
    rows = [0, 17, 575]
    expected = torch.stack([naive.grad(run.y[-1, row], run.x) for row in rows])
    torch.testing.assert_close(lin.vjp(torch.eye(576, dtype=torch.float64)[rows]), expected, rtol=1e-6, atol=1e-6)
    v, delta = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((576,), (5, 576)))
    # The norms' float32 noise (1e-7 of y) against curvature: this step leaves about 1e-3 of each.
    step = 1e-4 * run.x.norm() / delta.norm()
    there, back = (naive.run(model, tokens, nudge=sign * step * delta).y[-1] for sign in (1, -1))
    measured, predicted = v @ (there - back) / (2 * step), (lin.vjp(v) * delta).sum()
    torch.testing.assert_close(measured, predicted, rtol=2e-2, atol=1e-3 * float(v.norm() * lin.vjp(v).norm()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu(models, kind, dtype):
    model = tj.load_demo_model(kind, device="cuda", dtype=dtype)
    lin, expected = tj.linearize(model, PROMPT), tj.linearize(models[kind], PROMPT)
    assert lin.y.is_cuda
    for scope in (tj.temperature_scope, lambda one: tj.fisher_scope(one, method="low_rank", rank=4)):
        ours = scope(lin).scores
        assert ours.device.type == "cpu"
        close(ours, scope(expected).scores, rtol=2e-3 if dtype == torch.float32 else 0.3)


@every_kind
def test_the_callers_model_is_untouched(models, kind):
    model = models[kind]
    before = [(n, p.requires_grad, p.grad) for n, p in torch.nn.Module.named_parameters(model)]
    lin = tj.linearize(model, PARIS)
    tj.temperature_scope(lin).show()
    after = [(n, p.requires_grad, p.grad) for n, p in torch.nn.Module.named_parameters(model)]
    assert before == after


def test_target_errors_list_the_tokens(models):
    lin = tj.linearize(models["bridge"], PARIS)
    with pytest.raises(
        tj.errors.TargetError, match=r"target ' Parisiansss' is 3 tokens, expected one: ' Paris' \(7042\)"
    ):
        tj.semantic_scope(lin, " Parisiansss")
    with pytest.raises(tj.errors.TargetError, match="' truthful' is one token"):
        tj.semantic_scope(lin, "truthful")
    with pytest.raises(tj.errors.TargetError, match="target id 49152 is out of range, expected 0 to 49151"):
        tj.semantic_scope(lin, 49152)


def test_unknown_kind(unchecked):
    with pytest.raises(tj.errors.ArgumentError, match="kind='hf', expected one of"):
        tj.load_demo_model("hf")


def test_the_leading_directions_of_the_distribution_are_readable(models):
    lin = tj.linearize(models["bridge"], PARIS)
    fisher = tj.fisher_spectrum(lin, k=4)
    assert fisher.moves(0).rises[0].text == " Paris"
    assert fisher.moves(0).falls[0].text == " the"
    assert fisher.effective_rank == pytest.approx(2.78, rel=0.05)
    assert fisher.effective_rank_stderr < 0.01


def test_a_spectrum_without_the_whole_jacobian(models):
    lin = tj.linearize(models["bridge"], "Paris is")
    s = tj.jacobian_spectrum(lin, 0, k=2)
    values = torch.linalg.svdvals(lin.jacobian([0])[0].double())
    assert s.metadata["method"] == "block Lanczos"
    assert ((s.singular_values - values[:2]).abs() <= s.bound + 1e-5 * values[0]).all()
    ratio = values.square().sum() ** 2 / values.square().square().sum()
    assert abs(s.effective_rank - ratio) <= 4 * s.effective_rank_stderr
    assert s.effective_rank_stderr < 0.05 * ratio
