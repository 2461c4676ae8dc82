"""The naive twins: what the library must equal, written the slow and obvious way.

Nothing here uses tl_jacobian. The model is run whole, through TransformerLens's own hooks,
and differentiated one row at a time.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Run(NamedTuple):
    """A whole forward pass of one prompt: embeddings (a leaf), final hidden states, logits."""

    x: Tensor  # (pos, d_model)
    y: Tensor  # (pos, d_model)
    logits: Tensor  # (pos, d_vocab)


def run(model: Any, tokens: list[int], nudge: Tensor | None = None) -> Run:
    """Run a TransformerLens model, ``nudge`` added to its embeddings."""
    seen: dict[str, Tensor] = {}

    def embed(value: Tensor, hook: Any) -> Tensor:
        seen["x"] = (value if nudge is None else value + nudge).detach().requires_grad_()
        return seen["x"]

    handle = model.ln_final.register_forward_hook(lambda module, args, out: seen.update(y=out))
    try:
        logits = model.run_with_hooks(torch.tensor([tokens]), fwd_hooks=[("hook_embed", embed)])
    finally:
        handle.remove()
    return Run(seen["x"], seen["y"][0], logits[0])


def run_hf(hf: Any, norm: Any, tokens: list[int]) -> Run:
    """Run a plain Hugging Face model from its ``inputs_embeds``."""
    seen: dict[str, Tensor] = {}
    x = hf.get_input_embeddings()(torch.tensor([tokens])).detach().requires_grad_()
    handle = norm.register_forward_hook(lambda module, args, out: seen.update(y=out))
    try:
        logits = hf(inputs_embeds=x).logits
    finally:
        handle.remove()
    return Run(x, seen["y"][0], logits[0])


def grad(value: Tensor, x: Tensor) -> Tensor:
    """Gradient of a scalar in the embeddings; (pos, d_model)."""
    return torch.autograd.grad(value, x, retain_graph=True)[0].reshape(-1, x.shape[-1])


def jacobian(run: Run, position: int = -1) -> Tensor:
    """J_t = dy/dx_t, a row at a time; (pos, d_model_out, d_model_in)."""
    return torch.stack([grad(component, run.x) for component in run.y[position]], dim=1)


def fisher_sum(weight: Tensor, p: Tensor) -> Tensor:
    """Sum over the vocabulary of p_i (w_i - mean)(w_i - mean)^T, w_i the columns of ``weight``."""
    mean = weight @ p
    total = torch.zeros(len(weight), len(weight), dtype=weight.dtype)
    for i, p_i in enumerate(p):
        difference = weight[:, i] - mean
        total += p_i * torch.outer(difference, difference)
    return total


def fisher_trace(run: Run, head: Any, position: int = -1) -> Tensor:
    """tr(J_t^T F J_t) with J to the *logits*, through whatever the model's head does.

    F_z = diag p - p p^T acts on logits, so bias and soft-cap need no formula of their own.
    """
    y = run.y[position].detach().requires_grad_()
    to_logits = torch.autograd.functional.jacobian(head, y)  # (d_vocab, d_model)
    p = run.logits[position].detach().softmax(-1)
    metric = torch.diag(p) - torch.outer(p, p)
    j = jacobian(run, position)
    return torch.stack([torch.trace((to_logits @ j_t).T @ metric @ (to_logits @ j_t)) for j_t in j])


class Inside(NamedTuple):
    """A whole forward pass of one prompt, and activations on the way as later layers read them."""

    at: dict[str, Tensor]  # (1, pos, ...), attached to the graph
    y: Tensor  # (pos, d_model)
    logits: Tensor  # (pos, d_vocab)


def inside(model: Any, tokens: list[int], names: list[str]) -> Inside:
    """Run a TransformerLens model under hooks that hand each activation on and keep it."""
    at: dict[str, Tensor] = {}

    def keep(name: str, value: Tensor) -> Tensor:
        at[name] = value.view_as(value)
        return at[name]

    hooks = [(name, lambda value, hook, name=name: keep(name, value)) for name in names]
    handle = model.ln_final.register_forward_hook(lambda module, args, out: at.update(y=out))
    try:
        logits = model.run_with_hooks(torch.tensor([tokens]), fwd_hooks=hooks)
    finally:
        handle.remove()
    return Inside(at, at.pop("y")[0], logits[0])


def patched(model: Any, tokens: list[int], name: str, nudge: Tensor) -> Tensor:
    """Logits at the last token when ``nudge`` is added to the activation at one hook point."""
    with torch.no_grad():
        logits = model.run_with_hooks(torch.tensor([tokens]), fwd_hooks=[(name, lambda value, hook: value + nudge)])
    return logits[0, -1]


def reaching_the_stream(model: Any, name: str) -> str:
    """The hook point at which a nudge moves the whole stream.

    TransformerBridge's hook_resid_mid is the input of a norm: what hooks put in there reaches the MLP alone.
    Attention's output is added to the stream just before.
    """
    return name.replace("hook_resid_mid", "hook_attn_out") if hasattr(model, "original_model") else name


def twin(model: Any) -> Any:
    """A float32 copy of a half-precision model: every tensor it holds, and the precision that its configs name."""
    copied = copy.deepcopy(model).float()
    half = (torch.bfloat16, torch.float16)
    roots = (copied, getattr(copied, "original_model", copied))
    for module in {id(m): m for root in roots for m in root.modules()}.values():
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor) and value.dtype in half:
                setattr(module, name, value.float())
        if getattr(getattr(module, "cfg", None), "dtype", None) in half:
            module.cfg.dtype = torch.float32
    return copied
