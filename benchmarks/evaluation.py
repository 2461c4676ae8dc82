"""What an evaluation costs: evaluate() against the straightforward script, on the same weights in one run.

    python -m benchmarks.evaluation [--data FILE ...] [--count 4] [--tokens 100] [--rounds 1] [--processes 2 | --busy]

Both make the six attributions of the paper's table and score the target without the top 5, 10 and 20%. The
script takes one prompt at a time through the Hugging Face model: a forward and a backward pass for each method and for
each node of integrated gradients, all of F and its leading eigenvector, and a forward pass for each
method and k. Prints prompts per second of either, the ratio, and how far their tables are apart. With several processes
the corpus is dealt out to them, each with a model and one thread, as ``torchrun -m tl_jacobian evaluate`` does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache, partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from torch import Tensor

import tl_jacobian as tj
from benchmarks import prompts
from benchmarks.ratios import medians
from tl_jacobian.core.host.demo import load_demo_hf
from tl_jacobian.studies.evaluation import Settings

KS = (5, 10, 20)
STEPS = Settings().integration_steps


class Script:
    """The evaluation as one would write it down."""

    def __init__(self, hf: Any) -> None:
        self.hf = hf.eval().requires_grad_(False)
        self.w = hf.lm_head.weight.T  # (d_model, d_vocab)

    def drops(self, ids: list[int], seed: int) -> Tensor:
        """Fall of the log-probability for each method and k."""
        x = self.hf.get_input_embeddings()(torch.tensor([ids])).detach()
        with torch.no_grad():
            logits = self.hf(inputs_embeds=x, use_cache=False).logits[0, -1]
        target, clean = int(logits.argmax()), logits.log_softmax(-1).max()
        scores = [score(x, target, logits, seed) for score in self._methods()]
        return torch.stack([torch.stack([clean - self._without(x, s, k, target) for k in KS]) for s in scores])

    def _methods(self) -> list[Callable[..., Tensor]]:
        def logit(y: Tensor, target: int, logits: Tensor) -> Tensor:
            return y @ self.w[:, target]

        def confidence(y: Tensor, target: int, logits: Tensor) -> Tensor:
            return y.norm()

        def fisher(y: Tensor, target: int, logits: Tensor) -> Tensor:
            p = logits.softmax(-1)
            mean = self.w @ p
            return y @ torch.linalg.eigh((self.w * p) @ self.w.T - torch.outer(mean, mean)).eigenvectors[:, -1]

        def norm(of: Callable[..., Tensor]) -> Callable[..., Tensor]:
            return lambda x, t, z, s: self._gradient(x, of, t, z).norm(dim=-1)

        return [
            lambda x, t, z, s: torch.rand(x.shape[1], generator=Settings().generator(s)),
            lambda x, t, z, s: self._integrated(x, logit, t, z),
            lambda x, t, z, s: (x[0] * self._gradient(x, logit, t, z)).norm(dim=-1),
            norm(logit),
            norm(confidence),
            norm(fisher),
        ]

    def _gradient(self, x: Tensor, of: Callable[..., Tensor], target: int, logits: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        y = self.hf.model(inputs_embeds=x, use_cache=False).last_hidden_state[0, -1]
        return torch.autograd.grad(of(y, target, logits), x)[0][0]

    def _integrated(self, x: Tensor, of: Callable[..., Tensor], target: int, logits: Tensor) -> Tensor:
        nodes, weights = np.polynomial.legendre.leggauss(STEPS)
        pairs = zip((nodes + 1) / 2, weights / 2, strict=True)
        total = sum(w * self._gradient(a * x, of, target, logits) for a, w in pairs)
        return (x[0] * total).norm(dim=-1)

    def _without(self, x: Tensor, scores: Tensor, k: int, target: int) -> Tensor:
        n = -(-len(scores) * k // 100)
        x = x.clone()
        x[0, scores.topk(n).indices] = 0
        with torch.no_grad():
            return self.hf(inputs_embeds=x, use_cache=False).logits[0, -1].log_softmax(-1)[target]


Corpus = list[tj.corpus.CorpusPrompt]


def evaluated(model: Any, corpus: Corpus) -> Tensor:
    """Falls of the log-probability: methods x k x prompts."""
    e = tj.evaluate(model, corpus, tj.Trial(k=KS, sufficiency=False), explained="argmax", progress=False)
    return torch.tensor([[e.values("drop", m, k) for k in KS] for m in e.methods])


class Processes:
    """Models that stand ready, one a process with one thread."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.pool = ProcessPoolExecutor(n, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,))
        list(self.pool.map(_ready, range(n)))

    def evaluated(self, corpus: Corpus) -> Tensor:
        parts = list(self.pool.map(_part, [corpus[i :: self.n] for i in range(self.n)]))
        found = parts[0].new_empty(*parts[0].shape[:2], len(corpus))
        for i, part in enumerate(parts):
            found[..., i :: self.n] = part
        return found


@cache
def _model() -> Any:
    return tj.load_demo_model("bridge")


def _ready(_: int) -> None:
    _model()
    time.sleep(1.0)  # so that each process takes one of these


def _part(corpus: Corpus) -> Tensor:
    return evaluated(_model(), corpus)


def main() -> None:
    parser = argparse.ArgumentParser()
    prompts.add_arguments(parser, count=4, tokens=100)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--processes", type=int, default=0, help="also evaluate() in these many processes")
    parser.add_argument("--busy", action="store_true", help="count this process's own seconds: others don't matter")
    parser.add_argument("--short-warm-up", action="store_true", help="warm up on eight tokens, not with a whole round")
    args = parser.parse_args()
    if args.busy and args.processes:
        parser.error("--busy counts the seconds of one process, so no --processes")
    hf, tokenizer = load_demo_hf()
    script, ids = Script(hf), prompts.read(args, tokenizer)
    corpus = [tj.corpus.CorpusPrompt(i, str(i), tokens=tuple(one)) for i, one in enumerate(ids)]
    contenders: dict[str, Callable[[], Tensor]] = {
        "script": lambda: torch.stack([script.drops(one, i) for i, one in enumerate(ids)], dim=-1),
        "evaluate": lambda: evaluated(_model(), corpus),
    }
    if args.processes:
        processes = Processes(args.processes)
        contenders[f"evaluate, {args.processes} processes"] = lambda: processes.evaluated(corpus)
    found: dict[str, Tensor] = {}
    runs = {name: partial(lambda name: found.update({name: contenders[name]()}), name) for name in contenders}
    if args.short_warm_up:
        script.drops(ids[0][:8], 0)
        evaluated(_model(), [replace(one, tokens=(one.tokens or ())[:8]) for one in corpus[:2]])
    clock = time.process_time if args.busy else time.perf_counter
    t = medians(runs, args.rounds, warm=not args.short_warm_up, clock=clock)
    threads = f"{torch.get_num_threads()} threads" + (", seconds of the processor" if args.busy else "")
    size = f"{len(ids)} prompts of {sum(map(len, ids)) / len(ids):.0f} tokens, {threads}"
    print(f"| {size} | prompts/s | ratio | same drop within 0.001 |\n|---|---|---|---|")
    for name, seconds in t.items():
        apart = (found[name].double() - found["script"].double()).abs()
        same = f"{(apart < 1e-3).double().mean():.0%}"
        print(f"| {name} | {len(ids) / seconds:.3f} | {t['script'] / seconds:.2f} | {same} |")


if __name__ == "__main__":
    main()
