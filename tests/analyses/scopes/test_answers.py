"""Scopes of whole answers: against autograd of the summed quantity, position by position, and their error bars."""

from __future__ import annotations

import math

import naive
import pytest
import torch
from cases import cases, final_norm_of, hf_model, shared

import tl_jacobian as tj
from tl_jacobian.errors import ArgumentError, DirectionError, TargetError

PROMPT, ANSWER, OTHER = list(b"Paris is"), list(b" in Fr"), list(b" no")
SAME_MODEL, OTHER_MODEL = 1e-5, 1e-4  # as in test_oracles.py
RAW = ("hooked", "bridge")


def close(ours, expected, rtol=SAME_MODEL):
    torch.testing.assert_close(ours, expected.detach().float(), rtol=rtol, atol=rtol * expected.max().item())


def whole(architecture, state):
    model = shared(architecture, state)
    return tj.linearize(model, PROMPT, answer=ANSWER), naive.run(model, (PROMPT + ANSWER)[:-1])


def log_prob(run, answer=ANSWER):
    """The answer's log-probability, from the logits of a whole run."""
    return sum(run.logits[len(PROMPT) - 1 + i].log_softmax(-1)[token] for i, token in enumerate(answer))


@pytest.mark.parametrize(("architecture", "state"), cases())
def test_semantic_scope_of_an_answer_is_the_gradient_of_its_log_probability(architecture, state):
    lin, run = whole(architecture, state)
    close(tj.semantic_scope(lin).scores, naive.grad(log_prob(run), run.x).norm(dim=-1))
    assert lin.log_probs.sum().item() == pytest.approx(log_prob(run).item(), rel=1e-6)


@pytest.mark.parametrize(("architecture", "state"), cases(*RAW))
def test_semantic_and_temperature_equal_autograd_on_the_hugging_face_model(architecture, state):
    lin, hf = tj.linearize(shared(architecture, state), PROMPT, answer=ANSWER), hf_model(architecture)
    run = naive.run_hf(hf, final_norm_of(hf), (PROMPT + ANSWER)[:-1])
    scale = (tj.linearize(shared(architecture, state), PROMPT).graph.x[0, 0].norm() / run.x[0, 0].norm()).item()
    close(tj.semantic_scope(lin).scores, naive.grad(log_prob(run), run.x).norm(dim=-1) / scale, OTHER_MODEL)
    norms = run.y[len(PROMPT) - 1 :].norm(dim=-1).sum()
    close(tj.temperature_scope(lin).scores, naive.grad(norms, run.x).norm(dim=-1) / scale, OTHER_MODEL)


@pytest.mark.parametrize(("architecture", "state"), cases(of=["phi", "llama"]))
def test_fisher_of_an_answer_is_the_sum_of_its_positions_traces(architecture, state):
    lin, run = whole(architecture, state)
    expected = torch.zeros(len(run.y), dtype=torch.float64)
    for at in lin.positions:
        expected += naive.fisher_trace(run, lin.unembedding.logits, at)
    close(tj.fisher_scope(lin, method="exact").scores, expected)
    close(tj.fisher_scope(lin, method="low_rank", rank=lin.d_model).scores, expected)


def test_other_scopes_are_sums_over_the_answer():
    lin, run = whole("llama", "bridge")
    first = len(PROMPT) - 1
    entropy = sum((z.softmax(-1) * z.log_softmax(-1)).sum() for z in run.logits[first:])
    ours = tj.output_scope(lin, lambda y, z: (z.softmax(-1) * z.log_softmax(-1)).sum())
    close(ours.scores, naive.grad(entropy, run.x).norm(dim=-1))
    v = torch.randn(lin.y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    close(tj.direction_scope(lin, v).scores, naive.grad((v * run.y[first:]).sum(), run.x).norm(dim=-1))
    close(tj.direction_scope(lin, v[0]).scores, naive.grad((run.y[first:] @ v[0]).sum(), run.x).norm(dim=-1))
    norms = sum((z - z.mean()).norm() for z in run.logits[first:])
    close(tj.temperature_scope(lin, confidence="logit_norm").scores, naive.grad(norms, run.x).norm(dim=-1))


def test_a_contrast_subtracts_the_gradients_of_two_answers():
    model = shared("llama", "bridge")
    lins = [tj.linearize(model, PROMPT, answer=answer) for answer in (ANSWER, OTHER)]
    grads = []
    for answer in (ANSWER, OTHER):
        run = naive.run(model, (PROMPT + answer)[:-1])
        grads.append(naive.grad(log_prob(run, answer), run.x)[: len(PROMPT)])
    a = tj.semantic_scope(lins[0], minus=lins[1])
    close(a.scores, (grads[0] - grads[1]).norm(dim=-1))
    assert len(a) == len(PROMPT)
    assert a.metadata["value"] == pytest.approx((lins[0].log_probs.sum() - lins[1].log_probs.sum()).item())
    with pytest.raises(TargetError, match="answers another prompt"):
        tj.semantic_scope(lins[0], minus=tj.linearize(model, PROMPT[1:], answer=OTHER))


def test_a_batch_of_answers_gives_each_the_scores_it_has_alone():
    model = shared("gpt2", "bridge")
    prompts, answers = [PROMPT, PROMPT[2:]], [ANSWER, OTHER]
    batch = tj.linearize(model, prompts, answer=answers)
    for scope in (tj.semantic_scope, tj.temperature_scope, lambda lin: tj.fisher_scope(lin, method="exact")):
        for together, prompt, answer in zip(scope(batch), prompts, answers, strict=True):
            alone = scope(tj.linearize(model, prompt, answer=answer))
            torch.testing.assert_close(together.scores, alone.scores)


def test_one_token_s_answer_is_that_token():
    model = shared("gpt2", "bridge")
    answer, alone = tj.linearize(model, PROMPT, answer=[101]), tj.linearize(model, PROMPT)
    for scope in (tj.temperature_scope, tj.fisher_scope, lambda lin: tj.fisher_scope(lin, method="estimate")):
        torch.testing.assert_close(scope(answer).scores, scope(alone).scores)
    log_p = tj.output_scope(alone, lambda y, z: z.log_softmax(-1)[101])
    torch.testing.assert_close(tj.semantic_scope(answer).scores, log_p.scores)


@pytest.mark.parametrize(
    ("n", "seeds"), [(8, 20), pytest.param(2, 60, marks=pytest.mark.slow), pytest.param(8, 60, marks=pytest.mark.slow)]
)
def test_the_estimate_of_an_answer_is_unbiased_with_an_honest_error(n, seeds):
    """Many seeds, n_products fixed: the mean lies within four of its standard errors, z has a spread near one."""
    answer = list(b" in France, by")[:n]
    lin = tj.linearize(shared("llama", "bridge"), PROMPT, answer=answer)
    exact = tj.fisher_scope(lin, method="exact").scores.double()
    made = [
        tj.fisher_scope(lin, method="estimate", n_products=60, generator=torch.Generator().manual_seed(seed))
        for seed in range(seeds)
    ]
    scores = torch.stack([a.scores.double() for a in made])
    z = (scores - exact) / torch.stack([a.stderr.double() for a in made])
    assert ((scores.mean(0) - exact).abs() < 4 * scores.std(0) / math.sqrt(len(made))).all()
    assert 0.6 < z.square().mean().item() < 1.6


def test_products_of_an_answer_have_a_row_for_each_position():
    lin, run = whole("gpt2", "bridge")
    v = torch.randn(3, *lin.y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.stack([naive.grad((one * run.y[len(PROMPT) - 1 :]).sum(), run.x) for one in v])
    torch.testing.assert_close(lin.vjp(v), expected, rtol=SAME_MODEL, atol=SAME_MODEL)
    torch.testing.assert_close(lin.vjp(v[0]), expected[0], rtol=SAME_MODEL, atol=SAME_MODEL)
    dx = torch.randn(2, *run.x.shape[-2:], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    forward = torch.stack([(v * y).sum((1, 2)) for y in lin.jvp(dx)])
    torch.testing.assert_close(forward, torch.einsum("ktd,ntd->nk", expected, dx), rtol=SAME_MODEL, atol=SAME_MODEL)
    torch.testing.assert_close(lin.jacobian(1), naive.jacobian(run, len(PROMPT))[: len(PROMPT) + 1])
    with pytest.raises(DirectionError, match=r"expected \(6, 32\) or \(k, 6, 32\)"):
        lin.vjp(v[0, 0])


def test_prompt_and_answer_are_held_apart():
    lin, _ = whole("gpt2", "bridge")
    a = tj.semantic_scope(lin)
    assert len(a) == len(PROMPT) + len(ANSWER) - 1  # the last token of the answer is no source
    assert a.prompt.tokens[: len(a.prompt)] == tuple(PROMPT)
    torch.testing.assert_close(torch.cat([a.prompt.scores, a.answer.scores]), a.scores)
    assert [text for w in (a.prompt.words(), a.answer.words()) for text in w.str_tokens] == list(a.words().str_tokens)
    assert a.words().prompt.str_tokens == a.prompt.words().str_tokens
    with pytest.raises(ArgumentError, match="no answer was explained"):
        _ = tj.semantic_scope(lin[0]).answer


def test_a_target_beside_an_answer_is_refused():
    lin, _ = whole("gpt2", "bridge")
    with pytest.raises(TargetError, match="explains the answer"):
        tj.semantic_scope(lin, 5)
    with pytest.raises(TargetError, match="another answer to the same prompt"):
        tj.semantic_scope(lin, minus=5)
    with pytest.raises(TargetError, match="lin has no answer"):
        tj.semantic_scope(lin[0], minus=lin)


@pytest.mark.parametrize(("architecture", "state"), cases(*RAW, of=["gpt2", "llama"]))
def test_the_drill_down_of_an_answer_is_autograd_of_its_log_probability(architecture, state):
    model, names = shared(architecture, state), ["blocks.1.hook_attn_out", "blocks.2.hook_resid_pre"]
    lin = tj.linearize(model, PROMPT, answer=ANSWER, record=[*names, "heads"])
    run = naive.inside(model, (PROMPT + ANSWER)[:-1], names)
    value = log_prob(run)
    for name in names:
        (expected,) = torch.autograd.grad(value, run.at[name], retain_graph=True)
        grid = tj.layer_influence(lin, at=[name])
        close(grid.values[0], expected[0].norm(dim=-1))
    assert tj.head_influence(lin, "temperature").values.shape == (3, 4)
    split = tj.path_scope(lin, names[1])
    close(split.through.scores, tj.semantic_scope(lin).scores.double())  # all paths lead through the residual stream


def test_input_x_gradient_and_rollout_take_an_answer():
    model = shared("gpt2", "bridge")
    lin, run = tj.linearize(model, PROMPT, answer=ANSWER, record="sources"), naive.run(model, (PROMPT + ANSWER)[:-1])
    product = run.x[0] * naive.grad(log_prob(run), run.x)
    close(tj.baselines.input_x_gradient(lin).scores, product.norm(dim=-1))
    alone = [
        tj.baselines.attention_rollout(tj.linearize(model, (PROMPT + ANSWER)[: at + 1], record="sources"))
        for at in lin.positions
    ]
    mean = torch.zeros(len(lin.tokens))
    for a in alone:
        mean[: len(a)] += a.scores / len(alone)
    torch.testing.assert_close(tj.baselines.attention_rollout(lin).scores, mean)


def test_what_explains_one_position_says_so():
    lin, _ = whole("gpt2", "bridge")
    for ask in (tj.residual_contributions, tj.fisher_spectrum):
        with pytest.raises(
            ArgumentError, match=r"AnswerLinearization, expected one position's linearization.*lin\[i\]"
        ):
            ask(lin)
