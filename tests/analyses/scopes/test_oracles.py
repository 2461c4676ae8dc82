"""Every scope, on every architecture, host and processing state, against the naive twins.

Scores are float32, so 1e-6 is the floor of every comparison. Models are float64, but RMSNorm,
softmax and rotary tables inside Hugging Face and TransformerLens work in float32: two hosts
of the same weights differ by up to 1.4e-6 in a log-probability (measured), hence 1e-4 where
two implementations are compared and 1e-5 where one model is compared with itself.
"""

from __future__ import annotations

import naive
import pytest
import torch
from cases import ARCHITECTURES, cases, final_norm_of, hf_model, shared, slow

import tl_jacobian as tj

PROMPT = list(b"Paris is in")
TARGET, OTHER = 101, 32
SAME_MODEL, OTHER_MODEL = 1e-5, 1e-4
RAW = ("hooked", "bridge")

pytestmark = pytest.mark.each_architecture
every_case = pytest.mark.parametrize(("architecture", "state"), cases())
every_raw_case = pytest.mark.parametrize(("architecture", "state"), cases(*RAW))


def close(ours, expected, rtol):
    torch.testing.assert_close(ours, expected.detach().float(), rtol=rtol, atol=rtol * expected.max().item())


@every_case
def test_contract_unembedding_y_gives_the_models_own_logits(architecture, state):
    model = shared(architecture, state)
    lin = tj.linearize(model, PROMPT)
    with torch.no_grad():
        theirs = model(torch.tensor([PROMPT]))[0, -1]
    torch.testing.assert_close(lin.unembedding.logits(lin.y), theirs, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(lin.logits, theirs, rtol=1e-6, atol=1e-6)


@every_case
def test_jacobian_equals_the_row_by_row_one(architecture, state):
    model = shared(architecture, state)
    lin, run = tj.linearize(model, PROMPT), naive.run(model, PROMPT)
    expected = naive.jacobian(run)
    torch.testing.assert_close(lin.jacobian(), expected, rtol=SAME_MODEL, atol=SAME_MODEL)
    torch.testing.assert_close(lin.jacobian([0, -1]), expected[[0, -1]], rtol=SAME_MODEL, atol=SAME_MODEL)


@every_case
def test_jvp_equals_the_naive_jacobian(architecture, state, generator):
    model = shared(architecture, state)
    lin, run = tj.linearize(model, PROMPT), naive.run(model, PROMPT)
    dx = torch.randn(2, len(PROMPT), lin.d_model, generator=generator, dtype=torch.float64)
    expected = torch.einsum("toi,kti->ko", naive.jacobian(run), dx)
    torch.testing.assert_close(lin.jvp(dx), expected, rtol=SAME_MODEL, atol=SAME_MODEL)


@every_case
def test_semantic_scope_is_the_gradient_of_the_logit(architecture, state):
    model = shared(architecture, state)
    run = naive.run(model, PROMPT)
    z, lin = run.logits[-1], tj.linearize(model, PROMPT)
    close(tj.semantic_scope(lin, TARGET).scores, naive.grad(z[TARGET], run.x).norm(dim=-1), SAME_MODEL)
    contrast = naive.grad(z[TARGET] - z[OTHER], run.x).norm(dim=-1)
    close(tj.semantic_scope(lin, TARGET, minus=OTHER).scores, contrast, SAME_MODEL)
    close(tj.semantic_scope(lin).scores, naive.grad(z.max(), run.x).norm(dim=-1), SAME_MODEL)


@every_raw_case
def test_temperature_scope_is_the_gradient_of_the_norm(architecture, state):
    model = shared(architecture, state)
    run = naive.run(model, PROMPT)
    ours = tj.temperature_scope(tj.linearize(model, PROMPT))
    close(ours.scores, naive.grad(run.y[-1].norm(), run.x).norm(dim=-1), SAME_MODEL)


@every_case
def test_fisher_scope_is_the_trace_through_the_logits(architecture, state):
    model = shared(architecture, state)
    lin = tj.linearize(model, PROMPT)
    expected = naive.fisher_trace(naive.run(model, PROMPT), lin.unembedding.logits)
    close(tj.fisher_scope(lin).scores, expected, SAME_MODEL)
    low_rank = tj.fisher_scope(lin, method="low_rank", rank=lin.d_model)
    close(low_rank.scores, expected, SAME_MODEL)


@every_case
def test_output_scope_is_plain_autograd(architecture, state):
    model = shared(architecture, state)
    run = naive.run(model, PROMPT)
    entropy = lambda z: torch.distributions.Categorical(logits=z).entropy()  # noqa: E731
    ours = tj.output_scope(tj.linearize(model, PROMPT), lambda y, z: entropy(z), name="entropy")
    close(ours.scores, naive.grad(entropy(run.logits[-1]), run.x).norm(dim=-1), SAME_MODEL)


@pytest.mark.parametrize(
    ("fn", "got"),
    [
        (lambda y, z: z.sum() + float("nan"), "nan"),
        (lambda y, z: z.sum() + float("inf"), "inf"),
        (lambda y, z: torch.complex(z.sum(), z.sum()), "j"),
    ],
)
def test_a_value_that_is_no_number_is_refused_though_its_gradient_is_finite(fn, got):
    lin = tj.linearize(shared("llama", "bridge"), PROMPT)
    with pytest.raises(tj.errors.DirectionError, match=rf"gave .*{got}.*, expected a finite real number"):
        tj.output_scope(lin, fn)


def test_a_function_of_y_alone():
    lin = tj.linearize(shared("llama", "bridge"), PROMPT)
    one, two = (tj.output_scope(lin, fn) for fn in (lambda y: y.sum(), lambda y, z: y.sum()))
    assert torch.equal(one.scores, two.scores)


@every_case
def test_vjp_predicts_finite_differences(architecture, state, generator):
    model = shared(architecture, state)
    lin = tj.linearize(model, PROMPT)
    v = torch.randn(lin.d_model, generator=generator, dtype=torch.float64)
    delta = torch.randn(len(PROMPT), lin.d_model, generator=generator, dtype=torch.float64)
    predicted = (lin.vjp(v) * delta).sum()
    # float32 norms put about 1e-7 of noise on y: with this step, 1e-3 of the difference at most.
    step = 2e-4
    there, back = (naive.run(model, PROMPT, nudge=sign * step * delta).y[-1] for sign in (1, -1))
    measured = v @ (there - back) / (2 * step)
    torch.testing.assert_close(measured, predicted, rtol=5e-3, atol=1e-3 * v.norm().item())


@every_raw_case
def test_raw_scopes_equal_autograd_on_the_hugging_face_model(architecture, state):
    hf = hf_model(architecture)
    run = naive.run_hf(hf, final_norm_of(hf), PROMPT)
    lin = tj.linearize(shared(architecture, state), PROMPT)
    close(tj.semantic_scope(lin, TARGET).scores, naive.grad(run.logits[-1, TARGET], run.x).norm(dim=-1), OTHER_MODEL)
    close(tj.temperature_scope(lin).scores, naive.grad(run.y[-1].norm(), run.x).norm(dim=-1), OTHER_MODEL)
    close(tj.fisher_scope(lin).scores, naive.fisher_trace(run, lin.unembedding.logits), OTHER_MODEL)


# -- what folding and centring may not change --------------------------------------------


@every_case
def test_fisher_is_the_same_in_every_state(architecture, state):
    """Raw, folded, centred, both hosts: one Fisher Scope, that of the Hugging Face model."""
    hf = hf_model(architecture)
    run = naive.run_hf(hf, final_norm_of(hf), PROMPT)
    raw = tj.linearize(shared(architecture, "bridge"), PROMPT)
    expected = naive.fisher_trace(run, raw.unembedding.logits)
    close(tj.fisher_scope(tj.linearize(shared(architecture, state), PROMPT)).scores, expected, OTHER_MODEL)


@pytest.mark.parametrize(("architecture", "state"), cases("hooked-folded"))
def test_semantic_is_the_same_when_folded(architecture, state):
    folded, raw = (tj.linearize(shared(architecture, s), PROMPT) for s in (state, "hooked"))
    close(tj.semantic_scope(folded, TARGET).scores, tj.semantic_scope(raw, TARGET).scores, OTHER_MODEL)


@pytest.mark.parametrize(("architecture", "state"), cases("hooked-centered", "bridge-compat"))
def test_semantic_of_a_centred_unembedding_is_the_centred_logit_and_says_so(architecture, state):
    hf = hf_model(architecture)
    z = (run := naive.run_hf(hf, final_norm_of(hf), PROMPT)).logits[-1]
    centred = architecture != "gemma2"  # TransformerLens doesn't centre under a soft-cap
    expected = naive.grad(z[TARGET] - z.mean() if centred else z[TARGET], run.x).norm(dim=-1)
    ours = tj.semantic_scope(tj.linearize(shared(architecture, state), PROMPT), TARGET)
    close(ours.scores, expected, OTHER_MODEL)
    assert ("centred" in ours.target) == centred


@pytest.mark.parametrize(("architecture", "state"), cases("hooked-folded", "hooked-centered", "bridge-compat"))
def test_temperature_of_a_folded_model(architecture, state):
    """Refused as it is; the paper's scores with the original norm; and a confidence that folding leaves alone."""
    hf = hf_model(architecture)
    norm = final_norm_of(hf)
    run = naive.run_hf(hf, norm, PROMPT)
    model = shared(architecture, state)
    plain = tj.linearize(model, PROMPT)
    with pytest.raises(tj.errors.DegenerateScopeError, match=r'final_norm="original".*no_processing.*logit_norm'):
        tj.temperature_scope(plain)
    given = tj.linearize(model, PROMPT, final_norm=norm)
    torch.testing.assert_close(given.y, run.y[-1].detach(), rtol=OTHER_MODEL, atol=OTHER_MODEL)
    expected = naive.grad(run.y[-1].norm(), run.x).norm(dim=-1)
    close(tj.temperature_scope(given).scores, expected, OTHER_MODEL)
    z = run.logits[-1]
    expected = naive.grad((z - z.mean()).norm(), run.x).norm(dim=-1)
    close(tj.temperature_scope(plain, confidence="logit_norm").scores, expected, OTHER_MODEL)


@pytest.mark.parametrize(("architecture", "state"), cases("hooked-folded", "bridge-compat"))
def test_every_scope_is_the_same_with_and_without_the_original_norm(architecture, state):
    model, norm = shared(architecture, state), final_norm_of(hf_model(architecture))
    plain, given = tj.linearize(model, PROMPT), tj.linearize(model, PROMPT, final_norm=norm)
    torch.testing.assert_close(given.unembedding.logits(given.y), plain.logits, rtol=1e-6, atol=1e-6)
    for scope in (lambda lin: tj.semantic_scope(lin, TARGET), tj.fisher_scope):
        close(scope(given).scores, scope(plain).scores, SAME_MODEL)


@every_raw_case
def test_a_norm_of_its_own_needs_no_final_norm(architecture, state):
    norm = final_norm_of(hf_model(architecture))
    with pytest.raises(tj.errors.UnsupportedModelError, match="leave final_norm out"):
        tj.linearize(shared(architecture, state), PROMPT, final_norm=norm)


# -- prompts -----------------------------------------------------------------------------


@every_case
def test_a_later_token_never_changes_an_earlier_attribution(architecture, state):
    model = shared(architecture, state)
    short = tj.semantic_scope(tj.linearize(model, PROMPT[:6]), TARGET)
    for tail in (PROMPT[6:], [7, 7]):
        longer = tj.semantic_scope(tj.linearize(model, PROMPT[:6] + tail, position=5), TARGET)
        assert torch.equal(longer.scores, short.scores)
        assert longer.tokens == short.tokens
    expected = naive.run(model, PROMPT)
    close(short.scores, naive.grad(expected.logits[5, TARGET], expected.x)[:6].norm(dim=-1), SAME_MODEL)


@every_case
def test_a_batch_gives_each_prompt_the_scores_it_gets_alone(architecture, state):
    model = shared(architecture, state)
    prompts = [PROMPT, PROMPT[:4], [256, *PROMPT[2:9]], [5]]
    batch = tj.linearize(model, prompts)
    for scope in (lambda lin: tj.semantic_scope(lin, TARGET), lambda lin: tj.fisher_scope(lin)):
        for together, prompt in zip(scope(batch), prompts, strict=True):
            alone = scope(tj.linearize(model, prompt))
            close(together.scores, alone.scores, SAME_MODEL)
            assert together.tokens == alone.tokens
    close(tj.semantic_scope(batch[1], TARGET).scores, tj.semantic_scope(batch, TARGET)[1].scores, 1e-6)


@pytest.mark.parametrize("architecture", ["llama", *slow(*(a for a in ARCHITECTURES if a != "llama"))])
def test_bfloat16_scores_are_those_of_a_float32_copy(architecture):
    model = shared(architecture, "bridge", torch.bfloat16)
    exact, rough = (tj.linearize(m, PROMPT) for m in (naive.twin(model), model))
    assert rough.y.dtype == rough.logits.dtype == torch.float32
    for scope in (lambda lin: tj.semantic_scope(lin, TARGET), tj.fisher_scope, tj.temperature_scope):
        ours, expected = scope(rough).scores, scope(exact).scores
        assert ours.dtype == torch.float32
        assert ((ours - expected).norm() / expected.norm()) < 1e-5  # float32 rounding; the same products, so 0 is seen
