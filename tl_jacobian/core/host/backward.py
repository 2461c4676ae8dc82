"""Backward rules: what a gradient passes through in the place of the exact Jacobian, the forward pass being the same.

``"frozen_norms"``      a norm's statistics (the standard deviation or root mean square) are constants.
``"frozen_attention"``  attention patterns are constants: gradient flows through the values alone, as in attribution
                        graphs.
``"gim"``               Gradient Interaction Modifications (arXiv 2505.17630): norm statistics are constants; where
                        gradient goes through an attention pattern, the softmax is that of temperature 2; and each of
                        the products of attention halves what it passes on, so that queries and keys get a quarter
                        and values a half.

The two that freeze can be combined. All of them are :class:`~tl_jacobian.core.host.operations.Rule` s inside of the
model's norm and attention modules, which are found by the names of their classes and marked by hooks; the values of
the forward pass are exactly those without a rule. A norm in which nothing was frozen, or attention in which no softmax
was seen (state spaces, linear attention, fused kernels of a model's own), is refused.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor, nn

from tl_jacobian.core.hooks import MIXERS, parsed
from tl_jacobian.core.host.loan import Loan, modules_of, place_of
from tl_jacobian.core.host.operations import Function, GoOn
from tl_jacobian.errors import ArgumentError, UnsupportedModelError
from tl_jacobian.results.scopes import BackwardRule

Rule = BackwardRule | str | Sequence[BackwardRule] | None
RULES: tuple[BackwardRule, ...] = get_args(BackwardRule)
_FROZEN = RULES[:2]
_HELD: Mapping[str, str] = {
    "frozen_norms": "the statistics of norms",
    "frozen_attention": "attention patterns",
    "gim": "the statistics of norms (gradients through attention are modified too: arXiv 2505.17630)",
}
_TEMPERATURE, _QUERIES_AND_KEYS, _VALUES = 2.0, 0.25, 0.5  # those of the paper's implementation


def rule_name(rule: Any) -> str | None:
    """A rule, or several, as one name: ``"frozen_norms+frozen_attention"``.

    Raises:
        ArgumentError: there is no such rule, or it can't be combined with others.

    >>> rule_name(["frozen_attention", "frozen_norms"]), rule_name("gim"), rule_name(None)
    ('frozen_norms+frozen_attention', 'gim', None)
    """
    if rule is None:
        return None
    names = rule.split("+") if isinstance(rule, str) else rule
    if not isinstance(names, Sequence) or not names or any(name not in RULES for name in names):
        raise ArgumentError(
            f"rule={rule!r}, expected None (the exact Jacobian), one of {', '.join(map(repr, RULES))}, or "
            f"{list(_FROZEN)} together"
        )
    if len(set(names)) > 1 and "gim" in names:
        raise ArgumentError(f"rule={rule!r}: gim says already what happens in norms and in attention; take it alone")
    return "+".join(name for name in RULES if name in names)


def rule_facts(rule: str | None) -> dict[str, str]:
    """What the metadata say of a rule; nothing where the Jacobian is exact."""
    if rule is None:
        return {}
    held = " and ".join(_HELD[name] for name in rule.split("+"))
    return {"rule": rule, "held_fixed": f"weights, positional embeddings, token ids; by the rule {rule} also {held}"}


# -- what takes an operation's place -----------------------------------------------------


class _Scaled(torch.autograd.Function):
    """x, whose gradient is multiplied by a factor; by zero: there is none."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, factor: float) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, None]:
        return (grad_outputs[0] * ctx.factor if ctx.factor else None), None


class _Instead(torch.autograd.Function):
    """A value with the gradient of something else that is equal to it up to rounding."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, carrier: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.dtype = inputs[1].dtype

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor]:
        return None, grad_outputs[0].to(ctx.dtype)


class _Softmax(torch.autograd.Function):
    """The probabilities that scores have, with the gradient of their softmax at another temperature, times a factor.

    With the temperature T the probabilities are p^(1/T), normalised: nothing but p is kept.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(scores: Tensor, probabilities: Tensor, dim: int, temperature: float, factor: float) -> Tensor:
        return probabilities.view_as(probabilities)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, float, float], output: Tensor) -> None:
        scores, probabilities, ctx.dim, ctx.temperature, ctx.factor = inputs
        ctx.dtype = scores.dtype
        ctx.save_for_backward(probabilities)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        if not ctx.factor:
            return None, None, None, None, None
        (p,) = ctx.saved_tensors
        grad, p = grad_outputs[0], (p.log() / ctx.temperature).softmax(dim=ctx.dim)
        found = ctx.factor * p * (grad - (grad * p).sum(dim=ctx.dim, keepdim=True))
        return found.to(ctx.dtype), None, None, None, None


def _scaled(x: Tensor, factor: float) -> Tensor:
    return _Scaled.apply(x, factor)  # type: ignore[no-any-return,no-untyped-call]  # torch's own type is Any


def _instead(value: Tensor, carrier: Tensor) -> Tensor:
    return _Instead.apply(value.detach(), carrier.expand_as(value))  # type: ignore[no-any-return,no-untyped-call]


# -- where the model is --------------------------------------------------------------------

# Not a whole layer that is called after its attention, such as JambaAttentionDecoderLayer.
_PARTS = {"norm": re.compile("Norm"), "attention": re.compile(r"^(?!.*(Layer|Block)).*(Attention|Attn)")}


@dataclass(eq=False)
class _Visit:
    """One call of a norm or of attention: what was rewritten inside."""

    kind: str
    module: nn.Module
    statistics: int = 0
    softmaxes: int = 0
    products: int = 0


class _Visits(threading.local):
    """The modules that this thread is inside of, outermost first."""

    def __init__(self) -> None:
        self.open: list[_Visit] = []


class Backward:
    """One or more backward rules in one forward pass: a :class:`~tl_jacobian.core.host.operations.Rule`.

    Args:
        name: :func:`rule_name`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        rules = name.split("+")
        self.norms = "frozen_norms" in rules or "gim" in rules
        self.temperature = 1.0 if "frozen_attention" in rules else _TEMPERATURE
        self.factors = (0.0, 1.0) if "frozen_attention" in rules else (_QUERIES_AND_KEYS, _VALUES)
        self.attention = rules != ["frozen_norms"]
        self._visits = _Visits()
        self._left_alone: list[_Visit] = []
        self._attended: set[nn.Module] = set()

    # -- marks -------------------------------------------------------------------------

    def start(self) -> None:
        """Nothing is left of a run that was cut short."""
        self._visits.open.clear()

    def here(self) -> Callable[[], AbstractContextManager[None]]:
        """A way back to where the model is now, for operations that are computed later, or again."""
        return partial(self._back, list(self._visits.open))

    @contextmanager
    def _back(self, visits: list[_Visit]) -> Iterator[None]:
        now, self._visits.open = self._visits.open, visits
        try:
            yield
        finally:
            self._visits.open = now

    def mark(self, loan: Loan, roots: Iterable[nn.Module]) -> None:
        """Hooks that tell where the model is, as long as the loan lasts."""
        for _, module in modules_of(*roots):
            kind = next((kind for kind, names in _PARTS.items() if names.search(type(module).__name__)), None)
            if (kind == "norm" and self.norms) or (kind == "attention" and self.attention):
                loan.hook(module, partial(self._enter, kind), "before, with keywords")
                loan.hook(module, self._leave, "after, with keywords")

    def _enter(self, kind: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._visits.open.append(_Visit(kind, module))

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        visit = self._visits.open.pop()
        while visit.module is not module:  # what left by an exception
            visit = self._visits.open.pop()
        outer = self._inside(visit.kind)
        if outer is not None:  # the bridge's module around Hugging Face's
            outer.statistics += visit.statistics
            outer.softmaxes += visit.softmaxes
            outer.products += visit.products
            return
        given, made = list(_tensors((*args, *kwargs.values()))), list(_tensors((output,)))
        flows = any(t.requires_grad for t in given) and any(t.requires_grad for t in made)
        same = bool(made) and any(made[0] is t for t in given)
        if visit.kind == "attention":
            self._attended.add(module)
        if flows and not same and not self._is_rewritten(visit):
            self._left_alone.append(visit)

    def _is_rewritten(self, visit: _Visit) -> bool:
        if visit.kind == "norm":
            return bool(visit.statistics)
        return bool(visit.softmaxes) and (bool(visit.products) or self.factors[1] == 1)

    def _inside(self, kind: str) -> _Visit | None:
        return next((visit for visit in reversed(self._visits.open) if visit.kind == kind), None)

    def check(self, model: Any, points: Iterable[str]) -> None:
        """After the forward pass: raise UnsupportedModelError where the rule doesn't say what the model does.

        Args:
            model: whose ``blocks`` ran.
            points: names of its hook points.
        """
        names = {module: place_of(name, module) for name, module in modules_of(model)}
        if self._left_alone:
            visit = self._left_alone[0]
            where = f"{names.get(visit.module, 'a module')} ({type(visit.module).__name__})"
            what = "no root of a mean square was seen in" if visit.kind == "norm" else "no softmax was seen in"
            raise UnsupportedModelError(f"rule={self.name!r}: {what} {where}, so it can't be told {_instead_of(visit)}")
        if not self.attention:
            return
        mixers = sorted(p for p in points if parsed(p).path in MIXERS)
        for i, block in enumerate(model.blocks):
            if not any(module in self._attended for module in block.modules()):
                mixers.insert(0, f"block {i}")
                break
        if mixers:
            raise UnsupportedModelError(
                f"rule={self.name!r} is about softmax attention, and {mixers[0]} mixes tokens in another way (a state "
                'space, linear attention, a convolution): take rule="frozen_norms", or none'
            )

    # -- operations --------------------------------------------------------------------

    def rewrites(self, function: Function) -> bool:
        return getattr(function, "__name__", "") in _FUNCTIONS

    def __call__(self, go_on: GoOn, function: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        name = function.__name__
        if name in _NORMS:
            if not self.norms:
                return go_on(function, args, kwargs)
            return self._norm(go_on, function, args, kwargs)
        if name in _STATISTICS:
            return self._statistic(name, go_on(function, args, kwargs), args, kwargs)
        visit = self._inside("attention") if self.attention else None
        if visit is None:
            return go_on(function, args, kwargs)
        if name == "softmax":
            return self._softmax(visit, go_on(function, args, kwargs), args, kwargs)
        if name == _FUSED:
            return self._fused(visit, go_on(function, args, kwargs), args, kwargs)
        return go_on(function, self._product(visit, args), kwargs)

    def _statistic(self, name: str, made: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        visit = self._inside("norm")
        if visit is None or not isinstance(made, Tensor) or not made.requires_grad:
            return made
        if "pow" in name:
            exponent = kwargs.get("exponent", args[1] if len(args) > 1 else None)
            if not isinstance(exponent, float) or exponent not in (0.5, -0.5):
                return made  # x^2 is no statistic yet
        visit.statistics += 1
        return _scaled(made, 0.0)

    def _norm(self, go_on: GoOn, function: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        made = go_on(function, args, kwargs)
        if not made.requires_grad:
            return made
        if (visit := self._inside("norm")) is not None:
            visit.statistics += 1
        return _instead(made, _NORMS[function.__name__](*args, **kwargs))

    def _softmax(self, visit: _Visit, made: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
        visit.softmaxes += 1
        scores = kwargs.get("input", args[0] if args else None)
        if not made.requires_grad:
            return made
        dim = kwargs.get("dim", args[1] if len(args) > 1 else -1)
        return self._rewritten_softmax(scores, made, -1 if dim is None else dim)

    def _rewritten_softmax(self, scores: Any, made: Tensor, dim: int) -> Tensor:
        how = (dim, self.temperature, self.factors[0])
        return _Softmax.apply(scores, made.detach(), *how)  # type: ignore[no-any-return,no-untyped-call]

    def _product(self, visit: _Visit, args: Sequence[Any]) -> Sequence[Any]:
        """Of a pattern and values: the values' gradient is scaled."""
        if self.factors[1] == 1 or not visit.softmaxes:
            return args
        flat = list(args)
        packed = len(flat) == 2 and isinstance(flat[1], (list, tuple))  # einsum(equation, [a, b])
        operands = list(flat[1]) if packed else flat
        places = [i for i, operand in enumerate(operands) if isinstance(operand, Tensor)]
        patterns = [i for i in places if _is_pattern(operands[i])]
        if len(places) != 2 or len(patterns) != 1:
            return args
        (other,) = set(places) - set(patterns)
        if operands[other].requires_grad:
            operands[other] = _scaled(operands[other], self.factors[1])
        visit.products += 1
        return (flat[0], operands) if packed else operands

    def _fused(self, visit: _Visit, made: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
        visit.softmaxes += 1
        visit.products += 1
        if not made.requires_grad:
            return made
        return _instead(made, self._attention(*args, **kwargs))

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """What torch's fused attention computes, step by step."""
        if enable_gqa:
            key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], dim=-3) for t in (key, value))
        scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
        elif attn_mask is not None:
            scores = scores + attn_mask
        pattern = self._rewritten_softmax(scores, scores.softmax(dim=-1), -1)
        return pattern @ _scaled(value, self.factors[1])


def _instead_of(visit: _Visit) -> str:
    if visit.kind == "norm":
        return 'what to freeze; take rule="frozen_attention", or none'
    return (
        "what its pattern is (a state space, linear attention, or a kernel of the model's own); load the model with "
        'attn_implementation="eager", or take rule="frozen_norms", or none'
    )


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


# A pattern reaches its product with the values through a cast, a mask, a hook point's views, dropout, ...
_STEPS = 12


def _is_pattern(tensor: Tensor) -> bool:
    """Whether a tensor is a softmax of ours, but for a few functions of one tensor each."""
    node = tensor.grad_fn
    for _ in range(_STEPS):
        if node is None or isinstance(node, _Softmax._backward_cls):
            break
        before = [n for n, _ in node.next_functions if n is not None]
        node = before[0] if len(before) == 1 else None
    return node is not None and isinstance(node, _Softmax._backward_cls)


# -- norms in one function -----------------------------------------------------------------


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    return _normed(input, len(normalized_shape), weight, bias, eps, centred=True)


def _rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    return _normed(input, len(normalized_shape), weight, None, eps or torch.finfo(input.dtype).eps, centred=False)


def _normed(x: Tensor, n: int, weight: Tensor | None, bias: Tensor | None, eps: float, *, centred: bool) -> Tensor:
    """A norm whose scale is a constant."""
    dims = tuple(range(-n, 0))
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    x = x - x.mean(dim=dims, keepdim=True) if centred else x
    x = x / (x.square().mean(dim=dims, keepdim=True) + eps).sqrt().detach()
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


_NORMS = {"layer_norm": _layer_norm, "rms_norm": _rms_norm}
_STATISTICS = {"sqrt", "rsqrt", "std", "var", "norm", "vector_norm", "pow", "__pow__"}
_FUSED = "scaled_dot_product_attention"
_PRODUCTS = {"matmul", "__matmul__", "__rmatmul__", "bmm", "einsum"}
_FUNCTIONS = {*_NORMS, *_STATISTICS, "softmax", _FUSED, *_PRODUCTS}
