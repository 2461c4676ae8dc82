"""Sums of Gram matrices: inner products of what directions pull back at every two places.

With g_t = v^T J_t the scores are sums of ||g_t||^2 over directions v; the same g give g_s . g_t for every pair. Some
directions are taken exactly, of others (random probes) the mean counts, and their spread says how good it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(eq=False)
class GramSums:
    """The sum over exact directions plus the mean over probes; float64, on the CPU.

    Attributes:
        n: places.
        exact: ``(n, n)``, of the directions taken exactly.
        n_probes: how many random ones there were.

    >>> sums = GramSums(2)
    >>> sums.take(torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]))
    >>> sums.mean.tolist()
    [[1.0, 1.0], [1.0, 2.0]]
    """

    n: int
    exact: Tensor = field(init=False)
    n_probes: int = field(init=False, default=0)
    _total: Tensor = field(init=False)
    _squares: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.exact = torch.zeros(self.n, self.n, dtype=torch.float64)
        self.forget_probes()

    def forget_probes(self) -> None:
        """Probes so far are of something else."""
        self.n_probes = 0
        self._total, self._squares = (torch.zeros_like(self.exact) for _ in range(2))

    def restart(self) -> None:
        """Everything is taken anew."""
        self.exact.zero_()
        self.forget_probes()

    def of_first(self, n: int) -> GramSums:
        """The sums of the first n places alone, which add to these: later places have no part in some directions."""
        part = GramSums(n)
        part.exact = self.exact[:n, :n]
        return part

    def take(self, g: Float[Tensor, "k n d"], power: int = 0) -> None:
        """Directions taken exactly.

        Args:
            g: what each of them pulled back, float32 or better.
            power: of two, by which its products are to be multiplied: g was scaled.
        """
        for gram in _grams(g):
            self.exact += torch.ldexp(gram, torch.tensor(power))

    def probe(self, g: Float[Tensor, "k n d"]) -> None:
        """Random directions."""
        for gram in _grams(g):
            self.n_probes += 1
            self._total += gram
            self._squares += gram.square()

    @property
    def mean(self) -> Float[Tensor, "n n"]:
        """The sum of exact directions, and what the probes say of the rest."""
        return self.exact + self._total / max(self.n_probes, 1)

    @property
    def stderr(self) -> Float[Tensor, "n n"]:
        """Of each entry, from the spread of the probes; zero without any.

        Few probes may happen to lie close: a pair's spread, relative to the root of the product of both places' own
        means, is taken to be at least the median pair's; and the variance is that of Student's t, which knows how few
        they are.
        """
        if self.n_probes < 2:
            return torch.zeros_like(self.exact)
        mean = self._total / self.n_probes
        variance = (self._squares / self.n_probes - mean.square()).clamp(min=0) / max(self.n_probes - 3, 1)
        own = mean.diagonal().clamp(min=0)
        size = torch.outer(own, own)
        some = size > 0
        if not some.any():
            return variance.sqrt()
        relative = torch.where(some, variance / torch.where(some, size, 1.0), 0.0)
        relative = torch.where(some, relative.maximum(relative[some].median()), 0.0)
        return (relative * size).sqrt()


def _grams(g: Float[Tensor, "k n d"]) -> Iterator[Float[Tensor, "n n"]]:
    """Of one direction at a time, at about unit size: products of small numbers lose digits."""
    for one in g:
        power = math.frexp(one.abs().max().item())[1]
        one = torch.ldexp(one, torch.tensor(-power, device=one.device))
        yield torch.ldexp((one @ one.T).to("cpu", torch.float64), torch.tensor(2 * power))
