"""What a caller may hand in: prompts, checked and cut at the explained position, and targets as one token id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, SupportsIndex, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.core.chat import is_conversation, read_answered, read_conversation, written_on
from tl_jacobian.core.host.base import Host
from tl_jacobian.errors import PromptError, TargetError
from tl_jacobian.results.arguments import excerpt, ids, is_id, warn
from tl_jacobian.results.arguments import position as place
from tl_jacobian.results.tokens import Regions, first_characters


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
        tokens: ids, of prompt and answer.
        positions: the explained ones, counted from the start.
        regions: of a conversation, whose each token is.
        answer: the tokens that are explained, one for each position; none where there is no answer.
        answer_start: place of the answer's first token.
    """

    tokens: list[int]
    positions: list[int]
    regions: Regions = MappingProxyType({})
    answer: Sequence[int] = ()
    answer_start: int = 0

    def at(self, positions: Sequence[Any]) -> Read:
        """The same tokens, explained at other positions and cut off after the last of them.

        Raises:
            PromptError: one is no integer, or outside the prompt.
        """
        counted = [place(position, len(self.tokens)) for position in positions]
        return self._replace(tokens=self.tokens[: max(counted) + 1], positions=counted)


def read_prompt(host: Host, prompt: Any, positions: Sequence[Any], prepend_bos: bool | None) -> Read:
    """Token ids of one prompt, checked and cut off after the last of ``positions``.

    Raises:
        PromptError: what is wrong, with the value and the remedy.
    """
    tokens, regions = _prompt_ids(host, prompt, prepend_bos)
    _check_range(tokens, host.d_vocab)
    read = Read(tokens, [], regions).at(positions)
    _check_length(host, read.tokens)
    return read


def _prompt_ids(host: Host, prompt: Any, prepend_bos: bool | None) -> tuple[list[int], Regions]:
    if is_conversation(prompt):
        return read_conversation(host, prompt, prepend_bos)
    tokens = _text_ids(host, prompt, prepend_bos) if isinstance(prompt, str) else _ids(prompt)
    if not tokens:
        raise PromptError(f"the prompt {excerpt(prompt)} is empty, expected at least one token")
    return tokens, {}


def _check_length(host: Host, tokens: Sequence[int]) -> None:
    if host.n_ctx is not None and len(tokens) > host.n_ctx:
        raise PromptError(
            f"the prompt has {len(tokens)} tokens up to the explained position, but the model's context "
            f"is n_ctx={host.n_ctx}; shorten it by {len(tokens) - host.n_ctx} tokens"
        )


Answer = str | Sequence[int] | Tensor | np.ndarray
Span = str | tuple[int, int] | slice  # of an answer: a piece of its text, characters, or tokens


def read_answer(host: Host, prompt: Any, answer: Any, span: Span | None, prepend_bos: bool | None) -> Read:
    """A prompt with its answer, the positions that predict the answer's tokens explained together.

    Two texts are tokenised as one where the prompt's tokens stay what they are; else, and where either is given as
    ids, each by itself. A conversation's answer is the assistant's next message, or (None) its last.

    Raises:
        PromptError: the answer is empty, or the prompt can't be read; see :func:`read_prompt`.
        TargetError: no token of the answer is in ``span``.
    """
    tokens, start, regions = _joined(host, prompt, answer, prepend_bos)
    given = tokens[start:]
    if not given:
        raise PromptError(f"the answer {excerpt(answer)} is empty, expected at least one token")
    _check_range(tokens, host.d_vocab)
    chosen = range(len(given)) if span is None else _in_span(host, given, span)
    read = Read(tokens, [], regions, [given[i] for i in chosen], start).at([start + i - 1 for i in chosen])
    _check_length(host, read.tokens)
    return read


def _joined(host: Host, prompt: Any, answer: Any, prepend_bos: bool | None) -> tuple[list[int], int, Regions]:
    """Ids of prompt and answer, where the answer begins, and whose each token is."""
    if answer is None:
        found = read_answered(host, prompt)
        return found.prompt + found.answer, len(found.prompt), found.regions
    alone, regions = _prompt_ids(host, prompt, prepend_bos)
    if not isinstance(answer, str):
        both = alone + _ids(answer)
    else:
        together = host.tokenize(prompt + answer, prepend_bos) if isinstance(prompt, str) and answer else []
        both = together if together[: len(alone)] == alone else alone + host.encode(answer)
    return both, len(alone), written_on(regions, len(alone), len(both))


def _in_span(host: Host, answer: Sequence[int], span: Span) -> Sequence[int]:
    """Indices of the answer's tokens in a part of it."""
    texts, n = host.token_texts(list(answer)), len(answer)
    if isinstance(span, slice):
        chosen = sorted(range(n)[span])
    else:
        first, last = _characters(host.decode(list(answer)), span)
        starts = first_characters(texts, lambda a, b: host.decode(list(answer[a:b])))
        chosen = [i for i, at in enumerate(starts) if first <= at < last]
    if not chosen:
        raise TargetError(f"span={span!r} holds no token of the answer, whose tokens are {list(texts)}")
    return chosen


def _characters(text: str, span: str | tuple[int, int]) -> tuple[int, int]:
    if isinstance(span, str):
        n = text.count(span) if span else 0
        if n != 1:
            raise TargetError(
                f"span={span!r} occurs {n} times in the answer {text!r}, expected once; a span may be tokens too, "
                "slice(0, 3), or characters, (0, 12)"
            )
        return text.index(span), text.index(span) + len(span)
    return span


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
