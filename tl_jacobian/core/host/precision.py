"""What a half-precision model's weights define, computed in float32 without a float32 copy of them.

Rounding activations and scores to half precision makes gradients of a model in common use wrong by anything from a
percent to several times (benchmarks/half_precision.py). So inside this rule no activation is ever rounded:
embeddings are float32 from the start, casts to half precision are left out, products with half-precision weights
cast a block of the weight up for the product alone (:mod:`tl_jacobian.core.linalg.product`), and whatever else meets a
half-precision tensor gets it cast up. What still comes out in half precision, and carries a gradient, was rounded
where the rule can't reach, and is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tl_jacobian.core.host.loan import modules_in, modules_of
from tl_jacobian.core.host.operations import Function, GoOn, Rules, rewriting
from tl_jacobian.core.linalg.product import contraction, product, unrounded
from tl_jacobian.errors import UnsupportedModelError

Precision = Literal["model"] | None

HALF = (torch.bfloat16, torch.float16)
_ROUNDED = (*HALF, *(getattr(torch, name) for name in dir(torch) if name.startswith("float8_")))
_REMEDY = 'precision="model" differentiates the model as it computes, rounding included'


class InFloat32:
    """A :class:`~tl_jacobian.core.host.operations.Rule`: every function, as far as half precision takes part."""

    def rewrites(self, function: Function) -> bool:
        return True

    def __call__(self, go_on: GoOn, function: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        found = list(_half(args)) + list(_half(kwargs.values()))
        if not found:
            return go_on(function, args, kwargs)
        for value in found:
            _check_not_rounded(value)
        name = getattr(function, "__name__", "")
        if name in _CASTS:
            return _cast(go_on, function, args, kwargs)
        if name in _AS_IT_IS:
            return _constant(go_on(function, args, kwargs))
        if name in _LOOKUPS:
            made = _constant(go_on(function, args, kwargs))
            return made.float() if _looks_up(name, args) else made
        if (rewritten := _PRODUCTS.get(name)) is not None and "out" not in kwargs:
            made = rewritten(*args, **kwargs)
            if made is not None:
                return made
        if name in _JOINS and all(isinstance(value, Tensor) and value.dtype in HALF for value in args[0]):
            return _constant(go_on(function, args, kwargs))
        if kwargs.get("out") is not None or _changes(name):
            return _in_place(go_on, function, args, kwargs)
        return go_on(function, _up(args), {key: _up(value) for key, value in kwargs.items()})


def _half(values: Iterable[Any]) -> Iterator[Any]:
    """Tensors of (less than) half precision, and half-precision dtypes, however deep."""
    for value in values:
        if isinstance(value, Tensor):
            if value.dtype in _ROUNDED:
                yield value
        elif isinstance(value, torch.dtype):
            if value in HALF:
                yield value
        elif isinstance(value, (tuple, list)):
            yield from _half(value)


class _Rounded(Exception):
    """Not a TypeError, which Python takes for "not implemented" inside an operator."""


def _check_not_rounded(value: Any) -> None:
    """Weights are leaves, and constants here; nothing that is computed from x may be in half precision."""
    if isinstance(value, Tensor) and value.requires_grad and value.grad_fn is not None:
        raise _Rounded(
            f"{value.grad_fn.name().removesuffix('0').removesuffix('Backward')} rounds activations to "
            f"{_text(value.dtype)} where tl_jacobian can't compute them in float32 instead (a kernel, or a module "
            f"with an autograd function of its own); {_REMEDY}"
        )


def _up(value: Any) -> Any:
    """Half-precision tensors and dtypes as float32, however deep; weights as constants."""
    if isinstance(value, Tensor):
        return value.detach().float() if value.dtype in HALF else value
    if isinstance(value, torch.dtype):
        return torch.float32 if value in HALF else value
    if isinstance(value, (tuple, list)) and any(True for _ in _half(value)):
        return type(value)(map(_up, value)) if type(value) in (tuple, list) else type(value)(*map(_up, value))
    return value


def _constant(made: Any) -> Any:
    """Views of a weight that requires grad, as constants: what has a gradient in half precision was rounded."""
    if isinstance(made, Tensor):
        return made.detach() if made.dtype in HALF and made.grad_fn is not None else made
    if type(made) in (tuple, list):
        return type(made)(map(_constant, made))
    return made


# -- casts ---------------------------------------------------------------------------

_CASTS = {"to", "type", "type_as", "half", "bfloat16"}


def _cast(go_on: GoOn, function: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """A cast of anything else to half precision is one to float32, and of what is precise already none."""
    tensor = args[0]
    if tensor.dtype in _ROUNDED:
        wanted = kwargs.get("dtype", next((a for a in args[1:] if isinstance(a, torch.dtype)), None))
        up = tensor.dtype not in HALF and wanted in HALF  # float8 is exact in float32, not always in float16
        return _constant(go_on(function, _up(args) if up else args, _up_values(kwargs) if up else kwargs))
    dtype = tensor.dtype if tensor.is_floating_point() or tensor.is_complex() else torch.float32
    if function.__name__ in ("half", "bfloat16"):
        return go_on(Tensor.to, (tensor, dtype), {})
    if function.__name__ == "type_as":
        return go_on(Tensor.to, (tensor, args[1].device, dtype), {})
    device = next((a.device for a in (*args[1:], *kwargs.values()) if isinstance(a, Tensor)), None)
    if device is not None:  # .to(other)
        kwargs = {key: value for key, value in kwargs.items() if not isinstance(value, Tensor)}
        rest = [a for a in args[1:] if not isinstance(a, Tensor)]
        return go_on(function, (tensor, device, dtype, *rest), kwargs)
    swap: Callable[[Any], Any] = lambda a: dtype if isinstance(a, torch.dtype) and a in HALF else a  # noqa: E731
    return go_on(function, tuple(map(swap, args)), {key: swap(value) for key, value in kwargs.items()})


def _up_values(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _up(value) for key, value in kwargs.items()}


# -- what moves numbers about, or asks for something else than numbers ---------------------

_AS_IT_IS = {
    *("__get__", "__set__", "__len__", "__repr__", "__format__", "__hash__", "__iter__", "__deepcopy__"),
    *("size", "dim", "numel", "nelement", "stride", "storage_offset", "element_size", "data_ptr", "storage"),
    *("untyped_storage", "is_contiguous", "is_floating_point", "is_complex", "is_same_size", "is_set_to", "get_device"),
    *("is_inference", "is_signed", "is_pinned", "is_shared", "is_conj", "is_neg", "has_names", "result_type"),
    *("requires_grad_", "detach", "detach_", "retain_grad", "register_hook", "backward", "clone", "contiguous"),
    *("float", "double", "cpu", "cuda", "pin_memory", "view", "view_as", "reshape", "reshape_as", "flatten", "ravel"),
    *("unflatten", "transpose", "swapaxes", "swapdims", "permute", "movedim", "moveaxis", "t", "adjoint", "numpy_T"),
    *("expand", "expand_as", "broadcast_to", "unsqueeze", "squeeze", "narrow", "select", "index_select", "chunk"),
    *("split", "split_with_sizes", "tensor_split", "unbind", "repeat", "repeat_interleave", "tile", "flip", "roll"),
    *("unfold", "as_strided", "diagonal", "is_nonzero", "broadcast_tensors", "resolve_conj", "resolve_neg"),
}

_JOINS = {"cat", "concat", "concatenate", "stack"}  # of weights; anything else is joined in float32

_LOOKUPS = {"embedding", "__getitem__"}


def _looks_up(name: str, args: Sequence[Any]) -> bool:
    """Rows of a matrix for a list of ids: embeddings, which are few. A row for one id may be an expert's weight."""
    if name == "embedding":
        return True
    matrix, index = args
    first = index[0] if isinstance(index, tuple) and index else index
    ids = isinstance(first, Tensor) and first.ndim >= 1 and first.dtype in (torch.int64, torch.int32)
    return isinstance(matrix, Tensor) and matrix.ndim == 2 and matrix.dtype in HALF and ids


# -- products --------------------------------------------------------------------------


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    if weight.dtype not in HALF or weight.ndim != 2:
        return None
    made = product(_up(x), weight.mT)
    return made if bias is None else made + bias


def _matmul(a: Tensor, b: Tensor) -> Tensor | None:
    if b.dtype in HALF and b.ndim >= 2:
        return product(_up(a), b)
    if a.dtype in HALF and a.ndim == 2 and b.ndim == 1:
        return product(b, a.mT)
    if a.dtype in HALF and a.ndim >= 2 and b.ndim >= 2:
        return product(b.mT, a.mT).mT
    return None


def _rmatmul(a: Tensor, b: Tensor) -> Tensor | None:
    return _matmul(b, a)


def _addmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor | None:
    made = _matmul(a, b)
    if made is None or (beta, alpha) != (1, 1):
        return None
    return made + bias


def _einsum(equation: Any, *operands: Any) -> Tensor | None:
    if len(operands) == 1 and isinstance(operands[0], (tuple, list)):
        operands = tuple(operands[0])
    if not isinstance(equation, str) or len(operands) != 2:
        return None
    a, b = operands
    if b.dtype in HALF:
        return contraction(equation, _up(a), b)
    left, _, rest = equation.partition(",")
    right, arrow, out = rest.partition("->")
    return contraction(f"{right},{left}{arrow}{out}", b, a)


def _grouped(x: Tensor, weight: Tensor, offs: Tensor | None = None, **more: Any) -> Tensor | None:
    """A mixture's experts: rows of x up to each offset, times the weight of their own."""
    if x.ndim != 2 or weight.ndim != 3 or offs is None or any(value is not None for value in more.values()):
        return None
    x, ends = _up(x), offs.tolist()
    made = [product(x[start:end], weight[i]) for i, (start, end) in enumerate(zip([0, *ends], ends, strict=False))]
    rest = x.new_zeros(len(x) - (ends[-1] if ends else 0), weight.shape[-1])  # rows beyond the last offset
    return torch.cat([*made, rest])


_PRODUCTS: Mapping[str, Callable[..., Tensor | None]] = {
    "linear": _linear,
    "matmul": _matmul,
    "__matmul__": _matmul,
    "__rmatmul__": _rmatmul,
    "mm": _matmul,
    "bmm": _matmul,
    "addmm": _addmm,
    "baddbmm": _addmm,
    "einsum": _einsum,
    "grouped_mm": _grouped,
    "_grouped_mm": _grouped,
    "grouped_mm_fallback": _grouped,
}


def _changes(name: str) -> bool:
    """Whether a function of that name writes into its first argument: ``add_``, ``__iadd__``, ``__setitem__``."""
    if name.startswith("__"):
        return name == "__setitem__" or name in _AUGMENTED
    return name.endswith("_")


_AUGMENTED = {"__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__imod__", "__ipow__"}


def _in_place(go_on: GoOn, function: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The target stays what it is; into a precise one nothing half-precise is put."""
    target = kwargs.get("out", args[0])
    if isinstance(target, Tensor) and target.dtype not in HALF:
        return go_on(function, _up(args), {key: _up(value) for key, value in kwargs.items()})
    return go_on(function, args, kwargs)


# -- which models need it, and which it can't help ------------------------------------------


def _text(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def rules_for(weights: Iterable[Tensor], precision: Precision) -> Rules:
    """The rules under which a model with these weights is run."""
    return (InFloat32(),) if precision is None and _halves(weights) else ()


def in_float32() -> AbstractContextManager[Any]:
    """What is computed inside, with weights of any precision, is computed in float32 at least."""
    return rewriting((InFloat32(),))


def _halves(weights: Iterable[Tensor]) -> list[str]:
    return sorted({_text(w.dtype) for w in weights if w.dtype in _ROUNDED})


def described(weights: Iterable[Tensor], precision: Precision) -> str:
    """How a model with these weights is computed, for metadata.

    >>> described([torch.ones(1, dtype=torch.bfloat16)], None)
    'weights bfloat16, computed in float32'
    """
    weights = list(weights)
    kinds = " and ".join(_halves(weights))
    if not kinds:
        return "as the weights"
    how = "in float32" if precision is None else "as the model does, with its rounding"
    return f"weights {kinds}, computed {how}"


@contextmanager
def computing(
    model: nn.Module, rules: Rules, precision: Precision, modules: Sequence[nn.Module] | None = None
) -> Iterator[None]:
    """Where a model is run: what it computes is as precise as was asked for, or refused.

    Args:
        modules: all of the model, where they are known.

    Raises:
        UnsupportedModelError: a part of the model rounds where no rule reaches.
    """
    if precision == "model":
        with rewriting(rules):
            yield
        return
    check_exact(model, modules)
    with unrounded(), rewriting(rules):
        try:
            yield
        except _Rounded as error:
            raise UnsupportedModelError(str(error)) from None
        except (RuntimeError, TypeError) as error:
            if any(isinstance(rule, InFloat32) for rule in rules) and _OF_DTYPES.search(str(error)):
                raise UnsupportedModelError(
                    f"a part of the model can't be computed in float32: {type(error).__name__}: {error}; {_REMEDY}"
                ) from error
            raise


_OF_DTYPES = re.compile(r"dtype|scalar type|bfloat16|float16|\bhalf\b|fp16|bf16", re.IGNORECASE)


# Modules and weights that round activations too, to 8 bits, in kernels that no rule sees into.
_QUANTISED = (
    "torch.ao.nn.quantized",
    "torch.ao.nn.intrinsic.quantized",
    "torchao.",
    "bitsandbytes.nn.modules.Linear8bit",
)


def check_exact(model: nn.Module, modules: Sequence[nn.Module] | None = None) -> None:
    """Raise UnsupportedModelError where weights are quantised in a way that rounds activations as well."""
    roots = (model, getattr(model, "original_model", model))
    modules = modules_in(*roots) if modules is None else modules
    kinds = {type(part) for module in modules for part in (module, *module._parameters.values())}
    found = {kind for kind in kinds if f"{kind.__module__}.{kind.__qualname__}".startswith(_QUANTISED)}
    if not found:
        return
    for name, module in modules_of(*roots):
        kind = next((type(part) for part in (module, *module._parameters.values()) if type(part) in found), None)
        if kind is not None:
            raise UnsupportedModelError(
                f"{name or 'the model'} is quantised ({kind.__qualname__.rpartition('.')[2]}): its kernels may round "
                f"activations too, so its weights don't say what it computes; load it unquantised, or {_REMEDY}"
            )
