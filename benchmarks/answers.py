"""What explaining a whole answer costs, in plain forward passes of both; and how exact its Fisher estimate is.

    python -m benchmarks.answers [--lengths 1 8 30 100] [--kinds bridge hooked] [--repeats 3]

100 tokens of prompt, and what follows them in the text as the answer. Ratios are medians over repeats, each beside a
forward pass of its own in the same run: other work on the machine shifts both. Errors are of Fisher's estimate against
the mean of several others (exact traces of answers take d_model backward passes a position), the mean over tokens.
Writes benchmarks/results/answers.md.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import tl_jacobian as tj

OUT = Path(__file__).parent / "results" / "answers.md"
TEXT = (
    "The lighthouse stood at the end of the long stone pier, and every evening the keeper climbed its narrow "
    "stairs to light the lamp. He had done so for thirty years, in storms and in calm, and he knew the sound of "
    "every ship that passed. One night in late autumn a fog came in from the sea, thicker than any that he could "
    "remember, and with it came a sound that he did not know. He put down his book, opened the door to the "
    "gallery and listened. Far below, somewhere between the rocks and the pier, somebody was calling his name, "
    "and he knew the voice. He took the lantern from its hook and went down the stairs as fast as his knees "
    "allowed, across the yard and out on the wet stones of the pier, holding the light above his head. The fog "
    "swallowed it after a few steps. He called back, and waited, and heard nothing but the water. Then, quite "
    "near, there was the sound of oars, and out of the grey came a small boat with one man in it, who looked at "
    "him as if he had been expected there all along."
)


def seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def costs(kind: str, lengths: list[int], repeats: int) -> list[str]:
    model = tj.load_demo_model(kind)
    ids = model.tokenizer.encode(TEXT)
    prompt, written = ids[:100], ids[100:]
    rows = []
    for n in [n for n in lengths if n <= len(written)]:
        answer = written[:n]
        both = torch.tensor([prompt + answer[:-1]])
        ways: dict[str, Callable[[], Any]] = {
            "semantic": lambda answer=answer: tj.semantic_scope(tj.linearize(model, prompt, answer=answer)),
            "temperature": lambda answer=answer: tj.temperature_scope(tj.linearize(model, prompt, answer=answer)),
            "input x gradient": lambda answer=answer: tj.baselines.input_x_gradient(
                tj.linearize(model, prompt, answer=answer)
            ),
        }
        ratios: dict[str, list[float]] = {name: [] for name in ways}
        bases = []
        for repeat in range(repeats + 1):
            with torch.no_grad():
                base = seconds(lambda both=both: model(both))
            taken = {name: seconds(way) for name, way in ways.items()}
            if repeat:  # the first warms up
                bases.append(base)
                for name, one in taken.items():
                    ratios[name].append(one / base)
        cells = [f"{statistics.median(found):.2f}" for found in ratios.values()]
        rows.append(f"| {kind} | {len(prompt)} + {n} | {statistics.median(bases):.2f} s | {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return rows


def errors(lengths: list[int], reference: int, products: list[int]) -> list[str]:
    model = tj.load_demo_model("bridge")
    ids = model.tokenizer.encode(TEXT)
    prompt, written = ids[60:100], ids[100:]
    rows = []
    for n in [n for n in lengths if n <= len(written)]:
        lin = tj.linearize(model, prompt, answer=written[:n])

        def estimate(k: int, seed: int, lin: Any = lin) -> torch.Tensor:
            generator = torch.Generator().manual_seed(seed)
            return tj.fisher_scope(lin, method="estimate", n_products=k, generator=generator).scores.double()

        truth = torch.stack([estimate(256, 100 + seed) for seed in range(reference)]).mean(0)
        cells = []
        for k in products:
            found = torch.stack([((estimate(k, seed) - truth) / truth).abs() for seed in range(3)])
            cells.append(f"{found.mean():.1%}")
        rows.append(f"| {n} | {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--lengths", nargs="*", type=int, default=[1, 8, 30, 100])
    options.add_argument("--kinds", nargs="*", default=["bridge", "hooked"])
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--estimates", nargs="*", type=int, default=[1, 2, 8])
    options.add_argument("--products", nargs="*", type=int, default=[64, 128, 256])
    options.add_argument(
        "--reference", type=int, default=4, help="estimates of 256 products that the truth is the mean of"
    )
    given = options.parse_args()
    rows = [row for kind in given.kinds for row in costs(kind, given.lengths, given.repeats)]
    exact = errors(given.estimates, given.reference, given.products)
    OUT.write_text(
        "\n".join(
            [
                "# Whole answers: cost, and the Fisher estimate's error",
                "",
                "Made by `python -m benchmarks.answers`: " + __doc__.split("\n\n")[2].replace("\n", " "),
                "",
                f"Demo model, float32, {torch.get_num_threads()} thread, {platform.machine()}, other work going on.",
                "",
                "Plain forward passes of prompt and answer, linearize included:",
                "",
                "| host | tokens | forward pass | Semantic | Temperature | input x gradient |",
                "|---|---|---|---|---|---|",
                *rows,
                "",
                'Mean relative error of `fisher_scope(lin, method="estimate", n_products=...)`, three seeds, against '
                f"the mean of {given.reference} other estimates of 256 products; 40 tokens of prompt:",
                "",
                f"| tokens of answer | {' | '.join(f'{k} products' for k in given.products)} |",
                "|---|" + "---|" * len(given.products),
                *exact,
                "",
            ]
        ),
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
