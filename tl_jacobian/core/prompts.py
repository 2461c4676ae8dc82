"""What a caller may hand in: prompts, checked and cut at the explained position, and targets as one token id."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, SupportsIndex, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from tl_jacobian.core.chat import is_conversation, read_answered, read_conversation, written_on
from tl_jacobian.core.host.base import Host
from tl_jacobian.errors import JacobianScopeError, PromptError, TargetError
from tl_jacobian.results.arguments import excerpt, ids, is_id, warn
from tl_jacobian.results.arguments import position as place
from tl_jacobian.results.segments import find, read
from tl_jacobian.results.tokens import PARTIAL, Regions, group_words

_IGNORED = {  # of a tokenizer's output: what says nothing that the ids don't
    "token_type_ids",
    "special_tokens_mask",
    "offset_mapping",
    "length",
    "labels",
    "num_truncated_tokens",
    "overflowing_tokens",
    "overflow_to_sample_mapping",
}


def is_batch(prompt: Any) -> bool:
    """Whether this is a list of prompts rather than one (a list of ids is one)."""
    if isinstance(prompt, Mapping):
        return is_batch(prompt.get("input_ids"))
    prompt = _listed_texts(prompt)
    if isinstance(prompt, (Tensor, np.ndarray)):
        return prompt.ndim == 2
    if is_conversation(prompt):
        return False
    return isinstance(prompt, (list, tuple)) and any(not is_id(item) for item in prompt)


def members(host: Host, prompts: Any) -> list[Any]:
    """The prompts of a batch, one by one: what a tokenizer gave for several is cut into rows, its padding left out.

    Raises:
        PromptError: the attention mask doesn't fit, or there is padding and no mask that says where.
    """
    if isinstance(prompts, Mapping):
        listed = unpadded(prompts)
        if prompts.get("attention_mask") is not None:
            return [all_text(row) for row in listed]
    else:
        listed = list(_listed_texts(prompts))
    rows = [row for row in map(ids, listed) if row]
    if len(rows) == len(listed) > 1 and len({len(row) for row in rows}) == 1:
        _check_padding(host, rows)
    return listed


def all_text(tokens: Sequence[int]) -> dict[str, list[int]]:
    """Token ids as a prompt of which nothing is padding, whatever it looks like."""
    return {"input_ids": list(tokens), "attention_mask": [1] * len(tokens)}


def as_list(positions: Any) -> Any:
    """Positions in a tensor or a numpy array as plain integers."""
    return positions.tolist() if hasattr(positions, "tolist") else positions


def _listed_texts(prompt: Any) -> Any:
    """An array or a column of texts as a list."""
    numbers = isinstance(prompt, Tensor) or (isinstance(prompt, np.ndarray) and prompt.dtype.kind not in "UO")
    if numbers or getattr(prompt, "ndim", None) != 1 or not hasattr(prompt, "tolist"):
        return prompt
    listed = prompt.tolist()
    return listed if listed and all(isinstance(one, str) for one in listed) else prompt


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

    Args:
        prompt: text, token ids, or what a tokenizer gives for one text: ``input_ids`` and ``attention_mask``.
        prepend_bos: of text; ids must begin with the BOS token where it is True.

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
    tokens = _text_ids(host, str(prompt), prepend_bos) if isinstance(prompt, str) else _ids(host, prompt, prepend_bos)
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
Span = str | tuple[int, int] | slice | re.Pattern[str]  # of an answer: a piece of its text, characters, or tokens


def read_answer(host: Host, prompt: Any, answer: Any, span: Span | None, prepend_bos: bool | None) -> Read:
    """A prompt with its answer, the positions that predict the answer's tokens explained together.

    Two texts are tokenised as one where the prompt's tokens stay what they are; else, and where either is given as
    ids, each by itself. A conversation's answer is the assistant's next message, or (None) its last.

    Raises:
        PromptError: the answer is empty, or the prompt can't be read; see :func:`read_prompt`.
        ArgumentError: ``span`` isn't a part of the answer.
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
        given = ids(answer)
        if given is None:
            raise PromptError(f"can't read {excerpt(answer)} as an answer; expected text, or a list of token ids")
        both = alone + given
    else:
        together = host.tokenize(prompt + answer, prepend_bos) if isinstance(prompt, str) and answer else []
        both = together if together[: len(alone)] == alone else alone + host.encode(answer)
    return both, len(alone), written_on(regions, len(alone), len(both))


def _in_span(host: Host, answer: Sequence[int], span: Span) -> Sequence[int]:
    """Indices of the answer's tokens in a part of it, found as segments are."""
    texts = host.token_texts(list(answer))
    words = group_words(texts, lambda start, stop: host.decode(list(answer[start:stop])))
    return sorted(i for region in find(span, read(texts, words)) for i in region.positions)


def _text_ids(host: Host, text: str, prepend_bos: bool | None) -> list[int]:
    check_unicode("the prompt", text, PromptError)
    tokens = host.tokenize(text, prepend_bos)
    if len(tokens) > 1 and tokens[0] == tokens[1] and host.is_bos(tokens[0]):
        warn(f"the prompt begins with two BOS tokens ({text[:30]!r}...): pass prepend_bos=False")
    return tokens


def check_unicode(what: str, text: str, error: type[JacobianScopeError]) -> None:
    """Refuse text that isn't Unicode: half of a surrogate pair, or a byte that was no text where it came from.

    Raises:
        JacobianScopeError: which character it is.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as found:
        code = ord(text[found.start])
        what_it_is = (
            f"the byte 0x{code - 0xDC00:02X}, which is no text in the encoding that it was read with: expected UTF-8"
            if 0xDC80 <= code <= 0xDCFF
            else "half of a surrogate pair, expected whole characters: they may have been cut apart, or escaped twice"
        )
        raise error(f"{what} {excerpt(text)} isn't Unicode text: character {found.start} is {what_it_is}") from None


def _ids(host: Host, prompt: Any, prepend_bos: bool | None) -> list[int]:
    if isinstance(prompt, Mapping) and "input_ids" in prompt:
        found = _one(unpadded(prompt))
        if prompt.get("attention_mask") is None:
            _check_padding(host, [found])
    elif (found := ids(prompt)) is not None:
        _check_padding(host, [found])
    else:
        raise PromptError(_unreadable(prompt))
    if prepend_bos and found and not host.is_bos(found[0]):
        raise PromptError(
            f"prepend_bos=True is for text, and these token ids begin with {found[0]}, which isn't the BOS token: put "
            "that in front of them, or leave prepend_bos out"
        )
    return found


def _one(rows: list[list[int]]) -> list[int]:
    if len(rows) != 1:
        raise PromptError(f"input_ids holds {len(rows)} prompts, expected one: pass one prompt at a time here")
    return rows[0]


def _unreadable(prompt: Any) -> str:
    if isinstance(prompt, (Tensor, np.ndarray)):
        hint = "; that is a batch of one: pass tokens[0]" if prompt.ndim == 2 and len(prompt) == 1 else ""
        return f"token ids have shape {tuple(prompt.shape)} and dtype {prompt.dtype}, expected integers (pos,){hint}"
    texts = isinstance(prompt, (list, tuple)) and all(isinstance(p, str) for p in prompt)
    hint = "; pass one prompt at a time here" if texts else ""
    return f"can't read {excerpt(prompt)} as a prompt; expected text, a list of token ids, or a tensor{hint}"


# -- what a tokenizer gives ----------------------------------------------------------


def unpadded(output: Mapping[str, Any]) -> list[list[int]]:
    """Each prompt of a tokenizer's output, without what its mask leaves out at either end.

    Raises:
        PromptError: not ids with a mask of the same shape, a mask with holes, or more than text.
    """
    more = [str(name) for name in output if name not in ("input_ids", "attention_mask") and name not in _IGNORED]
    if more:
        raise PromptError(
            f"the tokenizer's output holds {excerpt(more[0])} too, which isn't read, so the model would see another "
            "prompt than you mean: pass input_ids and attention_mask alone"
        )
    given = output["input_ids"]
    several = is_batch(given)
    read = [ids(row) for row in (given if several else [given])]
    rows = [row for row in read if row is not None]
    if len(rows) < len(read):
        raise PromptError(f"input_ids={excerpt(given)}, expected token ids, (pos,) or (prompts, pos)")
    mask = output.get("attention_mask")
    if mask is None:
        return rows
    masks = list(mask) if several and hasattr(mask, "__iter__") and getattr(mask, "ndim", 1) else [mask]
    if len(masks) != len(rows):
        raise PromptError(f"attention_mask has {len(masks)} rows for {len(rows)} prompts, expected one each")
    return [_kept(row, as_list(kept), at) for at, (row, kept) in enumerate(zip(rows, masks, strict=True))]


def _kept(row: list[int], mask: Any, at: int) -> list[int]:
    if not isinstance(mask, (list, tuple)) or len(mask) != len(row) or not all(m in (0, 1) for m in mask):
        raise PromptError(
            f"attention_mask of prompt {at} is {excerpt(mask)}, expected a 0 or 1 for each of its {len(row)} tokens"
        )
    kept = [i for i, m in enumerate(mask) if m]
    if kept and kept != list(range(kept[0], kept[-1] + 1)):
        hole = next(i for i in range(kept[0], kept[-1]) if not mask[i])
        raise PromptError(
            f"attention_mask of prompt {at} leaves out token {hole}, between others: it can only say what is padding, "
            "at either end; a token that is to be removed is left out of the ids"
        )
    return row[kept[0] : kept[-1] + 1] if kept else []


def _check_padding(host: Host, rows: Sequence[Sequence[int]]) -> None:
    """Refuse ids that begin or end in padding, which would be explained as if it were text.

    Where one token is the padding and the beginning or the end of a text too (GPT-2 has a single one for all), one
    of it is text, several are padding, and so are different numbers of it in rows that were made equally long.
    """
    if (pad := host.padding) is None:
        return
    also_text = host.is_bos(pad) or host.is_eos(pad)
    for end, order in (("begins", 1), ("ends", -1)):
        runs = [_run(row[::order], pad) for row in rows]
        most = max(runs)
        if most > (1 if also_text and len(set(runs)) == 1 else 0) or most > 1:
            at = runs.index(most)
            raise PromptError(
                f"{f'prompt {at}' if len(rows) > 1 else 'the prompt'} {end} with {most} of the padding token {pad}, "
                "which would be explained as text: pass the tokenizer's whole output, whose attention_mask says what "
                "is padding, or a list of ids for each prompt, without padding. If it is meant, a mask of ones says so"
            )


def _run(row: Sequence[int], token: int) -> int:
    """How many of a token a row begins with."""
    return next((i for i, one in enumerate(row) if one != token), len(row))


def _check_range(tokens: Sequence[int], d_vocab: int) -> None:
    for at, token in enumerate(tokens):
        if not 0 <= token < d_vocab:
            raise PromptError(f"token id {token} at position {at} is out of range, expected 0 to {d_vocab - 1}")


# -- targets ---------------------------------------------------------------------------


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

    @property
    def shown_as(self) -> Callable[[str], list[int]] | None:
        """From a text to the tokens that :attr:`decode` gives it for; None: they are looked for one by one."""
        ...


def resolve_target(words: Vocabulary, target: Target | None) -> int:
    """The token id of a target: text, an id, or None for the most probable next token.

    Text is the token that results show as this text, so what predictions show can be handed back. Where a text that
    differs in spaces alone is what the model really predicts, a warning says so.

    Raises:
        TargetError: the text isn't exactly one token's, or the id is outside the vocabulary.
    """
    if target is None:
        return int(words.logits.argmax())
    if isinstance(target, str):
        token = _single_token(words, str(target))
        _compare_spaced(words, str(target), token)
        return token
    if not is_id(target):
        raise TargetError(f"target {excerpt(target)} is a {type(target).__name__}, expected text, a token id or None")
    target = int(target)
    if not 0 <= target < len(words.logits):
        raise TargetError(f"target id {excerpt(target)} is out of range, expected 0 to {len(words.logits) - 1}")
    return target


def _single_token(words: Vocabulary, text: str) -> int:
    check_unicode("target", text, TargetError)
    if words.encode is None:
        raise TargetError(f"target {text!r} is text, but this model has no tokenizer; pass a token id")
    written = words.encode(text)
    if len(written) == 1 and words.decode(written[0]) == text and PARTIAL not in text:
        return written[0]
    shown = _shown_as(words, text)
    if len(shown) == 1:
        return shown[0]
    if shown:
        some = ", ".join(map(str, shown[:8])) + (", …" if len(shown) > 8 else "")
        raise TargetError(f"target {text!r} is the text of {len(shown)} tokens: pass the id of one, {some}")
    texts = [words.decode(i) for i in written]
    pieces = ", ".join(f"{one!r} ({i})" for one, i in zip(texts, written, strict=True)) or "nothing"
    other = text[1:] if text.startswith(" ") else " " + text
    hint = f"; {other!r} is one token" if other not in texts and _shown_as(words, other) else ""
    count = (
        "no token's text; the tokenizer reads it as" if len(written) == 1 else f"{len(written)} tokens, expected one:"
    )
    whole = f"; to explain all of it: linearize(model, prompt, answer={excerpt(text)})" if len(written) > 1 else ""
    raise TargetError(f"target {text!r} is {count} {pieces}{hint}. Pass one of these, or a token id{whole}")


def _shown_as(words: Vocabulary, text: str) -> list[int]:
    if words.shown_as is not None:
        return words.shown_as(text)
    return [token for token in range(len(words.logits)) if words.decode(token) == text]


# A target is likely to be meant otherwise where the model predicts the same word with other spaces around it this
# surely, and this many times as surely as the target.
_PREDICTED, _TIMES = 0.1, 10


def _compare_spaced(words: Vocabulary, text: str, token: int) -> None:
    probs = words.logits.double().softmax(-1)
    likely = (probs >= max(_PREDICTED, _TIMES * float(probs[token]))).nonzero()[:, 0].tolist()
    for other in likely:
        if other != token and text.strip() and (shown := words.decode(other)).strip() == text.strip():
            warn(
                f"target {text!r} is predicted with {float(probs[token]):.2g}: did you mean {shown!r} "
                f"({float(probs[other]):.0%})?"
            )


def name_of(words: Vocabulary, token: int) -> str:
    """A token as it is written in results: ``' Paris'``."""
    return repr(words.decode(token))
