"""One prompt of a corpus, as it was read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CorpusPrompt:
    """One prompt of a corpus.

    Attributes:
        index: its place in the corpus, from 0.
        id: what the corpus calls it; its index, where the corpus says nothing.
        text: the prompt, or None where it is given as tokens.
        tokens: token ids, or None where it is text; what a job is handed always has them.
        target: token to explain, for jobs that have a target; as text or id.
        error: why it can't be read, or None. The run goes on without it and records this.

    >>> CorpusPrompt(0, "0", "The capital of France is", target=" Paris").tokens is None
    True
    """

    index: int
    id: str
    text: str | None = None
    tokens: tuple[int, ...] | None = None
    target: str | int | None = None
    error: str | None = None
