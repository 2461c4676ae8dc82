"""One linearization's Fisher traces in the making: an exact part that grows, and probes of the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.linalg.deflation import Deflation
from tl_jacobian.linalg.fisher import FisherFactor, signs
from tl_jacobian.linalg.spectrum import eigenpairs, rough_eigenvectors
from tl_jacobian.linearization import Linearization
from tl_jacobian.products import Slot, pulled, squared_norms, squares

Push = Callable[[Tensor], Tensor]


class Estimate(NamedTuple):
    """Scores with their standard errors, and what they took.

    Attributes:
        scores, stderr: ``(pos,)``; errors are zero where everything was taken exactly.
        n_products: with the Jacobian, from either side.
        n_exact, n_probes: directions taken exactly, and random ones.
    """

    scores: Float[Tensor, " pos"]
    stderr: Float[Tensor, " pos"]
    n_products: int
    n_exact: int
    n_probes: int

    @property
    def relative_error(self) -> float:
        """Expected |estimate - true| / score, averaged over the tokens that have a score.

        For a normal error that is sqrt(2 / pi) standard errors.
        """
        some = self.scores > 0
        relative = self.stderr[some] / self.scores[some]
        return math.sqrt(2 / math.pi) * relative.mean().item() if some.any() else 0.0


@dataclass(eq=False)
class Traces:
    """tr(F J_t J_t^T) = what the deflated directions add up to + the mean of the probes.

    Attributes:
        exact: the first term; ``(pos,)``.
        latest: directions of the latest step of subspace iteration; ``(k, d_model)``.
        probes: squared norms of pulled-back random directions, each ``(n, pos)``.
        ahead: where one step of subspace iteration takes them, if that has been computed.
        n_draws: how often random signs were drawn, which tells what to draw next.
    """

    lin: Linearization
    deflation: Deflation
    exact: Tensor
    latest: Tensor
    ahead: Tensor | None = None
    probes: list[Tensor] = field(default_factory=list)
    n_products: int = 0
    n_steps: int = 0
    n_draws: int = 0

    @staticmethod
    def of(lin: Linearization) -> Traces:
        factor = FisherFactor(lin.unembedding, lin.logits)
        exact = torch.zeros(len(lin.tokens), dtype=torch.float64)
        return Traces(lin, Deflation.none(factor), exact, factor.logits.new_empty(0, lin.d_model))

    @property
    def n_probes(self) -> int:
        return sum(map(len, self.probes))

    def estimate(self) -> Estimate:
        if not self.probes:
            return Estimate(self.exact, torch.zeros_like(self.exact), self.n_products, len(self.deflation), 0)
        probes = torch.cat(self.probes)
        error = probes.std(dim=0) / math.sqrt(len(probes))
        return Estimate(self.exact + probes.mean(0), error, self.n_products, len(self.deflation), len(probes))

    def missing(self, rtol: float) -> int:
        """Probes to go until the relative error is ``rtol``: it falls with the square root of their number."""
        ratio = self.estimate().relative_error / rtol
        return math.ceil(self.n_probes * (ratio**2 - 1))


def begin(traces: Sequence[Traces], k: int, push: Push | None) -> None:
    """Take out k leading eigenvectors of F, roughly: those of its heaviest rows."""
    for t in traces:
        _deflate(t, rough_eigenvectors(t.deflation.factor, k, rows=32 * k))
    _pull_latest(traces, push)


def deepen(traces: Sequence[Traces], push: Push) -> None:
    """One step of subspace iteration: take out what the latest directions' products led to.

    Probes so far saw a larger remainder; they are dropped.
    """
    behind = [t for t in traces if t.ahead is None]
    if behind:
        _pull_latest(behind, push, again=True)
    for t in traces:
        _deflate(t, t.ahead)
        t.n_steps += 1
        t.probes.clear()
    _pull_latest(traces, None)


def probe(traces: Sequence[Traces], n: int, seed: int) -> None:
    """Pull back n more random directions of the remainder."""
    drawn: dict[int, Tensor] = {}
    v = []
    for t in traces:
        factor = t.deflation.factor
        if t.n_draws not in drawn:
            generator = torch.Generator().manual_seed((seed + t.n_draws) % 2**63)
            drawn[t.n_draws] = signs((n, factor.head.d_vocab), generator).to(factor.logits.device)
        v.append(t.deflation.remainder(factor.pull(drawn[t.n_draws])))
        t.n_draws += 1
        t.n_products += n
    for t, s in zip(traces, squares([t.lin for t in traces], torch.stack(v, dim=1)), strict=True):
        t.probes.append(s)


def finish(traces: Sequence[Traces]) -> None:
    """Take everything exactly: no error left."""
    v = [eigenpairs(t.deflation.factor, t.lin.d_model).scaled() for t in traces]
    for t, s in zip(traces, squares([t.lin for t in traces], torch.stack(v, dim=1)), strict=True):
        t.exact = s.sum(0)
        t.n_products += t.lin.d_model
        t.deflation = Deflation.none(t.deflation.factor)
        t.probes.clear()


def _deflate(t: Traces, y: Float[Tensor, "_ d_model"]) -> None:
    before = len(t.deflation)
    t.deflation = t.deflation.extended(y)
    t.latest = t.deflation.directions[before:]


def _pull_latest(traces: Sequence[Traces], push: Push | None, *, again: bool = False) -> None:
    """Pull the latest directions back; with ``push``, their products forward again, for the next step.

    Args:
        again: they have been pulled before, and only the way forward is new.
    """
    v = _stack([t.latest for t in traces])
    ahead = torch.zeros_like(v)
    for slots, grads in pulled([t.lin for t in traces], v):
        norms = squared_norms(grads)
        if not again:
            for at, _, m in slots:
                traces[m].exact += norms[at, traces[m].lin.prompt_row, : len(traces[m].exact)]
        if push is not None:
            dy = push(grads * _weights(traces, slots, norms.shape).to(grads)[..., None])
            for at, i, m in slots:
                ahead[i, m] = dy[at, traces[m].lin.row].to(ahead)
    for m, t in enumerate(traces):
        k = len(t.latest)
        t.ahead = None if push is None else ahead[:k, m]
        t.n_products += k if push is None else 2 * k


def _weights(
    traces: Sequence[Traces], slots: Sequence[Slot], shape: tuple[int, ...]
) -> Float[Tensor, "chunk batch pos"]:
    """1 / score of every token up to a common factor, bounded, so that none dominates."""
    weights = torch.zeros(shape, dtype=torch.float64)
    for at, _, m in slots:
        t = traces[m]
        largest = t.exact.max().clamp(min=torch.finfo(torch.float64).tiny)
        weights[at, t.lin.prompt_row, : len(t.exact)] = largest / t.exact.clamp(min=1e-6 * largest)
    return weights


def _stack(directions: Sequence[Float[Tensor, "_ d_model"]]) -> Float[Tensor, "k traces d_model"]:
    """Directions side by side; where one has fewer, zeros."""
    return torch.nn.utils.rnn.pad_sequence(list(directions))
