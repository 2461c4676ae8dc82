"""All methods on one batch of prompts, judged: one plain record a prompt, for the corpus runner to keep.

A method is an attribution by name, of one given token of each prompt of the batch, or of its answer.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from tl_jacobian.analyses.baselines import (
    attention_rollout,
    embedding_norm,
    leave_one_out,
    path_integrated_scope,
    random_attribution,
    recency,
    smoothgrad,
    token_frequency,
)
from tl_jacobian.analyses.baselines.leave_one_out import Measure, left_out, without_each
from tl_jacobian.analyses.baselines.runs import BATCH, checked_once, explained_tokens, prompt_length
from tl_jacobian.analyses.baselines.simple import input_x_gradients
from tl_jacobian.analyses.baselines.trivial import check_counts
from tl_jacobian.analyses.scopes.choose import Chosen, attributed, choose, name_of_function
from tl_jacobian.analyses.scopes.simple import explain_logit
from tl_jacobian.core.answer import AnswerLinearization
from tl_jacobian.core.linearization import LinearizationBatch, Linearized
from tl_jacobian.errors import ArgumentError, PromptError
from tl_jacobian.results.arguments import check_fields, checked, excerpt, whole
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.base import FrozenDict
from tl_jacobian.results.evaluation import HIGHEST, LOWEST, operator_name
from tl_jacobian.results.scopes import ON_COMMAND_LINE
from tl_jacobian.studies.corpus import prompt_generator
from tl_jacobian.studies.evaluation.agreement import rank_agreement
from tl_jacobian.studies.evaluation.bounds import Bound, beam_search
from tl_jacobian.studies.evaluation.curves import (
    PERCENTAGES,
    Perturbation,
    PerturbationCurves,
    other_tokens,
    percentages,
    perturbation_curves,
    removal_order,
    removed_from,
)
from tl_jacobian.studies.evaluation.matched import donors, matched_sets, n_removed


@dataclass(frozen=True)
class Settings:
    """What the methods are given besides the prompt.

    Attributes:
        seed: of everything random; each prompt has its own random numbers, whatever batch it is in.
        integration_steps: nodes of integrated gradients (Gauss and Legendre's, from a zero baseline).
        beam_width: of the searches for the best and the worst order of removal; see :func:`beam_search`.
        counts: how often each token id occurs in the corpus, for ``token_frequency`` and ``"resample"``; default:
            :func:`evaluate` counts the prompts that it is given.
        batch_size: runs of a method that takes many in one forward pass.
    """

    seed: int = 0
    integration_steps: int = 8
    beam_width: int = 1
    counts: Mapping[int, int] | None = None
    batch_size: int = BATCH

    def __post_init__(self) -> None:
        check_fields(self)
        whole("batch_size", self.batch_size)
        whole("integration_steps", self.integration_steps, 2)
        whole("beam_width", self.beam_width)
        if self.counts is not None:
            check_counts(self.counts)

    def facts(self) -> dict[str, Any]:
        """What decides the numbers, as JSON values; of counts how many tokens were counted."""
        facts = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("counts", "batch_size")}
        return facts if self.counts is None else {**facts, "counted_tokens": sum(self.counts.values())}

    def counted(self) -> Mapping[int, int]:
        """The counts.

        Raises:
            ArgumentError: there are none.
        """
        if self.counts is None:
            raise ArgumentError(
                "token_frequency and 'resample' need to know how often tokens occur: Settings(counts=Counter(ids))"
            )
        return self.counts

    def generator(self, prompt: int) -> torch.Generator:
        """The random numbers of one prompt of the corpus."""
        return prompt_generator(self.seed, prompt)


Method = Callable[[LinearizationBatch, Sequence[int | None], Sequence[int], Settings], list[Attribution]]
OwnMethod = Callable[..., Any]  # fn(lin), or fn(lin, target=id), -> scores or an Attribution


def attributions(
    batch: LinearizationBatch,
    methods: Sequence[str] | Mapping[str, str | OwnMethod],
    targets: Sequence[int | None],
    prompts: Sequence[int],
    settings: Settings,
) -> dict[str, list[Attribution]]:
    """Every method's attributions of a batch, one for each prompt.

    Args:
        batch: the prompts, linearised together.
        methods: names of methods, or names to them or to functions of one's own.
        targets: the token explained in each; None for a whole answer, which is its own target.
        prompts: each one's number in the corpus, which its random numbers depend on.
        settings: of the methods.
    """
    asked = {name: what for name, what in named_methods(methods).items() if what not in BOUNDS}
    scopes = {name: DIRECTIONS[what] for name, what in asked.items() if isinstance(what, str) and what in DIRECTIONS}
    together = attributed(batch, list(scopes.values()), target=targets)
    made = dict(zip(scopes, together, strict=True))
    for name, what in asked.items():
        if name not in made:
            method = METHODS[what] if isinstance(what, str) else _own(name, what)
            made[name] = method(batch, targets, prompts, settings)
    return {name: made[name] for name in asked}


def named_methods(methods: Sequence[str] | Mapping[str, str | OwnMethod]) -> dict[str, str | OwnMethod]:
    """Methods by the names that tables call them by.

    Raises:
        ArgumentError: a name that isn't a method, or no method.
    """
    if isinstance(methods, str):
        raise ArgumentError(f"methods={methods!r}, expected a list of names: [{methods!r}]")
    if callable(methods):
        raise ArgumentError(f"methods={excerpt(methods)} is a function, expected a dict of names: {{'mine': fn}}")
    found: dict[str, str | OwnMethod] = dict(methods) if isinstance(methods, Mapping) else {m: m for m in methods}
    known = (*METHODS, *BOUNDS)
    for name, what in found.items():
        if not isinstance(name, str) or not (callable(what) or (isinstance(what, str) and what in known)):
            raise ArgumentError(
                f"method {excerpt(what)}, expected some of {', '.join(map(repr, known))}, or in a dict also a "
                "function: fn(lin) -> scores"
            )
    if len(found) < len(methods) or not found:
        raise ArgumentError(f"methods={list(methods)!r}, expected one or more, each once")
    return found


def _own(name: str, fn: OwnMethod) -> Method:
    """A function of the caller's as a method; it gets the target too where it has a parameter of that name."""
    try:
        asks = "target" in inspect.signature(fn).parameters
    except (TypeError, ValueError):  # of something built in
        asks = False

    def run(lin: Any, target: int | None, *_: object) -> Attribution:
        given = fn(lin, target=target) if asks else fn(lin)
        if not isinstance(given, Attribution):
            return Attribution.from_scores(lin, given, name=name, target=target if asks else None)
        if given.tokens != tuple(lin.tokens.tolist()):
            raise ArgumentError(
                f"method {name!r} gave an attribution of another prompt ({''.join(given.str_tokens)[:60]!r}) than its "
                f"own ({''.join(lin.str_tokens)[:60]!r}): explain the linearization that it is given"
            )
        return given

    return _one_by_one(run)


def _input_x_gradient(batch: LinearizationBatch, targets: Sequence[int | None], *_: object) -> list[Attribution]:
    return input_x_gradients(batch, [explain_logit(lin, t, None) for lin, t in zip(batch, targets, strict=True)])


def _scope(chosen: Chosen) -> Method:
    def attributed(
        batch: LinearizationBatch, targets: Sequence[int | None], prompts: Sequence[int], settings: Settings
    ) -> list[Attribution]:
        return chosen.attribute(batch, target=targets, generator=[settings.generator(prompt) for prompt in prompts])

    return attributed


# Scopes of directions: those of one batch share backward passes.
DIRECTIONS: Mapping[str, Chosen] = {
    **{name: choose(name) for name in ON_COMMAND_LINE},
    "fisher": choose("fisher", method="low_rank"),
}


def _one_by_one(run: Callable[[Any, int | None, int, Settings], Attribution]) -> Method:
    def method(
        batch: LinearizationBatch, targets: Sequence[int | None], prompts: Sequence[int], settings: Settings
    ) -> list[Attribution]:
        return [run(lin, t, p, settings) for lin, t, p in zip(batch, targets, prompts, strict=True)]

    return method


def _integrated(lin: Linearized, target: int | None, _: int, settings: Settings) -> Attribution:
    steps, size = settings.integration_steps, settings.batch_size
    with warnings.catch_warnings():  # the completeness gap is in the metadata, and in the table
        warnings.filterwarnings("ignore", message="path_integrated_scope", category=UserWarning)
        return path_integrated_scope(lin, target, nodes="gauss_legendre", steps=steps, max_steps=steps, batch_size=size)


def _papers_integral(lin: Linearized, target: int | None, _: int, settings: Settings) -> Attribution:
    """As the paper has it: 100 evenly spaced points, whether that is enough or not.

    The baseline itself isn't one: at zero embeddings, gradients of a deep model of RMSNorms aren't finite.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="path_integrated_scope", category=UserWarning)
        return path_integrated_scope(
            lin, target, nodes="riemann", steps=100, max_steps=100, batch_size=settings.batch_size
        )


def _converged_integral(lin: Linearized, target: int | None, _: int, settings: Settings) -> Attribution:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="path_integrated_scope", category=UserWarning)
        return path_integrated_scope(lin, target, batch_size=settings.batch_size)


METHODS: Mapping[str, Method] = {
    "random": _one_by_one(lambda lin, _, p, s: random_attribution(lin, generator=s.generator(p))),
    "integrated_gradients": _one_by_one(_integrated),
    "input_x_gradient": _input_x_gradient,
    **{name: _scope(chosen) for name, chosen in DIRECTIONS.items()},
    # beyond the paper's table
    "fisher_trace": _scope(choose("fisher")),
    "smoothgrad": _one_by_one(lambda lin, t, p, s: smoothgrad(lin, t, generator=s.generator(p))),
    "attention_rollout": _one_by_one(lambda lin, *_: attention_rollout(lin)),
    "leave_one_out": _one_by_one(lambda lin, t, _, s: leave_one_out(lin, t, batch_size=s.batch_size)),
    "integrated_gradients_100": _one_by_one(_papers_integral),
    "integrated_gradients_converged": _one_by_one(_converged_integral),
    # what knows nothing of the model's computation
    "recency": _one_by_one(lambda lin, *_: recency(lin)),
    "first_and_recency": _one_by_one(lambda lin, *_: recency(lin, first=True)),
    "token_frequency": _one_by_one(lambda lin, _t, _p, s: token_frequency(lin, s.counted())),
    "embedding_norm": _one_by_one(lambda lin, *_: embedding_norm(lin)),
}
# Best and worst orders of removal, between which the others lie; they depend on how tokens are removed.
BOUNDS: Mapping[str, Bound] = {HIGHEST: "highest", LOWEST: "lowest"}
# The rows of the paper's table; its Fisher Scope is the later version's, v = u_1.
PAPER = ("random", "integrated_gradients", "input_x_gradient", "semantic", "temperature", "fisher")


@dataclass(frozen=True)
class Trial:
    """What is measured of every prompt.

    Attributes:
        methods: names of attributions, of :data:`METHODS`; or a dict of names to these and to functions of your own,
            ``fn(lin)`` or ``fn(lin, target)`` (the explained token's id), which give one score for each token of
            ``lin`` or an :class:`Attribution`. A folder of records knows functions by their names alone: what they do
            has to stay the same when a run goes on.
        k: percentages of tokens to remove, above 0.
        perturbation: how: ``"zero"``, ``"mean"``, ``"delete"`` or ``"resample"``; see :func:`perturbation_curves`.
        skip_first: never remove the first token.
        also: further ways, each a perturbation and whether the first token is kept, under which the same rankings are
            judged: ``[("mean", False), ("zero", True)]``; see :meth:`Evaluation.under`.
        matched: how many removals at places drawn from the same method's rankings of other prompts each prompt is
            also run with, for ``"beyond_recency"``; 0: none.
        sufficiency: whether the prompt is also run with nothing but the top k%; half of all runs.
        agreement: whether rankings are compared with leave-one-out too, which takes a run for each token.
        settings: of the methods.
        batch_size: runs with tokens removed in one forward pass.

    Raises:
        ArgumentError: an unknown method or perturbation, or percentages that make no sense.
    """

    __expected__: ClassVar[str] = 'a trial, such as tj.Trial(methods={"mine": fn})'

    methods: Sequence[str] | Mapping[str, str | OwnMethod] = PAPER
    k: Sequence[float | int] = PERCENTAGES
    perturbation: Perturbation = "zero"
    skip_first: bool = False
    also: Sequence[tuple[Perturbation, bool]] = ()
    matched: int = 0
    sufficiency: bool = True
    agreement: bool = False
    settings: Settings = field(default_factory=Settings)
    batch_size: int = BATCH

    def __post_init__(self) -> None:
        named = named_methods(self.methods)
        percentages(self.k)
        check_fields(self)
        whole("batch_size", self.batch_size)
        whole("matched", self.matched, 0)
        ways = [(self.perturbation, self.skip_first), *map(tuple, self.also)]
        if len(set(ways)) < len(ways):
            raise ArgumentError(f"also={list(self.also)!r}, expected each way to remove tokens once")
        object.__setattr__(self, "also", tuple(ways[1:]))
        by_name = isinstance(self.methods, Mapping)
        object.__setattr__(self, "methods", FrozenDict(named) if by_name else tuple(named))
        object.__setattr__(self, "k", _above_zero(self.k))

    @property
    def ways(self) -> dict[str, tuple[Perturbation, bool]]:
        """All ways to remove tokens, by their names in tables."""
        ways = [(self.perturbation, self.skip_first), *self.also]
        return {operator_name({"perturbation": how, "skip_first": first}): (how, first) for how, first in ways}

    @property
    def counts_tokens(self) -> bool:
        """Whether it has to be known how often tokens occur in the corpus."""
        resamples = any(how == "resample" for how, _ in self.ways.values())
        return resamples or "token_frequency" in named_methods(self.methods).values()

    @property
    def record(self) -> Literal["sources"] | None:
        """What has to be kept of the forward pass."""
        return "sources" if "attention_rollout" in named_methods(self.methods).values() else None

    def facts(self) -> dict[str, Any]:
        """All that decides the numbers, as JSON values; how many runs go together doesn't."""
        facts = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("batch_size", "methods")}
        named = named_methods(self.methods)
        methods = {
            name: what if isinstance(what, str) else f"function {name_of_function(what)}"
            for name, what in named.items()
        }
        return {
            "methods": methods if isinstance(self.methods, Mapping) else list(methods),
            **facts,
            "also": [list(way) for way in self.also],
            "settings": self.settings.facts(),
            "k": list(self.k),
        }


def _above_zero(k: Sequence[float | int]) -> tuple[float, ...]:
    """Percentages at which methods can differ: none of 0."""
    values = percentages(k)
    if values[0] == 0:
        raise ArgumentError(f"k={k!r}, expected percentages above 0: without 0% of the tokens all methods are equal")
    return values


@checked
def judge_matched(
    trial: Trial,
    batch: LinearizationBatch,
    targets: Sequence[int | None],
    prompts: Sequence[int],
    records: Mapping[int, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Each prompt without as many tokens as each method removes, at places that its rankings of other prompts have.

    Args:
        trial, batch, targets, prompts: as for :func:`judge`.
        records: what that gave, by the prompt's number; those of other prompts too.

    Returns:
        For each prompt and method the mean log-probability at each k, under ``"matched"``.
    """
    lengths = {prompt: record["n_tokens"] for prompt, record in records.items()}
    found = []
    for lin, target, prompt in zip(batch, targets, prompts, strict=True):
        n, drawn = prompt_length(lin), donors(lengths, prompt, trial.matched, trial.settings.generator(prompt))
        sizes = n_removed(trial.k, n - trial.skip_first)
        methods = list(trial.methods)
        sets = torch.cat(
            [
                matched_sets(records[other]["methods"][m]["order"], lengths[other], n, sizes, len(lin.tokens))
                for m in methods
                for other in drawn
            ]
        )
        others = others_of(trial, lin, prompt) if trial.perturbation == "resample" else None
        tokens = explained_tokens(lin, target)
        runs = removed_from(lin, sets, tokens, trial.perturbation, others, trial.batch_size)
        means = runs.log_prob.reshape(len(methods), len(drawn), len(sizes)).mean(1)
        found.append({"matched": dict(zip(methods, means.tolist(), strict=True))})
    return found


@checked
@checked_once()
def judge(
    trial: Trial, batch: LinearizationBatch, targets: Sequence[int | None], prompts: Sequence[int]
) -> list[dict[str, Any]]:
    """Attribute, remove, compare.

    Args:
        trial: what to measure.
        batch: prompts, linearised together.
        targets: the token of each that is explained *and* scored; None for a whole answer.
        prompts: each one's number in the corpus.

    Raises:
        PromptError: a prompt is too short to have a ranking.
    """
    for lin in batch:
        if (n := prompt_length(lin)) - trial.skip_first < 2:
            raise PromptError(f"{n} tokens have no ranking, expected at least {2 + trial.skip_first}")
    found = attributions(batch, trial.methods, targets, prompts, trial.settings)
    named = named_methods(trial.methods)
    records = []
    for i, (lin, target, prompt) in enumerate(zip(batch, targets, prompts, strict=True)):
        others = others_of(trial, lin, prompt)
        own = {
            name: found[name][i] if name in found else _bound(trial, lin, target, others, named[name]) for name in named
        }
        records.append(_record(trial, lin, target, own, others))
    return records


def others_of(trial: Trial, lin: Linearized, prompt: int) -> Int[Tensor, " pos"] | None:
    """What comes into the places of one prompt's tokens, the same for all methods; None where nothing does."""
    if not any(how == "resample" for how, _ in trial.ways.values()):
        return None
    # Random numbers of their own: no ranking has drawn them.
    generator = trial.settings.generator(-1 - prompt)
    return other_tokens(lin.tokens.tolist(), trial.settings.counted(), generator)


def _bound(trial: Trial, lin: Linearized, target: int | None, others: Tensor | None, name: Any) -> Attribution:
    return beam_search(
        lin,
        target,
        bound=BOUNDS[name],
        k=max(trial.k),
        width=trial.settings.beam_width,
        perturbation=trial.perturbation,
        others=others if trial.perturbation == "resample" else None,
        skip_first=trial.skip_first,
        batch_size=trial.batch_size,
    )


def _record(
    trial: Trial, lin: Linearized, target: int | None, by_name: dict[str, Attribution], others: Tensor | None
) -> dict[str, Any]:
    def judged(perturbation: Perturbation, skip_first: bool, sufficiency: bool) -> list[PerturbationCurves]:
        return perturbation_curves(
            lin,
            list(by_name.values()),
            k=trial.k,
            target=target,
            perturbation=perturbation,
            others=others if perturbation == "resample" else None,
            skip_first=skip_first,
            sufficiency=sufficiency,
            batch_size=trial.batch_size,
        )

    curves = judged(trial.perturbation, trial.skip_first, trial.sufficiency)
    measured = {name: _measured(a, c) for (name, a), c in zip(by_name.items(), curves, strict=True)}
    also = {
        name: {method: _under(c) for method, c in zip(by_name, judged(*way, sufficiency=False), strict=True)}
        for name, way in list(trial.ways.items())[1:]
    }
    if trial.matched:
        for name, a in by_name.items():
            measured[name]["order"] = _places(a.prompt, trial.skip_first)
    if trial.agreement:
        for name, against in _agreements(trial, lin, target, by_name).items():
            measured[name] |= against
    return {
        "n_tokens": prompt_length(lin),
        **_target(lin, target),
        "context": "".join(lin.str_tokens[: prompt_length(lin)])[-_CONTEXT:],
        "log_prob": curves[0].clean,
        "methods": measured,
        **({"also": also} if also else {}),
    }


_CONTEXT = 40  # characters of the prompt's end that a record keeps


def _places(a: Attribution, skip_first: bool) -> list[int]:
    """Token positions in the order in which they are removed."""
    return [p for i in removal_order(a.scores) for p in a.units[i] if p or not skip_first]


def _under(c: PerturbationCurves) -> dict[str, Any]:
    divergence = {} if c.divergence is None else {"divergence": c.divergence.tolist()}
    return {"removed": c.removed.tolist(), **divergence}


def _target(lin: Linearized, target: int | None) -> dict[str, Any]:
    if isinstance(lin, AnswerLinearization):
        return {"target": None, "answer": list(lin.answer), "target_text": lin.text}
    return {"target": target, "target_text": lin.decode(explained_tokens(lin, target)[0])}


def _measured(a: Attribution, c: PerturbationCurves) -> dict[str, Any]:
    gap = {"completeness_gap": a.metadata["completeness_gap"]} if "completeness_gap" in a.metadata else {}
    kept = {} if c.kept is None else {"kept": c.kept.tolist()}
    return {**_under(c), **kept, **gap}


def _agreements(
    trial: Trial, lin: Linearized, target: int | None, by_name: dict[str, Attribution]
) -> dict[str, dict[str, Any]]:
    """Agreement with leaving out one token at a time, by either measure: the runs are the same."""
    replacement = "mean" if trial.perturbation == "mean" else "zero"
    tokens = explained_tokens(lin, target)
    found = without_each(lin, tokens, replacement, trial.batch_size)
    measures: tuple[Measure, ...] = ("log_prob", "kl")
    truth = {measure: left_out(lin, found, measure, tokens, replacement) for measure in measures}
    return {
        name: {
            f"{what}_{measure}": None if math.isnan(value) else value  # JSON has no NaN
            for measure, b in truth.items()
            for what, value in rank_agreement(a.prompt, b, skip_first=trial.skip_first)._asdict().items()
        }
        for name, a in by_name.items()
    }
