"""Under which hooks and modes a model ran: what a linearization's later runs go back to.

Hooks of the caller are told from those that TransformerLens and PyTorch install for themselves. A hook may do anything
with the rows and positions that it sees, unless its author says that it doesn't: :func:`pointwise`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any, NamedTuple

from torch import nn

from tl_jacobian.core.host.loan import STATE, Loan, attributes_of, callers, modules_of, place_of
from tl_jacobian.results.arguments import checked

_HOOKS = tuple(name for name in STATE if name.endswith("hooks") and name.startswith("_"))
# Whose hooks are a part of the model.
_LIBRARIES = ("torch", "transformers", "transformer_lens", "accelerate")
_MARK = "_tl_jacobian_pointwise"


@checked
def pointwise(hook: Callable[..., Any]) -> Any:
    """Say of a hook that it treats every prompt of a batch, and every position, alone: ``x + v``, say.

    With hooks, prompts run one by one, and so do the positions of a text: a hook may act on the last position, which is
    padding in a batch, or average over what it sees. Where all hooks are pointwise, they run together.

    Returns:
        The hook, marked; something in its place that calls it, where it can't be.

    Raises:
        ArgumentError: that isn't a function.

    >>> import torch
    >>> import tl_jacobian as tj
    >>> model, v = tj.load_demo_model(), torch.ones(576)
    >>> with model.hooks(fwd_hooks=[("blocks.3.hook_resid_pre", tj.pointwise(lambda x, hook: x + v))]):
    ...     batch = tj.linearize(model, ["The capital of France is", "Two and two is"])
    >>> batch[0].graph is batch[1].graph
    True
    """
    marked: Any = hook if hasattr(hook, "__dict__") and not isinstance(hook, MethodType) else partial(hook)
    setattr(marked, _MARK, True)
    return marked


class CallersHook(NamedTuple):
    """A hook of the caller's.

    Attributes:
        place: name of its hook point, or of its module.
        kind: which of PyTorch's dictionaries of hooks it is in.
        hook: as the caller gave it.
    """

    place: str
    kind: str
    hook: Callable[..., Any]

    @property
    def identity(self) -> Hashable:
        """The same for hooks that do the same, as far as can be seen: made anew in a loop, they are one."""
        return self.place, self.kind, _identity(self.hook)


class Conditions:
    """Hooks and modes of a model as they are now.

    Attributes:
        hooks: the caller's.

    Args:
        roots: the model, and what belongs to it without being a submodule.
    """

    def __init__(self, *roots: nn.Module) -> None:
        self._roots = roots
        self._state: dict[nn.Module, dict[str, Any]] = {}
        self._training: set[nn.Module] = set()
        hooks: list[CallersHook] = []
        for name, module in modules_of(*roots):
            if module.training:
                self._training.add(module)
            if _is_hooked(module):
                self._state[module] = attributes_of(module, STATE)
                hooks += _callers_hooks(name, module)
        self.hooks = tuple(hooks)

    @property
    def mix(self) -> bool:
        """Whether a hook may mix prompts or positions, as far as anybody has said."""
        return not all(getattr(found.hook, _MARK, False) for found in self.hooks)

    @property
    def identity(self) -> Hashable:
        return tuple(found.identity for found in self.hooks)

    def enter(self, loan: Loan) -> None:
        """Put the model back under these conditions, as long as the loan lasts."""
        for _, module in modules_of(*self._roots):
            training = module in self._training
            if (then := self._state.get(module)) is not None:
                loan.enter([(module, then)])
            elif _is_hooked(module):
                now = attributes_of(module, STATE)
                loan.enter([(module, {name: training if name == "training" else type(now[name])() for name in now})])
            elif module.training != training:
                loan.enter([(module, {"training": training})])

    def without_callers(self) -> Conditions:
        """The same with no hooks of the caller's."""
        bare = Conditions.__new__(Conditions)
        bare._roots, bare._training, bare.hooks = self._roots, self._training, ()
        bare._state = {}
        for module, state in self._state.items():
            theirs = {(kind, key) for kind, key, _ in _each(module, state) if _is_callers(module, state, kind, key)}
            bare._state[module] = {
                name: type(value)((k, h) for k, h in value.items() if (name, k) not in theirs)
                if name in _HOOKS
                else [h for h in value if h.hook.id not in {key for _, key in theirs}]
                if name in ("fwd_hooks", "bwd_hooks")
                else value
                for name, value in state.items()
            }
        return bare


def _is_hooked(module: nn.Module) -> bool:
    own = module.__dict__  # written out: it is asked of every module, of which a bridge has thousands
    return bool(
        own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"] or own["_backward_pre_hooks"]
    )


def _each(module: nn.Module, state: dict[str, Any]) -> Iterator[tuple[str, int, Any]]:
    for kind in _HOOKS:
        for key, hook in list(state[kind].items()):
            if (seen := callers(hook)) is not None:
                yield kind, key, seen


def _handle(state: dict[str, Any], key: int) -> Any:
    """TransformerLens's own note of a hook, with the function that the caller gave."""
    notes = (*state.get("fwd_hooks", ()), *state.get("bwd_hooks", ()))
    return next((handle for handle in notes if handle.hook.id == key), None)


def _is_callers(module: nn.Module, state: dict[str, Any], kind: str, key: int) -> bool:
    handle = _handle(state, key)
    hook = callers(state[kind][key]) if handle is None else handle.user_hook
    library = _home(hook).split(".")[0] in _LIBRARIES
    return not (library and (handle is None or handle.is_permanent))


def _callers_hooks(name: str, module: nn.Module) -> Iterator[CallersHook]:
    state = module.__dict__
    for kind, key, hook in _each(module, state):
        if _is_callers(module, state, kind, key):
            handle = _handle(state, key)
            yield CallersHook(place_of(name, module), kind, hook if handle is None else handle.user_hook)


def _home(hook: Any) -> str:
    """The module that a function is from."""
    while isinstance(hook, partial):
        hook = hook.func
    return str(getattr(hook, "__module__", None) or type(hook).__module__)


def _identity(value: Any, depth: int = 4) -> Hashable:
    if isinstance(value, MethodType):
        return _identity(value.__func__, depth), type(value.__self__)
    if isinstance(value, partial) and depth:
        parts = (value.func, *value.args, *value.keywords.values())
        return tuple(_identity(part, depth - 1) for part in parts)
    if isinstance(value, FunctionType) and depth:
        cells = (cell.cell_contents for cell in value.__closure__ or () if _is_full(cell))
        return value.__code__, tuple(_identity(part, depth - 1) for part in (*cells, *(value.__defaults__ or ())))
    return value if isinstance(value, (str, int, float, bool, type(None))) else type(value)


def _is_full(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
