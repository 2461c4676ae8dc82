"""Attention sinks of the demo model: norm and attention of the tokens that stand out, whatever the prompt.

python -m benchmarks.attention_sinks    # half a minute; writes results/attention_sinks.md
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import tl_jacobian as tj
from tl_jacobian.core.sinks import residual_norms

OUT = Path(__file__).parent / "results" / "attention_sinks.md"
BOS = "<|im_start|>"
PROMPTS = (
    "The capital of France is",
    f"{BOS}The capital of France is",
    f"{BOS}{BOS}The capital of France is",
    f"{BOS}Hello",
    f"{BOS}user\nHi there<|im_end|>\n{BOS}assistant\n",
    "red is 7, blue is 4, green is 9. The number of blue is",
    "It was. A dog, a cat.\nThen they left. And",
    "1 2 3 4 5 6 7 8 9 10",
)


def rows(model: Any) -> Iterator[str]:
    yield "| prompt | sinks found | the token after them: norm, attention |"
    yield "|---|---|---|"
    for prompt in PROMPTS:
        lin = tj.linearize(model, model.tokenizer.encode(prompt, add_special_tokens=False), record="sources")
        patterns = torch.stack([lin.taps[name].mean(0) for name in lin.taps if name.endswith("pattern")])
        n = len(lin.tokens)
        # What later tokens give it, the mean over layers, heads and these tokens.
        got = [patterns[:, i + 1 :, i].mean().item() if i + 1 < n else 0.0 for i in range(n)]
        norms = residual_norms(lin.graph.between)
        assert norms is not None
        ordinary = norms[:, 0].quantile(0.25, dim=1, keepdim=True, interpolation="lower")
        size = (norms[:, 0] / ordinary).amax(0).tolist()
        sinks = [s["position"] for s in lin.facts.get("attention_sinks", ())]
        named = ", ".join(f"{i} {lin.str_tokens[i]!r} ({size[i]:.0f}x, {got[i]:.0%})" for i in sinks)
        rest = max((i for i in range(n) if i not in sinks), key=lambda i: size[i])
        other = f"{rest} {lin.str_tokens[rest]!r} ({size[rest]:.0f}x, {got[rest]:.0%})"
        yield f"| {prompt!r} | {named or 'none'} | {other} |"


def main() -> None:
    model = tj.load_demo_model(kind="bridge")
    head = (
        "Norm: the largest over layers, relative to an ordinary token's. Attention: the share that later tokens give."
    )
    lines = ["# Attention sinks", "", "By `python -m benchmarks.attention_sinks`; demo model, bridge.", "", head, ""]
    text = "\n".join([*lines, *rows(model), ""])
    print(text)
    OUT.write_text(text)


if __name__ == "__main__":
    main()
