"""The scopes, described once: names, titles, options, how the scores of several tokens combine.

Everything that asks for a scope by its name reads this; how it is computed stands beside it in one table too
(:mod:`tl_jacobian.analyses.scopes.choose`). It is data alone: the command line reads it without loading torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

ScopeName = Literal["semantic", "temperature", "fisher", "output", "direction"]
Combine = Literal["root_sum_squares", "sum"]
Confidence = Literal["hidden_norm", "logit_norm"]
FisherMethod = Literal["auto", "exact", "low_rank", "estimate"]
# What a gradient passes through in the place of the exact Jacobian (tl_jacobian.core.host.backward).
BackwardRule = Literal["frozen_norms", "frozen_attention", "gim"]


@dataclass(frozen=True)
class Option:
    """An option of a scope.

    Attributes:
        name: the keyword argument's, in every function that takes a scope.
        explains: in one line.
        required: whether the scope means nothing without it.
        of_direction: whether it has to do with the directions that a scope explains; other options say how whole
            attributions are computed, and analyses that only need a direction don't take them.
    """

    name: str
    explains: str
    required: bool = False
    of_direction: bool = True


@dataclass(frozen=True)
class ScopeSpec:
    """What a scope is.

    Attributes:
        name: as it is asked for.
        title: as it is called in pictures.
        explains: in one line.
        options: in the order in which errors list them.
        combine: how scores of several tokens make one: Euclidean for norms, the sum for traces; and with that, how
            squared influences along several directions make a score.
        on_command_line: whether the command line has it: it needs no Python object.
    """

    name: ScopeName
    title: str
    explains: str
    options: tuple[Option, ...]
    combine: Combine = "root_sum_squares"
    on_command_line: bool = False

    def takes(self, option: str) -> bool:
        return any(one.name == option for one in self.options)


_NAME = Option("name", "what to call it")
_SPECS = (
    ScopeSpec(
        "semantic",
        "Semantic Scope",
        "the logit of one token, or the difference of two",
        (
            Option("target", "token whose logit is explained, as text or id; default: the most probable one"),
            Option("minus", "token to contrast the target with"),
        ),
        on_command_line=True,
    ),
    ScopeSpec(
        "temperature",
        "Temperature Scope",
        "the length of the final hidden state (the paper's confidence)",
        (Option("confidence", "measured by the hidden state's norm (default) or by that of the centred logits"),),
        on_command_line=True,
    ),
    ScopeSpec(
        "fisher",
        "Fisher Scope",
        "the whole predicted distribution",
        (
            Option("rank", "its so many leading directions alone, a lower bound"),
            Option("method", "how to compute it; default: auto", of_direction=False),
            Option("n_products", "an estimate's budget in products with the Jacobian", of_direction=False),
            Option("rtol", "or an estimate's accuracy", of_direction=False),
            Option("generator", "of an estimate's random signs", of_direction=False),
        ),
        combine="sum",
        on_command_line=True,
    ),
    ScopeSpec(
        "output",
        "Output Scope",
        "any number made of the final hidden state and the logits",
        (Option("fn", "fn(y, logits) -> scalar tensor", required=True), _NAME),
    ),
    ScopeSpec(
        "direction",
        "Direction Scope",
        "the final hidden state along any direction",
        (Option("v", "the direction, a tensor (d_model,)", required=True), _NAME),
    ),
)
SCOPES: Mapping[str, ScopeSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})
ON_COMMAND_LINE: tuple[ScopeName, ...] = tuple(spec.name for spec in _SPECS if spec.on_command_line)


def takers_of(option: str) -> list[ScopeSpec]:
    """The scopes that take an option.

    >>> [spec.name for spec in takers_of("rank")]
    ['fisher']
    """
    return [spec for spec in _SPECS if spec.takes(option)]


# Baselines aren't scopes.
BASELINES: Mapping[str, str] = MappingProxyType(
    {
        "leave_one_out": "Leave-one-out",
        "input_x_gradient": "Input x gradient",
        "path_integrated": "Integrated gradients",
        "smoothgrad": "SmoothGrad",
        "attention_rollout": "Attention rollout",
        "random": "Random scores",
    }
)


def scope_title(scope: str) -> str:
    """``"Semantic Scope"``, ``"Leave-one-out"``; anything else as it is called, what stands after a comma too.

    >>> scope_title("fisher, relative"), scope_title("attention_rollout"), scope_title("my_scores")
    ('Fisher Scope, relative', 'Attention rollout', 'My scores')
    """
    name, comma, rest = scope.partition(",")
    if name in SCOPES:
        return f"{SCOPES[name].title}{comma}{rest}"
    return BASELINES.get(name, name[:1].upper() + name[1:].replace("_", " ")) + comma + rest
