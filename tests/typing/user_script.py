# pyright: strict
"""What a user's script says to a strict type checker: no name of the library may be of an unknown type.

`make lint` checks it; it is never run.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

import tl_jacobian as tj
from tl_jacobian.analyses.interventions import intervene


def token(folder: Path) -> list[tuple[str, float]]:
    model = tj.load_demo_model()
    lin = tj.linearize(model, "The capital of France is")
    a = tj.semantic_scope(lin, " Paris", minus=" London")
    a.show()
    a.save(folder / "a.json")
    again = tj.Attribution.load(folder / "a.json")
    scores: Tensor = again.scores
    words = again.words()
    page: Path = tj.compare([a, words]).to_html(folder / "a.html")
    print(page, float(scores.sum()), again.metadata["target_token"], a.words().str_tokens)
    return [(one.text, one.score) for one in a.top(3)]


def chat() -> dict[str, float]:
    model = tj.load_demo_model("bridge")
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    lin = tj.linearize(model, messages, answer=tj.GENERATE, max_new_tokens=20)
    a = tj.fisher_scope(lin)
    stderr: Tensor | None = a.stderr
    print(stderr, lin.text)
    roles = a.roles()
    return {row.text: row.score for row in roles.top(5)}


def confidence(y: Tensor, logits: Tensor) -> Tensor:
    return logits.log_softmax(-1).max()


def length(y: Tensor) -> Tensor:
    return y.square().sum().sqrt()


def down_to_a_head() -> float:
    model = tj.load_demo_model()
    lin = tj.linearize(model, "When Mary and John went out, John gave a drink to", record="heads")
    tj.output_scope(lin, confidence, name="confidence").show()
    tj.output_scope(lin, length).show()
    head = tj.head_influence(lin, target=" Mary").top(1)[0]
    found = intervene(lin, f"blocks.{head.row_name}.attn.hook_z", heads=[head.column])
    grid = tj.predict_patching(model, "When Mary and John", "When Mary and Anna", "heads", target=" Mary")
    print(grid.values.shape)
    return found.effect


def mine(lin: tj.Linearization) -> Tensor:
    return torch.rand(len(lin.tokens))


def own_scores() -> None:
    model = tj.load_demo_model()
    lin = tj.linearize(model, "The capital of France is")
    a = tj.Attribution.from_scores(lin, mine(lin), name="mine")
    for curves in tj.perturbation_curves(lin, [a, tj.semantic_scope(lin)]):
        curves.show()
    for row in tj.attribution_map(model, "The capital of France is"):
        row.show()
