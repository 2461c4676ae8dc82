"""A corpus and a job that need no model, and a child process that may be killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from tl_jacobian.errors import PromptError
from tl_jacobian.studies.corpus import CorpusPrompt, run_corpus
from tl_jacobian.studies.corpus.store import Folder, Format


def prompts(n: int) -> list[CorpusPrompt]:
    """Of 0 to 12 tokens: those of none are refused; every 17th couldn't even be read."""
    return [
        CorpusPrompt(i, f"id {i}", error="line isn't UTF-8")
        if i % 17 == 16
        else CorpusPrompt(i, f"id {i}", "x" * (i * 7 % 13))
        for i in range(n)
    ]


def tokenize(prompt: CorpusPrompt) -> list[int]:
    if not prompt.text:
        raise PromptError("the prompt '' is empty")
    return [prompt.index, *range(len(prompt.text) - 1)]


@dataclass
class Toy:
    """Its records depend on the batch they were made in, so a resumed run must repeat the batches."""

    nap: float = 0.0
    name: str = "toy"
    fails: Callable[[Sequence[CorpusPrompt]], object] = lambda prompts: None
    calls: list[list[int]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=lambda: {"a": 1, "b": None})

    example = {"n": 1, "scores": [0.5], "batch": [1]}  # noqa: RUF012

    @property
    def settings(self) -> dict[str, Any]:
        return {"job": self.name, "options": self.options}

    def __call__(self, prompts: Sequence[CorpusPrompt]) -> list[dict[str, Any]]:
        self.calls.append([p.index for p in prompts])
        time.sleep(self.nap)
        self.fails(prompts)
        batch = [p.index for p in prompts]
        return [{"n": len(p.tokens or ()), "scores": [t / 3 for t in p.tokens or ()], "batch": batch} for p in prompts]


def run(out: Path, n: int = 40, job: Toy | None = None, **options: Any) -> Any:
    settings = {"batch_size": 2, "shard_size": 5, "progress": False, **options}
    return run_corpus(job or Toy(), prompts(n), out, tokenize=tokenize, **settings)


def in_child(work: Callable[[], object]) -> int:
    """A copy of this process that does the work and ends; its id. Its exit status: 0 done, 1 failed."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        os._exit(1)
    os._exit(0)


def status_of(child: int) -> int:
    """How it ended: its exit status, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# Forking this process would copy the page tables of everything that the tests have in memory, for each of many
# children; a server that has only imported what they need forks in milliseconds.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__, "pyarrow.parquet", "pandas"])  # pyarrow looks for pandas


def start(work: Callable[..., object], *args: Any) -> Any:
    """A small fresh process that does the work, a function of a module; ``.exitcode`` after ``.join()``."""
    with pytest.MonkeyPatch.context() as env:  # where the server finds this module when it starts
        env.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        forkserver.ensure_running()
    child = _CONTEXT.Process(target=work, args=args)
    child.start()
    return child


def run_and_die(touch: int, out: Path, n: int, format: str) -> None:
    """A run that is ended by SIGKILL when it touches the file system for that time."""
    count = 0

    def touched(*_: object) -> None:
        nonlocal count
        count += 1
        if count == touch:
            os.kill(os.getpid(), signal.SIGKILL)

    fsync = os.fsync
    os.fsync = lambda handle: (touched(), fsync(handle))[1]
    events = ("open", "os.rename", "os.remove", "os.mkdir", "os.chmod")
    sys.addaudithook(lambda event, _: touched() if event in events else None)
    run(out, n, format=format)


def slow_run(out: Path, format: str) -> None:
    """About half of the time computing, half of it writing."""
    fsync = os.fsync
    os.fsync = lambda handle: (time.sleep(0.002), fsync(handle))[1]
    run(out, 150, Toy(nap=0.003), format=format)


def folder_of(out: Path, format: Format = "jsonl") -> Folder:
    return Folder(out, format)
