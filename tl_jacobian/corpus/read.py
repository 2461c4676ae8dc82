"""read_corpus(): prompts from a file or a Hugging Face data set."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

from tl_jacobian.corpus.formats import ROWS
from tl_jacobian.corpus.hub import hub_rows
from tl_jacobian.corpus.prompt import CorpusPrompt
from tl_jacobian.corpus.rows import prompts_of
from tl_jacobian.errors import CorpusError
from tl_jacobian.plain import is_id

# Ends of files that aren't read here, so that one that isn't there isn't looked for on the hub.
_FOREIGN = (".csv", ".tsv", ".gz", ".zst", ".xz", ".zip", ".tar", ".arrow", ".feather", ".md", ".xlsx", ".yaml", ".pkl")


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
            ``"target"`` (text or id) and ``"tokens"`` (ids, which then take the place of the text). Blank lines
            are no prompts.
        column: which column holds the text.
        split: of a data set.
        limit: so many prompts from the start; default all.

    Raises:
        CorpusError: no such file or data set, an unknown ending, no list, or not one prompt that can be read.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "prompts.txt"
    >>> _ = path.write_text("The capital of France is")
    >>> read_corpus(path)[0].text
    'The capital of France is'
    """
    if limit is not None and (not is_id(limit) or limit < 1):
        raise CorpusError(f"limit={limit!r}, expected a number of prompts, at least 1, or None for all")
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
