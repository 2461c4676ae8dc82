"""What an evaluation costs: evaluate() against the straightforward script, on the same weights in one run.

    python -m benchmarks.evaluation [--data FILE ...] [--count 4] [--tokens 100] [--rounds 1]

Both make the six attributions of the paper's table and score the target without the top 5, 10 and 20%. The
script takes one prompt at a time through the Hugging Face model: a forward and a backward pass for each method and for
each node of integrated gradients, all of F and its leading eigenvector, and a forward pass for each
method and k. Prints prompts per second of either, the ratio, and how far their tables are apart.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import tl_jacobian as tj
from benchmarks import prompts
from benchmarks.ratios import medians
from tl_jacobian.host.demo_model import load_demo_hf

KS = (5, 10, 20)
STEPS = tj.Settings().integration_steps


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
            lambda x, t, z, s: torch.rand(x.shape[1], generator=tj.Settings().generator(s)),
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


def main() -> None:
    parser = argparse.ArgumentParser()
    prompts.add_arguments(parser, count=4, tokens=100)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    hf, tokenizer = load_demo_hf()
    script, model = Script(hf), tj.load_demo_model("bridge")
    ids = prompts.read(args, tokenizer)
    corpus = [tj.corpus.CorpusPrompt(i, str(i), tokens=tuple(one)) for i, one in enumerate(ids)]
    trial = tj.Trial(k=KS, sufficiency=False)
    found: dict[str, Any] = {}

    def ours() -> None:
        e = found["ours"] = tj.evaluate(model, corpus, trial, progress=False)
        found["ours"] = torch.tensor([[e.values("drop", m, k) for k in KS] for m in e.methods])

    def straightforward() -> None:
        found["script"] = torch.stack([script.drops(one, i) for i, one in enumerate(ids)], dim=-1)

    t = medians({"evaluate": ours, "script": straightforward}, args.rounds)
    apart = (found["ours"].double() - found["script"].double()).abs()
    print(
        "| prompts | tokens each | threads | evaluate, prompts/s | script, prompts/s | ratio | same drop within 0.001 |"
    )
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {len(ids)} | {sum(map(len, ids)) / len(ids):.0f} | {torch.get_num_threads()} "
        f"| {len(ids) / t['evaluate']:.3f} | {len(ids) / t['script']:.3f} | {t['script'] / t['evaluate']:.2f} "
        f"| {(apart < 1e-3).double().mean():.0%} |"
    )


if __name__ == "__main__":
    main()
