"""Attention in blocks of queries: no attention pattern is ever in memory as a whole.

Eager attention holds a number for each pair of positions, of every head, several times over. Under this
:class:`~tl_jacobian.core.host.operations.Rule` the product of queries and keys isn't computed where the model asks for
it: what the model does with the scores (scales, soft-caps, biases, masks, softmax, casts) is written down, and when
the pattern meets the values, all of it is done for one block of queries after another, and again in every backward
pass (:mod:`tl_jacobian.core.linalg.blockwise`). The numbers are the model's own, by its own functions.

Until then scores and pattern are tensors that have a shape and no numbers (:class:`_Unmade`). Whoever does anything
else with one, such as a hook that reads it, gets the whole of it, made in the ordinary way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tl_jacobian.core.host.operations import Function, GoOn
from tl_jacobian.core.linalg.blockwise import Block, Cut, Like, blocks_of, blockwise, leaf
from tl_jacobian.errors import UnsupportedModelError

_CACHED, _WORTH_STARTING = 1 << 23, 1 << 27
# Leads back to where in the model a run was, for the rules behind this one.
Where = Callable[[], AbstractContextManager[Any]]


def block_bytes(on_cpu: bool) -> int:
    """Of a block's scores: what a processor's caches hold, or what keeps a GPU busy while Python starts the next one.

    In blocks of 8 MiB a scope of 1,600 tokens took a GPU 14 plain passes, nearly all of them Python's time.
    """
    return _CACHED if on_cpu else _WORTH_STARTING


# -- what is written down ------------------------------------------------------------------


class _Operand(NamedTuple):
    """A tensor that isn't made from scores."""

    tensor: Tensor
    cut: Cut


class _Given(NamedTuple):
    """In the place of an operand: one of what the body is given."""

    number: int


@dataclass(frozen=True, eq=False)
class _Call:
    """A call that is to be made for each block of rows.

    Attributes:
        args, kwargs: other calls, operands, and whatever isn't a tensor.
        go_on: leads to the rules behind this one.
        recorded: whether autograd was to record it.
    """

    function: Function
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    go_on: GoOn
    recorded: bool

    def make(self, block: Block, given: Sequence[Tensor], made: dict[_Call, Tensor]) -> Tensor:
        """Its rows of a block; ``made``: what the block has already."""

        def fill(value: Any) -> Any:
            if isinstance(value, _Call):
                return value.make(block, given, made)
            if isinstance(value, _Given):
                return given[value.number]
            return value.cut.of(value.tensor, block) if isinstance(value, _Operand) else value

        if self not in made:
            args, kwargs = _mapped(fill, self.args), _mapped(fill, dict(self.kwargs))
            with torch.set_grad_enabled(self.recorded and torch.is_grad_enabled()):
                made[self] = self.go_on(self.function, args, kwargs)
        return made[self]

    def giving(self, number: Callable[[_Operand], _Operand | _Given], done: dict[_Call, _Call]) -> _Call:
        """The same with some operands given."""

        def swap(value: Any) -> Any:
            if isinstance(value, _Call):
                return value.giving(number, done)
            return number(value) if isinstance(value, _Operand) else value

        if self not in done:
            args, kwargs = _mapped(swap, self.args), _mapped(swap, dict(self.kwargs))
            done[self] = _Call(self.function, args, kwargs, self.go_on, self.recorded)
        return done[self]


def _mapped(fn: Callable[[Any], Any], value: Any) -> Any:
    """``fn`` of everything in lists, tuples and dictionaries."""
    if type(value) in (list, tuple):
        return type(value)(_mapped(fn, v) for v in value)
    return {name: _mapped(fn, v) for name, v in value.items()} if type(value) is dict else fn(value)


def _each(*values: Any) -> Iterator[Any]:
    for value in values:
        if type(value) in (list, tuple):
            yield from _each(*value)
        elif type(value) is dict:
            yield from _each(*value.values())
        else:
            yield value


_OUT_OF_REACH = (
    "{} of somebody else's takes attention scores, which are computed in blocks of queries where it can't see them; "
    "linearize a shorter prompt, or put a hook on hook_pattern that does nothing: all patterns are whole then"
)


@dataclass(frozen=True)
class _Attention:
    """A :class:`~tl_jacobian.core.linalg.blockwise.Body`: a block of the product of pattern and values."""

    call: _Call
    where: Where

    def __call__(self, block: Block, *parts: Tensor) -> Sequence[Tensor]:
        with self.where():
            return [self.call.make(block, parts, {})]


class _Unmade(Tensor):
    """Scores, or a pattern, that nobody has computed yet.

    Attributes:
        call: how it is made.
        rule: which made it up.
        place: where the model was when the scores were asked for.
        wide: whether it has, or had, more columns than there are keys.
        shared: whether it is a view, or has one.
        whole: its numbers, where somebody has read them; it is an ordinary tensor from then on.
    """

    call: _Call
    rule: Blocked
    place: Where
    wide: bool
    shared: bool
    whole: Tensor | None

    @classmethod
    def of(cls, call: _Call, like: Tensor, requires_grad: bool, rule: Blocked, where: Where, wide: bool) -> _Unmade:
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, like.shape, dtype=like.dtype, device=rule.device, requires_grad=requires_grad
        )
        made.call, made.rule, made.place, made.wide = call, rule, where, wide
        made.shared, made.whole = False, None
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_function__(
        cls, func: Function, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = next(value for value in _each(args, kwargs) if isinstance(value, _Unmade))
        return found.rule.written_down(_plainly, func, tuple(args), dict(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise UnsupportedModelError(_OUT_OF_REACH.format(func))

    def make(self) -> Tensor:
        """The whole of it."""
        if self.whole is None:
            n = self.rule.n
            with self.place():
                self.whole = self.call.make(Block(0, n, n), (), {})
            self.rule.made_whole += 1
        return self.whole


def _plainly(function: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    with torch._C.DisableTorchFunctionSubclass():
        return function(*args, **kwargs)


# -- functions of rows ---------------------------------------------------------------------

_SCORES, _PRODUCTS = {"matmul", "__matmul__", "bmm", "baddbmm"}, {"matmul", "__matmul__", "bmm"}
# What can be told without numbers: attributes, and methods.
_ATTRIBUTES = {"shape", "dtype", "device", "ndim", "requires_grad", "grad_fn", "is_cuda", "is_mps", "layout", "is_leaf"}
_QUESTIONS = {
    *("size", "dim", "ndimension", "numel", "nelement", "element_size", "__len__", "__hash__", "get_device"),
    *("is_floating_point", "is_complex", "is_contiguous", "stride"),
}
_BY_ELEMENT = {
    *("add", "__add__", "__radd__", "sub", "__sub__", "__rsub__", "rsub", "mul", "__mul__", "__rmul__", "multiply"),
    *("div", "__truediv__", "true_divide", "divide", "neg", "__neg__", "negative", "tanh", "sigmoid", "exp", "clamp"),
    *("where", "masked_fill", "maximum", "minimum", "isnan", "isinf", "isneginf", "isfinite", "nan_to_num"),
    *("zeros_like", "ones_like", "full_like"),
    *("type", "type_as", "float", "double", "half", "bfloat16", "contiguous", "clone"),
    *("detach", "abs", "square", "relu", "eq", "ne", "lt", "le", "gt", "ge", "logical_not", "logical_and"),
}
_ALONG_KEYS = {"softmax", "log_softmax", "amax", "amin", "sum", "mean", "logsumexp", "all"}
_IN_PLACE: Mapping[str, Function] = {
    **dict.fromkeys(("add_", "__iadd__"), torch.add),
    **dict.fromkeys(("sub_", "__isub__"), torch.sub),
    **dict.fromkeys(("mul_", "__imul__"), torch.mul),
    **dict.fromkeys(("div_", "__itruediv__"), torch.div),
    "masked_fill_": torch.masked_fill,
}


def _along_last(args: Sequence[Any], kwargs: Mapping[str, Any], ndim: int) -> bool:
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    dim = dim[0] if isinstance(dim, (tuple, list)) and len(dim) == 1 else dim
    return dim in (-1, ndim - 1)


def _keeps_rows(index: Any, ndim: int) -> bool:
    """Whether an index takes a slice of columns, and all the rest: ``[..., :-1]``."""
    if not isinstance(index, tuple) or not index or not isinstance(index[-1], slice):
        return False
    rest = index[:-1]
    return (len(index) == ndim or Ellipsis in rest) and all(i is Ellipsis or i == slice(None) for i in rest)


def _cast_to(args: Sequence[Any], kwargs: Mapping[str, Any], device: torch.device) -> torch.dtype | None:
    """The dtype that ``Tensor.to`` is asked for; None where it is asked for anything else."""
    given = [*args[1:], *kwargs.values()]
    for value in given:
        if isinstance(value, (torch.device, str)) and torch.device(value) != device:
            return None
        if isinstance(value, Tensor):
            return value.dtype if value.device == device else None
    dtypes = [value for value in given if isinstance(value, torch.dtype)]
    return dtypes[0] if dtypes else args[0].dtype


def _reshaped(x: Tensor, lead: Sequence[int]) -> Tensor:
    return x.reshape(*lead, *x.shape[-2:])


def _largest(x: Tensor) -> Tensor:
    return x.max(dim=-1, keepdim=True).values


def _place_of_largest(x: Tensor) -> Tensor:
    return x.max(dim=-1, keepdim=True).indices


# -- the rule ------------------------------------------------------------------------------


class Blocked:
    """A :class:`~tl_jacobian.core.host.operations.Rule`: attention of prompts of n positions in blocks of queries.

    Args:
        n: how many positions the prompts have, padding included.
        here: gives a :data:`Where`; None: the rules behind this one don't care.
        size: bytes of a block's scores: :func:`block_bytes`.

    Attributes:
        attended: how often a pattern met its values in blocks.
        made_whole: how many scores or patterns were made as a whole.
    """

    def __init__(self, n: int, here: Callable[[], Where] | None = None, size: int = _CACHED) -> None:
        self.n = n
        self.here = here
        self.size = size
        self.attended = 0
        self.made_whole = 0
        self.device = torch.device("cpu")
        self._constants: list[Tensor] = []

    def rewrites(self, function: Function) -> bool:
        return True

    def __call__(self, go_on: GoOn, function: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if any(isinstance(value, _Unmade) for value in _each(tuple(args), dict(kwargs))):
            return self.written_down(go_on, function, tuple(args), dict(kwargs))
        if getattr(function, "__name__", "") in _SCORES and (given := self._scores(args, dict(kwargs))) is not None:
            self.device = given[0][-1].tensor.device
            where = nullcontext if self.here is None else self.here()
            return self._unmade(go_on, function, *given, where, wide=False)
        return go_on(function, args, kwargs)

    def _scores(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Arguments of a product of queries and keys, which come last; None: it isn't one."""
        args = (*args, *(kwargs.pop(name) for name in ("batch1", "batch2") if name in kwargs))  # baddbmm's
        if len(args) < 2 or not all(isinstance(a, Tensor) for a in args) or "out" in kwargs:
            return None
        queries, keys = args[-2:]
        if queries.ndim < 3 or keys.ndim < 3 or not queries.shape[-2] == keys.shape[-1] == self.n:
            return None
        two = _Operand(queries, Cut(rows=-2)), _Operand(keys, Cut(columns=-1))
        return (*map(self._operand, args[:-2]), *two), kwargs

    def _operand(self, tensor: Tensor) -> _Operand:
        shape = tensor.shape
        rows = -2 if len(shape) >= 2 and shape[-2] == self.n else None
        columns = -1 if len(shape) >= 1 and shape[-1] == self.n else None
        large = tensor.numel() >= self.n**2 and not tensor.requires_grad
        return _Operand(self._constant(tensor) if large else tensor, Cut(rows, columns))

    def _constant(self, tensor: Tensor) -> Tensor:
        """A mask, once for all layers that make the same anew."""
        for known in self._constants:
            if known is tensor or (known.dtype == tensor.dtype and torch.equal(known, tensor)):
                return known
        self._constants.append(tensor)
        return tensor

    # -- what becomes of scores -------------------------------------------------------------

    def written_down(self, go_on: GoOn, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call with something unmade in it: written down, or made."""
        name = getattr(function, "__name__", "")
        about = getattr(getattr(function, "__self__", None), "__name__", "") if name == "__get__" else None
        if about in _ATTRIBUTES or name in _QUESTIONS:
            return _plainly(function, args, kwargs)
        if any(isinstance(value, _Unmade) and value.grad_fn is not None for value in _each(args, kwargs)):
            raise UnsupportedModelError(_OUT_OF_REACH.format("an autograd function"))
        args, kwargs = _mapped(_read_already, (args, kwargs))
        unmade = [value for value in _each(args, kwargs) if isinstance(value, _Unmade)]
        if unmade:
            made = self._attended(go_on, function, args, kwargs) if name in _PRODUCTS else None
            made = self._later(go_on, name, function, args, kwargs, unmade) if made is None else made
            if made is not None:
                return made
        args, kwargs = _mapped(lambda value: value.make() if isinstance(value, _Unmade) else value, (args, kwargs))
        return go_on(function, args, kwargs)

    def _later(
        self,
        go_on: GoOn,
        name: str,
        function: Function,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        unmade: Sequence[_Unmade],
    ) -> Any:
        """What comes of a function of rows, unmade; None: it isn't one."""
        first = args[0] if args else kwargs.get("input")
        where, wide = unmade[0].place, any(value.wide for value in unmade)
        if name in _IN_PLACE and isinstance(first, _Unmade) and "out" not in kwargs:
            return self._changed(go_on, first, _IN_PLACE[name], args, kwargs, where, wide)
        if name in _BY_ELEMENT and "out" not in kwargs:
            return self._unmade(go_on, function, args, kwargs, where, wide)
        if name in ("cat", "concat", "concatenate"):
            parts = first if isinstance(first, (tuple, list)) else ()
            if parts and _along_last(args, kwargs, parts[0].ndim):
                return self._unmade(go_on, function, args, kwargs, where, wide=True)
            return None
        if not isinstance(first, _Unmade):
            return None
        if name == "dropout":
            rate, training = (*args[1:], 0.5, True)[:2] if len(args) > 2 else (None, kwargs.get("training", True))
            return first if not training or rate == 0 or kwargs.get("p") == 0 else None
        if name == "to":
            dtype = _cast_to(args, kwargs, self.device)
            return dtype and self._unmade(go_on, Tensor.to, (first, dtype), {}, where, wide)
        if name in ("view", "reshape"):
            return self._viewed(go_on, first, torch.empty(first.shape, device="meta").reshape(*args[1:]).shape)
        if name == "max" and _along_last(args, kwargs, first.ndim) and kwargs.get("keepdim", args[2:3] == (True,)):
            found = [self._unmade(go_on, f, (first,), {}, where, wide) for f in (_largest, _place_of_largest)]
            return torch.return_types.max(found)  # type: ignore[arg-type]  # they are made of rows: never None
        along = name in _ALONG_KEYS and _along_last(args, kwargs, first.ndim)
        if along or (name == "__getitem__" and _keeps_rows(args[1], first.ndim)):
            return self._unmade(go_on, function, args, kwargs, where, wide)
        return None

    def _unmade(
        self,
        go_on: GoOn,
        function: Function,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        where: Where,
        wide: bool,
    ) -> _Unmade | None:
        recorded = torch.is_grad_enabled()
        try:
            like = function(*_mapped(_without_numbers, args), **_mapped(_without_numbers, kwargs))
        except (RuntimeError, NotImplementedError):
            return None
        if not isinstance(like, Tensor) or like.ndim < 2 or like.shape[-2] != self.n:
            return None
        inside = [v.tensor if isinstance(v, _Operand) else v for v in _each(args, kwargs)]
        grows = any(isinstance(value, Tensor) and value.requires_grad for value in inside)
        args, kwargs = _mapped(self._written, (args, kwargs))
        requires_grad = recorded and grows and like.is_floating_point() and function is not Tensor.detach
        return _Unmade.of(_Call(function, args, kwargs, go_on, recorded), like, requires_grad, self, where, wide)

    def _written(self, value: Any) -> Any:
        if isinstance(value, _Unmade):
            return value.call
        return self._operand(value) if isinstance(value, Tensor) else value

    def _changed(
        self,
        go_on: GoOn,
        target: _Unmade,
        function: Function,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        where: Where,
        wide: bool,
    ) -> _Unmade | None:
        """Scores that are changed in place."""
        if target.shared:
            raise UnsupportedModelError(
                "attention scores are changed in place through a view, which can't be done in blocks of queries; "
                "linearize a shorter prompt"
            )
        made = self._unmade(go_on, function, args, kwargs, where, wide)
        if made is None or made.shape != target.shape or made.dtype != target.dtype:
            return None
        target.call, target.wide = made.call, made.wide
        return target

    def _viewed(self, go_on: GoOn, x: _Unmade, shape: Sequence[int]) -> _Unmade | None:
        """Heads and prompts in another arrangement."""
        if tuple(shape) == tuple(x.shape):
            return x
        if len(shape) < 2 or tuple(shape[-2:]) != tuple(x.shape[-2:]):
            return None
        made = self._unmade(go_on, _reshaped, (x, [int(size) for size in shape[:-2]]), {}, x.place, x.wide)
        if made is not None:
            x.shared = made.shared = True
        return made

    # -- the pattern meets the values --------------------------------------------------------

    def _attended(self, go_on: GoOn, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if len(args) != 2 or kwargs or not isinstance(args[0], _Unmade) or isinstance(args[1], _Unmade):
            return None
        pattern, values = args
        if pattern.shape[-1] != self.n or values.ndim < 2 or values.shape[-2] != self.n:
            return None
        like = function(*map(_without_numbers, args))
        call = _Call(function, (pattern.call, _Operand(values, Cut(columns=-2))), {}, go_on, torch.is_grad_enabled())
        operands: list[_Operand] = []

        def number(operand: _Operand) -> _Operand | _Given:
            if not operand.tensor.requires_grad:
                return operand
            operands.append(operand)
            return _Given(len(operands) - 1)

        body = _Attention(call.giving(number, {}), pattern.place)
        if self.here is not None and torch.is_grad_enabled():
            self._show(body, operands)
        row = pattern.numel() * pattern.element_size() // self.n
        blocks = blocks_of(self.n, max(1, self.size // row), not pattern.wide and self._looks_back(pattern))
        self.attended += 1
        (made,) = blockwise(
            body,
            blocks,
            [operand.tensor for operand in operands],
            [operand.cut for operand in operands],
            [Like(like.shape, like.dtype, self.device, Cut(rows=-2))],
        )
        return made

    def _show(self, body: _Attention, operands: Sequence[_Operand]) -> None:
        """A first row to the rules behind, with gradient: the blocks of a forward pass are made without."""
        row = Block(0, 1, self.n)
        with torch.enable_grad():
            body(row, *(leaf(operand.cut.of(operand.tensor, row)) for operand in operands))

    def _looks_back(self, pattern: _Unmade) -> bool:
        """Whether a pattern is exactly zero at later positions, tried on three rows: then they needn't be computed."""
        with torch.no_grad(), pattern.place():
            for row in {0, self.n // 2, max(0, self.n - 2)}:
                if pattern.call.make(Block(row, row + 1, self.n), (), {})[..., row + 1 :].any():
                    return False
        return True


def _read_already(value: Any) -> Any:
    return value.whole if isinstance(value, _Unmade) and value.whole is not None else value


def _without_numbers(value: Any) -> Any:
    if isinstance(value, _Operand):
        value = value.tensor
    return torch.empty(value.shape, dtype=value.dtype, device="meta") if isinstance(value, Tensor) else value
