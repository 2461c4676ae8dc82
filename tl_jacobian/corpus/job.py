"""What is computed for each prompt, and what happens where it can't be."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from tl_jacobian.corpus.encoding import Record
from tl_jacobian.corpus.prompt import CorpusPrompt
from tl_jacobian.errors import ArgumentError, JacobianScopeError


@runtime_checkable
class Job(Protocol):
    """Something to compute for each prompt of a corpus.

    Attributes:
        settings: JSON values, everything that decides the numbers; a run is only gone on with under the same.

    It may also have an ``example``, a record with a value under every name: Parquet shards then all have its columns,
    of its kinds, so that a folder of them is one table, whatever the values and errors in each.
    """

    @property
    def settings(self) -> Mapping[str, Any]: ...

    def __call__(self, prompts: Sequence[CorpusPrompt]) -> list[dict[str, Any]]:
        """One JSON record a prompt, in order; the prompts have their tokens.

        A :class:`~tl_jacobian.errors.JacobianScopeError`, or memory that runs out, is taken as one of the prompts'
        fault: each is tried alone, and recorded with its error if it fails again. Any other exception ends the run.
        """
        ...


def records_of(job: Job, prompts: Sequence[CorpusPrompt]) -> list[Record]:
    """The records of a batch, ``"prompt"`` and ``"id"`` in front; those of bad prompts hold an ``"error"``."""
    found, error = _attempt(job, prompts)
    if found is not None:
        return [_record(prompt, record) for prompt, record in zip(prompts, found, strict=True)]
    if len(prompts) == 1:
        return [error_record(prompts[0], error)]
    return [record for prompt in prompts for record in records_of(job, [prompt])]


def error_record(prompt: CorpusPrompt, error: str) -> Record:
    return {"prompt": prompt.index, "id": prompt.id, "error": error}


def _attempt(job: Job, prompts: Sequence[CorpusPrompt]) -> tuple[list[Record] | None, str]:
    """Records or, without the exception that would keep the batch's tensors alive, its text."""
    try:
        found = job(prompts)
    except JacobianScopeError as error:
        return None, str(error)
    except Exception as error:
        if not _is_of_memory(error):
            raise
        text = f"{type(error).__name__}: {error}"
    else:
        if len(found) != len(prompts):
            raise ArgumentError(f"the job gave {len(found)} records for {len(prompts)} prompts, expected one each")
        return found, ""
    _free_memory()
    return None, text


def _is_of_memory(error: Exception) -> bool:
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # of PyTorch, on a CPU


def _record(prompt: CorpusPrompt, record: Record) -> Record:
    told = {"prompt": prompt.index, "id": prompt.id}
    if "error" in record or any(record.get(name, value) != value for name, value in told.items()):
        raise ArgumentError(
            f"the job's record of prompt {prompt.index} (id {prompt.id!r}) has prompt={record.get('prompt')!r}, "
            f"id={record.get('id')!r}, error={record.get('error')!r}; these three are the runner's"
        )
    return {**told, **record}


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
