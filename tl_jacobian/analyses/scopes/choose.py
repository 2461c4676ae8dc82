"""Any scope: by its name and options, as a direction, or as a function; checked before any work is done.

What every function with a ``scope`` argument takes:

- the name of a scope, whose options are keyword arguments of the function;
- a direction v in y, a tensor;
- a function of two values, ``fn(y, logits) -> scalar tensor``, as for ``output_scope``;
- a function of one value, ``fn(lin) -> Attribution``, where whole attributions are made; it has no direction that an
  analysis could follow;
- a scope function of this library, which is the same as its name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from torch import Tensor

from tl_jacobian.analyses.scopes.apply import Explain, Explained, apply_each, check_gradient, one_of
from tl_jacobian.analyses.scopes.fisher import DRAWING, explain_fisher, fisher_scope
from tl_jacobian.analyses.scopes.simple import (
    ScalarOutput,
    can_take,
    direction_scope,
    explain_confidence,
    explain_direction,
    explain_logit,
    explain_output,
    output_scope,
    semantic_scope,
    temperature_scope,
)
from tl_jacobian.core.linearization import LinearizationBatch, Linearized
from tl_jacobian.core.progress import progress
from tl_jacobian.errors import ArgumentError
from tl_jacobian.results.attribution import Attribution
from tl_jacobian.results.scopes import SCOPES, Combine, FisherMethod, ScopeName, ScopeSpec

OwnScope = Callable[[Any], Attribution]
if TYPE_CHECKING:
    Scope = ScopeName | Tensor | ScalarOutput | OwnScope
else:
    Scope = Any  # what isn't one is refused here, with what may have been meant


class Computation(NamedTuple):
    """How a scope is computed.

    Attributes:
        explain: from a linearization and the options that have to do with directions to what is explained.
        whole: the public function, from a linearization or a batch and all options.
    """

    explain: Callable[..., Explained]
    whole: Callable[..., Any]


COMPUTATIONS: Mapping[str, Computation] = MappingProxyType(
    {
        "semantic": Computation(explain_logit, semantic_scope),
        "temperature": Computation(explain_confidence, temperature_scope),
        "fisher": Computation(explain_fisher, fisher_scope),
        "output": Computation(explain_output, output_scope),
        "direction": Computation(explain_direction, direction_scope),
    }
)


_OF_WHOLE = {one.name for spec in SCOPES.values() for one in spec.options if not one.of_direction}


@dataclass(frozen=True, eq=False)
class Chosen:
    """A scope with its options.

    Attributes:
        label: its name; a function's own.
        spec: its specification; None for a function from a linearization to an attribution.
        options: those that were given.
        own: that function.
    """

    label: str
    spec: ScopeSpec | None
    options: Mapping[str, Any]
    own: OwnScope | None = None

    def takes(self, option: str) -> bool:
        return self.spec is not None and self.spec.takes(option)

    @property
    def combine(self) -> Combine:
        """How squared influences of several directions make one score."""
        return "root_sum_squares" if self.spec is None else self.spec.combine

    @property
    def method(self) -> FisherMethod | None:
        """How Fisher Scope is computed: a rank alone says that too; None for other scopes."""
        if not self.takes("method"):
            return None
        return self.options.get("method") or ("auto" if "rank" not in self.options else "low_rank")

    def explain(self, lin: Linearized) -> Explained:
        """The directions of one linearization that are explained.

        Raises:
            DirectionError: there is nothing to explain.
        """
        assert self.spec is not None  # direction() has seen to it
        explained = COMPUTATIONS[self.spec.name].explain(one_of(lin), **self.options)
        check_gradient(explained)
        return explained

    @overload
    def attribute(self, lin: Linearized, **each: Any) -> Attribution: ...
    @overload
    def attribute(self, lin: LinearizationBatch[Any], **each: Any) -> list[Attribution]: ...
    def attribute(self, lin: Linearized | LinearizationBatch[Any], **each: Any) -> Attribution | list[Attribution]:
        """Whole attributions, those of a batch from shared backward passes.

        Args:
            each: options besides those chosen, or in their place, for a batch one each; the scope takes of them what
                it can use.
        """
        if self.spec is None:
            return self._owned(lin) if isinstance(lin, Linearized) else [self._owned(one) for one in lin]
        options = {**self.options, **{name: value for name, value in each.items() if self.takes(name)}}
        if self.method is not None:
            options["method"] = self.method
            if self.method not in DRAWING and "generator" in each:
                del options["generator"]
        return COMPUTATIONS[self.spec.name].whole(lin, **options)

    def explaining(self, **each: Any) -> Explain | None:
        """What :meth:`attribute` explains of one member after the other; None: not directions alone."""
        if self.spec is None or self.method not in (None, "low_rank"):
            return None
        options = {**self.options, **{name: value for name, value in each.items() if self.takes(name)}}
        options = {name: value for name, value in options.items() if name not in _OF_WHOLE}
        if isinstance(options.get("minus"), Linearized):  # another answer, with a forward pass of its own
            return None
        one_each = {name: iter(value) for name, value in options.items() if isinstance(value, (list, tuple))}
        explain = COMPUTATIONS[self.spec.name].explain
        return lambda lin: explain(lin, **{**options, **{name: next(values) for name, values in one_each.items()}})

    def along(self, batch: LinearizationBatch, **each: Any) -> list[Attribution]:
        """As :meth:`attribute`, for many positions of one text.

        A full Fisher trace fills backward passes alone, and its directions for many positions would take much memory:
        it is computed for one after the other.
        """
        if self.spec is not None and self.method in (None, "low_rank"):
            return self.attribute(batch, **each)
        found = []
        with progress(len(batch), "targets") as bar:
            for lin in batch:
                found.append(self.attribute(lin, **each))
                bar.update()
        return found

    def _owned(self, lin: Linearized) -> Attribution:
        assert self.own is not None  # a scope without a specification is a function
        made = self.own(lin)
        if isinstance(made, Attribution) and len(made) == len(lin.tokens) and made.tokens == tuple(lin.tokens.tolist()):
            return made
        got = repr(made)
        if isinstance(made, Attribution):
            units = "" if len(made) == len(made.tokens) else f" in {len(made)} units"
            got = f"an attribution of {len(made.tokens)} tokens{units}"
        raise ArgumentError(
            f"the scope gave {got} for {lin!r}, expected an Attribution of its {len(lin.tokens)} tokens"
        )


def choose(scope: Scope, **offered: Any) -> Chosen:
    """A scope for whole attributions.

    Args:
        scope: see the module.
        offered: all options that the function which asks has, those not given as None.

    Raises:
        ArgumentError: no such scope, an option that it doesn't take, or none where it needs one.
    """
    return _chosen(scope, offered, needs_direction=False)


def attributed(lin: Any, scopes: Sequence[Chosen], **each: Any) -> list[Any]:
    """What :meth:`Chosen.attribute` gives for each of several scopes, those of directions from shared backward passes.

    Three directions that travel together take less than two do one after the other.
    """
    ways = [chosen.explaining(**each) for chosen in scopes]
    asked: list[tuple[ScopeName, Explain]] = [
        (c.spec.name, way) for c, way in zip(scopes, ways, strict=True) if c.spec is not None and way is not None
    ]
    together = iter(apply_each(lin, asked) if asked else ())
    return [c.attribute(lin, **each) if way is None else next(together) for c, way in zip(scopes, ways, strict=True)]


def choose_direction(scope: Scope, **offered: Any) -> Chosen:
    """A scope whose directions an analysis follows; as :func:`choose`.

    A function that may be called with one value or with two is taken for ``fn(y, logits)`` here, and for ``fn(lin)``
    there.
    """
    return _chosen(scope, offered, needs_direction=True)


def _chosen(scope: Any, offered: Mapping[str, Any], *, needs_direction: bool) -> Chosen:
    given = {name: value for name, value in offered.items() if value is not None}
    if isinstance(scope, str) and scope in SCOPES:
        return _with(SCOPES[scope], given, offered)
    if isinstance(scope, Tensor):
        return _with(SCOPES["direction"], _once("v", scope, given), offered)
    if not callable(scope):
        raise ArgumentError(_no_scope(scope, given))
    name = next((name for name, computation in COMPUTATIONS.items() if computation.whole is scope), None)
    if name is not None:
        return _with(SCOPES[name], given, offered)
    one, two = (can_take(scope, n) for n in (1, 2))
    if two and (needs_direction or not one):
        return _with(SCOPES["output"], _once("fn", scope, given), offered)
    label = name_of_function(scope)
    if not one or needs_direction:
        what = "this asks for a direction: expected" if one else "expected"
        own = "" if needs_direction else ", or fn(lin) -> Attribution"
        raise ArgumentError(f"scope {label} can't be used here, {what} a function fn(y, logits) -> scalar tensor{own}")
    for option in given:
        raise ArgumentError(
            f"scope {label} takes no {option}=: options of a function of yours go with functools.partial"
        )
    own: Any = scope
    return Chosen(label, None, given, own)


def _with(spec: ScopeSpec, given: Mapping[str, Any], offered: Mapping[str, Any]) -> Chosen:
    known = [one for one in spec.options if one.name in offered]
    for name in given:
        if not spec.takes(name):
            listed = ", ".join(repr(one.name) for one in known)
            raise ArgumentError(f"scope {spec.name!r} takes no {name}=; its options are {listed}")
    for one in known:
        if one.required and one.name not in given:
            raise ArgumentError(f"scope {spec.name!r} needs {one.name}=")
    return Chosen(spec.name, spec, given)


def _once(name: str, scope: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    if name in given:
        raise ArgumentError(f"{name}= is given twice: the scope is one already; leave out {name}=")
    return {name: scope, **given}


def _no_scope(scope: Any, given: Mapping[str, Any]) -> str:
    if hasattr(scope, "__array__"):
        return f"scope is a {type(scope).__name__}; a direction is a tensor: torch.as_tensor(v)"
    hint = f"; for a target token: target={scope!r}" if isinstance(scope, str) and "target" not in given else ""
    return f"scope={scope!r}, expected one of {', '.join(map(repr, SCOPES))}, a direction v or a function{hint}"


def name_of_function(fn: Callable[..., Any]) -> str:
    """What a function is called."""
    inner = fn.func if isinstance(fn, functools.partial) else fn
    return getattr(inner, "__name__", type(inner).__name__)


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
