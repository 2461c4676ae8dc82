"""Targets of Semantic Scope: from what a user types to one token id."""

from __future__ import annotations

from typing import SupportsIndex

from tl_jacobian.errors import TargetError
from tl_jacobian.linearization import Linearization
from tl_jacobian.plain import is_id

Target = str | SupportsIndex  # an id may be an int, or a scalar of torch or numpy


def resolve_target(lin: Linearization, target: Target | None) -> int:
    """The token id of a target: text, an id, or None for the most probable next token.

    Raises:
        TargetError: the text isn't exactly one token, or the id is outside the vocabulary.
    """
    if target is None:
        return int(lin.logits.argmax())
    if isinstance(target, str):
        return _single_token(lin, target)
    if not is_id(target):
        raise TargetError(f"target {target!r} is a {type(target).__name__}, expected text, a token id or None")
    target = int(target)
    if not 0 <= target < len(lin.logits):
        raise TargetError(f"target id {target} is out of range, expected 0 to {len(lin.logits) - 1}")
    return target


def _single_token(lin: Linearization, text: str) -> int:
    if lin.encode is None:
        raise TargetError(f"target {text!r} is text, but this model has no tokenizer; pass a token id")
    ids = lin.encode(text)
    if len(ids) == 1:
        return ids[0]
    pieces = ", ".join(f"{lin.decode(i)!r} ({i})" for i in ids) or "nothing"
    spaced = text if text.startswith(" ") else " " + text
    hint = f"; {spaced!r} is one token" if spaced != text and len(lin.encode(spaced)) == 1 else ""
    raise TargetError(
        f"target {text!r} is {len(ids)} tokens, expected one: {pieces}{hint}. Pass one of these, or a token id"
    )


def name_of(lin: Linearization, token: int) -> str:
    """A token as it is written in results: ``' Paris'``."""
    return repr(lin.decode(token))
