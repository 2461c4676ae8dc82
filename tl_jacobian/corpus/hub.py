"""Rows of a Hugging Face data set: by its name on the hub, or in a local folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tl_jacobian.errors import CorpusError


def hub_rows(name: str, column: str, split: str, limit: int | None) -> Iterator[Any]:
    """Rows of ``name`` or ``name:config``; only as many as are wanted are fetched.

    Raises:
        CorpusError: no such data set, split or column.
    """
    data = _loaded(name, split, streaming=limit is not None)
    names = data.column_names
    if names is not None and column not in names and "tokens" not in names:
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
