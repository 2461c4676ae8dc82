"""A model that is somebody else's, changed for a while: everything is put back, and others don't notice.

Whatever is changed is put back after any exception, Ctrl-C included, wherever it strikes: in the middle of a change, or
while things are being put back. So every change says first how it is undone, and undoing twice is undoing once.

Hooks act for the thread that installed them alone; to another one, which runs the same model meanwhile, they let
everything pass. One lock a model keeps two threads of ours from changing it at once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal
from weakref import WeakKeyDictionary

from torch import Tensor, nn

Hook = Callable[..., Any]
State = Sequence[tuple[nn.Module, dict[str, Any]]]
When = Literal["before", "before, with keywords", "after", "after, with keywords"]

# torch.nn.Module's dictionaries of forward hooks, each with those that say how a hook is called.
_FORWARD = (
    ("_forward_hooks", ("_forward_hooks_with_kwargs", "_forward_hooks_always_called")),
    ("_forward_pre_hooks", ("_forward_pre_hooks_with_kwargs",)),
)
_LOCKS: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()  # type: ignore[type-arg]
_MAKING = threading.Lock()


def lock_of(model: nn.Module) -> Any:
    """The model's lock, which one thread may take several times over."""
    with _MAKING:
        return _LOCKS.setdefault(model, threading.RLock())


class Loan:
    """What was changed of a model, and how to put it back.

    ``with Loan() as loan, loan:`` puts everything back at the end. Twice, because an interrupt may strike while things
    are put back, and even before the first of them is: then the second time does it.

    >>> layer = nn.Linear(2, 2)
    >>> with Loan() as loan, loan:
    ...     loan.freeze(layer.parameters())
    ...     layer.weight.requires_grad
    False
    >>> layer.weight.requires_grad
    True
    """

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []
        self._threads: set[int] = set()

    def __enter__(self) -> Loan:
        self._threads.add(threading.get_ident())
        return self

    def __exit__(self, *_: object) -> None:
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()
        self._threads.clear()

    # -- who sees it -------------------------------------------------------------------

    @property
    def acts(self) -> bool:
        """Whether this is the thread that changes are for."""
        return threading.get_ident() in self._threads

    def act_for(self, other: Loan) -> None:
        """Let another loan, which is over, act in this thread again as long as this one lasts."""
        me = threading.get_ident()
        if me not in other._threads:
            self._undo.append(lambda: other._threads.discard(me))
            other._threads.add(me)

    # -- changes -----------------------------------------------------------------------

    def freeze(self, parameters: Iterable[Tensor]) -> None:
        """Parameters don't require grad: no activations are kept for weight gradients."""
        thawed = [p for p in parameters if p.requires_grad and p.is_leaf and not p.is_inference()]

        def thaw() -> None:
            for p in thawed:
                p.requires_grad = True  # unlike its method, also where directions are batched

        self._undo.append(thaw)
        for p in thawed:
            p.requires_grad = False

    def hook(self, module: nn.Module, hook: Hook, when: When) -> None:
        """A plain PyTorch hook.

        TransformerLens's bookkeeping never sees it, so the caller's hooks (which run first) and ``reset_hooks`` are as
        they were.
        """
        mine = _Mine(hook, self)
        self._undo.append(lambda: _remove(module, mine))  # found by what it is: no handle to be remembered in time
        keywords = when.endswith("keywords")
        if when.startswith("after"):
            module.register_forward_hook(mine, with_kwargs=keywords)
        else:
            module.register_forward_pre_hook(mine, with_kwargs=keywords)

    def put(self, owner: Any, name: str, value: Any) -> None:
        """An attribute of this one object."""
        own, had = owner.__dict__.get(name), name in owner.__dict__

        def back() -> None:
            if had:
                owner.__dict__[name] = own
            else:
                owner.__dict__.pop(name, None)

        self._undo.append(back)
        owner.__dict__[name] = value

    def by_thread(self, module: nn.Module, name: str) -> None:
        """An attribute by which a host hands something on to a module: each thread has its own."""
        kind, own = type(module), threading.local()
        through = property(lambda _: getattr(own, "value", None), lambda _, value: setattr(own, "value", value))
        self._undo.append(lambda: setattr(module, "__class__", kind))
        module.__class__ = type(kind.__name__, (kind,), {name: through, "__module__": kind.__module__})

    def enter(self, state: State) -> None:
        """Modules with the attributes of another moment; afterwards today's, the very same objects.

        Other threads go through the forward hooks of today.
        """
        state = [(module, self._for_this_thread(module, other)) for module, other in state]
        today = [(module, {name: module.__dict__[name] for name in other}) for module, other in state]

        def back() -> None:
            for module, now in today:
                module.__dict__.update(now)

        self._undo.append(back)
        for module, other in state:
            module.__dict__.update({name: _copy(value) for name, value in other.items()})

    def _for_this_thread(self, module: nn.Module, other: dict[str, Any]) -> dict[str, Any]:
        mixed = dict(other)
        for hooks, notes in _FORWARD:
            if hooks not in other or other[hooks].keys() == (now := module.__dict__[hooks]).keys():
                continue
            again = {k: h if k in now else self._again(h) for k, h in other[hooks].items()}
            mixed[hooks] = OrderedDict(again | {k: _NotNow(h, self) for k, h in now.items() if k not in again})
            for note in notes:
                mixed[note] = OrderedDict({**module.__dict__[note], **other.get(note, {})})
        return mixed

    def _again(self, hook: Hook) -> Hook:
        return hook if isinstance(hook, _Mine) else _Again(hook, self)  # those of a loan know themselves where to act

    def forget(self, modules: Iterable[nn.Module]) -> None:
        """Attributes in which modules would keep a part of the graph are put back.

        TransformerBridge's attention keeps its last pattern, and with it every activation before it.
        """
        # Hook points, most of a bridge's modules, keep nothing.
        before = [(parts := m.__dict__, parts.copy()) for m in modules if "fwd_hooks" not in m.__dict__]

        def forget() -> None:
            for now, old in before:
                changed = [name for name, value in list(now.items()) if value is not old.get(name)]
                for name in changed:
                    if isinstance(now[name], Tensor) and now[name].requires_grad:
                        now[name] = old.get(name)

        self._undo.append(forget)


class _Mine:
    """A hook that acts where its loan does."""

    def __init__(self, hook: Hook, loan: Loan) -> None:
        self.hook = hook
        self.loan = loan

    def __call__(self, *args: Any) -> Any:
        return self.hook(*args) if self.loan.acts else None


class _Again(_Mine):
    """A hook of the caller's from another moment."""


class _NotNow(_Mine):
    """A hook of the caller's that another moment didn't have."""

    def __call__(self, *args: Any) -> Any:
        return None if self.loan.acts else self.hook(*args)


def callers(hook: Any) -> Hook | None:
    """The caller's hook behind what is installed now, as this thread sees it; None: it is ours."""
    if isinstance(hook, (_Again, _NotNow)):
        return hook.hook if isinstance(hook, _Again) == hook.loan.acts else None
    return None if isinstance(hook, _Mine) else hook


def _remove(module: nn.Module, mine: _Mine) -> None:
    parts = vars(module)
    for hooks, notes in _FORWARD:
        for key, hook in list(parts[hooks].items()):
            if hook is mine:
                for note in (*notes, hooks):  # the hook itself last: as long as it is there, it is found
                    parts[note].pop(key, None)


def modules_of(*roots: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules with their names, each once; several times faster than ``named_modules()`` of each root."""
    seen: set[int] = set()
    stack = [("", root) for root in reversed(roots)]
    while stack:
        name, module = stack.pop()
        if id(module) not in seen:
            seen.add(id(module))
            yield name, module
            inside = [(f"{name}.{key}" if name else key, m) for key, m in module._modules.items() if m is not None]
            stack.extend(reversed(inside))


def modules_in(*roots: nn.Module) -> list[nn.Module]:
    """The same without names, which take most of the time."""
    seen: dict[int, nn.Module] = {}
    stack = list(reversed(roots))
    while stack:
        module = stack.pop()
        if id(module) not in seen:
            seen[id(module)] = module
            stack.extend(m for m in reversed(module._modules.values()) if m is not None)
    return list(seen.values())


def place_of(name: str, module: nn.Module) -> str:
    """What to call a module in words: TransformerLens's name of a hook point, else without the bridge's wrappings."""
    own = module.__dict__.get("name") if "fwd_hooks" in module.__dict__ else None
    return own or name.replace("._original_component", "")


def state_of(module: nn.Module, names: Sequence[str]) -> State:
    """These attributes of a module and of all inside it, such as its hooks, to come back to."""
    return [(m, attributes_of(m, names)) for m in nn.Module.modules(module)]


def attributes_of(module: nn.Module, names: Sequence[str]) -> dict[str, Any]:
    """Copies of those attributes that this module has."""
    return {name: _copy(module.__dict__[name]) for name in names if name in module.__dict__}


def _copy(value: Any) -> Any:
    return value.copy() if hasattr(value, "copy") else value


# What torch.nn.Module calls on the way, hooks of every kind, and train or eval mode; and TransformerLens's own lists of
# hooks, by which it decides what to compute; and whether Hugging Face's modules checkpoint themselves.
STATE = (
    "training",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
    "fwd_hooks",
    "bwd_hooks",
    "gradient_checkpointing",
)
