"""Methods and records: the public functions, put together, whatever the batch."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from cases import cases, shared

import tl_jacobian as tj
from tl_jacobian.analyses.scopes.choose import COMPUTATIONS
from tl_jacobian.core.graph import Graph
from tl_jacobian.core.linearization import LinearizationBatch
from tl_jacobian.errors import ArgumentError, PromptError
from tl_jacobian.results.scopes import ON_COMMAND_LINE, SCOPES
from tl_jacobian.studies.evaluation import METHODS, Settings, judge
from tl_jacobian.studies.evaluation.judge import attributions

TEXTS = ["Rome is it", "Paris", "one two three"]
TARGETS = [101, 7, 33]
hosts = pytest.mark.parametrize(("architecture", "state"), cases("hooked", "bridge"))


def batch(architecture="llama", state="bridge", texts=TEXTS):
    return tj.linearize(shared(architecture, state), list(texts), record="sources", prepend_bos=False)


COUNTS = {token: token % 7 for token in range(1, 200)}


def alone(lin, target, prompt):
    """What each name stands for."""
    generator = Settings(seed=5).generator(prompt)
    uniform = dict(nodes="riemann", steps=100, max_steps=100)
    options = {name: {"target": target} if SCOPES[name].takes("target") else {} for name in ON_COMMAND_LINE}
    scopes = {name: partial(COMPUTATIONS[name].whole, lin, **options[name]) for name in ON_COMMAND_LINE}
    return {
        **scopes,
        "random": lambda: tj.baselines.random_attribution(lin, generator=generator),
        "integrated_gradients": lambda: tj.baselines.path_integrated_scope(
            lin, target, nodes="gauss_legendre", steps=3, max_steps=3, tol=0.999
        ),
        "input_x_gradient": lambda: tj.baselines.input_x_gradient(lin, target),
        "fisher": lambda: tj.fisher_scope(lin, method="low_rank"),
        "fisher_trace": lambda: tj.fisher_scope(lin, generator=generator),
        "smoothgrad": lambda: tj.baselines.smoothgrad(lin, target, generator=generator),
        "attention_rollout": lambda: tj.baselines.attention_rollout(lin),
        "leave_one_out": lambda: tj.baselines.leave_one_out(lin, target),
        "integrated_gradients_100": lambda: tj.baselines.path_integrated_scope(lin, target, **uniform),
        "integrated_gradients_converged": lambda: tj.baselines.path_integrated_scope(lin, target),
        "recency": lambda: tj.baselines.recency(lin),
        "first_and_recency": lambda: tj.baselines.recency(lin, first=True),
        "token_frequency": lambda: tj.baselines.token_frequency(lin, COUNTS),
        "embedding_norm": lambda: tj.baselines.embedding_norm(lin),
    }


@pytest.mark.filterwarnings("ignore:path_integrated_scope")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name.startswith("integrated_gradients_") else name
        for name in METHODS  # a hundred nodes; hundreds until the other one has converged
    ],
)
def test_a_method_is_the_public_function_on_each_prompt(name):
    settings = Settings(seed=5, integration_steps=3, counts=COUNTS)
    found = attributions(batch(), [name], TARGETS, [4, 9, 2], settings)[name]
    for i, a in enumerate(found):
        lin = batch(texts=[TEXTS[i]])[0]
        expected = alone(lin, TARGETS[i], [4, 9, 2][i])[name]()
        torch.testing.assert_close(a.scores, expected.scores, rtol=1e-5, atol=1e-6)
        assert a.scope == expected.scope
        assert a.target == expected.target


@pytest.mark.parametrize("name", ["input_x_gradient", "semantic", "temperature", "fisher"])
def test_methods_of_one_pass_share_it(name, monkeypatch):
    """A pass of each prompt's own would go through the whole batch each time."""
    passes, pull = [], Graph.pull
    monkeypatch.setattr(Graph, "pull", lambda self, v: passes.append(len(v)) or pull(self, v))
    attributions(batch(), [name], TARGETS, [4, 9, 2], Settings())
    assert passes == [1]


def test_estimates_share_their_passes(monkeypatch):
    """A batch of three takes as many backward passes as its hungriest prompt alone, not the sum of all."""
    passes, pull = [], Graph.pull
    monkeypatch.setattr(Graph, "pull", lambda self, v: passes.append(len(v)) or pull(self, v))

    def spent(texts):
        passes.clear()
        n = len(texts)
        attributions(batch(texts=texts), ["fisher_trace"], TARGETS[:n], [4, 9, 2][:n], Settings())
        return sum(passes)

    alone = [spent([text]) for text in TEXTS]
    assert 0 < spent(TEXTS) < sum(alone)


@hosts
def test_records_dont_depend_on_the_batch(architecture, state):
    trial = tj.Trial(k=(20, 50), agreement=True, settings=Settings(integration_steps=2), batch_size=5)
    together = judge(trial, batch(architecture, state), TARGETS, [4, 9, 2])
    for i, record in enumerate(together):
        (single,) = judge(trial, batch(architecture, state, [TEXTS[i]]), [TARGETS[i]], [[4, 9, 2][i]])
        assert record["n_tokens"] == single["n_tokens"] == len(TEXTS[i])
        assert record["target"] == TARGETS[i]
        for name, measured in record["methods"].items():
            assert measured == {
                key: pytest.approx(value, abs=1e-4) for key, value in single["methods"][name].items()
            }, name


def test_a_record_holds_the_curves_and_the_agreement():
    lin = batch()[0]
    trial = tj.Trial(methods=("semantic", "fisher"), k=(20, 50), agreement=True, perturbation="mean")
    (record,) = judge(trial, LinearizationBatch((lin,)), [101], [0])
    a = tj.semantic_scope(lin, 101)
    (c,) = tj.perturbation_curves(lin, [a], k=(20, 50), perturbation="mean")
    found = record["methods"]["semantic"]
    assert found["removed"] == pytest.approx(c.removed.tolist())
    assert found["kept"] == pytest.approx(c.kept.tolist())
    assert record["log_prob"] == pytest.approx(c.clean)
    for measure, target in (("log_prob", 101), ("kl", None)):
        truth = tj.baselines.leave_one_out(lin, target, measure=measure, replacement="mean")
        agreement = tj.rank_agreement(a, truth)
        assert found[f"kendall_{measure}"] == pytest.approx(agreement.kendall)
        assert found[f"overlap_{measure}"] == agreement.overlap


def test_what_isnt_defined_is_none():
    lin = batch(texts=["aaaaaa"])  # equal tokens
    (record,) = judge(tj.Trial(methods=("leave_one_out",), agreement=True, k=(50,)), lin, [0], [0])
    assert all(not isinstance(v, float) or math.isfinite(v) for v in record["methods"]["leave_one_out"].values())


def test_random_numbers_belong_to_the_prompt():
    settings = Settings(seed=1)
    draws = {
        (s.seed, p): torch.rand(3, generator=s.generator(p)).tolist() for s in (settings, Settings()) for p in range(3)
    }
    assert len({tuple(v) for v in draws.values()}) == 6
    assert draws[1, 2] == torch.rand(3, generator=Settings(seed=1).generator(2)).tolist()


def test_bad_trials():
    with pytest.raises(PromptError, match="1 tokens have no ranking, expected at least 2"):
        judge(tj.Trial(), batch(texts=["a"]), [0], [0])
    with pytest.raises(ArgumentError, match="method 'magic', expected some of 'random'"):
        tj.Trial(methods=("magic",))
    with pytest.raises(ArgumentError, match="expected one or more, each once"):
        tj.Trial(methods=("random", "random"))
    with pytest.raises(ArgumentError, match="expected rising percentages"):
        tj.Trial(k=(20, 5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(perturbation="mask"), r"perturbation='mask', expected one of 'zero', 'mean', 'delete'"),
        (dict(k=(0, 20)), r"k=\(0, 20\), expected percentages above 0: without 0% of the tokens all methods are equal"),
        (dict(k=(0.2, 0.4)), r"k=\(0\.2, 0\.4\): percentages; did you mean 20, 40\?"),
        (dict(k=[0.005]), r"k=\[0\.005\]: percentages; did you mean 0\.5\?"),
        (dict(k=(5, 120)), r"k=\(5, 120\), expected rising percentages between 0 and 100"),
        (dict(k=(-1, 5)), r"expected rising percentages between 0 and 100"),
        (dict(k=("five",)), r"k=\('five',\), expected rising percentages"),
        (dict(k=(None,)), r"k=\(None,\), expected rising percentages"),
    ],
)
def test_trials_that_measure_nothing(unchecked, options, message):
    with pytest.raises(ArgumentError, match=message):
        tj.Trial(**options)


def test_a_trial_may_go_below_one_percent_and_to_all_tokens():
    assert tj.Trial(k=(0.5, 1, 100)).k == (0.5, 1.0, 100.0)


def test_a_name_is_no_list(unchecked):
    with pytest.raises(ArgumentError, match=r"methods='random', expected a list of names: \['random'\]"):
        tj.Trial(methods="random")
