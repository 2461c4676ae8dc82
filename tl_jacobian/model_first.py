"""Functions that take a model first, where scopes take a linearization: the two are easily mixed up."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from tl_jacobian.errors import UnsupportedModelError
from tl_jacobian.linearization import Linearization
from tl_jacobian.linearization_batch import LinearizationBatch

P = ParamSpec("P")
R = TypeVar("R")


def model_first(fn: Callable[P, R]) -> Callable[P, R]:
    """``fn(model, ...)``, which says so when it is handed a linearization, before anything else is missed.

    >>> model_first(lambda model, prompt: prompt)("a model", "a prompt")
    'a prompt'
    """
    parameters = inspect.signature(fn).parameters.values()
    needed = ", ".join(p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD)

    @functools.wraps(fn)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        model = args[0] if args else kwargs.get("model")
        if isinstance(model, (Linearization, LinearizationBatch)):
            raise UnsupportedModelError(
                f"got a {type(model).__name__}, expected a model: call {fn.__name__}({needed}) with the model that was "
                "linearised; the linearization itself goes to scopes, such as semantic_scope(lin)"
            )
        return fn(*args, **kwargs)

    return checked
