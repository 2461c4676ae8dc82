"""All prompts of a corpus as token ids, checked before anything is computed."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tl_jacobian.corpus.prompt import CorpusPrompt
from tl_jacobian.errors import JacobianScopeError

Tokenize = Callable[[CorpusPrompt], Sequence[int]]


class Corpus:
    """Prompts with their token ids, four bytes an id, or with what is wrong with them.

    Attributes:
        prompts: as they were read.
        errors: of the prompts that can't be used, by place.
    """

    def __init__(self, prompts: Sequence[CorpusPrompt], tokenize: Tokenize) -> None:
        self.prompts = prompts
        self.errors: dict[int, str] = {}
        self._tokens = [self._tokenized(at, prompt, tokenize) for at, prompt in enumerate(prompts)]

    def _tokenized(self, at: int, prompt: CorpusPrompt, tokenize: Tokenize) -> array[int]:
        if prompt.error is not None:
            self.errors[at] = prompt.error
            return array("i")
        try:
            tokens = array("i", tokenize(prompt))
        except JacobianScopeError as error:
            self.errors[at] = str(error)
            return array("i")
        if not tokens:
            self.errors[at] = "the prompt has no tokens, expected at least one"
        return tokens

    def __len__(self) -> int:
        return len(self.prompts)

    def lengths(self) -> list[int]:
        """Tokens of each prompt; 0 where it can't be used."""
        return [len(tokens) for tokens in self._tokens]

    def __getitem__(self, at: int) -> CorpusPrompt:
        """A prompt as a job is handed it: with its tokens."""
        return replace(self.prompts[at], tokens=tuple(self._tokens[at]))

    def digest(self) -> str:
        """Of everything that was read."""
        return _digest([p.index, p.id, p.text, p.tokens, p.target, p.error] for p in self.prompts)

    def tokens_digest(self) -> str:
        """Of what the tokenizer made of it."""
        return _digest([self.errors.get(at), *tokens] for at, tokens in enumerate(self._tokens))


def _digest(rows: Any) -> str:
    total = hashlib.sha256()
    for row in rows:
        total.update(json.dumps(row).encode() + b"\n")
    return total.hexdigest()
