"""The README's picture of a drill-down: through which layers and heads each token drove a prediction.

python docs/make_layers_picture.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt

import tl_jacobian as tj

PROMPT = "When Mary and John went to the store, John gave a drink to"
TARGET, OTHER = " Mary", " John"


def main() -> None:
    lin = tj.linearize(tj.load_demo_model("bridge"), PROMPT, record=True)
    explained = dict(target=TARGET, minus=OTHER)
    layers = tj.layer_influence(lin, **explained, kind="relative").pick("resid_post")
    heads = tj.head_influence(lin, **explained, kind="gradient_x_activation")
    _, axes = plt.subplots(1, 2, figsize=(13.5, 5.6), layout="constrained", width_ratios=(2, 1.7))
    layers.plot(axes[0])
    heads.plot(axes[1])
    plt.savefig(Path(__file__).with_name("layers.png"), dpi=110)


if __name__ == "__main__":
    main()
