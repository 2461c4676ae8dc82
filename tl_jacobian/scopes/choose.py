"""Any scope's direction by name, for analyses that need the direction and not the tokens' scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from tl_jacobian.attribution import Combine
from tl_jacobian.errors import ArgumentError
from tl_jacobian.linearization import Linearization
from tl_jacobian.scopes.apply import Explained, check_gradient, one_of
from tl_jacobian.scopes.fisher import explain_fisher
from tl_jacobian.scopes.output import ScalarOutput, explain_direction, explain_output
from tl_jacobian.scopes.semantic import explain_logit
from tl_jacobian.scopes.temperature import Confidence, explain_confidence
from tl_jacobian.targets import Target

Direction = str | Tensor


def explain(lin: Linearization, scope: Direction, options: Mapping[str, Any]) -> Explained:
    """What a scope explains of one linearization.

    Args:
        lin: the linearization.
        scope: ``"semantic"`` (options ``target``, ``minus``), ``"temperature"`` (``confidence``),
            ``"fisher"`` (``rank``, default 1: its leading directions), ``"output"`` (``fn``, ``name``), or a
            direction v in y.
        options: of the scope.

    Raises:
        ArgumentError: no such scope, an option that it doesn't take, or none where it needs one.
    """
    one_of(lin)
    if isinstance(scope, Tensor):
        scope, options = "direction", {"v": scope, **options}
    if not isinstance(scope, str) or scope not in _EXPLAINERS:
        hint = f"; for a target token: target={scope!r}" if isinstance(scope, str) and "target" not in options else ""
        if hasattr(scope, "__array__"):
            raise ArgumentError(f"scope is a {type(scope).__name__}; a direction is a tensor: torch.as_tensor(v)")
        names = ", ".join(map(repr, _EXPLAINERS))
        raise ArgumentError(f"scope={scope!r}, expected one of {names}, or a direction v{hint}")
    known = _OPTIONS[scope]
    for name in options:
        if name not in known:
            raise ArgumentError(f"scope {scope!r} takes no {name}=; its options are {', '.join(map(repr, known))}")
    for name in _REQUIRED.get(scope, ()):
        if name not in options:
            raise ArgumentError(f"scope {scope!r} needs {name}=")
    explained = _EXPLAINERS[scope](lin, **options)
    check_gradient(explained)
    return explained


def combine_of(scope: Direction) -> Combine:
    """How squared influences of several directions make one score: see the scopes."""
    return "sum" if isinstance(scope, str) and scope == "fisher" else "root_sum_squares"


def only_direction(explained: Explained, what: str) -> Tensor:
    """The one direction that is explained.

    Raises:
        ArgumentError: there are several, and ``what`` is linear in v.
    """
    if len(explained.v) != 1:
        raise ArgumentError(
            f"{what} need one direction, and {explained.target} has {len(explained.v)}: take rank=1, or one of "
            "fisher_spectrum(lin).directions"
        )
    return explained.v[0]


def _semantic(lin: Linearization, target: Target | None = None, minus: Target | None = None) -> Explained:
    return explain_logit(lin, target, minus)


def _temperature(lin: Linearization, confidence: Confidence = "hidden_norm") -> Explained:
    return explain_confidence(lin, confidence)


def _fisher(lin: Linearization, rank: int = 1) -> Explained:
    return explain_fisher(lin, rank)


def _output(lin: Linearization, fn: ScalarOutput, name: str | None = None) -> Explained:
    return explain_output(lin, fn, name or getattr(fn, "__name__", type(fn).__name__))


def _direction(lin: Linearization, v: Tensor, name: str | None = None) -> Explained:
    explained = explain_direction(lin, v)
    return explained if name is None else explained._replace(target=name)


_EXPLAINERS: dict[str, Callable[..., Explained]] = {
    "semantic": _semantic,
    "temperature": _temperature,
    "fisher": _fisher,
    "output": _output,
    "direction": _direction,
}
_OPTIONS = {
    "semantic": ("target", "minus"),
    "temperature": ("confidence",),
    "fisher": ("rank",),
    "output": ("fn", "name"),
    "direction": ("v", "name"),
}
_REQUIRED = {"output": ("fn",), "direction": ("v",)}
