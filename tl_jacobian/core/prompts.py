"""What a caller may hand in: prompts, checked and cut at the explained position, and targets as one token id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, SupportsIndex, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.core.chat import is_conversation, read_conversation
from tl_jacobian.core.host.base import Host
from tl_jacobian.errors import PromptError, TargetError
from tl_jacobian.results.arguments import excerpt, ids, is_id, warn
from tl_jacobian.results.arguments import position as place
from tl_jacobian.results.tokens import Regions


def is_batch(prompt: Any) -> bool:
    """Whether this is a list of prompts rather than one (a list of ids is one)."""
    if hasattr(prompt, "ndim"):  # a tensor or a numpy array
        return prompt.ndim == 2
    if is_conversation(prompt):
        return False
    return isinstance(prompt, (list, tuple)) and any(not is_id(item) for item in prompt)


def as_list(positions: Any) -> Any:
    """Positions in a tensor or a numpy array as plain integers."""
    return positions.tolist() if hasattr(positions, "tolist") else positions


class Read(NamedTuple):
    """One prompt, cut off after the last explained position.

    Attributes:
        tokens: ids.
        positions: the explained ones, counted from the start.
        regions: of a conversation, whose each token is.
    """

    tokens: list[int]
    positions: list[int]
    regions: Regions = MappingProxyType({})

    def at(self, positions: Sequence[Any]) -> Read:
        """The same tokens, explained at other positions and cut off after the last of them.

        Raises:
            PromptError: one is no integer, or outside the prompt.
        """
        counted = [place(position, len(self.tokens)) for position in positions]
        return Read(self.tokens[: max(counted) + 1], counted, self.regions)


def read_prompt(host: Host, prompt: Any, positions: Sequence[Any], prepend_bos: bool | None) -> Read:
    """Token ids of one prompt, checked and cut off after the last of ``positions``.

    Raises:
        PromptError: what is wrong, with the value and the remedy.
    """
    if is_conversation(prompt):
        tokens, regions = read_conversation(host, prompt, prepend_bos)
    else:
        tokens, regions = _text_ids(host, prompt, prepend_bos) if isinstance(prompt, str) else _ids(prompt), {}
    if not tokens:
        raise PromptError(f"the prompt {excerpt(prompt)} is empty, expected at least one token")
    _check_range(tokens, host.d_vocab)
    read = Read(tokens, [], regions).at(positions)
    if host.n_ctx is not None and len(read.tokens) > host.n_ctx:
        raise PromptError(
            f"the prompt has {len(read.tokens)} tokens up to the explained position, but the model's context "
            f"is n_ctx={host.n_ctx}; shorten it by {len(read.tokens) - host.n_ctx} tokens"
        )
    return read


def _text_ids(host: Host, text: str, prepend_bos: bool | None) -> list[int]:
    if not text:
        raise PromptError("the prompt '' is empty, expected text or token ids")
    tokens = host.tokenize(text, prepend_bos)
    if len(tokens) > 1 and tokens[0] == tokens[1] and host.is_bos(tokens[0]):
        warn(f"the prompt begins with two BOS tokens ({text[:30]!r}...): pass prepend_bos=False")
    return tokens


def _ids(prompt: Any) -> list[int]:
    if (found := ids(prompt)) is not None:
        return found
    if isinstance(prompt, (Tensor, np.ndarray)):
        hint = "; that is a batch of one: pass tokens[0]" if prompt.ndim == 2 and len(prompt) == 1 else ""
        raise PromptError(
            f"token ids have shape {tuple(prompt.shape)} and dtype {prompt.dtype}, expected integers (pos,){hint}"
        )
    texts = isinstance(prompt, (list, tuple)) and all(isinstance(p, str) for p in prompt)
    hint = "; pass one prompt at a time here" if texts else ""
    raise PromptError(
        f"can't read {excerpt(prompt)} as a prompt; expected text, a list of token ids, or a tensor{hint}"
    )


def _check_range(tokens: Sequence[int], d_vocab: int) -> None:
    for at, token in enumerate(tokens):
        if not 0 <= token < d_vocab:
            raise PromptError(f"token id {token} at position {at} is out of range, expected 0 to {d_vocab - 1}")


Target = str | SupportsIndex  # an id may be an int, or a scalar of torch or numpy


@runtime_checkable
class Vocabulary(Protocol):
    """What tells one token from another; a linearization does."""

    @property
    def logits(self) -> Float[Tensor, " d_vocab"]: ...

    @property
    def encode(self) -> Callable[[str], list[int]] | None: ...

    @property
    def decode(self) -> Callable[[int], str]: ...


def resolve_target(words: Vocabulary, target: Target | None) -> int:
    """The token id of a target: text, an id, or None for the most probable next token.

    Raises:
        TargetError: the text isn't exactly one token, or the id is outside the vocabulary.
    """
    if target is None:
        return int(words.logits.argmax())
    if isinstance(target, str):
        return _single_token(words, target)
    if not is_id(target):
        raise TargetError(f"target {excerpt(target)} is a {type(target).__name__}, expected text, a token id or None")
    target = int(target)
    if not 0 <= target < len(words.logits):
        raise TargetError(f"target id {excerpt(target)} is out of range, expected 0 to {len(words.logits) - 1}")
    return target


def _single_token(words: Vocabulary, text: str) -> int:
    if words.encode is None:
        raise TargetError(f"target {text!r} is text, but this model has no tokenizer; pass a token id")
    ids = words.encode(text)
    if len(ids) == 1:
        return ids[0]
    pieces = ", ".join(f"{words.decode(i)!r} ({i})" for i in ids) or "nothing"
    spaced = text if text.startswith(" ") else " " + text
    hint = f"; {spaced!r} is one token" if spaced != text and len(words.encode(spaced)) == 1 else ""
    raise TargetError(
        f"target {text!r} is {len(ids)} tokens, expected one: {pieces}{hint}. Pass one of these, or a token id"
    )


def name_of(words: Vocabulary, token: int) -> str:
    """A token as it is written in results: ``' Paris'``."""
    return repr(words.decode(token))
