"""Arguments at the public boundary: held against the signature's own annotations, once, and converted in one place.

:func:`checked` wraps a public function. What doesn't fit its annotation is refused with the argument's name, its value
and what was expected, before any work is done; NumPy's numbers and arrays become Python's where numbers and lists of
them are expected; a boolean is no integer. Annotations tell *kinds*: ranges, and shapes of tensors, are checked where a
value is converted or used (:func:`whole`, :func:`number`, :func:`ids`, :func:`positions`), which knows what would fit.

What is expected can be said in other words: ``Annotated[int | None, "a number of tokens"]``, or ``__expected__`` of a
class.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import operator
import sys
import types
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from os import PathLike
from typing import Annotated, Any, Literal, ParamSpec, SupportsIndex, TypeVar, Union, get_args, get_origin

import numpy as np
import torch
from beartype import BeartypeConf
from beartype.door import is_bearable
from torch import Tensor

from tl_jacobian.errors import (
    ArgumentError,
    DirectionError,
    JacobianScopeError,
    PromptError,
    TargetError,
    UnsupportedModelError,
)

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
# What isn't an option has an error of its own.
_ERRORS: Mapping[str, type[JacobianScopeError]] = {
    "model": UnsupportedModelError,
    "prompt": PromptError,
    "clean": PromptError,
    "corrupted": PromptError,
    "position": PromptError,
    "positions": PromptError,
    "target": TargetError,
    "minus": TargetError,
    "v": DirectionError,
    "dx": DirectionError,
}
_UNIONS = (Union, types.UnionType)
_CONF = BeartypeConf(is_pep484_tower=True)  # an int is a float
_LARGEST = 2**31 - 1  # of integers that nothing else bounds: what tensors can count
_SCALARS = (int, float, complex, str, bytes, bool, type(None))


def checked(fn: Callable[P, R]) -> Callable[P, R]:
    """``fn``, which refuses arguments of the wrong kind by name.

    >>> @checked
    ... def double(n: int) -> int:
    ...     return 2 * n
    >>> double(np.int64(2))
    4
    """
    signature = inspect.signature(fn)

    @functools.cache
    def hints() -> dict[str, Any]:  # when first called: annotations may name what is defined later
        return _hints(fn, signature.parameters)

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            _check_names(fn.__name__, signature, args, kwargs)
            raise
        given = bound.arguments
        for name, hint in hints().items():
            if name in given:
                given[name] = _fitted_argument(given[name], hint, signature.parameters[name])
        return fn(*bound.args, **bound.kwargs)

    call.__checked__ = True  # type: ignore[attr-defined]
    return call


def checked_methods(cls: C) -> C:
    """The class, its public methods (and ``classmethod``, ``staticmethod``) :func:`checked`; properties aren't touched.

    >>> @checked_methods
    ... class Twice:
    ...     def of(self, n: int) -> int:
    ...         return 2 * n
    >>> Twice().of("a")
    Traceback (most recent call last):
    ...
    tl_jacobian.errors.ArgumentError: n='a' is a str, expected an int
    """
    for name, method in list(vars(cls).items()):
        if name.startswith("_"):
            continue
        kind = type(method) if isinstance(method, (classmethod, staticmethod)) else None
        fn = method.__func__ if kind is not None else method
        if isinstance(fn, types.FunctionType) and not hasattr(fn, "__checked__"):
            wrapped = checked(fn)
            setattr(cls, name, wrapped if kind is None else kind(wrapped))
    return cls


def check_fields(value: Any) -> None:
    """Hold a dataclass's fields against their annotations, in ``__post_init__``; lists become tuples where those are.

    Raises:
        ArgumentError: a field is of another kind.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Row:
    ...     tokens: tuple[int, ...]
    ...     def __post_init__(self) -> None:
    ...         check_fields(self)
    >>> Row([1, np.int64(2)])
    Row(tokens=(1, 2))
    """
    for name, hint in _field_hints(type(value)).items():
        given = object.__getattribute__(value, name)
        made = fitted(_as_array(given, hint), hint, name, ArgumentError)
        if type(made) is int and float in (members := _members(hint)) and int not in members:
            made = number(name, made)  # tensors take no int of any size
        if made is not given:
            object.__setattr__(value, name, made)


def _as_array(value: Any, hint: Any) -> Any:
    """Lists of numbers, and arrays of another precision, as the array that a field is annotated with."""
    wanted = next((m for m in _members(hint) if _is_array(m)), None)
    if wanted is None or not isinstance(value, (Tensor, np.ndarray, list, tuple)) or _fits(value, hint):
        return value
    try:
        if wanted.array_type is Tensor:
            return torch.as_tensor(value)
        return np.asarray(value, dtype=np.int64 if "int64" in wanted.dtypes else np.float64)
    except (TypeError, ValueError, RuntimeError):
        return value


@functools.cache
def _field_hints(cls: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        owner = next(base for base in cls.__mro__ if field.name in vars(base).get("__annotations__", {}))
        found[field.name] = _resolved(field.type, vars(sys.modules[owner.__module__]), dict(vars(owner)))
    # What metadata hold is checked where they are frozen, which also makes text of their keys.
    return {name: Mapping if get_origin(hint) is Mapping else hint for name, hint in found.items() if hint is not Any}


def _hints(fn: Callable[..., Any], names: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    inner = inspect.unwrap(fn)
    known = getattr(inner, "__globals__", {})
    found = {name: _resolved(p.annotation, known) for name, p in names.items() if p.annotation is not p.empty}
    return {name: hint for name, hint in found.items() if hint is not Any and name != "self"}


def _resolved(annotation: Any, known: Mapping[str, Any], own: Mapping[str, Any] | None = None) -> Any:
    """An annotation that is written as text; Any where it names what type checkers alone import."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, dict(known), own)
    except NameError:
        return Any


def _fitted_argument(value: Any, hint: Any, parameter: inspect.Parameter) -> Any:
    check_unmasked(parameter.name, value)
    if parameter.kind is parameter.VAR_POSITIONAL:
        return tuple(fitted(item, hint, parameter.name) for item in value)
    if parameter.kind is parameter.VAR_KEYWORD:
        return {name: fitted(item, hint, name) for name, item in value.items()}
    if isinstance(value, (Tensor, np.ndarray)) and any(
        _is_array(m) and isinstance(value, m.array_type) for m in _members(hint)
    ):
        return value if value.ndim else _converted(value, hint)
    return fitted(value, hint, parameter.name)


def _check_names(name: str, signature: inspect.Signature, args: Any, kwargs: Any) -> None:
    """Refuse keywords that the function doesn't take, too many values, and too few."""
    parameters = [p for n, p in signature.parameters.items() if n != "self"]
    args = args[len(signature.parameters) - len(parameters) :]
    kinds = {p.kind for p in parameters}
    listed = ", ".join(p.name for p in parameters)
    known = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    unknown = [n for n in kwargs if n not in known]
    if unknown and inspect.Parameter.VAR_KEYWORD not in kinds:
        raise ArgumentError(f"{name}() takes no {unknown[0]}=; it takes {listed or 'nothing'}")
    by_place = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.POSITIONAL_ONLY)]
    if len(args) > len(by_place) and inspect.Parameter.VAR_POSITIONAL not in kinds:
        most = f"at most {len(by_place)} ({', '.join(by_place)})" if by_place else "none"
        raise ArgumentError(
            f"{name}() got {len(args)} values by position, expected {most}; give the others by name: it takes {listed}"
        )
    twice = [n for n in by_place[: len(args)] if n in kwargs]
    given = {*by_place[: len(args)], *kwargs}
    needed = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.default is p.empty]
    missing = [p.name for p in needed if p.name not in given]
    if twice or missing:
        what = f"got {twice[0]}= twice" if twice else f"needs {', '.join(missing)}"
        raise ArgumentError(f"{name}() {what}; it takes {listed}")


def fitted(value: Any, hint: Any, name: str, error: type[JacobianScopeError] | None = None) -> Any:
    """``value`` as the annotation has it; shapes and types of a tensor's or an array's numbers included.

    Raises:
        JacobianScopeError: it is of another kind; which subclass is up to the argument's name, or ``error``.

    >>> fitted([1, np.int64(2)], Sequence[int], "k")
    [1, 2]
    """
    made = _converted(value, hint)
    if _fits(made, hint):
        return made
    raise (error or _ERRORS.get(name, ArgumentError))(_misfit(value, hint, name))


def _misfit(value: Any, hint: Any, name: str) -> str:
    expected = _words(hint) or described(hint)
    if any("__expected__" in vars(m) for m in _members(hint) if isinstance(m, type)):
        return f"{name}: got {_a(type(value).__name__)}, expected {expected}"
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{name} has shape {tuple(value.shape)} and dtype {value.dtype}, expected {expected}"
    kind = (
        ""
        if value is None or (_admits(hint, Literal) and isinstance(value, str))
        else f" is {_a(type(value).__name__)}"
    )
    return f"{name}={excerpt(value)}{kind}, expected {expected}"


def _words(hint: Any) -> str | None:
    """What an annotation itself says of what is expected."""
    parts = get_args(hint) if get_origin(hint) in _UNIONS else (hint,)
    return next((x for part in parts for x in getattr(part, "__metadata__", ()) if isinstance(x, str)), None)


def _converted(value: Any, hint: Any) -> Any:
    """NumPy's and torch's numbers and lists of numbers as Python's, lists as tuples: where the annotation has those."""
    if isinstance(value, np.str_):
        value = str(value)
    if _admits(hint, SupportsIndex) and isinstance(value, (float, np.floating, np.ndarray, Tensor)):
        value = cell(value) if not getattr(value, "ndim", 0) else value  # a column of ids with a gap holds floats
    if isinstance(value, _SCALARS) and not isinstance(value, np.generic):
        if _admits(hint, Literal):  # also of subclasses of text: typer's enumerations
            return next((c for m in _members(hint) for c in get_args(m) if _is_choice(c, value, m)), value)
        return value
    if isinstance(value, (np.generic, np.ndarray, Tensor)) and value.ndim == 0:
        if _admits(hint, int) and is_id(value):
            return int(value)
        if _admits(hint, float) and _is_real(value):
            return float(value)
    for member in _members(hint):
        item = _item(member)
        if item is None:
            continue
        if isinstance(value, (np.ndarray, Tensor)) and value.ndim == 1 and not _fits(value, hint):
            value = value.tolist() if _is_real(value) or _is_whole(value) or _is_text(value) else value
        if isinstance(value, (list, tuple, range)):
            return _converted_items(value, item, member)
    return value


def _converted_items(value: Any, item: Any, hint: Any) -> Any:
    as_tuple = get_origin(hint) is tuple and not hasattr(value, "_fields")
    kinds = set(map(type, value))
    if kinds <= set(_SCALARS) and not (float in kinds and _admits(item, SupportsIndex)):
        return tuple(value) if as_tuple and not isinstance(value, tuple) else value
    parts = _parts(hint, len(value)) or [item] * len(value)
    made = [_converted(one, part) for one, part in zip(value, parts, strict=True)]
    if all(a is b for a, b in zip(made, value, strict=True)) and (isinstance(value, tuple) or not as_tuple):
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return value
    return tuple(made) if as_tuple or isinstance(value, tuple) else made


def _is_choice(choice: Any, value: Any, member: Any) -> bool:
    return get_origin(member) is Literal and choice == value and type(choice) in type(value).__mro__


def _is_real(value: Any) -> bool:
    return value.dtype.is_floating_point if isinstance(value, Tensor) else np.issubdtype(value.dtype, np.floating)


def _is_text(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "U"


def _is_whole(value: Any) -> bool:
    return value.dtype in INTEGERS if isinstance(value, Tensor) else np.issubdtype(value.dtype, np.integer)


def _fits(value: Any, hint: Any) -> bool:
    return any(_fits_one(value, member) for member in _members(hint))


def _fits_one(value: Any, hint: Any) -> bool:
    given: Any = value  # narrowing would tell type checkers less
    if hint is Any or hint is object:
        return True
    if isinstance(value, (bool, np.bool_)) and hint not in (bool,):
        return get_origin(hint) is Literal and any(choice is value for choice in get_args(hint))
    if hint is SupportsIndex:
        return is_id(value)
    origin = get_origin(hint)
    if (item := _item(hint)) is not None:
        if isinstance(value, (str, bytes, bytearray, Tensor, np.ndarray)) or not isinstance(value, origin or hint):
            return False
        if origin is not tuple or get_args(hint)[-1] is ...:
            return _items_fit(given, item)
        parts = _parts(hint, len(given))
        return parts is not None and all(map(_fits, given, parts))
    if isinstance(origin, type) and issubclass(origin, (Mapping, AbstractSet)):
        groups = (value.keys(), value.values()) if isinstance(value, Mapping) else (value,)
        return isinstance(value, origin) and all(map(_items_fit, groups, get_args(hint)))
    return is_bearable(value, hint, conf=_CONF)


def _items_fit(values: Any, hint: Any) -> bool:
    """Whether all items fit; plain ones by their types, of which there are few."""
    if hint is Any:
        return True
    members = _members(hint)
    if all(isinstance(m, type) and m in _SCALARS for m in members):
        return all(_kind_fits(kind, members) for kind in set(map(type, values)))
    return all(_fits(value, hint) for value in values)


@functools.cache
def _kind_fits(kind: type, members: tuple[Any, ...]) -> bool:
    if issubclass(kind, bool):
        return bool in members
    wider = (*members, int) if float in members else members
    return issubclass(kind, wider)


@functools.cache
def _members(hint: Any) -> tuple[Any, ...]:
    """The parts of a union; the annotation itself where it isn't one."""
    if get_origin(hint) in _UNIONS:
        return tuple(part for member in get_args(hint) for part in _members(member))
    if get_origin(hint) is Annotated:
        return _members(get_args(hint)[0])
    return (hint,)


def _is_array(hint: Any) -> bool:
    """Whether this is one of jaxtyping's annotations."""
    return isinstance(hint, type) and hasattr(hint, "dim_str")


@functools.cache
def _item(hint: Any) -> Any:
    """What a list's items are; None where it isn't one."""
    origin, args = get_origin(hint), get_args(hint)
    known = isinstance(origin, type) and issubclass(origin, Collection) and args
    return args[0] if known and not issubclass(origin, (Mapping, AbstractSet)) else None


def _parts(hint: Any, n: int) -> Sequence[Any] | None:
    """The annotations of a tuple's n items; None where it has another length."""
    args = get_args(hint)
    if get_origin(hint) is not tuple or args[-1] is ...:
        return [args[0]] * n
    return args if len(args) == n else None


@functools.cache
def _admits(hint: Any, kind: Any) -> bool:
    return any(m is kind or get_origin(m) is kind for m in _members(hint))


# -- words -----------------------------------------------------------------------------


def excerpt(value: Any, most: int = 200) -> str:
    """A value as an error shows it: what it is, never more than fits.

    >>> excerpt(torch.zeros(2, 3)), excerpt("a" * 300)[-5:], excerpt(list(range(300)))[-9:]
    ('a tensor of shape (2, 3) and dtype torch.float32', "aaa…'", '9, 50, …]')
    """
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and dtype {value.dtype}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    long = isinstance(value, (str, bytes, list, tuple)) and len(value) > most  # to show them whole may take long
    try:
        text = repr(value[: most + 1] if long else value)
    except Exception:
        text = f"a {type(value).__name__}"
    if len(text) <= most and not long:
        return text
    kept = text[: most - 2]
    if isinstance(value, (list, tuple)):  # to the end of one of its entries
        kept = f"{kept.rpartition(', ')[0]}, " if ", " in kept else kept
    return f"{kept}…{text[-1]}"


def described(hint: Any) -> str:
    """An annotation in words.

    >>> described(int | None), described(Literal["a", "b"] | Sequence[int])
    ('an int or None', "one of 'a', 'b', or a list of ints")
    """
    members = _members(hint)
    choices = [repr(c) for m in members if get_origin(m) is Literal for c in get_args(m)]
    parts = list(dict.fromkeys(_text(m) for m in members if get_origin(m) is not Literal))
    if not choices:
        return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} or {parts[-1]}"
    listed = f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]
    return ", or ".join([listed, *parts])


_NAMES = {
    int: "an int",
    SupportsIndex: "a token id",
    float: "a number",
    bool: "True or False",
    str: "text",
    type(None): "None",
    Tensor: "a tensor",
    torch.Generator: "a torch.Generator: torch.Generator().manual_seed(0)",
    np.random.Generator: "a NumPy Generator",
    np.ndarray: "an array",
    torch.nn.Module: "a module",
}


def _text(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    for kind in (hint, origin):  # as it is, or of something
        if isinstance(kind, type) and "__expected__" in vars(kind):
            return vars(kind)["__expected__"]
    if _is_array(hint):
        kind = "an array" if hint.array_type is np.ndarray else "a tensor"  # type: ignore[attr-defined]
        of = {"float": " of floats", "int": " of integers", "bool": " of booleans"}
        shape = ", ".join(hint.dim_str.split())  # type: ignore[attr-defined]
        return f"{kind}{next((t for n, t in of.items() if n in hint.__name__.lower()), '')} of shape ({shape})"
    if hint is Mapping:
        return "a mapping"
    if hint in _NAMES:
        return _NAMES[hint]
    if origin is PathLike:
        return "a path"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping"
    if isinstance(origin, type) and issubclass(origin, AbstractSet):
        return f"a set of {_plural(args[0])}"
    if origin is tuple and args[-1] is not ...:
        return f"({', '.join(map(described, args))})"
    if (item := _item(hint)) is not None:
        return f"a list of {_plural(item)}"
    if "Callable" in str(origin):
        return "a function"
    name = getattr(hint, "__name__", str(hint))
    return _a(name)


def _a(name: str) -> str:
    return f"{'an' if name[:1] in 'AEIOUaeiou' else 'a'} {name}"


def _plural(hint: Any) -> str:
    return " or ".join({int: "ints", float: "numbers", str: "texts"}.get(m) or described(m) for m in _members(hint))


def warn(message: str) -> None:
    """A UserWarning that points at the line outside the library that called it, whatever wraps its functions.

    (``skip_file_prefixes`` does it from Python 3.12 on.)
    """
    level, frame = 2, sys._getframe(1)
    while frame is not None and _is_inside(frame):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level if frame is not None else 2)


def _is_inside(frame: types.FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "beartype")).partition(".")[0] in (
        "tl_jacobian",
        "jaxtyping",
        "beartype",
        "contextlib",  # whose managers wrap functions too
    )


# -- conversions -------------------------------------------------------------------------


def is_id(item: Any) -> bool:
    """An integer, or a scalar integer of torch or numpy; not a bool.

    >>> is_id(np.int32(3)), is_id(torch.tensor(3)), is_id(True), is_id(np.array([1, 2])), is_id(1.0)
    (True, True, False, False, False)
    """
    if isinstance(item, Tensor):
        return item.ndim == 0 and item.dtype in INTEGERS
    if isinstance(item, (bool, np.bool_)):
        return False
    try:
        operator.index(item)
    except TypeError:
        return False
    return True


def is_missing(value: Any) -> bool:
    """Whether a table's cell holds nothing: None, NaN, pandas' NA, NumPy's masked.

    >>> is_missing(None), is_missing(np.nan), is_missing(np.ma.masked), is_missing(0)
    (True, True, True, False)
    """
    if value is None or value is np.ma.masked or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, np.floating)) and bool(np.isnan(value))


def cell(value: Any) -> Any:
    """A table's cell as Python has it: None where it is missing, an int where it is a whole number, text as text.

    A column of ids with a gap in it holds floats, and 1.0 is the id 1.

    >>> cell(1.0), cell(np.int64(2)), cell(1.5), cell(np.str_("a")), cell(math.nan), cell(True)
    (1, 2, 1.5, 'a', None, True)
    """
    if is_missing(value):
        return None
    if is_id(value):
        return int(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool) or (found := _float(value)) is None:
        return value
    return int(found) if found.is_integer() and abs(found) < 2**53 else found


def check_unmasked(name: str, value: Any) -> None:
    """Refuse an array with masked numbers, which would be read as if they weren't.

    Raises:
        ArgumentError: where the first one is.
    """
    if isinstance(value, np.ma.MaskedArray) and (masked := np.argwhere(np.ma.getmaskarray(value))).size:
        at = ", ".join(map(str, masked[0].tolist()))
        raise ArgumentError(
            f"{name}[{at}] is masked ({len(masked)} of {value.size} are): leave those out, or fill them: "
            "values.compressed(), values.filled(...)"
        )


def whole(
    name: str,
    value: Any,
    least: int = 1,
    most: int | None = None,
    what: str = "an integer",
    error: type[JacobianScopeError] = ArgumentError,
) -> int:
    """An option that is an integer in a range.

    Raises:
        ArgumentError: it isn't.

    >>> whole("k", np.int32(3))
    3
    """
    top = _LARGEST if most is None else most
    if not is_id(value) or not least <= int(value) <= top:
        endless = most is None and not (is_id(value) and int(value) > top)
        span = f"at least {least}" if endless else f"{least} to {top}"
        raise error(f"{name}={excerpt(value)}, expected {what}, {span}")
    return int(value)


def number(name: str, value: Any, above: float = -math.inf, *, least: float = -math.inf) -> float:
    """An option that is a finite number, more than ``above`` and at least ``least``.

    Raises:
        ArgumentError: it isn't.

    >>> number("noise", np.float32(0.5), above=0.0)
    0.5
    """
    found = _float(value)
    if found is None or not math.isfinite(found) or found <= above or found < least:
        limit = f", more than {above:g}" if above > -math.inf else f", at least {least:g}" if least > -math.inf else ""
        raise ArgumentError(f"{name}={excerpt(value)}, expected a finite number{limit}")
    return found


def _float(value: Any) -> float | None:
    if isinstance(value, (bool, np.bool_, str, bytes)):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def ids(values: Any) -> list[int] | None:
    """Token ids, or other integers, as a plain list: of a list, tuple, tensor or array; None where it is none.

    >>> ids(np.array([1, 2])), ids([1, True]), ids("ab")
    ([1, 2], None, None)
    """
    if isinstance(values, (Tensor, np.ndarray)):
        return values.tolist() if values.ndim == 1 and _is_whole(values) else None
    if not isinstance(values, Sequence) or isinstance(values, (str, bytes, bytearray)):
        return None
    return [int(item) for item in values] if all(map(is_id, values)) else None


def position(value: Any, n: int, name: str = "position", error: type[JacobianScopeError] = PromptError) -> int:
    """A position among n, counted from the start; negative ones count from the end.

    Raises:
        PromptError: it isn't an integer, or outside.

    >>> position(-1, 5)
    4
    """
    if not is_id(value):
        raise error(f"{name}={excerpt(value)} is {_a(type(value).__name__)}, expected an int")
    if not -n <= int(value) < n:
        raise error(f"{name}={excerpt(int(value))} is outside the prompt's {n} tokens, expected {-n} to {n - 1}")
    return int(value) % n


def positions(values: Any, n: int, name: str = "positions", error: type[JacobianScopeError] = PromptError) -> list[int]:
    """Positions among n, counted from the start, in the order given.

    Raises:
        PromptError: not a list of at least one integer, or one is outside.

    >>> positions([0, -1], 5)
    [0, 4]
    """
    found = ids(values)
    if not found:
        raise error(f"{name}={excerpt(values)}, expected a list of at least one integer, or None for all")
    return [position(value, n, name.removesuffix("s"), error) for value in found]
