"""Arguments of the wrong kind: what holds them against annotations, and thirty of them for every public function."""

from __future__ import annotations

import dataclasses
import inspect
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, SupportsIndex

import numpy as np
import pytest
import torch
from cases import EVERY, WIDTH, shared
from jaxtyping import Float
from torch import Tensor
from wrong import WRONG, a_function

import tl_jacobian as tj
from tl_jacobian.core.answer import AnswerLinearization
from tl_jacobian.errors import ArgumentError, DirectionError, JacobianScopeError, PromptError, TargetError
from tl_jacobian.results import arguments
from tl_jacobian.results.arguments import (
    check_fields,
    checked,
    checked_methods,
    described,
    excerpt,
    fitted,
    ids,
    is_id,
    number,
    position,
    positions,
    whole,
)

# -- the functions that check ------------------------------------------------------------


@checked
def sample(
    n: int,
    share: float = 0.5,
    *,
    way: Literal["up", "down"] | None = None,
    at: Sequence[int] = (),
    pair: tuple[float, float] | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    flag: bool = False,
    v: Float[Tensor, " d"] | None = None,
    target: str | int | None = None,
    token: str | SupportsIndex | Sequence[str | SupportsIndex | None] | None = None,
    fn: Callable[[float], float] | None = None,
    keep: Annotated[int | Sequence[int] | None, "what there is to keep"] = None,
) -> Any:
    return {name: value for name, value in locals().items() if value is not None}


@pytest.mark.parametrize(
    ("given", "got"),
    [
        (dict(n=np.int64(3)), 3),
        (dict(n=torch.tensor(3)), 3),
        (dict(n=3, share=1), 1),
        (dict(n=3, share=np.float32(0.5)), 0.5),
        (dict(n=3, share=torch.tensor(0.5)), 0.5),
        (dict(n=3, way="up"), "up"),
        (dict(n=3, at=np.array([1, 2])), [1, 2]),
        (dict(n=3, at=torch.tensor([1, 2])), [1, 2]),
        (dict(n=3, at=[np.int32(1), 2]), [1, 2]),
        (dict(n=3, at=range(2)), range(2)),
        (dict(n=3, pair=[0, 1.5]), (0, 1.5)),
        (dict(n=3, names={"a": ["b"]}), {"a": ["b"]}),
        (dict(n=3, target=np.int64(7)), 7),
        (dict(n=3, keep=np.array([3])), [3]),
        (dict(n=3, target=np.str_("a")), "a"),
        (dict(n=3, way=np.str_("up")), "up"),
        (dict(n=3, token=5.0), 5),
        (dict(n=3, token=np.float64(5.0)), 5),
        (dict(n=3, token=torch.tensor(5.0)), 5),
        (dict(n=3, token=[1.0, None, "a"]), [1, None, "a"]),
        (dict(n=3, fn=abs), abs),
    ],
)
def test_what_fits_is_taken_and_converted(given, got):
    taken = sample(**given)[list(given)[-1]]
    assert taken == got
    assert type(taken) is type(got)


def test_a_tensor_goes_through_whatever_its_shape_for_the_function_knows_what_would_fit():
    assert sample(1, v=torch.zeros(2, 3))["v"].shape == (2, 3)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (dict(n=True), ArgumentError, "n=True is a bool, expected an int"),
        (dict(n=1.0), ArgumentError, "n=1.0 is a float, expected an int"),
        (dict(n=1, token=1.5), ArgumentError, "token=1.5 is a float, expected text, a token id"),
        (dict(n=1, token=[1.5]), ArgumentError, r"token=\[1.5\] is a list, expected text, a token id"),
        (dict(n=1, at=np.ma.array([1, 2], mask=[0, 1])), ArgumentError, r"at\[1\] is masked \(1 of 2 are\)"),
        (dict(n=None), ArgumentError, "n=None, expected an int"),
        (dict(n=1, share="half"), ArgumentError, "share='half' is a str, expected a number"),
        (dict(n=1, share=True), ArgumentError, "share=True is a bool, expected a number"),
        (dict(n=1, share=np.zeros(2)), ArgumentError, r"share has shape \(2,\) and dtype float64, expected a number"),
        (dict(n=1, way="left"), ArgumentError, "way='left', expected one of 'up', 'down', or None"),
        (dict(n=1, way=True), ArgumentError, "way=True is a bool, expected one of 'up', 'down'"),
        (dict(n=1, at=[1, "b"]), ArgumentError, r"at=\[1, 'b'\] is a list, expected a list of ints"),
        (dict(n=1, at=[True]), ArgumentError, r"at=\[True\] is a list, expected a list of ints"),
        (dict(n=1, at="12"), ArgumentError, "at='12' is a str, expected a list of ints"),
        (
            dict(n=1, at=np.array([1.5])),
            ArgumentError,
            r"at has shape \(1,\) and dtype float64, expected a list of ints",
        ),
        (dict(n=1, pair=(1.0, 2.0, 3.0)), ArgumentError, r"expected \(a number, a number\) or None"),
        (dict(n=1, names={"a": [1]}), ArgumentError, "names={'a': .*expected a mapping"),
        (dict(n=1, names={1: ["a"]}), ArgumentError, "expected a mapping or None"),
        (dict(n=1, flag=1), ArgumentError, "flag=1 is an int, expected True or False"),
        (
            dict(n=1, v=[1.0]),
            DirectionError,
            r"v=\[1.0\] is a list, expected a tensor of floats of shape \(d\) or None",
        ),
        (dict(n=1, target=1.5), TargetError, "target=1.5 is a float, expected (text, an int|an int, text) or None"),
        (dict(n=1, fn=3), ArgumentError, "fn=3 is an int, expected a function or None"),
        (dict(n=1, keep="a"), ArgumentError, "keep='a' is a str, expected what there is to keep"),
        (dict(), ArgumentError, r"sample\(\) needs n; it takes n, share, way"),
        (dict(n=1, m=2), ArgumentError, r"sample\(\) takes no m=; it takes n, share"),
    ],
)
def test_what_does_not_fit_is_named(given, error, message):
    with pytest.raises(error, match=message):
        sample(**given)


def test_values_by_position_are_counted():
    with pytest.raises(ArgumentError, match=r"got 3 values by position, expected at most 2 \(n, share\)"):
        sample(1, 2.0, "up")
    with pytest.raises(ArgumentError, match="got n= twice"):
        sample(1, n=2)


def test_functions_of_any_number_of_arguments():
    @checked
    def joined(first: str, *rest: str, **options: int) -> str:
        return first + "".join(rest)

    assert joined("a", "b", "c", k=np.int64(1)) == "abc"
    with pytest.raises(ArgumentError, match="rest=3 is an int, expected text"):
        joined("a", "b", 3)
    with pytest.raises(ArgumentError, match="k='x' is a str, expected an int"):
        joined("a", k="x")
    with pytest.raises(ArgumentError, match=r"joined\(\) needs first"):
        joined()


def test_the_wrapped_function_looks_as_before():
    assert list(inspect.signature(tj.linearize).parameters)[:2] == ["model", "prompt"]
    assert tj.fisher_spectrum.__doc__ is not None
    assert inspect.signature(tj.fisher_spectrum).parameters["k"].default == 16


class Plain:
    """A class with methods of every kind."""

    def of(self, n: int) -> int:
        return n

    @classmethod
    def made(cls, n: int) -> int:
        return n

    @staticmethod
    def alone(n: int) -> int:
        return n

    @property
    def size(self) -> int:
        return 1

    def _own(self, n: int) -> Any:
        return n


def test_methods_of_a_class():
    assert checked_methods(Plain) is Plain
    for call in (Plain().of, Plain.made, Plain().made, Plain.alone):
        assert call(np.int64(2)) == 2
        with pytest.raises(ArgumentError, match="n='a' is a str, expected an int"):
            call("a")
    with pytest.raises(ArgumentError, match=r"of\(\) takes no m=; it takes n"):
        Plain().of(1, m=2)
    with pytest.raises(ArgumentError, match=r"of\(\) needs n"):
        Plain().of()
    assert Plain().size == 1
    assert Plain()._own("a") == "a"
    first = Plain.of
    assert checked_methods(Plain).of is first  # once is enough


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy:
    """A value with fields of several kinds."""

    scores: Float[Tensor, " pos"]
    tokens: tuple[int, ...]
    words: tuple[tuple[str, int], ...] = ()
    scope: Literal["one", "two"] = "one"
    stderr: Float[Tensor, " pos"] | None = None
    share: float = 0.0
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Younger(Toy):
    """It inherits fields and has one more."""

    name: str = ""


def test_fields_are_held_against_their_annotations():
    toy = Younger(scores=torch.zeros(2), tokens=[1, np.int64(2)], words=[["a", 1]], share=np.float64(0.5), name="x")
    assert (toy.tokens, toy.words, type(toy.share)) == ((1, 2), (("a", 1),), float)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(scores=["a"]), r"scores=\['a'\] is a list, expected a tensor of floats of shape \(pos\)"),
        (dict(scores=torch.zeros(2, 2)), r"scores has shape \(2, 2\) and dtype torch.float32, expected a tensor of"),
        (dict(scores=torch.zeros(2).long()), r"scores has shape \(2,\) and dtype torch.int64"),
        (dict(tokens=["a"]), "tokens=.*expected a list of ints"),
        (dict(tokens=3), "tokens=3 is an int, expected a list of ints"),
        (dict(words=[["a", "b"]]), "words="),
        (dict(scope="three"), "scope='three', expected one of 'one', 'two'"),
        (dict(stderr=1.0), "stderr=1.0 is a float, expected a tensor"),
        (dict(metadata=[1]), "metadata=.*expected a mapping"),
        (dict(name=3), "name=3 is an int, expected text"),
    ],
)
def test_fields_that_do_not_fit(fields, message):
    with pytest.raises(ArgumentError, match=message):
        Younger(**{**dict(scores=torch.zeros(2), tokens=(1, 2)), **fields})


def test_integers():
    for good in (3, np.int32(3), np.uint8(3), np.array(3), torch.tensor(3), torch.tensor(3, dtype=torch.uint8)):
        assert is_id(good)
        assert whole("k", good) == 3
    for bad in (
        True,
        np.bool_(True),
        1.5,
        "3",
        None,
        np.array([3]),
        np.array(1.5),
        torch.tensor([3]),
        torch.tensor(True),
    ):
        assert not is_id(bad)
        with pytest.raises(ArgumentError, match=r"^k="):
            whole("k", bad)
    with pytest.raises(ArgumentError, match="k=0, expected an integer, at least 1"):
        whole("k", 0)
    with pytest.raises(PromptError, match="k=7, expected a page, 1 to 6"):
        whole("k", 7, 1, 6, "a page", PromptError)


def test_numbers():
    assert number("x", np.float32(0.5)) == number("x", torch.tensor(0.5)) == 0.5
    for bad in (True, "1", None, float("nan"), 10**400, torch.zeros(2), [1.0]):
        with pytest.raises(ArgumentError, match=r"^x=.*expected a finite number"):
            number("x", bad)
    with pytest.raises(ArgumentError, match="x=0, expected a finite number, more than 0"):
        number("x", 0, 0.0)


def test_lists_of_integers():
    for good in ([1, 2], (1, np.int64(2)), range(1, 3), np.array([1, 2]), torch.tensor([1, 2]), [torch.tensor(1), 2]):
        assert ids(good) == [1, 2]
    for bad in ("12", b"12", [1, True], [1.0], np.array([1.5]), np.zeros((1, 2), int), torch.ones(2), None, 3, {1: 2}):
        assert ids(bad) is None


def test_positions():
    assert positions(np.array([0, -1]), 5) == [0, 4]
    assert position(torch.tensor(-5), 5) == 0
    with pytest.raises(PromptError, match="position=5 is outside the prompt's 5 tokens, expected -5 to 4"):
        positions([0, 5], 5)
    for bad in ([], "ab", None, [1.5], [True], 3):
        with pytest.raises(PromptError, match=r"positions=.*expected a list of at least one integer"):
            positions(bad, 5)


def test_excerpts_are_short():
    class Bad:
        def __repr__(self) -> str:
            raise ValueError

    for value in ("a" * 10**6, ["a"] * 10**5, {i: i for i in range(10**4)}, torch.zeros(1000), np.zeros(1000), Bad()):
        assert len(excerpt(value)) <= 201


def test_words_for_annotations():
    assert described(Sequence[int] | Tensor) == "a list of ints or a tensor"
    assert described(Sequence[Literal["a", "b"]]) == "a list of one of 'a', 'b'"
    assert described(tuple[float, float]) == "(a number, a number)"
    assert described(str | Path) == "text or a Path"


def test_messages_end_somewhere():
    error = tj.JacobianScopeError("x" * 10_000)
    assert len(str(error)) == 2000
    assert str(error).endswith("… (cut: 10000 characters)")
    assert str(ArgumentError("short")) == "short"


def test_warnings_point_outside_the_library():
    with pytest.warns(UserWarning, match="hm") as caught:
        arguments.warn("hm")
    assert caught[0].filename == __file__


def test_fitted_errors_can_be_chosen():
    with pytest.raises(PromptError, match="n='a'"):
        fitted("a", int, "n", PromptError)


# -- the public names --------------------------------------------------------------------


def test_public_names_are_few_and_documented():
    assert len(tj.__all__) == len(set(tj.__all__)) <= 40
    for name in tj.__all__:
        assert inspect.getdoc(getattr(tj, name)), name
    rooms = (tj.baselines, tj.corpus, tj.language, tj.timeseries)
    for room in rooms:
        for name in room.__all__:
            assert inspect.getdoc(getattr(room, name)), f"{room.__name__}.{name}"


def test_every_error_has_one_base():
    kinds = [e for e in vars(tj.errors).values() if inspect.isclass(e) and issubclass(e, Exception)]
    assert len(kinds) > 10
    assert all(issubclass(kind, JacobianScopeError) for kind in kinds)


# -- every public function, every parameter, some thirty wrong values -----------------------

TEXT = "abc"


@cache
def model() -> Any:
    return shared("gpt2", "bridge")


@cache
def lin() -> tj.Linearization:
    return tj.linearize(model(), TEXT, record=True)


def _lin_cases() -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    one, m, v = lin(), model(), torch.ones(WIDTH, dtype=torch.float64)
    baselines, timeseries, language, corpus = tj.baselines, tj.timeseries, tj.language, tj.corpus
    a = tj.semantic_scope(one, 100)
    series = timeseries.serialize([1.0, 2.0, 3.0, 4.0], m, digits=1, prepend_bos=False)
    of_series = tj.temperature_scope(tj.linearize(m, list(series.tokens)))
    wave = [float(i % 5) + 0.1 * i for i in range(40)]
    trial = tj.Trial(methods=("random",), k=(50,))
    words = language.diagonal_alignment(["ab", "c"], ["d", "e"])
    links = [(0, 0), (1, 1)]
    prompts = ["abc", "abd"]
    quick = dict(progress=False)
    given = Path(tempfile.mkdtemp())
    (given / "prompts.txt").write_text("abc\nabd")
    shutil.copy(Path(tj.__file__).parent / "studies" / "language" / "alignments.json", given / "pairs.json")
    corpus.attribute_corpus(m, prompts, "temperature", given / "run", progress=False)
    return {
        "load_demo_model": (tj.load_demo_model, {}),
        "linearize": (tj.linearize, dict(model=m, prompt=TEXT)),
        "pointwise": (tj.pointwise, dict(hook=a_function)),
        "Linearization.vjp": (one.vjp, dict(v=v)),
        "Linearization.vjp_at": (one.vjp_at, dict(v=v, names=["blocks.0.hook_resid_pre"])),
        "Linearization.stream_at": (one.stream_at, dict(v=v[None], names=["blocks.0.hook_resid_pre"])),
        "Linearization.jvp": (one.jvp, dict(dx=torch.ones(len(one.tokens), WIDTH, dtype=torch.float64))),
        "Linearization.jacobian": (one.jacobian, dict(positions=[0])),
        "AnswerLinearization.jacobian": (
            tj.linearize(m, TEXT, answer=TEXT[:1]).jacobian,
            dict(i=0, positions=[0]),
        ),
        "semantic_scope": (tj.semantic_scope, dict(lin=one, target=100)),
        "temperature_scope": (tj.temperature_scope, dict(lin=one)),
        "fisher_scope": (tj.fisher_scope, dict(lin=one, method="low_rank", rank=1)),
        "direction_scope": (tj.direction_scope, dict(lin=one, v=v)),
        "output_scope": (tj.output_scope, dict(lin=one, fn=lambda y, _: y.sum())),
        "feature_scope": (tj.feature_scope, dict(lin=one, sae=v[None], at="blocks.0.hook_resid_pre", target=100)),
        "attribution_map": (tj.attribution_map, dict(model=m, prompt=TEXT, positions=[1])),
        "attribute_generation": (tj.attribute_generation, dict(model=m, prompt=TEXT, n_tokens=1)),
        "layer_influence": (tj.layer_influence, dict(lin=one)),
        "head_influence": (tj.head_influence, dict(lin=one)),
        "residual_contributions": (tj.residual_contributions, dict(lin=one)),
        "path_scope": (tj.path_scope, dict(lin=one, through="blocks.1.hook_resid_pre")),
        "predict_patching": (tj.predict_patching, dict(model=m, clean="abc", corrupted="abd", target=1, minus=2)),
        "compare_patching": (tj.compare_patching, dict(model=m, clean="ab", corrupted="ac", target=1, minus=2)),
        "jacobian_spectrum": (tj.jacobian_spectrum, dict(lin=one, position=0, k=1)),
        "fisher_spectrum": (tj.fisher_spectrum, dict(lin=one, k=1)),
        "token_interactions": (tj.token_interactions, dict(lin=one)),
        "compare": (tj.compare, dict(attributions=[a])),
        "evaluate": (tj.evaluate, dict(model=m, prompts=["a bc", "a bd"], trial=trial, **quick)),
        "perturbation_curves": (tj.perturbation_curves, dict(lin=one, attributions=[a])),
        "rank_agreement": (tj.rank_agreement, dict(a=a, b=a)),
        "linearity": (tj.linearity, dict(lin=one, epsilons=[0.1])),
        "baselines.input_x_gradient": (baselines.input_x_gradient, dict(lin=one)),
        "baselines.path_integrated_scope": (
            baselines.path_integrated_scope,
            dict(lin=one, steps=2, max_steps=2, tol=0.99),
        ),
        "baselines.path_integrand": (baselines.path_integrand, dict(lin=one, alphas=[0.5])),
        "baselines.smoothgrad": (baselines.smoothgrad, dict(lin=one, samples=1)),
        "baselines.leave_one_out": (baselines.leave_one_out, dict(lin=one)),
        "baselines.recency": (baselines.recency, dict(lin=one)),
        "baselines.token_frequency": (baselines.token_frequency, dict(lin=one, counts={97: 3})),
        "baselines.embedding_norm": (baselines.embedding_norm, dict(lin=one)),
        "baselines.attention_rollout": (baselines.attention_rollout, dict(lin=one)),
        "baselines.random_attribution": (
            baselines.random_attribution,
            dict(lin=one, generator=torch.Generator().manual_seed(0)),
        ),
        "corpus.attribute_corpus": (
            corpus.attribute_corpus,
            dict(model=m, prompts=prompts, scope="temperature", out=None, **quick),
        ),
        "corpus.run_corpus": (
            corpus.run_corpus,
            dict(
                job=CountJob(),
                prompts=[corpus.CorpusPrompt(0, "0", "abc")],
                out=None,
                tokenize=corpus.tokenizer_of(m),
                **quick,
            ),
        ),
        "corpus.tokenizer_of": (corpus.tokenizer_of, dict(model=m)),
        "corpus.prompt_generator": (corpus.prompt_generator, dict(seed=0, index=1)),
        "corpus.read_corpus": (corpus.read_corpus, dict(source=given / "prompts.txt")),
        "corpus.read_records": (corpus.read_records, dict(out=given / "run")),
        "corpus.each_record": (corpus.each_record, dict(out=given / "run")),
        "corpus.read_attributions": (corpus.read_attributions, dict(out=given / "run")),
        "corpus.read_settings": (corpus.read_settings, dict(out=given / "run")),
        "language.word_alignment": (
            language.word_alignment,
            dict(model=m, source="ab", target="c", scope="temperature", template="{source} {target}"),
        ),
        "language.score_alignment": (language.score_alignment, dict(alignment=words, sure=links)),
        "language.link_score": (language.link_score, dict(links=links, sure=links)),
        "language.parse_links": (language.parse_links, dict(text="0-0")),
        "language.chance_alignment": (language.chance_alignment, dict(source_words=["a"], target_words=["b"])),
        "language.diagonal_alignment": (language.diagonal_alignment, dict(source_words=["a"], target_words=["b"])),
        "language.read_pairs": (language.read_pairs, dict(path=given / "pairs.json")),
        "language.counterfactuals": (language.counterfactuals, dict(model=m, prompt="ab c")),
        "language.segment_counterfactuals": (
            language.segment_counterfactuals,
            dict(lin=one, segments=tj.semantic_scope(one).segments(["abc"], rest=None)),
        ),
        "timeseries.logistic_map": (timeseries.logistic_map, dict(n=3)),
        "timeseries.brownian_motion": (timeseries.brownian_motion, dict(n=3, seed=0)),
        "timeseries.geometric_brownian_motion": (timeseries.geometric_brownian_motion, dict(n=3, seed=0)),
        "timeseries.lorenz": (timeseries.lorenz, dict(n=3, burn_in=0.0)),
        "timeseries.lorenz_states": (timeseries.lorenz_states, dict(n=3, burn_in=0.0)),
        "timeseries.lorenz_with_drift": (timeseries.lorenz_with_drift, dict(n=3, burn_in=0.0)),
        "timeseries.serialize": (timeseries.serialize, dict(values=[1.0, 2.0], tokenizer=m, digits=1)),
        "timeseries.number_influence": (timeseries.number_influence, dict(attribution=of_series, series=series)),
        "timeseries.predict_number": (timeseries.predict_number, dict(model=m, series=series)),
        "timeseries.pattern_match": (timeseries.pattern_match, dict(values=wave, influence=wave[::-1])),
        "timeseries.delay_vectors": (timeseries.delay_vectors, dict(values=wave)),
        "timeseries.forgetting_slope": (timeseries.forgetting_slope, dict(influence=[1.0 + x for x in wave])),
        "timeseries.effective_count": (timeseries.effective_count, dict(influence=wave)),
        "timeseries.mean_effect": (timeseries.mean_effect, dict(effects=wave)),
        "timeseries.compare_paired": (timeseries.compare_paired, dict(a=wave, b=wave[::-1])),
        "timeseries.compare_groups": (timeseries.compare_groups, dict(a=wave[:3], b=wave[5:8])),
    }


class CountJob:
    """The cheapest job there is."""

    settings: Mapping[str, Any] = {"job": "count"}

    def __call__(self, prompts: Sequence[Any]) -> list[dict[str, Any]]:
        return [{"n": len(p.tokens)} for p in prompts]


def _functions() -> dict[str, Any]:
    """Every public function, by its name from ``tj``."""
    rooms = {"baselines.": tj.baselines, "corpus.": tj.corpus, "language.": tj.language, "timeseries.": tj.timeseries}
    found = {name: getattr(tj, name) for name in tj.__all__}
    found |= {f"{prefix}{name}": getattr(room, name) for prefix, room in rooms.items() for name in room.__all__}
    inherited = {n: f for kind in reversed(tj.Linearization.__mro__) for n, f in vars(kind).items()}
    methods = {n: f for n, f in inherited.items() if not n.startswith(("_", "check_")) and n != "spread"}
    found |= {f"Linearization.{name}": fn for name, fn in methods.items()}
    found["AnswerLinearization.jacobian"] = AnswerLinearization.jacobian
    return {name: fn for name, fn in found.items() if inspect.isfunction(fn)}


# The one takes any number of names and nothing else: below. The other needs an extra: tests/app/test_app_widget.py.
NO_FUZZ = {"language.aligned_pairs", "explore"}
# What messages call a parameter besides its name.
CALLED: dict[str, Sequence[str]] = {
    "lin": ["linearization"],
    "model": ["Linearization"],
    "prompt": ["token id"],
    "clean": ["prompt", "token id"],
    "corrupted": ["prompt", "token id"],
    "prompts": ["prompt", "source"],
    "positions": ["position"],
    "out": ["holds", "the folder of a run"],
    "minus": ["target"],
    "at": ["position"],
    "target": ["one token"],
    "scope": ["v has", "fn(y, logits)"],
    "input_hook": ["hook point", "reached"],
    "output_hook": ["hook point", "reached"],
    "through": ["wasn't recorded"],
    "names": ["wasn't recorded"],
    "input_value": ["the value for hook_embed"],
    "values": ["the series"],
    "influence": ["numbers are left"],
}
# Not wrapped by ``checked`` yet.
FUNCTIONS = sorted(set(_functions()) - NO_FUZZ)


@pytest.fixture
def place(tmp_path, monkeypatch, unchecked) -> Path:
    """A folder of its own, and nothing heavy behind the functions."""
    monkeypatch.chdir(tmp_path)

    def no_data_set(name: str, split: str, streaming: bool) -> Any:
        raise tj.errors.CorpusError(f"can't load source={excerpt(name)}, split={excerpt(split)}")

    class Demo:
        """Stands for the demo model."""

        cfg = type("Config", (), {})()

        def eval(self) -> Demo:
            return self

    from tl_jacobian.core.host import demo

    monkeypatch.setattr("tl_jacobian.studies.corpus.read._loaded", no_data_set)
    monkeypatch.setattr(demo, "demo_folder", lambda: tmp_path)
    monkeypatch.setattr(demo, "_LOADERS", dict.fromkeys(("hooked", "bridge"), lambda *_: Demo()))
    return tmp_path


@cache
def cases() -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    return _lin_cases()


def outcome(name: str, given: dict[str, Any], parameter: str, folder: Path) -> str:
    """``"works"``, ``"refused"``, or what is wrong with how it fails."""
    fn, valid = cases()[name]
    kwargs = {**valid, **given}
    if "out" in valid and valid["out"] is None and "out" not in given:
        kwargs["out"] = folder / f"out-{len(list(folder.iterdir()))}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = fn(**kwargs)
            if inspect.isgenerator(found):
                list(found)
    except JacobianScopeError as error:
        text = str(error)
        if len(text) > 2000:
            return f"a message of {len(text)} characters"
        names = {parameter, *CALLED.get(parameter, ())}
        return "refused" if any(n.lower() in text.lower() for n in names) else f"doesn't name it: {text[:160]}"
    except (OSError, ImportError):
        return "refused"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:120]}"
    return "works"


def test_every_public_function_is_tried():
    assert set(FUNCTIONS) == set(_lin_cases())


def wrong_values(name: str, parameter: str) -> dict[str, Any]:
    """A third of them, another one for each function and parameter; all where everything is asked for."""
    if EVERY:
        return WRONG
    start = zlib.crc32(f"{name} {parameter}".encode())
    return {label: value for i, (label, value) in enumerate(WRONG.items()) if (start + i) % 3 == 0}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_wrong_arguments_are_refused_by_name(name, place):
    fn, _ = cases()[name]
    assert outcome(name, {}, "", place) == "works", "the call that everything else is a variation of"
    signature = inspect.signature(fn)
    kinds = {p.name: p.kind for p in signature.parameters.values()}
    found = {
        (parameter, label): outcome(name, {parameter: value}, parameter, place)
        for parameter, kind in kinds.items()
        if kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        for label, value in wrong_values(name, parameter).items()
    }
    found["nonsense", "1"] = outcome(name, {"nonsense": 1}, "nonsense", place)
    counts = {what: list(found.values()).count(what) for what in ("works", "refused")}
    wrong = [f"{p}={label}: {what}" for (p, label), what in found.items() if what not in ("works", "refused")]
    print(f"FUZZ {name}: {len(found)} cases, {counts}, {len(wrong)} wrong")
    assert not wrong, f"{len(wrong)} of {len(found)}:\n" + "\n".join(wrong)


def test_languages():
    with pytest.raises(ArgumentError, match="Klingon"):
        tj.language.aligned_pairs("Klingon")
