"""What J delta misses of a real change, for whole models and for one detached MLP: the margin of core/host/lost.py.

python -m benchmarks.lost_gradient
"""

from __future__ import annotations

from typing import Any

import torch

import tl_jacobian as tj
from tests.cases import cases, make
from tl_jacobian.core.host import lost
from tl_jacobian.core.host.hosts import resolve

PROMPT = list(b"Paris is in the north of")


def gap(model: Any) -> float:
    """The relative gap at the smaller step, whatever the tolerance."""
    tolerance, lost._TOLERANCE = lost._TOLERANCE, 0.0
    try:
        host = resolve(model)
        found = host._search(PROMPT, host.conditions(), False)  # type: ignore[attr-defined]
    finally:
        lost._TOLERANCE = tolerance
    return float("nan") if found.gap is None else found.gap


def main() -> None:
    models = {f"{a} {s}": make(a, s, torch.float32) for a, s in cases()}
    models |= {f"demo {kind}": tj.load_demo_model(kind) for kind in ("bridge", "hooked")}
    print("model: whole (nan: the two steps don't agree, so no loss), one MLP detached")
    for name, model in models.items():
        place = next(n for n in ("blocks.1.hook_mlp_out", "blocks.1.mlp.hook_out") if n in model.hook_dict)
        whole = gap(model)
        with model.hooks(fwd_hooks=[(place, lambda value, hook: value.detach())]):
            print(f"{name}: {whole:.2g}, {gap(model):.2g}", flush=True)


if __name__ == "__main__":
    main()
