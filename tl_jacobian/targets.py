"""Targets of Semantic Scope: from what a user types to one token id."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, SupportsIndex, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from tl_jacobian.errors import TargetError
from tl_jacobian.plain import is_id

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
        raise TargetError(f"target {target!r} is a {type(target).__name__}, expected text, a token id or None")
    target = int(target)
    if not 0 <= target < len(words.logits):
        raise TargetError(f"target id {target} is out of range, expected 0 to {len(words.logits) - 1}")
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
