"""A corpus' prompts as a model's token ids, checked as ``linearize`` checks them."""

from __future__ import annotations

from typing import Any

from tl_jacobian.corpus.prompt import CorpusPrompt
from tl_jacobian.corpus.tokenized import Tokenize
from tl_jacobian.host.resolve import resolve
from tl_jacobian.prompts import read_prompt


def tokenizer_of(model: Any, *, prepend_bos: bool | None = None) -> Tokenize:
    """From a prompt to its token ids, for :func:`run_corpus`.

    It raises PromptError for a prompt that is empty, too long for the model, or has ids out of range.

    Args:
        model: a HookedTransformer or a TransformerBridge.
        prepend_bos: whether text gets a BOS token in front; default: the model's own setting.
    """
    host = resolve(model)

    def tokenize(prompt: CorpusPrompt) -> list[int]:
        given = prompt.text if prompt.tokens is None else list(prompt.tokens)
        return read_prompt(host, given, [-1], prepend_bos).tokens

    return tokenize
