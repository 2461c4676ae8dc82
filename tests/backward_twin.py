"""The naive twin of backward rules: a plain Hugging Face model whose norms and softmax are rewritten by hand.

Nothing here uses tl_jacobian. A norm's gain is measured from what it gave; softmax is exchanged in torch.nn.functional.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

RULES = ("frozen_norms", "frozen_attention", "gim", "frozen_norms+frozen_attention")


def frozen_norm(module: nn.Module, args: tuple[Tensor], out: Tensor) -> Tensor:
    """The norm's value, with the gradient that it has when what it divides by is a number."""
    x = args[0]
    centred = x - x.mean(-1, keepdim=True) if isinstance(module, nn.LayerNorm) else x
    eps = getattr(module, "eps", getattr(module, "variance_epsilon", 0.0))
    scale = (centred.square().mean(-1, keepdim=True) + eps).sqrt().detach()
    bias = getattr(module, "bias", None)
    bias = 0.0 if bias is None else bias.detach()
    gain = (out.detach() - bias) / (centred.detach() / scale)
    linear = gain * centred / scale
    return out.detach() + (linear - linear.detach())


class Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, temperature: float) -> Tensor:
        ctx.soft = (scores / temperature).softmax(-1)
        return scores.softmax(-1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        soft = ctx.soft
        return soft * (grad - (grad * soft).sum(-1, keepdim=True)), None


def scaled(x: Tensor, factor: float) -> Tensor:
    return factor * x + (1 - factor) * x.detach()


@contextmanager
def rewritten(hf: Any, rule: str) -> Iterator[None]:
    """A Hugging Face model with eager attention under a rule."""
    rules, handles, own = rule.split("+"), [], torch.nn.functional.softmax

    def softmax(scores: Tensor, dim: int = -1, dtype: Any = None, **_: Any) -> Tensor:
        if "frozen_attention" in rules:
            return own(scores, dim=dim, dtype=dtype).detach()
        return Softmax.apply(scores, 2.0) if "gim" in rules else own(scores, dim=dim, dtype=dtype)

    with ExitStack() as stack:
        for name, module in hf.named_modules():
            if {"frozen_norms", "gim"} & set(rules) and "Norm" in type(module).__name__:
                handles.append(module.register_forward_hook(frozen_norm))
            if "gim" in rules and name.split(".")[-1] in ("q_proj", "k_proj", "v_proj"):
                factor = 0.5 if name.endswith("v_proj") else 0.25
                handles.append(module.register_forward_hook(lambda m, a, out, f=factor: scaled(out, f)))
            if "gim" in rules and name.endswith("c_attn"):
                handles.append(module.register_forward_hook(_thirds))
            if "gim" in rules and name.endswith("query_key_value"):
                handles.append(module.register_forward_hook(_thirds_of_heads))
        torch.nn.functional.softmax = softmax
        stack.callback(lambda: setattr(torch.nn.functional, "softmax", own))
        for handle in handles:
            stack.callback(handle.remove)
        yield


def _thirds(module: nn.Module, args: Any, out: Tensor) -> Tensor:
    q, k, v = out.chunk(3, dim=-1)
    return torch.cat([scaled(q, 0.25), scaled(k, 0.25), scaled(v, 0.5)], dim=-1)


def _thirds_of_heads(module: nn.Module, args: Any, out: Tensor) -> Tensor:
    """GPT-NeoX: q, k and v of each of four heads."""
    heads = out.unflatten(-1, (4, -1))
    return _thirds(module, args, heads).flatten(-2)
