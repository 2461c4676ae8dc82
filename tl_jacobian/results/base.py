"""What every value has in common: it owns what it holds, and can be compared, saved, loaded and looked at.

A value class holds its fields, its checks, its selection methods and :meth:`Value.panels`; all else is here. Values
know no renderer: :mod:`~tl_jacobian.results.drawing` loads one when something is first drawn.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from tl_jacobian.errors import ArgumentError, AttributionFileError
from tl_jacobian.results import codec
from tl_jacobian.results.arguments import check_fields, checked_methods
from tl_jacobian.results.drawing import renderer
from tl_jacobian.results.files import atomic
from tl_jacobian.results.panels import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes


V = TypeVar("V", bound="Value")
KINDS: dict[str, type[Value]] = {}  # every value class by the name of its format


class Value:
    """Base of all values: frozen dataclasses.

    A tensor that is asked for is handed out as a copy, since torch has no read-only tensors, and arrays are read-only;
    :meth:`_own` makes fields so. Metadata can't be changed at any depth. So ``a.scores[0] = 1`` changes a copy, and
    a value is what it was made. ``dataclasses.replace`` makes another one.
    """

    format: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()
        cls.format = f"tl_jacobian.{name}"
        KINDS[cls.format] = cls
        cls.__eq__, cls.__hash__ = Value.__eq__, None  # type: ignore[method-assign,assignment]  # it holds tensors
        if (own := cls.__dict__.get("__post_init__")) is not None:
            cls.__post_init__ = _after_checks(own)  # type: ignore[method-assign]
        checked_methods(cls)

    def __post_init__(self) -> None:
        check_fields(self)

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        return value.clone() if isinstance(value, Tensor) else value

    # -- while it is made --------------------------------------------------------------

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _own(self, *names: str, dtype: torch.dtype) -> None:
        """Make tensor fields copies on the CPU, in one precision, as files give it back; all NaNs one; None stays."""
        for name in names:
            if (tensor := object.__getattribute__(self, name)) is not None:
                made = tensor.detach().to("cpu", dtype, copy=True)
                self._set(name, made.masked_fill_(made.isnan(), torch.nan) if made.is_floating_point() else made)

    def _own_arrays(self, *names: str, dtype: Any = np.float64) -> None:
        """Make array fields copies that can't be written to; None stays None."""
        for name in names:
            if (array := object.__getattribute__(self, name)) is not None:
                self._set(name, read_only(array, dtype))

    def _freeze(self, *names: str) -> None:
        """Make mappings of JSON values (metadata) unchangeable at any depth."""
        for name in names:
            self._set(name, frozen(object.__getattribute__(self, name), name))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Copies and pickles: numpy's own copies can be written to, ours can't."""
        for name, value in state.items():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
            self._set(name, value)

    # -- as a value --------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        """Equal in every field, numbers bit for bit (NaN equals NaN)."""
        if type(self) is not type(other):
            return NotImplemented
        return all(
            same(getattr(self, f.name), getattr(other, f.name))
            for f in dataclasses.fields(self)  # type: ignore[arg-type]  # every value is a dataclass
        )

    def save(self, path: str | Path) -> None:
        """Write this value as JSON; :meth:`load` gives back an equal one.

        The file is whole or absent. A link is followed, and an existing file keeps its permissions.

        Raises:
            OSError: it can't be written.
        """
        with atomic(path, "wb") as file:
            file.write(codec.encode(self, self.format))

    @classmethod
    def load(cls: type[V], path: str | Path) -> V:
        """Read a value of this class that :meth:`save` wrote.

        Raises:
            AttributionFileError: the file is damaged, truncated, edited, foreign, or of another version.
            OSError: it can't be read.
        """
        kinds = {name: kind for name, kind in KINDS.items() if issubclass(kind, cls) and not inspect.isabstract(kind)}
        what = cls.format.removeprefix("tl_jacobian.").replace("_", " ") if cls is not Value else "value"
        try:
            return codec.decode(Path(path).read_bytes(), kinds, what)  # type: ignore[return-value]
        except AttributionFileError as error:
            raise AttributionFileError(f"{path}: {error}") from error

    # -- pictures ----------------------------------------------------------------------

    def panels(self, *, skip_first: bool = True) -> tuple[Panel, ...]:
        """What there is to see, as plain data.

        Args:
            skip_first: leave token 0, which an attention sink often dominates, out of the colours; it is drawn
                hatched, and the legend says so. Numbers never leave it out.
        """
        raise NotImplementedError(f"{type(self).__name__} has no panels()")

    def show(self, *, skip_first: bool = True) -> None:
        """Draw it: in Jupyter as HTML, elsewhere in the terminal. Options: :meth:`panels`."""
        renderer().show(self.panels(skip_first=skip_first))

    def to_html(self, path: str | Path, *, skip_first: bool = True) -> Path:
        """Write one self-contained HTML page that works offline; returns its path. Options: :meth:`panels`."""
        return renderer().write(self.panels(skip_first=skip_first), path)

    def plot(self, ax: Axes | None = None, *, skip_first: bool = True) -> Axes:
        """Draw it with matplotlib (extra ``plot``), into ``ax`` or a new figure; returns the first picture's axes.

        Options: :meth:`panels`.

        Raises:
            ImportError: matplotlib isn't installed.
        """
        return renderer().figure(self.panels(skip_first=skip_first), ax)

    def _repr_html_(self) -> str:
        return renderer().notebook(self.panels())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """What a notebook stores: the picture, and one line of text for where there is no HTML."""
        return {"text/plain": repr(self), "text/html": self._repr_html_()}


def _after_checks(own: Callable[[Any], None]) -> Callable[[Any], None]:
    """A class's own ``__post_init__``, which then finds fields of the right kinds."""

    @functools.wraps(own)
    def post_init(self: Any) -> None:
        check_fields(self)
        own(self)

    return post_init


# -- what fields are made of -----------------------------------------------------------


class FrozenDict(dict):
    """A dict that can't be changed; what it holds can't be either."""

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError("a value's metadata can't be changed; make another value with dataclasses.replace(...)")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse  # type: ignore[assignment]

    def __reduce__(self) -> Any:
        return FrozenDict, (dict(self),)

    def __copy__(self) -> FrozenDict:
        return self

    def __deepcopy__(self, memo: Any) -> FrozenDict:
        return self


class FrozenList(list):
    """A list that can't be changed; equal to a list of the same items."""

    _refuse = FrozenDict._refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse  # type: ignore[assignment]
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse  # type: ignore[assignment]

    def __reduce__(self) -> Any:
        return FrozenList, (list(self),)

    def __copy__(self) -> FrozenList:
        return self

    def __deepcopy__(self, memo: Any) -> FrozenList:
        return self


def frozen(value: Any, name: str = "metadata") -> Any:
    """JSON values, unchangeable at any depth.

    Raises:
        ArgumentError: something else is among them.

    >>> frozen({"a": (1, {"b": None})})
    {'a': [1, {'b': None}]}
    """
    if isinstance(value, (FrozenDict, FrozenList)):
        return value
    if isinstance(value, Mapping):
        return FrozenDict({str(key): frozen(item, name) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return FrozenList([frozen(item, name) for item in value])
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    raise ArgumentError(f"{name} holds a {type(value).__name__}, expected numbers, text, lists and dicts")


def read_only(values: Any, dtype: Any = np.float64) -> Any:
    """A copy of an array that can't be written to; all NaNs one."""
    array = np.array(values, dtype=dtype)
    if array.dtype.kind == "f":
        array[np.isnan(array)] = np.nan
    array.setflags(write=False)
    return array


def same(a: Any, b: Any) -> bool:
    """Whether two fields are equal: arrays in every bit, NaN being equal to NaN."""
    if isinstance(a, (Tensor, np.ndarray)) or isinstance(b, (Tensor, np.ndarray)):
        return type(a) is type(b) and _same_numbers(np.asarray(a), np.asarray(b))
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (a != a and b != b)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b


def _same_numbers(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
