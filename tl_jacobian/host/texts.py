"""The text of single tokens, leading spaces included, for every kind of tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_SENTENCEPIECE_SPACE = "▁"


def token_texts(tokenizer: Any | None, tokens: Sequence[int]) -> tuple[str, ...]:
    """One text a token; ids as text where there is no tokenizer.

    A SentencePiece token shows its spaces in the raw piece, and decoding it alone drops one.
    A token that holds part of a character decodes to U+FFFD.
    """
    if tokenizer is None:
        return tuple(f"<{token}>" for token in tokens)
    pieces = tokenizer.convert_ids_to_tokens(list(tokens))
    return tuple(_text(tokenizer, token, piece) for token, piece in zip(tokens, pieces, strict=True))


def _text(tokenizer: Any, token: int, piece: str | None) -> str:
    if piece is None:  # a padded vocabulary has ids that no token owns
        return f"<id {token}>"
    if _SENTENCEPIECE_SPACE in piece:  # decoding would drop the first of its spaces
        return piece.replace(_SENTENCEPIECE_SPACE, " ")
    return tokenizer.decode([token], clean_up_tokenization_spaces=False)
