"""Several processes at one corpus, as ``accelerate launch`` or ``torchrun`` starts them; or one, with nothing set up.

They agree through the run's folder. All they say to each other is "I am here", in a group of their own
(gloo, on the CPU, so that a GPU's time limits don't apply while one waits for another). When a
process dies its connections close, and whoever waits for it ends with an error at once; only a machine
that vanishes from the network without a word is waited for until the time limit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from tl_jacobian.errors import CorpusError

_SILENCE = timedelta(days=1)  # the longest that processes wait for each other
_PEEK = 0.5  # seconds between two looks at the others


@dataclass(frozen=True)
class Processes:
    """This process among those of the run.

    Attributes:
        index, count: which of how many; the main process is 0.
        group: what they meet in; None for a single one.
    """

    index: int = 0
    count: int = 1
    group: Any = None

    @property
    def is_main(self) -> bool:
        return self.index == 0

    def meet(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Wait until all processes are here, doing something now and then.

        Raises:
            CorpusError: one of them has ended.
        """
        if self.group is None:
            return
        import torch.distributed as dist

        try:
            work: Any = dist.barrier(group=self.group, async_op=True)
            while not work.is_completed():
                meanwhile()
                time.sleep(_PEEK)
            work.wait()
        except RuntimeError as error:
            raise CorpusError(
                f"another process of this run has ended (process {self.index} of {self.count} was waiting for it; see "
                f"its own message): {str(error)[:200]}. What is done is kept; the same command goes on"
            ) from error


@contextmanager
def processes() -> Iterator[Processes]:
    """The processes of this run; whoever leaves early, the others learn of it."""
    if not is_launched():
        yield Processes()
        return
    import torch.distributed as dist

    state = state_of_launch()
    group: Any = dist.new_group(backend="gloo", timeout=_SILENCE)
    try:
        yield Processes(state.process_index, state.num_processes, group)
    finally:
        dist.destroy_process_group(group)


def is_launched() -> bool:
    """Whether a launcher started this process as one of several."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def state_of_launch() -> Any:
    """accelerate's ``PartialState``, which sets up the processes of a launch."""
    import torch
    from accelerate import PartialState

    cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true") or not torch.accelerator.is_available()
    return PartialState(cpu=cpu)
