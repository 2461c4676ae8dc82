"""Prompts that a caller hands over in a list: text, token ids, JSON objects, or prompts that were read before.

A file of a hundred thousand lines may have a bad one, which is noted; a list that somebody wrote is refused instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxtyping import Int
from torch import Tensor

from tl_jacobian.corpus.prompt import CorpusPrompt
from tl_jacobian.corpus.rows import prompt_of, shown
from tl_jacobian.errors import ArgumentError
from tl_jacobian.plain import is_id

Given = str | Sequence[int] | Int[Tensor, " pos"] | Mapping[str, Any] | CorpusPrompt


def as_prompts(prompts: Iterable[Given] | Int[Tensor, "prompts pos"]) -> list[CorpusPrompt]:
    """A corpus of what a caller gave, numbered in its order; prompts that have a number keep it.

    Args:
        prompts: each one text, token ids, an object with ``"text"`` or ``"tokens"`` that may have an ``"id"`` and a
            ``"target"``, or a :class:`CorpusPrompt`.

    Raises:
        ArgumentError: not a list, or one of them is none of these (says which).

    >>> as_prompts(["Rome is", [504, 3575], {"text": "Rome", "target": " is"}])[1].tokens
    (504, 3575)
    """
    if isinstance(prompts, (str, bytes, Mapping)) or not isinstance(prompts, Iterable):
        raise ArgumentError(f"prompts={shown(prompts)}, expected a list of prompts: read_corpus(path) reads a file")
    if hasattr(prompts, "columns"):  # iterating over a table gives the names of its columns
        raise ArgumentError(f'got a {type(prompts).__name__}, expected a list of prompts: table.to_dict("records")')
    return [_as_prompt(index, one) for index, one in enumerate(prompts)]


def _as_prompt(index: int, given: Any) -> CorpusPrompt:
    if isinstance(given, CorpusPrompt):
        return given
    if isinstance(given, str):
        return CorpusPrompt(index, str(index), given)
    if (ids := _ids(given)) is not None:
        return CorpusPrompt(index, str(index), tokens=tuple(ids))
    if not isinstance(given, Mapping):
        hint = "; a single prompt goes into a list of its own: [[...]]" if is_id(given) else ""
        raise ArgumentError(
            f"prompt {index}: {shown(given)}, expected text, token ids (a list, tuple or tensor), an object with "
            f'"text" or "tokens", or a CorpusPrompt{hint}'
        )
    found = prompt_of(index, _plain(given), "text")
    if found.error is not None:
        raise ArgumentError(f"prompt {index}: {found.error}")
    return found


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """An object as JSON would have it, ids in tensors and the like apart from what isn't any."""
    tokens: Any = _ids(row.get("tokens"))
    target: Any = row.get("target")
    ids = {} if tokens is None else {"tokens": tokens}
    return {**row, **ids, **({"target": int(target)} if is_id(target) else {})}


def _ids(given: Any) -> list[int] | None:
    """Token ids as plain integers; None where it is something else."""
    values: Any = given.tolist() if hasattr(given, "tolist") else given  # of a tensor or a numpy array
    if not isinstance(values, Sequence) or isinstance(values, (str, bytes, bytearray)):
        return None
    return [int(item) for item in values] if all(map(is_id, values)) else None
