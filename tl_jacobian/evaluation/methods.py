"""The attributions that an evaluation compares, by name, each of one given token of each prompt of a batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from tl_jacobian.attribution import Attribution
from tl_jacobian.baselines import (
    attention_rollout,
    leave_one_out,
    path_integrated_scope,
    random_attribution,
    smoothgrad,
)
from tl_jacobian.baselines.simple import input_x_gradients
from tl_jacobian.corpus import prompt_generator
from tl_jacobian.errors import ArgumentError
from tl_jacobian.linearization import Linearization
from tl_jacobian.linearization_batch import LinearizationBatch
from tl_jacobian.scopes import fisher_scope, temperature_scope
from tl_jacobian.scopes.apply import apply
from tl_jacobian.scopes.semantic import explain_logit


@dataclass(frozen=True)
class Settings:
    """What the methods are given besides the prompt.

    Attributes:
        seed: of everything random; each prompt has its own random numbers, whatever batch it is in.
        integration_steps: nodes of integrated gradients (Gauss and Legendre's, from a zero baseline).
    """

    seed: int = 0
    integration_steps: int = 8

    def generator(self, prompt: int) -> torch.Generator:
        """The random numbers of one prompt of the corpus."""
        return prompt_generator(self.seed, prompt)


Method = Callable[[LinearizationBatch, Sequence[int], Sequence[int], Settings], list[Attribution]]


def attributions(
    batch: LinearizationBatch,
    names: Sequence[str],
    targets: Sequence[int],
    prompts: Sequence[int],
    settings: Settings,
) -> dict[str, list[Attribution]]:
    """Every method's attributions of a batch, one for each prompt.

    Args:
        batch: the prompts, linearised together.
        names: of methods.
        targets: the token explained in each.
        prompts: each one's number in the corpus, which its random numbers depend on.
        settings: of the methods.
    """
    return {name: METHODS[name](batch, targets, prompts, settings) for name in names}


def check_methods(names: Sequence[str]) -> None:
    """Raise ArgumentError for a name that isn't a method."""
    if isinstance(names, str):
        raise ArgumentError(f"methods={names!r}, expected a list of names: [{names!r}]")
    for name in names:
        if name not in METHODS:
            raise ArgumentError(f"method {name!r}, expected some of {', '.join(map(repr, METHODS))}")
    if len(set(names)) < len(names) or not names:
        raise ArgumentError(f"methods={list(names)!r}, expected one or more, each once")


def _input_x_gradient(batch: LinearizationBatch, targets: Sequence[int], *_: object) -> list[Attribution]:
    return input_x_gradients(batch, [explain_logit(lin, t, None) for lin, t in zip(batch, targets, strict=True)])


def _semantic(batch: LinearizationBatch, targets: Sequence[int], *_: object) -> list[Attribution]:
    token = {id(lin): target for lin, target in zip(batch, targets, strict=True)}
    return apply(batch, "semantic", lambda lin: explain_logit(lin, token[id(lin)], None))


def _one_by_one(run: Callable[[Linearization, int, int, Settings], Attribution]) -> Method:
    def method(
        batch: LinearizationBatch, targets: Sequence[int], prompts: Sequence[int], settings: Settings
    ) -> list[Attribution]:
        return [run(lin, t, p, settings) for lin, t, p in zip(batch, targets, prompts, strict=True)]

    return method


def _integrated(lin: Linearization, target: int, _: int, settings: Settings) -> Attribution:
    steps = settings.integration_steps
    with warnings.catch_warnings():  # the completeness gap is in the metadata, and in the table
        warnings.filterwarnings("ignore", message="path_integrated_scope", category=UserWarning)
        return path_integrated_scope(lin, target, nodes="gauss_legendre", steps=steps, max_steps=steps)


def _estimate(
    batch: LinearizationBatch, _: Sequence[int], prompts: Sequence[int], settings: Settings
) -> list[Attribution]:
    return fisher_scope(batch, generator=[settings.generator(prompt) for prompt in prompts])


METHODS: Mapping[str, Method] = {
    "random": _one_by_one(lambda lin, _, p, s: random_attribution(lin, generator=s.generator(p))),
    "integrated_gradients": _one_by_one(_integrated),
    "input_x_gradient": _input_x_gradient,
    "semantic": _semantic,
    "temperature": lambda batch, *_: temperature_scope(batch),
    "fisher": lambda batch, *_: fisher_scope(batch, method="low_rank"),
    # beyond the paper's table
    "fisher_trace": _estimate,
    "smoothgrad": _one_by_one(lambda lin, t, p, s: smoothgrad(lin, t, generator=s.generator(p))),
    "attention_rollout": _one_by_one(lambda lin, *_: attention_rollout(lin)),
    "leave_one_out": _one_by_one(lambda lin, t, *_: leave_one_out(lin, t)),
}
# The rows of the paper's table; its Fisher Scope is the later version's, v = u_1.
PAPER = ("random", "integrated_gradients", "input_x_gradient", "semantic", "temperature", "fisher")
