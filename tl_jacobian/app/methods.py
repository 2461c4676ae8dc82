"""The ways to explain that a view offers, each with what it computes and the Python that says the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from tl_jacobian.analyses import baselines
from tl_jacobian.analyses.scopes import fisher_scope, output_scope, semantic_scope, temperature_scope
from tl_jacobian.core.answer import AnswerLinearization
from tl_jacobian.results.attribution import Attribution


def entropy(y: Tensor, logits: Tensor) -> Tensor:
    """Of the predicted distribution, in nats; of an answer's distributions their sum."""
    logs = logits.log_softmax(-1)
    return -(logs.exp() * logs).sum()


def _signs() -> torch.Generator:
    """Of estimates, the same each time: a picture that is drawn again is the same picture."""
    return torch.Generator().manual_seed(0)


@dataclass(frozen=True)
class Method:
    """A way to explain.

    Attributes:
        title: as it is offered.
        explains: in one line.
        compute: from a linearization and the options ``target``, ``minus`` that are given.
        python: the call, with ``{options}`` for these.
        direction: the scope and its options whose one direction layers and paths follow; None: that of the logit.
        targeted: whether it explains one token, so that another can be clicked.
        contrasts: whether it takes a second one.
        record: what ``linearize`` has to record.
        prompt_only: whether tokens of an answer, which stays as it is, have no scores.
    """

    title: str
    explains: str
    compute: Callable[..., Attribution]
    python: str
    direction: Mapping[str, Any] | None = None
    targeted: bool = False
    contrasts: bool = False
    record: str | None = None
    prompt_only: bool = False


ENTROPY = "lambda y, z: -(z.softmax(-1) * z.log_softmax(-1)).sum()"  # the same, to be copied
_SIGNS = "generator=torch.Generator().manual_seed(0)"
METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "semantic": Method(
            "Semantic Scope",
            "what drives the logit of one token, or the difference of two; for an answer its log-probability",
            semantic_scope,
            "tj.semantic_scope(lin{options})",
            {"scope": "semantic"},
            targeted=True,
            contrasts=True,
        ),
        "temperature": Method(
            "Temperature Scope",
            "what drives ||y||, the effective inverse temperature (the paper's confidence)",
            temperature_scope,
            "tj.temperature_scope(lin)",
            {"scope": "temperature"},
        ),
        "logit_norm": Method(
            "Temperature Scope, logit norm",
            "what drives the norm of the centred logits: a confidence that folding a norm doesn't change",
            lambda lin: temperature_scope(lin, confidence="logit_norm"),
            'tj.temperature_scope(lin, confidence="logit_norm")',
            {"scope": "temperature", "confidence": "logit_norm"},
        ),
        "fisher": Method(
            "Fisher Scope",
            "what drives the whole predicted distribution; an estimate with its standard error where that is cheaper",
            fisher_scope,
            "tj.fisher_scope(lin)",
            {"scope": "fisher", "rank": 1},
        ),
        "entropy": Method(
            "Entropy",
            "what drives the uncertainty: the entropy of the predicted distribution",
            lambda lin: output_scope(lin, entropy, name="entropy"),
            f'tj.output_scope(lin, {ENTROPY}, name="entropy")',
            {"scope": "output", "fn": entropy, "name": "entropy"},
        ),
        "input_x_gradient": Method(
            "Input x gradient, signed",
            "which tokens push the logit, or an answer's log-probability, up or down, to first order",
            lambda lin, *a, **o: baselines.input_x_gradient(lin, *a, signed=True, **o),
            "tj.baselines.input_x_gradient(lin{options}, signed=True)",
            targeted=True,
            contrasts=True,
        ),
        "path_integrated": Method(
            "Integrated gradients",
            "the logit's gradient along the way from no input to this one; slow, and converged",
            baselines.path_integrated_scope,
            "tj.baselines.path_integrated_scope(lin{options})",
            targeted=True,
            contrasts=True,
        ),
        "smoothgrad": Method(
            "SmoothGrad",
            "the logit's gradient, averaged over noise on the embeddings",
            lambda lin, *a, **o: baselines.smoothgrad(lin, *a, generator=_signs(), **o),
            f"tj.baselines.smoothgrad(lin{{options}}, {_SIGNS})",
            targeted=True,
            contrasts=True,
        ),
        "leave_one_out": Method(
            "Leave-one-out",
            "by how much the log-probability of the token or answer really falls without each token: a run for each",
            baselines.leave_one_out,
            "tj.baselines.leave_one_out(lin{options})",
            targeted=True,
            prompt_only=True,
        ),
        "attention_rollout": Method(
            "Attention rollout",
            "where attention looks, multiplied over the layers; no gradient",
            baselines.attention_rollout,
            "tj.baselines.attention_rollout(lin)",
            record="sources",
        ),
    }
)


def options_of(method: Method, lin: Any, target: int | None, minus: int | None) -> dict[str, int]:
    """The token options that a method takes, of those that are given; an answer is its own target."""
    if isinstance(lin, AnswerLinearization) or not method.targeted:
        return {}
    found = {} if target is None else {"target": target}
    return found if minus is None or not method.contrasts else {**found, "minus": minus}


def of_the_prompt(names: Sequence[str], lin: Any) -> bool:
    """Whether methods side by side are shown on the prompt alone, since one of them scores nothing else."""
    several = isinstance(lin, AnswerLinearization) and len(names) > 1
    return several and any(METHODS[name].prompt_only for name in names)


def direction_of(method: Method, lin: Any, target: int | None, minus: int | None) -> dict[str, Any]:
    """Scope and options of the one direction that layers and paths follow."""
    found = dict(method.direction or {"scope": "semantic"})
    if found["scope"] != "semantic" or isinstance(lin, AnswerLinearization):
        return found
    return {**found, **{name: token for name, token in (("target", target), ("minus", minus)) if token is not None}}
