"""The one place where a model's operations are rewritten: in its forward pass, and where a backward pass runs it again.

A :class:`Rule` is handed every call of a torch function that the model (or a hook of the caller) makes, and does
something else instead, or goes on. What an operation does in the *backward* pass is the business of what a rule puts
in its place: a ``torch.autograd.Function``. Without rules nothing is intercepted at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Protocol, runtime_checkable

from torch.overrides import TorchFunctionMode

Function = Callable[..., Any]
# A call as the next rule sees it, and at last torch itself.
GoOn = Callable[[Function, Sequence[Any], Mapping[str, Any]], Any]


@runtime_checkable
class Rule(Protocol):
    """One way of rewriting operations."""

    def rewrites(self, function: Function) -> bool:
        """Whether it has anything to do with this function: ``torch.nn.functional.linear``, ``Tensor.softmax``, ..."""
        ...

    def __call__(self, go_on: GoOn, function: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What stands in the place of ``function(*args, **kwargs)``.

        ``go_on(function, args, kwargs)``, with these or others, leads to the rules behind this one, then to torch.
        Other torch functions may be called too: inside a rule none is intercepted.
        """
        ...


@runtime_checkable
class Placed(Rule, Protocol):
    """A rule that knows where in the model it is, and is told where a run begins."""

    def start(self) -> None: ...


Rules = tuple[Rule, ...]


class _Rewriting(TorchFunctionMode):
    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self.rules = rules

    def __enter__(self) -> Any:
        for rule in self.rules:
            if isinstance(rule, Placed):
                rule.start()
        return super().__enter__()

    def __torch_function__(
        self, func: Function, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _call(self.rules, func, args, kwargs or {})


def _call(rules: Rules, function: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    for i, rule in enumerate(rules):
        if rule.rewrites(function):
            return rule(partial(_call, rules[i + 1 :]), function, args, kwargs)
    return function(*args, **kwargs)


def rewriting(rules: Rules) -> AbstractContextManager[Any]:
    """Operations inside are rewritten by these rules, the first one outermost.

    >>> import torch
    >>> class Double:
    ...     def rewrites(self, function):
    ...         return function is torch.sin
    ...     def __call__(self, go_on, function, args, kwargs):
    ...         return 2 * go_on(function, args, kwargs)
    >>> x = torch.zeros(1, requires_grad=True)
    >>> with rewriting((Double(),)):
    ...     y = torch.sin(x)
    >>> torch.autograd.grad(y, x)
    (tensor([2.]),)
    """
    return _Rewriting(rules) if rules else nullcontext()
