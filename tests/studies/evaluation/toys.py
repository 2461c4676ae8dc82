"""Models whose right answer is known by hand: they read one kind of token and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tl_jacobian.core.graph import Graph
from tl_jacobian.core.linearization import Linearization
from tl_jacobian.core.unembedding import Unembedding

VOCAB, WIDTH = 12, 5
KEY = 7  # the token that the model reads


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


EMBED, MIX, UNEMBED = randn(VOCAB, WIDTH, seed=1), randn(WIDTH, WIDTH, seed=2), randn(WIDTH, VOCAB, seed=3)
OFFSET = randn(WIDTH, seed=4)


def read_key(x: Tensor, tokens: Tensor) -> Tensor:
    """y = offset + M (sum of the embeddings that stand where the key is)."""
    return OFFSET + (x * (tokens == KEY)[..., None]).sum(-2) @ MIX


def read_squared(x: Tensor, tokens: Tensor) -> Tensor:
    """The same plus its square: not linear, and known to second order."""
    y = read_key(x, tokens)
    return y + 0.5 * y * y


@dataclass
class ToyRerun:
    """Runs of the toy at other embeddings or tokens, counted."""

    read: Callable[[Tensor, Tensor], Tensor]
    tokens: Tensor
    runs: list[int] = field(default_factory=list)

    def at(self, hook: str) -> ToyRerun:
        raise NotImplementedError

    def of_answer(self, positions: Sequence[int], answer: Sequence[int], start: int) -> ToyRerun:
        raise NotImplementedError("a toy explains one position")

    def check(self, x: Tensor, logits: Tensor) -> None:
        """A toy doesn't change."""

    def logits(self, values: Tensor) -> Tensor:
        self.runs.append(len(values))
        return self.read(values, self.tokens) @ UNEMBED

    def continued(self, x: Tensor, logits: Tensor) -> Callable[[Tensor, int], Tensor]:
        return lambda values, start: self.logits(values)

    def linearized(self, values: Tensor) -> Iterator[Sequence[Linearization]]:
        yield members(self.tokens, self.read, values)

    def prompts(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        self.runs.append(len(tokens))
        ids = [torch.tensor(list(t)) for t in tokens]
        return torch.stack([self.read(EMBED[t], t) @ UNEMBED for t in ids])


def members(ids: Tensor, read: Callable[[Tensor, Tensor], Tensor], values: Tensor) -> list[Linearization]:
    """The toy linearised at several values of one prompt's embeddings, in one pass."""
    leaf = values.clone().requires_grad_()
    y = read(leaf, ids)
    graph = Graph(leaf, y, 1)
    texts = tuple(f"<{t}>" for t in ids.tolist())
    return [
        Linearization(
            y=y[row].detach(),
            logits=(y[row] @ UNEMBED).detach(),
            tokens=ids,
            str_tokens=texts,
            head=Unembedding(UNEMBED),
            graph=graph,
            row=row,
            rerun=ToyRerun(read, ids),
            decode=lambda t: f"<{t}>",
        )
        for row in range(len(values))
    ]


def toy(tokens: Sequence[int], read: Callable[[Tensor, Tensor], Tensor] = read_key) -> Linearization:
    """A toy linearised at a prompt."""
    ids = torch.tensor(list(tokens))
    return members(ids, read, EMBED[ids][None])[0]
