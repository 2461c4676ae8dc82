"""The README's picture of a translation: which source words drove each word, beside links drawn by hand.

python docs/make_translation_picture.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt

import tl_jacobian as tj


def main() -> None:
    model = tj.load_demo_model("bridge")
    pair = tj.language.aligned_pairs("German")[0]
    words = tj.language.word_alignment(model, pair.source, pair.target, template=pair.template)
    figure = plt.figure(figsize=(9, 6.4), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.3))
    for ax, word in zip(above.subplots(3, 1), ("red", "apple", "yesterday"), strict=True):
        words.row(word).plot(ax)
    words.plot(below.subplots(), sure=pair.sure, possible=pair.possible)
    plt.savefig(Path(__file__).with_name("translation.png"), dpi=110)


if __name__ == "__main__":
    main()
