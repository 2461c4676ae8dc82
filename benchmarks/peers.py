"""Other ways to attribute, as methods of the tables: backward rules, and packages where they are installed.

Each is a function of a linearization, ``fn(lin) -> scores``, for ``Trial(methods={name: fn})``.

- ``semantic (RULE)``: Semantic Scope through a backward rule: frozen norms, frozen attention, both, GIM.
- ``gim``: the package gim-explain (arXiv 2505.17630) on a HookedTransformer with the same weights: gradient under its
  rules times (embedding - that of a space), signed, the sum over the answer's logits.
- ``flashtrace``: the package flashtrace's ``ifr-span`` (information-flow routes of a span) on the Hugging Face model
  with the same weights. It reads text, so prompts whose text splits into other tokens are refused.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import MagicMock

import torch

import tl_jacobian as tj
from tl_jacobian.core.host.demo import kinds, load_demo_hf

Own = Callable[[Any], Any]
RULES = ("frozen_norms", "frozen_attention", "frozen_norms+frozen_attention", "gim")
# What FlashTrace imports for its pictures and its command line; none of it takes part in a trace.
_DRAWING = {
    "networkx": (),
    "seaborn": (),
    "spacy": ("language", "tokens"),
    "wordfreq": (),
    "matplotlib": ("cm", "patches", "colors", "pyplot"),
}


def of_rules(model: Any) -> dict[str, Own]:
    """Semantic Scope under each rule, by name."""

    def under(rule: str) -> Own:
        def semantic(lin: Any, target: int | None = None) -> tj.Attribution:
            if answer := getattr(lin, "answer", None):
                prompt = lin.tokens[: lin.answer_start].tolist()
                return tj.semantic_scope(tj.linearize(model, prompt, answer=list(answer), rule=rule))
            return tj.semantic_scope(tj.linearize(model, lin.tokens.tolist(), rule=rule), target)

        return semantic

    return {f"semantic ({rule.replace('_', ' ').replace('+', ' and ')})": under(rule) for rule in RULES}


def _found(name: str) -> bool:
    return name in sys.modules or importlib.util.find_spec(name) is not None


def of_packages(model: Any, device: str, names: Sequence[str] = ("gim", "flashtrace")) -> dict[str, Own]:
    """Those of the demo model's peers that are installed and can explain a first prompt, by name.

    Args:
        model: the demo model, as it is explained.
    """
    found: dict[str, Own] = {}
    if "gim" in names and _found("gim") and "hooked" in kinds():
        found["gim"] = _gim(tj.load_demo_model("hooked", device=device))
    if "flashtrace" in names and _found("flashtrace"):
        found["flashtrace"] = _flashtrace(*load_demo_hf(), device)
    return {name: fn for name, fn in found.items() if _runs(name, fn, model)}


def _runs(name: str, fn: Own, model: Any) -> bool:
    """Whether it explains a prompt: other versions of what it builds on can break a package, and not this run."""
    try:
        fn(tj.linearize(model, "The capital of France is", answer=" Paris"))
    except Exception as error:
        print(f"{name} is left out: {type(error).__name__}: {error}", flush=True)
        return False
    return True


def _gim(model: Any) -> Own:
    explain = importlib.import_module("gim").explain

    def scores(lin: Any) -> torch.Tensor:
        ids = lin.tokens.to(model.cfg.device)[None]
        total = torch.zeros(ids.shape[1])
        for i, token in enumerate(lin.answer):
            at = lin.answer_start - 1 + i
            with torch.enable_grad():
                total += explain(model, ids, target_token_id=token, target_position=at, tokenizer=model.tokenizer).cpu()
        return total

    return scores


def _flashtrace(hf: Any, tokenizer: Any, device: str) -> Own:
    for name, inside in _DRAWING.items():
        if not _found(name):
            sys.modules.update({one: MagicMock() for one in (name, *(f"{name}.{part}" for part in inside))})
    hf = hf.to(device).eval()
    tracer = importlib.import_module("flashtrace").FlashTrace(hf, tokenizer)

    def scores(lin: Any) -> torch.Tensor:
        prompt, n = tokenizer.decode(lin.tokens[: lin.answer_start].tolist()), len(lin.answer)
        traced = tracer.trace(prompt=prompt, target=lin.text, output_span=(0, n - 1), method="ifr-span")
        if len(traced.scores) != lin.answer_start:
            raise tj.errors.PromptError("the text splits into other tokens")
        return torch.tensor(traced.scores + [0.0] * (len(lin.tokens) - lin.answer_start))

    return scores
