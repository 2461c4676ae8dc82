"""What the runner of a corpus adds to the work itself, in time and in memory.

    python -m benchmarks.corpus_scale [--prompts 2000] [--planned 100000]

The same scope on the same batches of a tiny model, in a plain loop and by ``run_corpus``, which tokenises, plans,
writes and is read back as one table; seconds are of the processor, so other work on the machine counts little. The
tinier the model the larger the runner's part: this is the worst case. Then prompts are planned, and nothing run.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import tl_jacobian as tj
from benchmarks.memory import forget_peak, resident
from tests import cases
from tl_jacobian.studies.corpus.read import as_prompts
from tl_jacobian.studies.corpus.run import Corpus, make_plan, tokenizer_of


def timed(run: Any) -> tuple[Any, float]:
    began = time.process_time()
    made = run()
    return made, time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--planned", type=int, default=100_000)
    args = parser.parse_args()
    model, draw = cases.make("llama", "bridge"), random.Random(0)
    texts = ["".join(draw.choices("abcdefgh ", k=draw.randint(5, 50))) for _ in range(args.prompts)]
    tj.temperature_scope(tj.linearize(model, texts[0]))  # what is set up once
    by_length = sorted(texts, key=len, reverse=True)
    batches = [by_length[at : at + 8] for at in range(0, len(texts), 8)]
    _, plain = timed(lambda: [tj.temperature_scope(tj.linearize(model, batch)) for batch in batches])
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        before = resident("VmRSS")
        forget_peak()
        _, seconds = timed(
            lambda: tj.corpus.attribute_corpus(model, texts, "temperature", out, batch_size=8, progress=False)
        )
        grown = resident("VmHWM") - before
        read, reading = timed(lambda: sum(1 for _ in tj.corpus.read_attributions(out)))
        size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    print(
        f"{args.prompts} prompts: plain loop {plain:.1f} s, run_corpus {seconds:.1f} s ({seconds / plain - 1:+.1%}), "
    )
    print(f"peak {grown / 2**20:.0f} MiB beyond before; {size / 2**20:.1f} MiB written, {read} read in {reading:.1f} s")
    many = [draw.choice(texts) + str(i) for i in range(args.planned)]
    before = resident("VmRSS")
    corpus, planning = timed(lambda: Corpus(as_prompts(many), tokenizer_of(model)))
    plan, cutting = timed(lambda: make_plan(corpus.lengths(), 32))
    taken = (resident("VmRSS") - before) / 2**20
    print(
        f"{args.planned} prompts tokenised in {planning:.0f} s, {len(plan)} shards in {cutting:.1f} s, {taken:.0f} MiB"
    )


if __name__ == "__main__":
    main()
