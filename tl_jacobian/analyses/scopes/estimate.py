"""Fisher traces at a fraction of their cost: what matters exactly, the rest by random probes.

tr(J_t^T F J_t) is wanted for every token t, and one backward pass gives v^T J_t for all of
them. F's leading eigenvectors alone are a poor choice of v: its spectrum has a heavy tail, and
how far a direction reaches back is up to J. What the tokens' matrices F^1/2 J_t J_t^T F^1/2
have in common is found by block subspace iteration on their weighted sum:

1. pull back a few leading eigenvectors of F;
2. push what came back forward again (a Jacobian-vector product): y = sum_t w_t J_t J_t^T v,
   with w_t = 1 / score_t, so that no token dominates;
3. pull back the span of those y, exactly too;
4. probe the remainder of F (:class:`~tl_jacobian.core.linalg.fisher.Deflation`) with random signs.

Whatever the first three steps find, the estimate is unbiased; they only make it precise.
``benchmarks/fisher_estimators.py`` compares this with the alternatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.core.answer import AnswerLinearization
from tl_jacobian.core.linalg.eigen import eigenpairs, rough_eigenvectors
from tl_jacobian.core.linalg.fisher import AnswerFactor, Deflation, Factor, FisherFactor, signs
from tl_jacobian.core.linalg.gram import GramSums
from tl_jacobian.core.linearization import Linearized
from tl_jacobian.core.products import Slot, by_pass, pulled, squared_norms, squares

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

    Directions to pull back are collected first, those to be taken exactly (:meth:`take`) and random
    ones (:meth:`draw`), so that :func:`run` can send them through the model together.

    Attributes:
        seed: of the random signs.
        exact: the first term; ``(pos,)``.
        latest: the directions taken last; ``(k, d_model)``, of an answer the rows of y one after the other.
        ahead: where one step of subspace iteration takes them, if that has been computed.
        waiting: directions that :func:`run` is to pull back, exact ones first; ``n_taken`` of them.
        probes: squared norms of pulled-back random directions, each ``(n, pos)``.
        n_draws: how often random signs were drawn, which tells what to draw next.
        pairs: the same sums for every two tokens, from the same products; None: they aren't wanted.
    """

    lin: Linearized
    seed: int
    deflation: Deflation
    exact: Tensor
    latest: Tensor
    waiting: Tensor
    ahead: Tensor | None = None
    probes: list[Tensor] = field(default_factory=list)
    n_taken: int = 0
    n_products: int = 0
    n_steps: int = 0
    n_draws: int = 0
    pairs: GramSums | None = None

    @staticmethod
    def of(lin: Linearized, seed: int, pairs: GramSums | None = None) -> Traces:
        factor = factor_of(lin)
        exact = torch.zeros(len(lin.tokens), dtype=torch.float64)
        nothing = factor.logits.new_empty(0, factor.size)
        return Traces(lin, seed, Deflation.none(factor), exact, nothing, nothing, pairs=pairs)

    @property
    def n_probes(self) -> int:
        return sum(map(len, self.probes))

    def take(self, y: Float[Tensor, "k d_model"]) -> None:
        """Take the span of y out exactly. Probes so far saw a larger remainder; they are dropped."""
        before = len(self.deflation)
        self.deflation = self.deflation.extended(y)
        self.latest = self.waiting = self.deflation.directions[before:]
        self.n_taken = len(self.latest)
        self.ahead = None
        self.forget_probes()

    def forget_probes(self) -> None:
        self.probes.clear()
        if self.pairs is not None:
            self.pairs.forget_probes()

    def draw(self, n: int) -> None:
        """Probe the remainder with n more random directions."""
        factor = self.deflation.factor
        seeds = [(self.seed + self.n_draws + i * _APART) % 2**63 for i in range(len(factor.n_signs))]
        drawn = factor.probe([_signs(n, m, seed) for m, seed in zip(factor.n_signs, seeds, strict=True)])
        self.waiting = torch.cat([self.waiting, self.deflation.remainder(drawn)])
        self.n_draws += 1

    def estimate(self) -> Estimate:
        if not self.probes:
            return Estimate(self.exact, torch.zeros_like(self.exact), self.n_products, len(self.deflation), 0)
        probes = torch.cat(self.probes)
        scores, stderr = self.exact + probes.mean(0), standard_error(probes)
        return Estimate(scores, stderr, self.n_products, len(self.deflation), len(probes))

    def missing(self, rtol: float) -> int:
        """Probes to go until the relative error is ``rtol``: it falls with the square root of their number."""
        ratio = self.estimate().relative_error / rtol
        return math.ceil(self.n_probes * (ratio**2 - 1))


def factor_of(lin: Linearized) -> Factor:
    """The Fisher factor of what a linearization explains: one position's, or those of an answer's."""
    if isinstance(lin, AnswerLinearization):
        return AnswerFactor(tuple(FisherFactor(lin.unembedding, logits) for logits in lin.logits))
    return FisherFactor(lin.unembedding, lin.logits)


def standard_error(probes: Float[Tensor, "n pos"]) -> Float[Tensor, " pos"]:
    """Of the mean of n probes, for every token.

    A probe is a sum of squares: positive, and skewed as a gamma variable is. Where few of them happen to be small, so
    is their spread, and s / sqrt(n) is too small just when the mean is: with 8 probes the squared error was 1.7 to 2.8
    squared standard errors on average, where Student's t has 1.4. Two things mend that (1.1 to 1.5; with 16 probes
    0.9 to 1.2):

    - The probes of different tokens have much the same relative spread r sqrt(n) (0.3 to 1), so a token's is taken to
      be at least the median one: tokens don't get a small error by luck.
    - Of a gamma variable's mean m with relative error r, m r is too small a scale by sqrt(1 + 5 r^2), to second order.

    >>> standard_error(torch.tensor([[1.0, 2.0], [3.0, 2.0]])).tolist()
    [1.5, 0.0]
    """
    mean = probes.mean(0)
    some = mean > 0
    squared = torch.where(some, probes.var(0) / (len(probes) * mean.square()), 0.0)
    if some.any():
        squared = squared.maximum(squared[some].median())
    return mean * (squared * (1 + 5 * squared)).sqrt()


def begin(traces: Sequence[Traces], k: int, push: Push | None) -> None:
    """Take out k leading eigenvectors of F, roughly: those of its heaviest rows; look one step ahead."""
    for t in traces:
        t.take(rough_eigenvectors(t.deflation.factor, k, rows=32 * k))
    run(traces, push)


def deepen(traces: Sequence[Traces], push: Push) -> None:
    """Take out what one step of subspace iteration leads to; it is pulled back by the next :func:`run`."""
    behind = [t for t in traces if t.ahead is None]
    for t in behind:
        t.waiting, t.n_taken = t.latest, 0  # known already: only the way ahead is new
    if behind:
        run(behind, push, keep=False)
    for t in traces:
        assert t.ahead is not None  # run() has just seen to it
        t.take(t.ahead)
        t.n_steps += 1


def run(traces: Sequence[Traces], push: Push | None = None, *, keep: bool = True) -> None:
    """Pull back what is waiting; with ``push``, what comes of it forward again, for the next step.

    Args:
        keep: whether the products add to the traces.
    """
    v = [t.waiting.reshape(-1, *t.lin.y.shape) for t in traces]
    squared = [torch.empty(len(own), len(t.exact), dtype=torch.float64) for t, own in zip(traces, v, strict=True)]
    ahead = [torch.zeros_like(own) for own in v]
    ready: list[tuple[list[Slot], Tensor]] = []  # products that go forward again

    def go_forward() -> None:
        """All that is ready: weighted by what all of it gave, and on a way that is recorded only once."""
        assert push is not None
        weighted = [g * _weights(traces, slots, g.shape[:-1]).to(g)[..., None] for slots, g in ready]
        dy = push(torch.cat(weighted))
        for (slots, _), part in zip(ready, dy.split([len(grads) for _, grads in ready]), strict=True):
            for at, i, m in slots:
                ahead[m][i] = part[at, list(traces[m].lin.rows)].reshape(traces[m].lin.y.shape).to(ahead[m])
        ready.clear()

    for slots, grads in pulled([t.lin for t in traces], v):
        norms = squared_norms(grads)
        for at, i, m in slots:
            squared[m][i] = norms[at, traces[m].lin.prompt_row, : len(traces[m].exact)]
            if keep and i < traces[m].n_taken:
                traces[m].exact += squared[m][i]
            if keep and (pairs := traces[m].pairs) is not None:
                g = grads[at, traces[m].lin.prompt_row, None, : pairs.n]
                pairs.take(g) if i < traces[m].n_taken else pairs.probe(g)
        if push is not None:
            graph = traces[0].lin.graph
            if sum(len(one) for _, one in ready) + len(grads) > graph.held:
                go_forward()
            ready.append((slots, grads))
    if ready:
        go_forward()
    for m, t in enumerate(traces):
        n = len(t.waiting)
        t.ahead = None if push is None else ahead[m].reshape(n, -1)
        t.n_products += n if push is None else 2 * n
        if keep and n > t.n_taken:
            t.probes.append(squared[m][t.n_taken : n])
        t.waiting, t.n_taken = t.waiting[:0], 0


def finish(traces: Sequence[Traces]) -> None:
    """Take everything exactly: no error left."""
    for t in traces:
        t.exact = torch.zeros_like(t.exact)
        if t.pairs is not None:
            t.pairs.restart()
        for one in t.lin if isinstance(t.lin, AnswerLinearization) else [t.lin]:
            directions = eigenpairs(FisherFactor(one.unembedding, one.logits), one.d_model).scaled()
            (found,) = squares([one], [directions], None if t.pairs is None else [t.pairs.of_first(len(one.tokens))])
            t.exact[: found.shape[1]] += found.sum(0)
            t.n_products += len(directions)
        t.deflation = Deflation.none(t.deflation.factor)
        t.forget_probes()


@lru_cache(maxsize=1)
def _signs(n: int, d_vocab: int, seed: int) -> Tensor:
    """The same for all prompts of a batch with one seed, which ask one after the other."""
    return signs((n, d_vocab), torch.Generator().manual_seed(seed))


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


_APART = 0x9E3779B97F4A7C15  # between the seeds of an answer's positions: no two ever draw the same signs
# Directions of one step of subspace iteration, and probes; measured by benchmarks/fisher_estimators.py.
_BLOCK = 12
_FIRST_PROBES = 16  # fewer say too little about their own spread
_MORE_PROBES = 8
_MAX_STEPS = 6
# Where F's leading eigenvectors are all there is (no second derivatives), more of them.
_LEADING = 32


class Budget(NamedTuple):
    """How many products may be spent, or (None) how precise the scores must get."""

    n_products: int | None
    rtol: float


def estimate(
    lins: Sequence[Linearized], budget: Budget, seeds: Sequence[int], pairs: Sequence[GramSums] | None = None
) -> list[Estimate]:
    """Fisher traces of linearizations, each as it would come out alone.

    Args:
        lins: members of one batch, or one linearization.
        budget: products, or accuracy.
        seeds: of the random signs of each.
        pairs: of each, to which its products are added.
    """
    found: dict[int, Estimate] = {}
    for group in by_pass(lins):
        sums = [None if pairs is None else pairs[i] for i in group]
        made = _estimate([lins[i] for i in group], budget, [seeds[i] for i in group], sums)
        found |= zip(group, made, strict=True)
    return [found[i] for i in range(len(lins))]


def _estimate(
    lins: Sequence[Linearized], budget: Budget, seeds: Sequence[int], pairs: Sequence[GramSums | None]
) -> list[Estimate]:
    """:func:`estimate` of linearizations of one forward pass, which share backward passes."""
    traces = [Traces.of(*one) for one in zip(lins, seeds, pairs, strict=True)]
    push = _pusher(lins)
    if budget.n_products is None:
        _reach(traces, budget.rtol, push)
    else:
        _spend(traces, budget.n_products, push)
    return [t.estimate() for t in traces]


def _pusher(lins: Sequence[Linearized]) -> Push | None:
    """Jacobian-vector products, or None for a model whose backward pass can't be differentiated."""
    try:
        return lins[0].graph.pusher()
    except RuntimeError as error:
        if "not implemented" in str(error):  # fused attention kernels have no second derivative
            return None
        raise


def _spend(traces: list[Traces], n_products: int, push: Push | None) -> None:
    """About half of a fixed budget for exact directions, the rest for probes."""
    if n_products >= min(t.deflation.factor.size for t in traces):
        return finish(traces)
    block = min(_BLOCK, n_products // 5, (n_products - _MORE_PROBES) // 3)
    if push is None:
        begin(traces, min(_LEADING, n_products - _MORE_PROBES), None)
    elif block:
        begin(traces, block, push)
        most = min(n_products // 2, n_products - _MORE_PROBES)
        for _ in range((most - block) // (2 * block) - 1):
            deepen(traces, push)
            run(traces, push)
        deepen(traces, push)
    for t in traces:
        t.draw(n_products - t.n_products - t.n_taken)
    run(traces)


def _reach(traces: list[Traces], rtol: float, push: Push | None) -> None:
    """Until the error is small enough: deeper while that is cheaper than probes, exact where all else is dearer."""
    begin(traces, _LEADING if push is None else _BLOCK, push)
    if push is not None:
        deepen(traces, push)
    active = traces
    while active:
        for t in active:
            t.draw(_MORE_PROBES if t.probes else _FIRST_PROBES)
        run(active)
        active = [t for t in active if t.missing(rtol) > 0]
        deeper = [t for t in active if push and t.missing(rtol) > 4 * _BLOCK and t.n_steps < _MAX_STEPS]
        hopeless = [t for t in active if t not in deeper and t.n_products + t.missing(rtol) > t.deflation.factor.size]
        if deeper and push:
            deepen(deeper, push)
        if hopeless:
            finish(hopeless)
        active = [t for t in active if t not in hopeless]
