"""The Fisher estimate: unbiased, with honest errors, for a fixed budget of products."""

from __future__ import annotations

import naive
import pytest
import torch
from cases import HAS_HOOKED, cases, make, shared

import tl_jacobian as tj
from tl_jacobian.analyses.scopes import estimate as policy
from tl_jacobian.analyses.scopes.estimate import Estimate, Traces, run
from tl_jacobian.core.graph import Graph

PROMPT = list(b"Paris is in")
hosts = pytest.mark.parametrize("state", ["hooked", "bridge"] if HAS_HOOKED else ["bridge"])


def estimates(model, n_products: int, seeds: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and errors of many independent estimates, a batch of the same prompt; (seeds, pos) each."""
    made = tj.fisher_scope(
        tj.linearize(model, [PROMPT] * seeds),
        method="estimate",
        n_products=n_products,
        generator=[torch.Generator().manual_seed(s) for s in range(seeds)],
    )
    return torch.stack([a.scores for a in made]).double(), torch.stack([a.stderr for a in made]).double()


@pytest.mark.parametrize(("architecture", "state"), cases())
def test_unbiased_and_calibrated_for_a_fixed_budget(architecture, state):
    """14 products of 32: the mean of 60 estimates within 4 of its standard errors, tokens within theirs.

    With 8 probes an estimate lies within 2 of its standard errors in 91% of all cases (Student's t with 7
    degrees of freedom); all tokens of one estimate share their probes, so 60 draws allow 80 to 99%.
    """
    model = shared(architecture, state)
    exact = naive.fisher_trace(naive.run(model, PROMPT), tj.linearize(model, PROMPT).unembedding.logits)
    scores, errors = estimates(model, 14, 60)
    of_the_mean = scores.std(0) / len(scores) ** 0.5
    assert ((scores.mean(0) - exact).abs() < 4 * of_the_mean + 1e-6 * exact.max()).all()
    inside = ((scores - exact).abs() < 2 * errors).double().mean()
    assert 0.8 < inside < 0.995
    assert (errors.median(0).values / scores.std(0)).median() == pytest.approx(1, abs=0.25)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("llama", {"n_products": 14}),
        ("llama", {"rtol": 0.14}),
        ("gpt2", {"n_products": 14}),
        ("llama", {"n_products": 26}),
    ],
)
def test_errors_say_how_far_off_an_estimate_is(architecture, options, monkeypatch):
    """200 estimates: no further off than Student's t allows, whether probes are few or stop when they seem to agree.

    z = (estimate - exact) / stderr. With s / sqrt(n) its mean square was 2.4, 1.8, 2.3 and 2.0; now 1.4, 1.2, 1.4, 1.3.
    """
    model = shared(architecture, "bridge")
    exact = tj.fisher_scope(tj.linearize(model, PROMPT), method="exact").scores
    monkeypatch.setattr(policy, "_BLOCK", 2)
    made = tj.fisher_scope(
        tj.linearize(model, [PROMPT] * 200),
        method="estimate",
        generator=[torch.Generator().manual_seed(seed) for seed in range(200)],
        **options,
    )
    stopped = [a for a in made if a.stderr is not None]
    assert len(stopped) > 60
    n = min(a.metadata["n_probes"] for a in stopped)
    z = torch.stack([(a.scores - exact) / a.stderr for a in stopped])
    assert z.square().mean() < 1.25 * (n - 1) / (n - 3)
    assert (z.abs() < 1).float().mean() > 0.6
    assert (z.abs() < 2).float().mean() > 0.9


@hosts
def test_deflation_makes_it_precise(state, monkeypatch):
    """The same number of products, with and without directions taken exactly."""
    model = shared("llama", state)
    exact = tj.fisher_scope(tj.linearize(model, PROMPT), method="exact").scores
    with_it, _ = estimates(model, 20, 30)
    monkeypatch.setattr(policy, "_BLOCK", 0)
    without, _ = estimates(model, 20, 30)
    spread = [((s - exact) / exact).abs().mean() for s in (with_it, without)]
    assert spread[0] < 0.5 * spread[1]


@hosts
def test_the_accuracy_asked_for_is_reached(state):
    lin = tj.linearize(shared("gpt2", state), PROMPT)
    exact = tj.fisher_scope(lin, method="exact")
    for rtol in (0.3, 0.1, 0.02):
        a = tj.fisher_scope(lin, method="estimate", rtol=rtol)
        assert a.metadata["relative_error"] <= rtol
        assert ((a.scores - exact.scores) / exact.scores).abs().mean() < 2 * rtol


@hosts
def test_what_can_not_be_cheaper_is_exact(state):
    lin = tj.linearize(shared("gpt2", state), PROMPT)
    exact = tj.fisher_scope(lin, method="exact")
    for a in (tj.fisher_scope(lin, method="estimate", n_products=32), tj.fisher_scope(lin)):
        assert a.metadata["method"] == "exact"
        assert a.stderr is None
        torch.testing.assert_close(a.scores, exact.scores)


@hosts
def test_a_batch_gives_each_prompt_the_estimate_it_gets_alone(state):
    model, prompts = shared("neox", state), [PROMPT, list(b"Rome"), list(b"The sun and the sky")]
    for options in ({"n_products": 14}, {"rtol": 0.1}, {"rtol": 0.03}):
        together = tj.fisher_scope(tj.linearize(model, prompts), method="estimate", **options)
        for a, prompt in zip(together, prompts, strict=True):
            alone = tj.fisher_scope(tj.linearize(model, prompt), method="estimate", **options)
            torch.testing.assert_close(a.scores, alone.scores, rtol=1e-4, atol=1e-5 * alone.scores.max().item())
            torch.testing.assert_close(a.stderr, alone.stderr, rtol=1e-2, atol=1e-5 * alone.scores.max().item())
            assert a.metadata["n_products"] == alone.metadata["n_products"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_short_prompts_too_whose_directions_nearly_coincide(dtype):
    """Some directions are dropped there, and which ones must not hang on rounding (it moved scores by 5e-4)."""
    model, prompts = shared("llama", "bridge", dtype), [[1, 2], list(b"The end"), [9, 8]]
    together = tj.fisher_scope(tj.linearize(model, prompts), method="estimate")
    assert min(a.metadata["n_exact_directions"] for a in together) < 24
    for a, prompt in zip(together, prompts, strict=True):
        alone = tj.fisher_scope(tj.linearize(model, prompt), method="estimate")
        torch.testing.assert_close(a.scores, alone.scores, rtol=1e-5, atol=0)


def test_each_prompt_of_a_batch_may_have_a_generator():
    model, prompts = shared("gpt2", "bridge"), [PROMPT, PROMPT, list(b"Rome")]
    seeded = [torch.Generator().manual_seed(seed) for seed in (5, 6, 7)]
    together = tj.fisher_scope(tj.linearize(model, prompts), method="estimate", n_products=14, generator=seeded)
    assert not torch.equal(together[0].scores, together[1].scores)
    for a, prompt, seed in zip(together, prompts, (5, 6, 7), strict=True):
        generator = torch.Generator().manual_seed(seed)
        alone = tj.fisher_scope(tj.linearize(model, prompt), method="estimate", n_products=14, generator=generator)
        torch.testing.assert_close(a.scores, alone.scores, rtol=1e-5, atol=0)
        assert a.metadata["seed"] == alone.metadata["seed"]


@hosts
def test_the_same_seed_gives_the_same_scores_and_the_callers_generators_stay(state):
    lin = tj.linearize(shared("gpt2", state), PROMPT)
    before = torch.get_rng_state()
    a, b = (tj.fisher_scope(lin, method="estimate", n_products=12) for _ in range(2))
    assert a == b
    assert a.metadata["seed"] == 0
    other = tj.fisher_scope(lin, method="estimate", n_products=12, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(a.scores, other.scores)
    assert torch.equal(before, torch.get_rng_state())


def test_the_metadata_add_up():
    a = tj.fisher_scope(tj.linearize(shared("gpt2", "bridge"), PROMPT), method="estimate", n_products=17)
    told = a.metadata
    assert told["method"] == "estimate"
    assert told["n_products"] == 17  # 3 pulled and pushed, 3 pulled, 8 probes
    assert told["n_exact_directions"] == 6
    assert told["n_probes"] == 8


@pytest.mark.parametrize("n_products", [10, 11, 13, 14, 17, 20, 26, 31])
def test_small_budgets_keep_enough_probes(n_products):
    a = tj.fisher_scope(tj.linearize(shared("gpt2", "bridge"), PROMPT), method="estimate", n_products=n_products)
    assert a.metadata["n_probes"] >= 8
    assert a.metadata["n_products"] == n_products


def test_a_model_without_second_derivatives_still_gets_an_estimate(monkeypatch):
    def no_pusher(self):
        raise RuntimeError("derivative for aten::_flash_attention_backward is not implemented")

    monkeypatch.setattr(Graph, "pusher", no_pusher)
    lin = tj.linearize(shared("gpt2", "bridge"), PROMPT)
    exact = tj.fisher_scope(lin, method="exact").scores
    a = tj.fisher_scope(lin, method="estimate", n_products=20)
    assert a.metadata["n_exact_directions"] == 12
    assert ((a.scores - exact).abs() < 5 * a.stderr).all()
    monkeypatch.setattr(Graph, "pusher", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tj.fisher_scope(lin, method="estimate", n_products=20)


def test_every_draw_of_probes_is_a_new_one():
    lins = list(tj.linearize(shared("gpt2", "bridge"), [PROMPT, PROMPT]))
    traces = [Traces.of(lin, seed=3) for lin in lins]
    for _ in range(2):
        for t in traces:
            t.draw(4)
        run(traces)
    first, second = traces[0].probes
    assert not torch.isclose(first, second).any()
    torch.testing.assert_close(traces[1].probes[0], first)  # prompts share their signs
    assert [t.n_products for t in traces] == [8, 8]


def test_harder_prompts_go_deeper_before_they_probe(monkeypatch):
    monkeypatch.setattr(policy, "_BLOCK", 2)
    lin = tj.linearize(shared("gpt2", "bridge"), PROMPT)
    easy, hard = (tj.fisher_scope(lin, method="estimate", rtol=rtol) for rtol in (0.5, 0.05))
    assert easy.metadata["n_exact_directions"] == 4
    assert hard.metadata["method"] == "exact" or hard.metadata["n_exact_directions"] > 4


def test_an_estimate_is_the_mean_and_its_error():
    lin = tj.linearize(shared("gpt2", "bridge"), [1, 2])
    traces = Traces.of(lin, seed=0)
    traces.exact = torch.tensor([1.0, 2.0], dtype=torch.float64)
    traces.probes = [torch.tensor([[1.0, 0.0], [3.0, 0.0]], dtype=torch.float64)]
    found = traces.estimate()
    assert found.scores.tolist() == [3.0, 2.0]
    assert found.stderr.tolist() == pytest.approx([1.5, 0.0])
    assert found.relative_error == pytest.approx((2 / torch.pi) ** 0.5 / 4)
    assert traces.missing(rtol=found.relative_error / 2) == 6  # four times as many probes in all
    nothing = Estimate(torch.zeros(2), torch.zeros(2), 3, 0, 2)
    assert nothing.relative_error == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "fast"}, "method='fast', expected one of 'auto', 'exact', 'low_rank', 'estimate'"),
        ({"rank": 3}, "rank=3 is for method=\"low_rank\", not for method='auto'"),
        ({"method": "exact", "rtol": 0.1}, "n_products and rtol are for method=\"estimate\", not for method='exact'"),
        ({"n_products": 20, "rtol": 0.1}, "give the budget or the accuracy, not both"),
        ({"n_products": 9}, "n_products=9, expected an int, at least 10"),
        ({"n_products": 20.5}, "n_products=20.5 is a float, expected an int"),
        ({"rtol": "1%"}, "rtol='1%' is a str, expected a number"),
        ({"generator": 0}, r"generator=0 is an int, expected a torch.Generator: torch.Generator\(\).manual_seed\(0\)"),
        ({"generator": [torch.Generator(), None]}, r"generator=\[.*, None\] is a list, expected a torch.Generator"),
        ({"generator": [torch.Generator()] * 2}, "2 generators for 1 prompts, expected one for all, or one each"),
        ({"rtol": 0.0}, "rtol=0.0, expected a relative error between 0 and 1"),
        ({"rtol": float("nan")}, "rtol=nan, expected"),
        ({"method": "low_rank", "rank": 0}, "rank=0, expected 1 to d_model=32"),
        ({"method": "low_rank", "rank": 33}, "rank=33, expected 1 to d_model=32"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_requests(options, message):
    with pytest.raises(tj.errors.ArgumentError, match=message):
        tj.fisher_scope(tj.linearize(shared("gpt2", "bridge"), [1, 2, 3]), **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_models_are_estimated_too(dtype):
    lin = tj.linearize(make("llama", "bridge", dtype), PROMPT)
    exact = tj.fisher_scope(lin, method="exact").scores
    a = tj.fisher_scope(lin, method="estimate", n_products=20)
    assert ((a.scores - exact).abs() < 4 * a.stderr + 1e-5 * exact).all()
    assert (a.stderr < 0.5 * exact).all()
