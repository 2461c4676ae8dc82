"""AlignedWord: one target word of a word alignment, and the source words that drive its prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from tl_jacobian.attribution import Ranked
from tl_jacobian.errors import ArgumentError
from tl_jacobian.plain import is_id

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class AlignedWord:
    """One target word of an alignment; :meth:`WordAlignment.row` makes it.

    Attributes:
        alignment: the :class:`~tl_jacobian.word_alignment.WordAlignment`.
        index: of the target word.
    """

    alignment: Any  # its module imports this one
    index: int

    @property
    def word(self) -> str:
        return self.alignment.target_words[self.index]

    @property
    def scores(self) -> Float[Tensor, " sources"]:
        """Influence of each source word."""
        return self.alignment.matrix[self.index]

    @property
    def source_share(self) -> float:
        """Influence of the source words together, of that of everything before the target word.

        Shares of a trace, or of a squared norm: what adds up over tokens. NaN where nothing else is known to
        have influence (an alignment of a matrix alone).
        """
        square = 1 if self.alignment.combine == "sum" else 2
        whole = self.alignment.influence[self.index].double().pow(square).sum().item()
        sources = self.scores.double().pow(square).sum().item()
        return sources / whole if whole > sources else math.nan

    def top(self, k: int = 3) -> list[Ranked]:
        """The ``k`` source words that drive it most."""
        order = self.scores.argsort(descending=True, stable=True)[: max(k, 0)].tolist()
        return [Ranked(i, self.alignment.source_words[i], self.scores[i].item()) for i in order]

    def __repr__(self) -> str:
        best = ", ".join(f"{text!r} {score:.3g}" for _, text, score in self.top())
        return f"AlignedWord({self.word!r}: {best})"

    def show(self) -> None:
        """Draw the text, source words shaded and the target word framed: HTML in Jupyter, else in the terminal."""
        from tl_jacobian.render import show_aligned_word

        show_aligned_word(self)

    def to_html(self, path: str | Path) -> Path:
        """Write the picture as one self-contained page that works offline; returns its path."""
        from tl_jacobian.render import write_alignment

        return write_alignment(self.alignment, path, only=self.index)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the picture with matplotlib (extra ``plot``)."""
        from tl_jacobian.render import plot_aligned_word

        return plot_aligned_word(self, ax)

    def _repr_html_(self) -> str:
        from tl_jacobian.render import notebook_alignment

        return notebook_alignment(self.alignment, only=self.index)


def place_of(word: str | int, words: Sequence[str]) -> int:
    """Which target word is meant, by its text or its index; errors: :meth:`WordAlignment.row`."""
    n = len(words)
    if is_id(word):
        if not -n <= int(word) < n:
            raise ArgumentError(f"target word {word} of {n}, expected {-n} to {n - 1}")
        return int(word) % n
    found = [i for i, text in enumerate(words) if text == word]
    if len(found) != 1:
        names = ", ".join(f"{i} {text!r}" for i, text in enumerate(words))
        raise ArgumentError(
            f"{word!r} is {len(found)} target words, expected one of {names}; an index tells them apart"
        )
    return found[0]
