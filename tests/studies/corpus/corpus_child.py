"""One process of a run over several: ``corpus_child.py OUT NAP [BUG]``; a process of index BUG raises an exception."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import corpus_toys as toys

if __name__ == "__main__":
    out, nap, *bug = sys.argv[1:]

    def fail(prompts: object) -> None:
        if bug == [os.environ["RANK"]]:
            raise ValueError("a bug")

    report = toys.run(Path(out), 150, toys.Toy(nap=float(nap), fails=fail))
    print("report", os.environ["RANK"], report.n_prompts, report.n_resumed)
