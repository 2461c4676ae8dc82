"""Prompts of a corpus: from a file, a Hugging Face data set, or a caller's list, whatever a row holds.

What can't be read is a row too, that says so. A file of a hundred thousand lines may have a bad one, which is noted;
a list that somebody wrote is refused instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor

from tl_jacobian.core.chat import is_conversation
from tl_jacobian.errors import ArgumentError, CorpusError
from tl_jacobian.results.arguments import cell, checked, ids, is_id, whole
from tl_jacobian.studies.corpus.text import Unreadable, lines_of, text_of


@dataclass(frozen=True, slots=True)
class CorpusPrompt:
    """One prompt of a corpus.

    Attributes:
        index: its place in the corpus, from 0.
        id: what the corpus calls it; its index, where the corpus says nothing. Each prompt of a run has one of its own.
        text: the prompt, or None where it is given as tokens.
        tokens: token ids, or None where it is text; what a job is handed always has them.
        target: token to explain, for jobs that have a target; as text or id.
        error: why it can't be read, or None. The run goes on without it and records this.
        messages: a conversation, or None where the prompt is text or tokens: see :func:`linearize`.
        answer: to explain as a whole, in the place of a target; as text or ids; what a job is handed has ids. A
            conversation that ends with the assistant's message has its own.

    >>> CorpusPrompt(0, "0", "The capital of France is", target=" Paris").tokens is None
    True
    """

    index: int
    id: str
    text: str | None = None
    tokens: tuple[int, ...] | None = None
    target: str | int | None = None
    error: str | None = None
    messages: tuple[Any, ...] | None = None
    answer: str | tuple[int, ...] | None = None


def prompts_of(rows: Iterable[Any], column: str, source: str) -> list[CorpusPrompt]:
    """One prompt a row: text, an object, or an :class:`Unreadable`.

    Raises:
        CorpusError: there is no row, none can be read, or none has the column.
    """
    found: list[CorpusPrompt] = []
    named = set()  # columns of the corpus, for the message
    for index, row in enumerate(rows):
        found.append(prompt_of(index, row, column))
        if isinstance(row, Mapping) and len(named) < 20:
            named |= {str(name) for name in row}
    if not found:
        raise CorpusError(f"{source} holds no prompts, expected at least one")
    if all(p.error for p in found):
        hint = f". Its columns are {sorted(named)}; choose with column= (--column)" if named - {column} else ""
        raise CorpusError(
            f"none of the {len(found)} prompts of {source} can be read; the first: {found[0].error}{hint}"
        )
    return found


def prompt_of(index: int, row: Any, column: str) -> CorpusPrompt:
    """The prompt of a row, or one that says what is wrong with it."""
    if isinstance(row, Unreadable):
        return CorpusPrompt(index, str(index), error=row.why)
    if not isinstance(row, Mapping):
        row = {column: row}
    name = cell(row.get("id"))
    known = _known(name, (str, int, float))
    found = CorpusPrompt(index, str(name) if known else str(index))
    if not known and name is not None:
        return _broken(found, f"id {shown(name)}, expected text or a number")
    return _filled(found, row, column)


def _filled(found: CorpusPrompt, row: Mapping[str, Any], column: str) -> CorpusPrompt:
    tokens, target, answer = row.get("tokens"), cell(row.get("target")), row.get("answer")
    named = next((name for name in (column, _PROMPT) if name in row), _MESSAGES)
    text = row.get(named)
    if answer is not None:
        if target is not None:
            return _broken(found, f"an answer and the target {shown(target)}, expected one or the other")
        if not isinstance(answer, str) and not (isinstance(answer, list) and all(_known(t, (int,)) for t in answer)):
            return _broken(found, f"answer {shown(answer)}, expected text or a list of token ids")
        found = replace(found, answer=answer if isinstance(answer, str) else tuple(answer))
    if target is not None and not _known(target, (str, int)):
        return _broken(found, f"target {shown(target)}, expected text or a token id")
    if tokens is not None:
        if not isinstance(tokens, list) or not all(_known(t, (int,)) for t in tokens):
            return _broken(found, f"tokens {shown(tokens)}, expected a list of token ids")
        text = text if isinstance(text, str) else None
    elif named not in row:
        return _broken(found, f"there is no column {column!r}, expected one with text (it has {sorted(map(str, row))})")
    elif is_conversation(text):
        return replace(found, target=target, messages=tuple(text))
    elif not isinstance(text, str) or named == _MESSAGES != column:
        return _broken(
            found, f"column {named!r} is {shown(text)}, expected {'messages' if named == _MESSAGES else 'text'}"
        )
    if (bad := _not_unicode(text, target, answer, found.id)) is not None:
        return _broken(found, f"{shown(bad)} holds half a surrogate pair, expected valid Unicode text")
    return replace(found, text=text, tokens=None if tokens is None else tuple(tokens), target=target)


def _broken(found: CorpusPrompt, why: str) -> CorpusPrompt:
    return CorpusPrompt(found.index, found.id, error=why)


def _known(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _not_unicode(*texts: Any) -> str | None:
    for text in texts:
        if isinstance(text, str):
            try:
                text.encode("utf-8")
            except UnicodeEncodeError:
                return text
    return None


def shown(value: Any) -> str:
    """A value and its type, at a length that fits a message."""
    text = ascii(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


_PROMPT, _MESSAGES = "prompt", "messages"  # where there is no text
_KEPT = ("id", "target", "answer", "tokens", _PROMPT, _MESSAGES)  # beside the text


def text_rows(path: Path, column: str) -> Iterator[Any]:
    """One prompt a line; blank lines are none."""
    for _, line in lines_of(path):
        yield line


def jsonl_rows(path: Path, column: str) -> Iterator[Any]:
    """One JSON value a line."""
    for number, line in lines_of(path):
        if isinstance(line, Unreadable):
            yield line
            continue
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Unreadable(f"line {number} isn't JSON: {error}")


def json_rows(path: Path, column: str) -> Iterator[Any]:
    """A JSON list, or an object with one under "data"."""
    try:
        value = json.loads(text_of(path.read_bytes(), str(path)))
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{path} isn't JSON: {error}; with one object a line, name it .jsonl") from error
    rows = value.get("data") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        found = f"an object with {sorted(value)[:8]}" if isinstance(value, dict) else f"a {type(value).__name__}"
        raise CorpusError(f'{path} holds {found}, expected a list of prompts, or {{"data": [...]}}')
    yield from rows


def parquet_rows(path: Path, column: str) -> Iterator[Any]:
    """A row group at a time, the columns that matter."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if not _has_prompts(names, column):
                raise CorpusError(
                    f"{path} has no column {column!r}, expected one with the prompts: its columns are {names}; "
                    "choose with column= (--column)"
                )
            wanted = [name for name in names if name in (column, *_KEPT)]
            for batch in file.iter_batches(columns=wanted):
                yield from _table_rows(batch)
    except (pa.ArrowException, OSError) as error:
        raise CorpusError(f"{path} can't be read as Parquet: {error}") from error


def _has_prompts(names: Sequence[str], column: str) -> bool:
    return any(name in names for name in (column, "tokens", _PROMPT, _MESSAGES))


def _table_rows(batch: Any) -> Iterator[Any]:
    for i in range(batch.num_rows):
        try:
            yield {name: batch.column(name)[i].as_py() for name in batch.schema.names}
        except UnicodeDecodeError as error:
            yield Unreadable(f"row isn't UTF-8: {error}")


ROWS: dict[str, Callable[[Path, str], Iterator[Any]]] = {
    ".json": json_rows,
    ".jsonl": jsonl_rows,
    ".ndjson": jsonl_rows,
    ".txt": text_rows,
    ".parquet": parquet_rows,
}


def hub_rows(name: str, column: str, split: str, limit: int | None) -> Iterator[Any]:
    """Rows of ``name`` or ``name:config``; only as many as are wanted are fetched.

    Raises:
        CorpusError: no such data set, split or column.
    """
    data = _loaded(name, split, streaming=limit is not None)
    names = data.column_names
    if names is not None and not _has_prompts(names, column):
        raise CorpusError(
            f"data set {name!r} has no column {column!r}, expected one with the prompts: its columns are {names}; "
            "choose with column= (--column)"
        )
    yield from data


def _loaded(name: str, split: str, streaming: bool) -> Any:
    from datasets import load_dataset, load_from_disk

    folder = Path(name)
    try:
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            return _of_split(load_from_disk(name), split)
        path, _, config = (name, "", "") if folder.is_dir() else name.partition(":")
        return load_dataset(path, config or None, split=split, streaming=streaming)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise CorpusError(
            f"can't load {name!r} (split {split!r}) as a Hugging Face data set: {type(error).__name__}: "
            f"{str(error)[:300]}. Expected a file that ends in .json, .jsonl, .txt or .parquet, a data set's name on "
            'the hub ("name" or "name:config"), or its local folder'
        ) from error


def _of_split(data: Any, split: str) -> Any:
    """What ``save_to_disk`` wrote: one split, or several by name."""
    if not isinstance(data, dict):
        return data
    if split not in data:
        raise ValueError(f"no split {split!r}, expected one of {list(data)}; choose with split= (--split)")
    return data[split]


# Ends of files that aren't read here, so that one that isn't there isn't looked for on the hub.
_FOREIGN = (".csv", ".tsv", ".gz", ".zst", ".xz", ".zip", ".tar", ".arrow", ".feather", ".md", ".xlsx", ".yaml", ".pkl")


@checked
def read_corpus(
    source: str | PathLike[str], *, column: str = "text", split: str = "train", limit: int | None = None
) -> list[CorpusPrompt]:
    """The prompts of a corpus, in its order.

    What is wrong with a single prompt (a line that isn't UTF-8 or JSON, a missing column, a value that isn't
    text) is noted in its ``error``, and reading goes on.

    Args:
        source: a file that ends in ``.json`` (a list, or ``{"data": [...]}``), ``.jsonl``, ``.txt`` (one prompt a
            line) or ``.parquet``, or the name of a Hugging Face data set, ``"name"`` or ``"name:config"``, or
            the folder of one. JSON prompts are text, or objects with the column, which may also have an ``"id"``, a
            ``"target"`` (text or id), or an ``"answer"`` (text or ids, which is explained as a whole), and ``"tokens"``
            (ids, which then take the place of the text). Blank lines are no prompts. Text is UTF-8, or what a
            byte-order mark says.
        column: which column holds the text, or conversations (lists of messages, as for :func:`linearize`; where the
            last is the assistant's, it is the answer). Where there is none of that name, ``"prompt"`` is read, or else
            ``"messages"``.
        split: of a data set.
        limit: so many prompts from the start; default all.

    Raises:
        CorpusError: no such file or data set, an unknown ending, no list, or not one prompt that can be read.
        ArgumentError: a limit below 1.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "prompts.txt"
    >>> _ = path.write_text("The capital of France is")
    >>> read_corpus(path)[0].text
    'The capital of France is'
    """
    limit = None if limit is None else whole("limit", limit, what="a number of prompts")
    rows = islice(_rows(source, column, split, limit), limit)
    return prompts_of(rows, column, repr(str(source)))


def _rows(source: Any, column: str, split: str, limit: int | None) -> Iterator[Any]:
    path = Path(source).expanduser()
    ending = path.suffix.lower()
    if path.is_dir():
        return hub_rows(str(path), column, split, limit)
    if path.is_file() and ending not in ROWS:
        raise CorpusError(f"{str(path)!r} ends in {ending!r}, expected one of {', '.join(ROWS)}; convert or rename it")
    if path.is_file():
        return ROWS[ending](path, column)
    if ending in (*ROWS, *_FOREIGN) or path.is_absolute() or len(path.parts) > 2 or path.parts[:1] == ("..",):
        raise CorpusError(f"there is no file {str(path)!r}, expected one that ends in {', '.join(ROWS)}")
    return hub_rows(str(source), column, split, limit)


Given = str | Sequence[int] | Sequence[Mapping[str, Any]] | Int[Tensor, " pos"] | Mapping[str, Any] | CorpusPrompt


def check_ids(prompts: Sequence[CorpusPrompt]) -> None:
    """Refuse two prompts of one name: nobody could tell their records apart.

    Raises:
        CorpusError: which two.
    """
    first: dict[str, int] = {}
    for prompt in prompts:
        if (other := first.setdefault(prompt.id, prompt.index)) != prompt.index:
            raise CorpusError(
                f"prompts {other} and {prompt.index} (counted from 0) both have the id {prompt.id!r}, expected one of "
                "its own for each; a prompt without an id is called by its number: give one to all of them, or to none"
            )


def as_prompts(prompts: Iterable[Given] | Int[Tensor, "prompts pos"]) -> list[CorpusPrompt]:
    """A corpus of what a caller gave, numbered in its order; prompts that have a number keep it.

    Args:
        prompts: each one text, token ids, a list of messages, an object with ``"text"``, ``"tokens"`` or ``"messages"``
            that may have an ``"id"``, and a ``"target"`` or an ``"answer"``, or a :class:`CorpusPrompt`.

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
    if is_conversation(given):
        return CorpusPrompt(index, str(index), messages=tuple(given))
    if (tokens := ids(given)) is not None:
        return CorpusPrompt(index, str(index), tokens=tuple(tokens))
    if not isinstance(given, Mapping):
        hint = "; a single prompt goes into a list of its own: [[...]]" if is_id(given) else ""
        raise ArgumentError(
            f"prompt {index}: {shown(given)}, expected text, token ids (a list, tuple or tensor), messages, an "
            f'object with "text", "tokens" or "messages", or a CorpusPrompt{hint}'
        )
    found = prompt_of(index, _plain(given), "text")
    if found.error is not None:
        raise ArgumentError(f"prompt {index}: {found.error}")
    return found


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """An object as JSON would have it, ids in tensors and the like apart from what isn't any."""
    listed = {name: ids(row.get(name)) for name in ("tokens", "answer")}
    return {**row, **{name: found for name, found in listed.items() if found is not None}}
