"""Baselines, curves, linearity and patching of whole answers: against loops over the model's own runs."""

from __future__ import annotations

import naive
import pytest
import torch
from cases import cases, hf_model, shared

import tl_jacobian as tj
from tl_jacobian.errors import ArgumentError, PromptError, TargetError

PROMPT, ANSWER = list(b"Paris is"), list(b" in Fr")
START, TOKENS = len(PROMPT), PROMPT + ANSWER[:-1]
hosts = pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge", of=["gemma2", "qwen2"]))


def answered(architecture="llama", state="bridge", **options):
    model = shared(architecture, state)
    return model, tj.linearize(model, PROMPT, answer=ANSWER, **options)


def log_prob(logits, answer=ANSWER):
    """Of the answer, which is predicted at the last positions."""
    rows = logits[len(logits) - len(answer) :].log_softmax(-1)
    return sum(rows[i, token] for i, token in enumerate(answer))


def run_with(model, x):
    """Logits of the whole run with these embeddings."""
    with torch.no_grad():
        return model.run_with_hooks(torch.tensor([TOKENS]), fwd_hooks=[("hook_embed", lambda value, hook: x[None])])[0]


def without(x, positions):
    x = x.clone()
    x[list(positions)] = 0
    return x


@hosts
def test_leaving_out_a_token_of_the_prompt_asks_for_the_same_answer(architecture, state):
    model, lin = answered(architecture, state)
    x, old = lin.graph.x.detach()[0], run_with(model, lin.graph.x.detach()[0])
    drops = tj.baselines.leave_one_out(lin, batch_size=3)
    far = tj.baselines.leave_one_out(lin, measure="kl")
    assert len(drops) == len(far) == START
    assert drops.tokens == tuple(TOKENS)
    for t in range(START):
        new = run_with(model, without(x, [t]))
        assert drops.scores[t].item() == pytest.approx((log_prob(old) - log_prob(new)).item(), abs=1e-5)
        p, q = (z[START - 1 :].log_softmax(-1) for z in (old, new))
        assert far.scores[t].item() == pytest.approx((p.exp() * (p - q)).sum().item(), abs=1e-5)


@pytest.mark.parametrize("architecture", ["gpt2"])
def test_leaving_out_is_what_the_hugging_face_model_does(architecture):
    _, lin = answered(architecture)
    hf = hf_model(architecture)
    x = hf.get_input_embeddings()(torch.tensor(TOKENS)).detach()
    with torch.no_grad():
        values = [
            log_prob(hf(inputs_embeds=without(x, at)[None]).logits[0]) for at in ([], *([t] for t in range(START)))
        ]
    want = torch.stack([values[0] - value for value in values[1:]])
    torch.testing.assert_close(tj.baselines.leave_one_out(lin).scores, want.float(), rtol=1e-4, atol=1e-5)


@hosts
def test_smoothgrad_averages_the_gradients_of_the_answer_s_log_probability(architecture, state):
    model, lin = answered(architecture, state)
    a = tj.baselines.smoothgrad(lin, noise=0.2, samples=2)
    x, generator = lin.graph.x.detach()[0], torch.Generator().manual_seed(0)
    size = 0.2 * x.square().mean().sqrt()
    total = torch.zeros_like(x)
    for one in torch.randn(2, *x.shape, generator=generator, dtype=torch.float64):
        run = naive.run(model, TOKENS, nudge=size * one)
        total += naive.grad(log_prob(run.logits), run.x) / 2
    torch.testing.assert_close(a.scores, total.norm(dim=-1).float(), rtol=1e-4, atol=1e-6)


def test_integrated_gradients_of_an_answer_add_up():
    model, lin = answered()
    x = lin.graph.x.detach()[0]
    a = tj.baselines.path_integrated_scope(lin, baseline=x / 2, nodes="gauss_legendre", steps=8)
    change = log_prob(run_with(model, x)) - log_prob(run_with(model, x / 2))
    assert a.metadata["converged"]
    assert a.metadata["value"] - a.metadata["baseline_value"] == pytest.approx(change.item(), rel=1e-5)
    alphas, weights = (torch.tensor(each) for each in ([0.5 - 0.5 / 3**0.5, 0.5 + 0.5 / 3**0.5], [0.5, 0.5]))
    parts = torch.zeros_like(x)
    for alpha, weight in zip(alphas, weights, strict=True):
        run = naive.run(model, TOKENS, nudge=(alpha - 1) * x / 2)
        parts += weight * x / 2 * naive.grad(log_prob(run.logits), run.x)
    two = tj.baselines.path_integrated_scope(
        lin, baseline=x / 2, nodes="gauss_legendre", steps=2, max_steps=2, tol=0.999
    )
    torch.testing.assert_close(two.scores, parts.norm(dim=-1).float(), rtol=1e-4, atol=1e-6)
    grid = tj.baselines.path_integrand(lin, alphas=[1.0])
    torch.testing.assert_close(grid.values[0], tj.semantic_scope(lin).scores, rtol=1e-4, atol=1e-6)


@hosts
def test_moving_an_embedding_changes_the_answer_s_log_probability(architecture, state):
    model, lin = answered(architecture, state)
    x, at = lin.graph.x.detach()[0], [1, START]  # a token of the prompt, and the answer's first
    found = tj.linearity(lin, epsilons=[0.01, 0.5], way="away", positions=at)
    before = log_prob(run_with(model, x))
    for j, t in enumerate(at):
        for i, epsilon in enumerate((0.01, 0.5)):
            moved = x.clone()
            moved[t] -= epsilon * x[t]
            assert found.actual[i, j].item() == pytest.approx(
                (log_prob(run_with(model, moved)) - before).item(), abs=1e-5
            )
    assert found.relative_error[0].max() < 0.05


@hosts
@pytest.mark.parametrize("perturbation", ["zero", "delete"])
def test_curves_remove_the_prompt_s_tokens_and_ask_for_the_same_answer(architecture, state, perturbation):
    model, lin = answered(architecture, state)
    a, x = tj.semantic_scope(lin), lin.graph.x.detach()[0]
    (curves,) = tj.perturbation_curves(lin, a, k=[25, 50], perturbation=perturbation)
    order = a.scores[:START].argsort(descending=True, stable=True).tolist()
    assert curves.n == (2, 4)  # of the prompt's eight tokens, whatever the answer's score

    def value(gone):
        if perturbation == "zero":
            return log_prob(run_with(model, without(x, gone))).item()
        kept = [t for i, t in enumerate(TOKENS) if i not in gone]
        with torch.no_grad():
            return log_prob(model(torch.tensor([kept]))[0]).item()

    assert curves.clean == pytest.approx(value([]), abs=1e-5)
    for i, n in enumerate(curves.n):
        assert curves.removed[i].item() == pytest.approx(value(order[:n]), abs=1e-5)
        assert curves.kept[i].item() == pytest.approx(value(order[n:]), abs=1e-5)
    assert curves.metadata["target"] == lin.text


def test_curves_take_words_and_scores_of_one_s_own():
    _, lin = answered()
    mine = tj.Attribution.from_scores(lin, range(len(TOKENS)), name="mine")
    per_word, own, left_out = tj.perturbation_curves(
        lin, [tj.semantic_scope(lin).words(), mine, tj.baselines.leave_one_out(lin)], k=[20]
    )
    assert own.n == (2,)
    assert per_word.clean == left_out.clean


def test_a_span_is_what_is_asked_for():
    model = shared("llama", "bridge")
    lin = tj.linearize(model, PROMPT, answer=ANSWER, span=slice(-2, None))
    drops = tj.baselines.leave_one_out(lin)
    x = lin.graph.x.detach()[0]
    want = log_prob(run_with(model, x), ANSWER[-2:]) - log_prob(run_with(model, without(x, [3])), ANSWER[-2:])
    assert drops.scores[3].item() == pytest.approx(want.item(), abs=1e-5)
    assert len(drops) == START


def test_what_an_answer_cannot_be_asked_is_refused():
    _, lin = answered()
    for refused in (
        lambda: tj.baselines.leave_one_out(lin, 7),
        lambda: tj.baselines.smoothgrad(lin, minus=7),
        lambda: tj.linearity(lin, 7),
        lambda: tj.perturbation_curves(lin, tj.semantic_scope(lin), target=7),
    ):
        with pytest.raises(TargetError, match=r"explains the answer .*: leave it out"):
            refused()
    with pytest.raises(ArgumentError, match=r"explained token and the scored one must be the same"):
        tj.perturbation_curves(lin[-1], tj.semantic_scope(lin))
    with pytest.raises(ArgumentError, match=r"explained token and the scored one must be the same"):
        tj.perturbation_curves(lin, tj.semantic_scope(lin[-1]))
    across = tj.semantic_scope(lin).grouped_by([[0, START], [1]])
    with pytest.raises(ArgumentError, match="a unit has tokens of the prompt and others"):
        tj.perturbation_curves(lin, across)
    with pytest.raises(ArgumentError, match="leaves no prompt"):
        tj.perturbation_curves(lin, tj.semantic_scope(lin), k=[100], perturbation="delete")


# -- patching --------------------------------------------------------------------------

CORRUPTED = list(b"Naris as")


@hosts
@pytest.mark.parametrize("kind", ["resid_pre", "heads"])
def test_patching_moves_the_answer_s_log_probability(architecture, state, kind):
    model = shared(architecture, state)
    found = tj.compare_patching(model, PROMPT, CORRUPTED, kind, answer=ANSWER)
    clean, bad = (torch.tensor([prompt + ANSWER[:-1]]) for prompt in (PROMPT, CORRUPTED))
    hook = {"resid_pre": "blocks.1.hook_resid_pre", "heads": "blocks.1.attn.hook_z"}[kind]
    kept = {}
    with torch.no_grad():
        for ids, name in ((clean, "clean"), (bad, "bad")):
            logits = model.run_with_hooks(
                ids, fwd_hooks=[(hook, lambda value, hook, name=name: kept.__setitem__(name, value.clone()))]
            )[0]
            kept[name + " value"] = log_prob(logits).item()

        def patched(place, share):
            def change(value, hook):
                at = (slice(None), slice(None), place) if kind == "heads" else (slice(None), place)
                value = value.clone()
                value[at] += share * (kept["clean"][at] - value[at])
                return value

            return log_prob(model.run_with_hooks(bad, fwd_hooks=[(hook, change)])[0]).item()

        assert found.clean == pytest.approx(kept["clean value"], abs=1e-5)
        assert found.corrupted == pytest.approx(kept["bad value"], abs=1e-5)
        for place in (0, 3) if kind == "heads" else (0, START):  # a place of the answer too
            effect = patched(place, 1.0) - kept["bad value"]
            assert found.measured.values[1, place].item() == pytest.approx(effect, abs=1e-5)
            # The bridge's RMSNorms work in float32 even in a float64 model: smaller steps drown in rounding.
            step, tolerance = (1e-2, 1e-3) if state == "bridge" else (1e-4, 1e-5)
            slope = (patched(place, step) - patched(place, -step)) / (2 * step)
            assert found.predicted.values[1, place].item() == pytest.approx(slope, abs=tolerance)


def test_two_answers_or_metrics_are_refused():
    model = shared("llama", "bridge")
    with pytest.raises(ArgumentError, match="the metric is the answer's log-probability"):
        tj.predict_patching(model, PROMPT, CORRUPTED, answer=ANSWER, target=7)
    with pytest.raises(PromptError, match="activations can only be exchanged token by token"):
        tj.predict_patching(model, PROMPT[1:], CORRUPTED, answer=ANSWER)
