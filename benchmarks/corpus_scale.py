"""What the runner of a corpus adds to the work itself, in time and in memory.

    python -m benchmarks.corpus_scale [--prompts 2000] [--planned 100000] [--rounds 3] [--nodes 2]

The same scope on the same batches of a tiny model, in a plain loop and by ``run_corpus``, which tokenises, plans,
writes and is read back as one table; seconds are of the processor, so other work on the machine counts little. The
tinier the model the larger the runner's part: this is the worst case. Both take turns. Then prompts are planned, and
nothing run; and the same corpus is run by ``accelerate launch`` on so many "nodes" of two processes each, which share
a folder: every node is a launcher of its own on this machine.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import statistics
import subprocess
import sys
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


def corpus(n: int) -> list[str]:
    draw = random.Random(0)
    return ["".join(draw.choices("abcdefgh ", k=draw.randint(5, 50))) for _ in range(n)]


def run(model: Any, texts: list[str], out: Path) -> None:
    tj.corpus.attribute_corpus(model, texts, "temperature", out, batch_size=8, progress=False)


def nodes(count: int, prompts: int, out: Path) -> float:
    """Seconds that so many launchers of two processes each take for the corpus, in one folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(2 * count)]
    launch += ["--num_machines", str(count), "--main_process_ip", "127.0.0.1", "--main_process_port", port]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    work = ["-m", "benchmarks.corpus_scale", "--prompts", str(prompts), "--child", str(out)]
    env = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    started = [
        subprocess.Popen([sys.executable, *launch, "--machine_rank", str(node), *work], env=env, stderr=subprocess.PIPE)
        for node in range(count)
    ]
    for one in started:
        _, said = one.communicate()
        if one.returncode:
            raise SystemExit(said.decode()[-2000:])
    return time.perf_counter() - began


def scores_of(out: Path) -> list[Any]:
    return [(a.tokens, a.scores.tolist()) for a in tj.corpus.read_attributions(out)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--planned", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nodes", type=int, default=2, help="0: don't")
    parser.add_argument("--child", type=Path, help="run the corpus into this folder, as one of a launch")
    args = parser.parse_args()
    model, texts, draw = cases.make("llama", "bridge"), corpus(args.prompts), random.Random(1)
    if args.child:
        run(model, texts, args.child)
        return
    tj.temperature_scope(tj.linearize(model, texts[0]))  # what is set up once
    by_length = sorted(texts, key=len, reverse=True)
    batches = [by_length[at : at + 8] for at in range(0, len(texts), 8)]
    with tempfile.TemporaryDirectory() as folder:
        loops, runs, grown = [], [], []
        for turn in range(args.rounds):
            _, plain = timed(lambda: [tj.temperature_scope(tj.linearize(model, batch)) for batch in batches])
            out = Path(folder) / f"run{turn}"
            before = resident("VmRSS")
            forget_peak()
            _, seconds = timed(lambda out=out: run(model, texts, out))
            loops.append(plain)
            runs.append(seconds)
            grown.append((resident("VmHWM") - before) / 2**20)
        out = Path(folder) / "run0"
        read, reading = timed(lambda: sum(1 for _ in tj.corpus.read_attributions(out)))
        size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
        over = statistics.median(b / a - 1 for a, b in zip(loops, runs, strict=True))
        print(
            f"{args.prompts} prompts: plain loop {statistics.median(loops):.1f} s, run_corpus "
            f"{statistics.median(runs):.1f} s; median of the overheads {over:+.1%} "
            f"({', '.join(f'{b / a - 1:+.1%}' for a, b in zip(loops, runs, strict=True))})"
        )
        print(f"peak beyond before, run after run: {', '.join(f'{one:.0f}' for one in grown)} MiB")
        print(f"{size / 2**20:.1f} MiB written, {read} attributions read as one table in {reading:.1f} s", flush=True)
        if args.nodes:
            shared = Path(folder) / "shared"
            seconds = nodes(args.nodes, args.prompts, shared)
            same = scores_of(shared) == scores_of(out)
            print(f"{args.nodes} nodes of 2 processes, one folder: {seconds:.0f} s with their start; the same: {same}")
    many = [draw.choice(texts) + str(i) for i in range(args.planned)]
    before = resident("VmRSS")
    whole, planning = timed(lambda: Corpus(as_prompts(many), tokenizer_of(model)))
    plan, cutting = timed(lambda: make_plan(whole.lengths(), 32))
    taken = (resident("VmRSS") - before) / 2**20
    print(
        f"{args.planned} prompts tokenised in {planning:.0f} s, {len(plan)} shards in {cutting:.1f} s, {taken:.0f} MiB"
    )


if __name__ == "__main__":
    main()
